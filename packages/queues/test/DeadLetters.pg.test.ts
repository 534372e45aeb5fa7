import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import * as Effect from "effect/Effect"
import { Database, declared } from "./fixture.ts"

/** Sends messages and has them given up, each for its reason. */
const kill = Effect.fnUntraced(function*(name: string, reasons: ReadonlyArray<string>) {
  const queues = yield* Queues.Queues
  const pull = yield* QueuePull.QueuePull
  const queue = yield* declared(name)
  yield* queues.send(queue, reasons.map((_, n) => ({ payload: { n }, priority: 7, headers: { n } })))
  for (const delivery of yield* pull.claim(queue, { limit: reasons.length })) {
    yield* pull.nack(delivery, { reason: reasons[delivery.message.payload.n]!, giveUp: true })
  }
  return queue
})

layer(Database, { excludeTestServices: true })("dead letters", (it) => {
  it.effect("are grouped by what went wrong, numbers and ids left out", () =>
    Effect.gen(function*() {
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* kill("grouped", ["order 1 is gone", "order 2 is gone", "no connection"])
      const groups = yield* letters.groups(queue)
      deepStrictEqual(groups.map(({ count }) => count), [2, 1])
      deepStrictEqual(groups[0]?.fingerprint.includes("order # is gone"), true)
    }))

  it.effect("are sent again by what they have in common, with their priority and headers", () =>
    Effect.gen(function*() {
      const letters = yield* DeadLetters.DeadLetters
      const pull = yield* QueuePull.QueuePull
      const queues = yield* Queues.Queues
      const queue = yield* kill("again", ["a", "a", "b"])
      const [group] = yield* letters.groups(queue)
      const filter = { fingerprint: group!.fingerprint }
      strictEqual((yield* letters.reprocess(queue, filter, { dryRun: true })).length, 2)
      strictEqual((yield* queues.stats(queue)).dead, 3)
      strictEqual((yield* letters.reprocess(queue, filter)).length, 2)
      const back = yield* pull.claim(queue, { limit: 5 })
      deepStrictEqual(
        back.map(({ message: { attempt, headers, priority } }) => ({ attempt, n: headers["n"], priority })),
        [{ attempt: 1, n: 0, priority: 7 }, { attempt: 1, n: 1, priority: 7 }]
      )
      const { dead, leased } = yield* queues.stats(queue)
      deepStrictEqual({ dead, leased }, { dead: 1, leased: 2 })
    }))

  it.effect("are sent again once, however often it is asked at the same time", () =>
    Effect.gen(function*() {
      const letters = yield* DeadLetters.DeadLetters
      const queues = yield* Queues.Queues
      const queue = yield* kill("once", Array.from({ length: 20 }, () => "no"))
      const sent = yield* Effect.forEach(Array.from({ length: 5 }), () => letters.reprocess(queue, {}), {
        concurrency: "unbounded"
      })
      strictEqual(sent.flat().length, 20)
      strictEqual((yield* queues.stats(queue)).ready, 20)
    }))

  it.effect("are sent again with another payload", () =>
    Effect.gen(function*() {
      const letters = yield* DeadLetters.DeadLetters
      const pull = yield* QueuePull.QueuePull
      const queue = yield* kill("edited", ["no"])
      const [letter] = yield* letters.list(queue)
      yield* letters.reprocess(queue, { ids: [letter!.id] }, { edit: { payload: { n: 42 } } })
      strictEqual((yield* pull.claim(queue))[0]?.message.payload.n, 42)
    }))

  it.effect("are there whatever the reason is: empty, huge, or no text that can be stored", () =>
    Effect.gen(function*() {
      const letters = yield* DeadLetters.DeadLetters
      const reasons = ["", "x".repeat(1_000_000), "a\0b", "\ud800", "'; drop table message; --", "🙂".repeat(5000)]
      const queue = yield* kill("odd", reasons)
      strictEqual((yield* letters.list(queue)).length, reasons.length)
    }))

  it.effect("are forgotten when somebody says so", () =>
    Effect.gen(function*() {
      const letters = yield* DeadLetters.DeadLetters
      const queues = yield* Queues.Queues
      const queue = yield* kill("discarded", ["a", "b"])
      strictEqual(yield* letters.discard(queue, { fingerprint: (yield* letters.groups(queue))[0]!.fingerprint }), 1)
      strictEqual((yield* queues.stats(queue)).dead, 1)
    }))
})
