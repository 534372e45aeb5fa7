import * as NodeServices from "@effect/platform-node/NodeServices"
import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as DeadLetters from "@strata/queues/DeadLetters"
import type { Queue } from "@strata/queues/Queue"
import { defaults, QueuePolicies } from "@strata/queues/QueuePolicies"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import { migrations } from "@strata/queues/QueuesMigrations"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { collect, Database, declared, many } from "./fixture.ts"

/** Nobody looks unless somebody says that there is something. */
const woken = Effect.provideService(QueuePolicies, { ...defaults, poll: Duration.hours(1) })

/** Queues elsewhere: in another database, or in another schema of this one. */
const elsewhere = (url: Redacted.Redacted, schema?: string) =>
  Layer.build(
    Layer.mergeAll(DeadLetters.layer, QueuePull.layer).pipe(
      Layer.provideMerge(Queues.layer),
      Layer.provideMerge(
        Layer.effectDiscard(Effect.provideService(Migrations.run([migrations]), References.MinimumLogLevel, "Warn"))
      ),
      Layer.provideMerge(Postgres.layer({ url, schema, maxConnections: 4 })),
      Layer.provide(NodeServices.layer),
      Layer.fresh
    )
  )

/** Works with a handler until so many messages were given up. */
const untilDead = <E>(
  queue: Queue<{ readonly n: number }>,
  count: number,
  handler: (n: number) => Effect.Effect<unknown, E>,
  options: QueueWorker.Options<E> = {}
) =>
  Effect.scoped(Effect.gen(function*() {
    const queues = yield* Queues.Queues
    yield* Effect.forkScoped(QueueWorker.run(queue, ({ payload: { n } }) => handler(n), options))
    yield* Effect.repeat(queues.stats(queue), { until: ({ dead }) => dead === count })
  }))

layer(Database, { excludeTestServices: true })("a queue", (it) => {
  it.effect("has nothing left of a message that was given up, and the dead letter says where it came from and why", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("given up", { retry: { attempts: 2, base: "1 milli", total: "1 minute" } })
      yield* queues.send(queue, [{ payload: { n: 1 }, key: "k", unique: { key: "u" }, correlationId: "c" }])
      yield* untilDead(queue, 1, () => Effect.fail("no"))
      const [letter] = yield* letters.list(queue)
      deepStrictEqual(
        { attempts: letter?.attempts, correlationId: letter?.correlationId, key: letter?.key, reason: letter?.reason },
        { attempts: 2, correlationId: "c", key: "k", reason: "attempts" }
      )
      const { id } = yield* queues.find(queue)
      deepStrictEqual(
        yield* sql`
          select count(*)::int as rows from (
            select queue from message union all select (message).queue from message_later
            union all select (message).queue from message_parked union all select queue from message_lease
            union all select queue from message_key union all select queue from message_unique
          ) as each where queue = ${id}`,
        [{ rows: 0 }]
      )
    }))

  it.effect("loses no message because of what its handler failed with, were it nothing at all", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("odd failures", { retry: { attempts: 1, base: "1 milli", total: "1 minute" } })
      const failures: ReadonlyArray<Effect.Effect<never, string | null | undefined>> = [
        Effect.fail(""),
        Effect.fail(undefined),
        Effect.fail(null),
        Effect.die(new Error("")),
        Effect.die(new Error("a\0b\ud800")),
        Effect.die(undefined),
        Effect.die({ toString: () => "" })
      ]
      yield* queues.send(queue, many(failures.length))
      yield* untilDead(queue, failures.length, (n) => failures[n]!)
      strictEqual((yield* letters.list(queue)).length, failures.length)
    }))

  it.effect("has what was sent before its worker came handled, and what is sent later, without anybody looking again", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("before and after")
      yield* queues.send(queue, many(3))
      const seen = yield* Effect.forkScoped(woken(collect(queue, 5)))
      yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 3 })
      yield* queues.send(queue, [{ payload: { n: 3 } }])
      yield* queues.send(queue, [{ payload: { n: 4 } }])
      deepStrictEqual((yield* Fiber.join(seen)).map(({ n }) => n).sort(), [0, 1, 2, 3, 4])
    }))

  it.effect("is followed without taking anything, also over the end of all connections that listen", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("followed")
      const seen: Array<unknown> = []
      yield* queues.tail(queue).pipe(
        Stream.runForEach(({ payload }) => Effect.sync(() => seen.push(payload))),
        Effect.forkScoped({ startImmediately: true })
      )
      const until = (count: number) =>
        Effect.repeat(Effect.sync(() => seen.length), {
          until: (seen) => seen >= count,
          schedule: Schedule.spaced("2 millis")
        })
      // What is there when it begins is not what comes.
      yield* Effect.repeat(
        Effect.andThen(queues.send(queue, [{ payload: { n: 0 } }]), Effect.sleep(10)),
        { until: () => seen.length > 0 }
      )
      yield* sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name like '%wake-ups%'`
      const before = seen.length
      yield* queues.send(queue, [{ payload: { n: 1 } }])
      yield* until(before + 1)
      deepStrictEqual(seen.at(-1), { n: 1 })
      const found = yield* pull.claim(queue, { limit: 1000 })
      strictEqual(found.length, (yield* queues.stats(queue)).leased)
      strictEqual(found.length >= seen.length, true)
    }))

  it.effect("gives a consumer one message of many that were sent under one key at the same time", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("once")
      const send = (n: number) => queues.send(queue, [{ payload: { n }, unique: { key: "only" } }])
      const sent = yield* Effect.forEach(Array.from({ length: 10 }, (_, n) => n), send, { concurrency: "unbounded" })
      const [delivery, ...others] = yield* pull.claim(queue, { limit: 20 })
      strictEqual(others.length, 0)
      deepStrictEqual(new Set(sent.flat().map(({ id }) => id)), new Set([delivery?.message.id]))
    }))

  it.effect("takes messages without a unique key for as many as there are, and refuses an empty key by its name", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("keyless")
      const [one] = yield* queues.send(queue, [{ payload: { n: 1 } }])
      const [other] = yield* queues.send(queue, [{ payload: { n: 1 }, unique: undefined }])
      strictEqual(one?.id === other?.id, false)
      strictEqual((yield* queues.stats(queue)).ready, 2)
      const error = yield* Effect.flip(queues.send(queue, [{ payload: { n: 1 }, unique: { key: "" } }]))
      strictEqual(error.message.startsWith("unique.key: "), true)
    }))

  it.effect("brings a worker what was committed, and nothing of what was rolled back", () =>
    Effect.gen(function*() {
      const { transact } = yield* Postgres.Postgres
      const queues = yield* Queues.Queues
      const queue = yield* declared("committed")
      const seen = yield* Effect.forkScoped(woken(collect(queue, 2)))
      yield* Effect.ignore(transact(Effect.andThen(queues.send(queue, [{ payload: { n: 1 } }]), Effect.fail("no"))))
      yield* transact(queues.send(queue, [{ payload: { n: 2 } }]))
      yield* queues.send(queue, [{ payload: { n: 3 } }])
      deepStrictEqual((yield* Fiber.join(seen)).map(({ n }) => n).sort(), [2, 3])
    }))

  it.effect("gives up at once what repeating does not mend, and tries again what may be mended by it", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("classes", { retry: { attempts: 3, base: "1 milli", total: "1 minute" } })
      yield* queues.send(queue, many(2))
      yield* untilDead(queue, 2, (n) => Effect.fail(n === 0 ? "permanent" : "transient"), {
        classify: (error) => error === "permanent" ? FailureClass.permanent : FailureClass.transient
      })
      deepStrictEqual(
        (yield* letters.list(queue)).map(({ attempts, reason }) => ({ attempts, reason })),
        [{ attempts: 1, reason: "permanent" }, { attempts: 3, reason: "attempts" }]
      )
    }))

  it.effect("has pages of dead letters of a size, and refuses what is none", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("pages", { retry: { attempts: 1, base: "1 milli", total: "1 minute" } })
      yield* queues.send(queue, many(5))
      yield* untilDead(queue, 5, () => Effect.fail("no"))
      const first = yield* letters.list(queue, {}, { limit: 2 })
      const second = yield* letters.list(queue, {}, { limit: 2, after: first[1]!.id })
      const third = yield* letters.list(queue, {}, { limit: 2, after: second[1]!.id })
      deepStrictEqual(
        [...first, ...second, ...third].map(({ payload }) => payload),
        many(5).map(({ payload }) => payload)
      )
      strictEqual(yield* Effect.isFailure(letters.list(queue, {}, { limit: -1 })), true)
    }))

  it.effect("shows nothing of itself in another schema of its database", () =>
    Effect.gen(function*() {
      const here = yield* declared("tenant")
      const other = yield* elsewhere(yield* PostgresTest.url, "tenant_b")
      const there = yield* Effect.provideContext(declared("tenant"), other)
      yield* (yield* Queues.Queues).send(here, many(3))
      const [delivery] = yield* (yield* QueuePull.QueuePull).claim(here)
      yield* (yield* QueuePull.QueuePull).nack(delivery!, { reason: "no", giveUp: true })
      deepStrictEqual(yield* Context.get(other, QueuePull.QueuePull).claim(there, { limit: 10 }), [])
      deepStrictEqual(yield* Context.get(other, DeadLetters.DeadLetters).list(there), [])
      strictEqual((yield* Context.get(other, Queues.Queues).stats(there)).sent, 0)
      strictEqual((yield* (yield* DeadLetters.DeadLetters).list(here)).length, 1)
    }))

  it.effect("has its workers woken for its own messages, whatever other databases a process works with", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const here = yield* declared("setup")
      const other = yield* elsewhere((yield* PostgresTest.database({ migrations: [migrations] })).url)
      const there = yield* Effect.provideContext(declared("setup"), other)
      const seenHere = yield* Effect.forkScoped(woken(collect(here, 1)))
      const seenThere = yield* Effect.forkScoped(woken(Effect.provideContext(collect(there, 1), other)))
      yield* queues.send(here, [{ payload: { n: 1 } }])
      yield* Context.get(other, Queues.Queues).send(there, [{ payload: { n: 2 } }])
      deepStrictEqual([...(yield* Fiber.join(seenHere)), ...(yield* Fiber.join(seenThere))], [{ n: 1 }, { n: 2 }])
    }))
})
