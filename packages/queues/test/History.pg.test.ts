import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as DeadLetters from "@strata/queues/DeadLetters"
import type * as History from "@strata/queues/History"
import * as QueuePolicies from "@strata/queues/QueuePolicies"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import * as QueueSettings from "@strata/queues/QueueSettings"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { collect, Database, declared, many } from "./fixture.ts"

const Quick = Database.pipe(Layer.provide(Layer.succeed(QueuePolicies.QueuePolicies, {
  ...QueuePolicies.defaults,
  upkeep: Duration.millis(20)
})))

const history = Effect.flatMap(
  Postgres,
  ({ sql }) =>
    Effect.map(sql<{ count: number }>`select count(*)::int as count from message_history`, ([row]) => row!.count)
)

layer(Quick, { excludeTestServices: true })("the history of a queue", (it) => {
  it.effect("is empty unless its settings say how long it is kept", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("forgetful")
      yield* queues.send(queue, many(20))
      yield* collect(queue, 20)
      yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 20 })
      deepStrictEqual(yield* queues.history(queue), [])
    }))

  it.effect("has what is done, whoever did it, and not what waits, runs or was given up", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("kept", { history: "1 hour" })
      yield* queues.send(queue, many(300))
      yield* queues.send(queue, [{ payload: { n: 300 }, key: "a" }, { payload: { n: 301 }, key: "a" }])
      yield* collect(queue, 302)
      yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 302 })
      yield* queues.send(queue, [
        { payload: { n: 302 }, headers: { region: "eu" }, priority: 9 },
        { payload: { n: 303 } },
        { payload: { n: 304 } }
      ])
      const [first, second] = yield* pull.claim(queue, { limit: 2 })
      yield* pull.nack(second!, { reason: "no", giveUp: true })
      yield* pull.ack(first!)
      const found: Array<History.Done> = []
      for (;;) {
        const page = yield* queues.history(queue, {}, { after: found.at(-1)?.id, limit: 100 })
        if (page.length === 0) break
        found.push(...page)
      }
      deepStrictEqual(found.map(({ payload }) => payload), many(303).map(({ payload }) => payload))
      const last = found.at(-1)!
      deepStrictEqual({ headers: last.headers, priority: last.priority, attempts: last.attempts }, {
        headers: { region: "eu" },
        priority: 9,
        attempts: 1
      })
      strictEqual(last.doneAt > last.sentAt, true)
    }))

  it.effect("is asked by id, type and correlation", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("asked", { history: "1 hour" })
      const sent = yield* queues.send(
        queue,
        Array.from({ length: 12 }, (_, n) => ({
          payload: { n },
          type: n % 2 === 0 ? "even" : "odd",
          correlationId: `order-${n % 3}`
        }))
      )
      yield* collect(queue, 12)
      yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 12 })
      const ask = (filter: Parameters<typeof queues.history>[1]) =>
        Effect.map(queues.history(queue, filter), (found) => found.map(({ payload }) => payload))
      deepStrictEqual(yield* ask({ ids: [sent[3]!.id, sent[1]!.id] }), [{ n: 1 }, { n: 3 }])
      deepStrictEqual(yield* ask({ type: "odd", correlationId: "order-0" }), [{ n: 3 }, { n: 9 }])
      deepStrictEqual(yield* ask({ correlationId: "order-1" }), [{ n: 1 }, { n: 4 }, { n: 7 }, { n: 10 }])
      deepStrictEqual(yield* ask({ type: "none" }), [])
    }))

  it.effect("is kept for as long as the settings say now, and forgotten in steps", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("changing")
      const work = Effect.gen(function*() {
        yield* queues.send(queue, many(5))
        for (const delivery of yield* pull.claim(queue, { limit: 5 })) yield* pull.ack(delivery)
        return (yield* queues.history(queue)).length
      })
      strictEqual(yield* work, 0)
      yield* queues.configure(queue, QueueSettings.make({ history: "1 hour" }))
      strictEqual(yield* work, 5)
      const kept = yield* history
      yield* sql`select forget_messages(2)`
      strictEqual(yield* history, kept)
      // In one transaction, so that nobody forgets the rest meanwhile.
      const { transact } = yield* Postgres
      const left = yield* transact(Effect.gen(function*() {
        yield* queues.configure(queue, QueueSettings.make())
        yield* sql`select forget_messages(2)`
        return yield* history
      }))
      strictEqual(left, kept - 2)
      yield* Effect.repeat(queues.history(queue), { until: (found) => found.length === 0 })
      strictEqual(yield* work, 0)
    }))
})

layer(Quick, { excludeTestServices: true })("dead letters", (it) => {
  it.effect("stay for ever, or for as long as their queue says now", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const letters = yield* DeadLetters.DeadLetters
      const kill = Effect.fnUntraced(function*(name: string, settings: QueueSettings.Options) {
        const queue = yield* declared(name, settings)
        yield* queues.send(
          queue,
          many(3).map((message, n) => ({
            ...message,
            unique: { key: `k${n}`, during: ["dead", "waiting"] as const }
          }))
        )
        for (const delivery of yield* pull.claim(queue, { limit: 3 })) {
          yield* pull.nack(delivery, { reason: "no", giveUp: true })
        }
        return queue
      })
      const forever = yield* kill("for ever", {})
      const brief = yield* kill("brief", { keepDead: "1 hour" })
      yield* sql`update dead_letter set died_at = died_at - interval '59 minutes'`
      yield* sql`select forget_messages(100)`
      strictEqual((yield* letters.list(brief)).length, 3)
      yield* sql`update dead_letter set died_at = died_at - interval '2 minutes'`
      yield* Effect.repeat(letters.list(brief), { until: (found) => found.length === 0 })
      strictEqual((yield* queues.stats(brief)).dead, 0)
      // Their unique keys are free.
      deepStrictEqual(
        (yield* queues.send(brief, [{ payload: { n: 1 }, unique: { key: "k1", during: ["dead"] } }]))[0]?.outcome,
        "inserted"
      )
      strictEqual((yield* letters.list(forever)).length, 3)
      yield* queues.configure(forever, QueueSettings.make({ keepDead: "1 hour" }))
      yield* Effect.repeat(letters.list(forever), { until: (found) => found.length === 0 })
    }))
})
