import { assert, layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as HeaderFilter from "@strata/queues/consuming/HeaderFilter"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import { Database, declared, many } from "./fixture.ts"

const region = (name: string) => ({ filter: HeaderFilter.equal("region", name) })

/** Two messages of a key, of which somebody wants only the second, so that it waits behind the first. */
const blocked = Effect.fnUntraced(function*(name: string) {
  const queues = yield* Queues.Queues
  const pull = yield* QueuePull.QueuePull
  const queue = yield* declared(name)
  const sent = yield* queues.send(queue, [
    { payload: { n: 0 }, key: "k", headers: { region: "us" } },
    { payload: { n: 1 }, key: "k", headers: { region: "eu" } },
    { payload: { n: 2 }, key: "k", headers: { region: "us" } }
  ])
  deepStrictEqual(yield* pull.claim(queue, { limit: 5, ...region("eu") }), [])
  strictEqual((yield* queues.stats(queue)).parked, 1)
  return { queue, ids: sent.map(({ id }) => id) }
})

layer(Database, { excludeTestServices: true })("a queue in a corner", (it) => {
  it.effect("lets a key go on when those before are taken back, whatever was taken back of it before", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const { ids, queue } = yield* blocked("taken back")
      yield* queues.withdraw(queue, ids[2]!)
      yield* queues.withdraw(queue, ids[0]!)
      deepStrictEqual((yield* pull.claim(queue, { limit: 5 })).map(({ message }) => message.payload.n), [1])
    }))

  it.effect("is empty when it was purged, with what waited behind others that run", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("purged")
      yield* queues.send(queue, Array.from({ length: 5 }, (_, n) => ({ payload: { n }, key: "k" })))
      const [running] = yield* pull.claim(queue, { limit: 5 })
      strictEqual(yield* queues.purge(queue), 4)
      yield* pull.ack(running!)
      deepStrictEqual(yield* queues.stats(queue), {
        ready: 0,
        later: 0,
        parked: 0,
        leased: 0,
        dead: 0,
        sent: 5,
        done: 1,
        failed: 0
      })
    }))

  it.effect("says of each message of a claim what it is, of whom and of which kind", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("kinds")
      const kinds = [["acme", "Told"], ["acme", "Asked"], ["other", "Told"], ["acme", "Told"], ["other", "Asked"]]
      yield* queues.send(
        queue,
        kinds.map(([tenant, type], n) => ({ payload: { n }, tenant: tenant!, type: type! }))
      )
      const claims = yield* pull.claim(queue, { limit: 9 })
      deepStrictEqual(claims.map(({ message: { payload, tenant, type } }) => [payload.n, tenant, type]), [
        ...kinds.map(([tenant, type], n) => [n, tenant, type])
      ])
      yield* Effect.forEach(claims.slice(1, 3), (claim) => pull.release(claim), { discard: true })
      yield* queues.send(queue, [{ payload: { n: 5 }, type: "Told" }])
      const again = yield* pull.claim(queue, { limit: 9 })
      deepStrictEqual(again.map(({ message: { payload, tenant, type } }) => [payload.n, tenant, type]), [
        [1, "acme", "Asked"],
        [2, "other", "Told"],
        [5, "default", "Told"]
      ])
    }))

  it.effect("knows a table with a row from one without, wherever the row is", () =>
    Effect.gen(function*() {
      const { rows } = yield* Postgres
      const isFilled = Effect.map(rows("select has_rows('crowd')", []), ([row]) => row?.[0])
      yield* rows("create table crowd as select n, repeat('x', 200) as filler from generate_series(1, 20000) n", [])
      const seen: Array<unknown> = [yield* isFilled]
      for (const left of ["n in (1, 20000)", "n = 20000", "false"]) {
        yield* rows(`delete from crowd where not (${left})`, [])
        seen.push(yield* isFilled)
      }
      yield* rows("truncate crowd", [])
      seen.push(yield* isFilled)
      yield* rows("insert into crowd select n, repeat('x', 200) from generate_series(1, 20000) n", [])
      yield* rows("delete from crowd where n > 1", [])
      seen.push(yield* isFilled)
      deepStrictEqual(seen, [true, true, true, false, false, true])
    }))

  it.effect("takes back nothing of another queue", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const [one, other] = [yield* declared("one"), yield* declared("other")]
      const [sent] = yield* queues.send(one, [{ payload: { n: 1 }, delay: "1 hour" }])
      strictEqual(yield* queues.withdraw(other, sent!.id), false)
      strictEqual((yield* queues.stats(one)).later, 1)
      strictEqual((yield* queues.stats(other)).later, 0)
    }))

  it.effect("lets a unique key go with the message that is taken back, wherever it waited", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("let go")
      const unique = { key: "u", during: ["waiting", "later", "done"], window: "1 hour" } as const
      for (const fields of [{}, { delay: "1 hour" }, { key: "k" }] as const) {
        const send = Effect.map(queues.send(queue, [{ payload: { n: 1 }, unique, ...fields }]), ([sent]) => sent!)
        const first = yield* send
        strictEqual(yield* queues.withdraw(queue, first.id), true)
        const second = yield* send
        strictEqual(second.outcome, "inserted")
        yield* queues.withdraw(queue, second.id)
      }
    }))

  it.effect("that is full gives up nothing where that would not make room enough", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("full", { maxDepth: 2, overflow: "dropLowest" })
      yield* queues.send(queue, [{ payload: { n: 1 }, priority: 1 }, { payload: { n: 2 }, priority: 9 }])
      const two = [{ payload: { n: 3 }, priority: 5 }, { payload: { n: 4 }, priority: 5 }]
      strictEqual((yield* Effect.flip(queues.send(queue, two))).reason._tag, "QueueFull")
      deepStrictEqual(yield* letters.list(queue), [])
      strictEqual((yield* queues.stats(queue)).ready, 2)
    }))

  it.effect("keeps the rate of a key also when several of it may run at once", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("rated", {
        maxRunningPerKey: 5,
        ratePerKey: { count: 1, per: "1 hour", burst: 1 }
      })
      yield* queues.send(queue, Array.from({ length: 4 }, (_, n) => ({ payload: { n }, key: "k" })))
      strictEqual((yield* pull.claim(queue, { limit: 5 })).length, 1)
      yield* sql`update message_later set due = due - interval '1 hour'`
      yield* sql`update message_key set allowed_at = allowed_at - interval '1 hour'`
      strictEqual((yield* pull.claim(queue, { limit: 5 })).length, 1)
    }))

  it.effect("refuses what is said of a message for the second time, though its lease has others", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("second time")
      yield* queues.send(queue, many(2))
      const [one] = yield* pull.claim(queue, { limit: 2 })
      yield* pull.nack(one!, { reason: "no", after: "1 hour" })
      strictEqual((yield* Effect.flip(pull.nack(one!, { reason: "no" }))).reason._tag, "LeaseLost")
      strictEqual((yield* Effect.flip(pull.ack(one!))).reason._tag, "LeaseLost")
      const { failed, later, leased } = yield* queues.stats(queue)
      deepStrictEqual({ failed, later, leased }, { failed: 1, later: 1, leased: 1 })
    }))

  it.effect("sends under a unique key that is just let go by somebody else", () =>
    Effect.gen(function*() {
      const { sql, transact } = yield* Postgres
      const queues = yield* Queues.Queues
      const queue = yield* declared("just let go")
      const unique = { key: "u", during: ["waiting", "later", "done"], window: "1 hour" } as const
      const send = Effect.map(queues.send(queue, [{ payload: { n: 1 }, unique }]), ([sent]) => sent!)
      const first = yield* send
      const gone = yield* Latch.make()
      const commit = yield* Latch.make()
      const taking = yield* Effect.forkChild(transact(Effect.gen(function*() {
        yield* queues.withdraw(queue, first.id)
        yield* gone.open
        yield* commit.await
      })))
      yield* gone.await
      const sending = yield* Effect.forkChild(send)
      yield* Effect.repeat(
        sql<{ readonly waiting: number }>`
          select count(*)::int as waiting from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock' and query like '%send_messages%'`,
        { until: ([row]) => row?.waiting === 1 }
      )
      yield* commit.open
      yield* Fiber.join(taking)
      const second = yield* Fiber.join(sending)
      strictEqual(second.outcome, "inserted")
      assert.isAbove(Number(second.id), Number(first.id))
    }))

  it.effect("brings back what a worker left behind, though there is no end of other messages", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("no end")
      const [left] = yield* queues.send(queue, [{ payload: { n: -1 } }])
      yield* pull.claim(queue)
      yield* sql`update message_lease set until = clock_timestamp() - interval '1 second'`
      const back = yield* Deferred.make<void>()
      yield* Effect.scoped(Effect.gen(function*() {
        // As many as are done.
        const feed = queues.stats(queue).pipe(
          Effect.flatMap(({ ready }) => ready < 500 ? queues.send(queue, many(250)) : Effect.void),
          Effect.repeat(Schedule.spaced("1 millis"))
        )
        yield* queues.send(queue, many(1000))
        yield* Effect.forkScoped(feed)
        yield* Effect.forkScoped(
          QueueWorker.run(queue, ({ id }) => id === left!.id ? Deferred.succeed(back, undefined) : Effect.sleep(1), {
            concurrency: 4
          })
        )
        yield* Effect.timeout(Deferred.await(back), "5 seconds")
      }))
    }))

  it.effect("keeps the first and the last of what went wrong with a message that is tried without end", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("tried", {
        maxAttempts: 1000,
        retry: { attempts: 1000, base: "1 milli", total: "1 hour" }
      })
      yield* queues.send(queue, [{ payload: { n: 0 } }])
      for (let n = 0; n < 120; n++) {
        const [delivery] = yield* pull.claim(queue).pipe(
          Effect.repeat({ until: (found) => found.length > 0, schedule: Schedule.spaced("1 milli") })
        )
        yield* pull.nack(delivery!, n < 119 ? { reason: `${n}`, after: 0 } : { reason: `${n}`, giveUp: true })
      }
      const rows = yield* sql<{ readonly attempts: ReadonlyArray<number> }>`
        select array(
          select (f ->> 'attempt')::integer from jsonb_array_elements((message).failures) f
        ) as attempts
        from dead_letter where reason = 'rejected' or (message).attempts >= 120`
      const attempts = rows[0]?.attempts ?? []
      deepStrictEqual([attempts.length, attempts[0], attempts[1], attempts.at(-1)], [100, 1, 21, 119])
    }))
})
