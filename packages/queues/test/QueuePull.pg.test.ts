import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import * as QueueSettings from "@strata/queues/QueueSettings"
import * as Effect from "effect/Effect"
import { Database, declared, many } from "./fixture.ts"

/** Lets all leases run out, and has them taken back. */
const expire = Effect.gen(function*() {
  const { sql } = yield* Postgres
  yield* sql`update message_lease set until = clock_timestamp() - interval '1 second'`
  yield* sql`select expire_leases(1000)`
})

layer(Database, { excludeTestServices: true })("a claim", (it) => {
  it.effect("belongs to the claimer until it is acknowledged", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("claimed")
      yield* queues.send(queue, many(3))
      const deliveries = yield* pull.claim(queue, { limit: 2 })
      deepStrictEqual(deliveries.map(({ message }) => message.payload.n), [0, 1])
      deepStrictEqual((yield* pull.claim(queue, { limit: 5 })).map(({ message }) => message.payload.n), [2])
      for (const delivery of deliveries) yield* pull.ack(delivery)
      deepStrictEqual(yield* pull.claim(queue), [])
      strictEqual((yield* queues.stats(queue)).done, 2)
    }))

  it.effect("is refused what it says late, and the message is with others by then", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("late")
      yield* queues.send(queue, many(1))
      const [first] = yield* pull.claim(queue)
      yield* expire
      const [second] = yield* pull.claim(queue)
      strictEqual(second?.message.id, first?.message.id)
      strictEqual(second?.message.attempt, 2)
      deepStrictEqual(second?.message.failures.map(({ type }) => type), ["LeaseExpired"])
      for (const say of [pull.ack, pull.release]) {
        const error = yield* Effect.flip(say(first!))
        strictEqual(error.reason._tag, "LeaseLost")
      }
      yield* pull.ack(second!)
      const { done, leased, ready } = yield* queues.stats(queue)
      deepStrictEqual({ done, leased, ready }, { done: 1, leased: 0, ready: 0 })
    }))

  it.effect("of a message that ends every worker ends in the dead letters", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("poison", { maxAttempts: 3 })
      yield* queues.send(queue, many(1))
      for (let attempt = 1; attempt <= 3; attempt++) {
        const [delivery] = yield* pull.claim(queue)
        strictEqual(delivery?.message.attempt, attempt)
        yield* expire
      }
      deepStrictEqual(yield* pull.claim(queue), [])
      const [letter] = yield* letters.list(queue)
      strictEqual(letter?.reason, "attempts")
      strictEqual(letter?.failures.length, 3)
    }))

  it.effect("can be given back, put off, and failed, each without touching the others of it", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("partly", { retry: { attempts: 3, base: "1 hour", total: "10 hours" } })
      yield* queues.send(queue, many(4))
      const [done, back, later, failing] = yield* pull.claim(queue, { limit: 4 })
      yield* pull.ack(done!)
      yield* pull.release(back!)
      yield* pull.snooze(later!, "1 hour")
      yield* pull.nack(failing!, { reason: "no" })
      const stats = yield* queues.stats(queue)
      deepStrictEqual(stats, { ready: 1, later: 2, parked: 0, leased: 0, dead: 0, sent: 4, done: 1, failed: 1 })
      const [again] = yield* pull.claim(queue)
      strictEqual(again?.message.id, back?.message.id)
      strictEqual(again?.message.attempt, 1)
    }))

  it.effect("fails for as long as is said, until the time of all tries is over, however long the policy would wait", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const letters = yield* DeadLetters.DeadLetters
      const { sql } = yield* Postgres
      const queue = yield* declared("said", {
        retry: { attempts: 1000, kind: "linear", base: "90 minutes", jitter: "none", total: "2 hours" }
      })
      yield* queues.send(queue, many(1))
      for (const reason of ["first", "second"]) {
        const [delivery] = yield* pull.claim(queue)
        yield* pull.nack(delivery!, { reason, after: 0 })
      }
      deepStrictEqual(yield* letters.list(queue), [])
      const [third] = yield* pull.claim(queue)
      strictEqual(third?.message.attempt, 3)
      yield* pull.nack(third!, { reason: "third", after: "3 hours" })
      deepStrictEqual(yield* letters.list(queue), [])
      yield* sql`
        update message_later set due = clock_timestamp(),
          message.first_at = (message).first_at - interval '2 hours' where (message).type = 'said'`
      const [last] = yield* pull.claim(queue)
      yield* pull.nack(last!, { reason: "last", after: 0 })
      deepStrictEqual((yield* letters.list(queue)).map(({ reason }) => reason), ["time"])
    }))

  it.effect("is renewed by its token", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("renewed")
      yield* queues.send(queue, many(1))
      const [delivery] = yield* pull.claim(queue, { lease: "1 second" })
      yield* pull.extend(delivery!, "1 hour")
      const { sql } = yield* Postgres
      const [row] = yield* sql<{ left: number }>`
        select extract(epoch from until - clock_timestamp())::float8 as left from message_lease
        where token = ${delivery!.token}`
      strictEqual(row!.left > 3500, true)
      yield* pull.ack(delivery!)
      strictEqual((yield* Effect.flip(pull.extend(delivery!, "1 hour"))).reason._tag, "LeaseLost")
    }))

  it.effect("takes nothing of a queue that is paused", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("paused")
      yield* queues.send(queue, many(1))
      yield* queues.pause(queue)
      deepStrictEqual(yield* pull.claim(queue), [])
      yield* queues.resume(queue)
      strictEqual((yield* pull.claim(queue)).length, 1)
    }))

  it.effect("takes no more than may run at once, in the queue and of a key", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("limited", { maxRunning: 4, maxRunningPerKey: 2 })
      yield* queues.send(queue, [
        ...Array.from({ length: 5 }, (_, n) => ({ payload: { n }, key: "busy" })),
        ...Array.from({ length: 5 }, (_, n) => ({ payload: { n: 10 + n } }))
      ])
      const first = yield* pull.claim(queue, { limit: 10 })
      const second = yield* pull.claim(queue, { limit: 10 })
      const all = [...first, ...second]
      deepStrictEqual(all.map(({ message }) => message.payload.n).sort(), [0, 1, 10, 11])
      deepStrictEqual(yield* pull.claim(queue, { limit: 10 }), [])
      yield* pull.ack(all.find(({ message }) => message.payload.n === 0)!)
      deepStrictEqual((yield* pull.claim(queue, { limit: 10 })).map(({ message }) => message.payload.n), [2])
    }))

  it.effect("takes no more than the rate of the queue lets begin", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("rated", { rate: { count: 1, per: "1 hour", burst: 3 } })
      yield* queues.send(queue, many(10))
      strictEqual((yield* pull.claim(queue, { limit: 10 })).length, 3)
      strictEqual((yield* pull.claim(queue, { limit: 10 })).length, 0)
      yield* queues.configure(queue, QueueSettings.make())
      strictEqual((yield* pull.claim(queue, { limit: 10 })).length, 7)
    }))
})
