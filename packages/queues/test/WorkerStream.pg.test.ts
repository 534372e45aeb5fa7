import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as Queues from "@strata/queues/Queues"
import * as QueueStream from "@strata/queues/QueueStream"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Database, declared, many } from "./fixture.ts"

layer(Database, { excludeTestServices: true })("a stream of a queue", (it) => {
  it.effect("gives messages in their order, and what is acknowledged is done when it ends", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("streamed")
      yield* queues.send(queue, many(500))
      const seen = yield* QueueStream.deliveries(queue).pipe(
        Stream.take(300),
        Stream.mapEffect(({ ack, message }) => Effect.as(ack, message.payload.n)),
        Stream.runCollect
      )
      deepStrictEqual(seen, Array.from({ length: 300 }, (_, n) => n))
      const { done, failed, leased, ready } = yield* queues.stats(queue)
      deepStrictEqual({ done, failed, leased, ready }, { done: 300, failed: 0, leased: 0, ready: 200 })
    }))

  it.effect("gives messages that come while it runs", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("live")
      yield* Effect.forkScoped(
        Effect.forEach(many(30), (message) => Effect.delay(queues.send(queue, [message]), "1 millis"))
      )
      const seen = yield* QueueStream.deliveries(queue).pipe(
        Stream.mapEffect(({ ack, message }) => Effect.as(ack, message.payload.n), { concurrency: 4 }),
        Stream.take(30),
        Stream.runCollect
      )
      deepStrictEqual(seen, Array.from({ length: 30 }, (_, n) => n))
    }).pipe(Effect.scoped))

  it.effect("gives no more than may be out, until something is said of them", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("bounded")
      yield* queues.send(queue, many(10))
      const out: Array<QueueStream.Delivery<{ readonly n: number }>> = []
      yield* Effect.forkScoped(Stream.runForEach(
        QueueStream.deliveries(queue, { unsettled: 3 }),
        (delivery) => Effect.sync(() => out.push(delivery))
      ))
      yield* Effect.repeat(queues.stats(queue), { until: ({ leased }) => leased >= 6 && out.length === 3 })
      yield* out[1]!.ack
      yield* out[1]!.ack
      yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 1 })
      deepStrictEqual(out.map(({ message }) => message.payload.n), [0, 1, 2, 3])
    }).pipe(Effect.scoped))

  it.effect("tells what failed, what is given up and what is put off, while others of the claim are still out", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("said", { retry: { attempts: 3, base: "1 hour", total: "10 hours" } })
      yield* queues.send(queue, many(5))
      yield* Effect.forkScoped(Stream.runForEach(
        QueueStream.deliveries(queue),
        ({ ack, message: { payload }, nack, snooze }) =>
          [
            ack,
            nack({ reason: "not there" }),
            nack({ reason: "of no use", giveUp: true }),
            snooze("1 hour"),
            Effect.void
          ][payload.n] ?? Effect.void
      ))
      yield* Effect.repeat(queues.stats(queue), { until: ({ done, leased }) => done === 1 && leased === 1 })
      const { dead, failed, later } = yield* queues.stats(queue)
      deepStrictEqual({ dead, failed, later }, { dead: 1, failed: 2, later: 2 })
      strictEqual((yield* letters.list(queue))[0]?.reason, "rejected")
    }).pipe(Effect.scoped))

  it.effect("gives back what was out and not settled when it is interrupted, and the try does not count", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("interrupted")
      yield* queues.send(queue, many(20))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.forkScoped(Stream.runForEach(QueueStream.deliveries(queue), () => Effect.never))
        yield* Effect.repeat(queues.stats(queue), { until: ({ leased }) => leased === 20 })
      }))
      const { failed, leased, ready } = yield* queues.stats(queue)
      deepStrictEqual({ failed, leased, ready }, { failed: 0, leased: 0, ready: 20 })
      deepStrictEqual(
        (yield* queues.browse(queue)).map(({ attempts }) => attempts),
        Array.from({ length: 20 }, () => 0)
      )
    }))

  it.effect("counts a try of what was out when it failed, so a message that ends each stream is given up", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("ended", { retry: { attempts: 2, base: "1 millis", total: "1 minute" } })
      yield* queues.send(queue, many(3))
      const once = Stream.runForEach(
        QueueStream.deliveries(queue),
        ({ ack, message: { payload } }) => payload.n === 0 ? Effect.fail("poison") : ack
      )
      strictEqual(yield* Effect.flip(once), "poison")
      strictEqual(yield* Effect.flip(once), "poison")
      const [letter] = yield* letters.list(queue)
      strictEqual(letter?.reason, "attempts")
      strictEqual(letter?.fingerprint, "string: poison")
      strictEqual((yield* queues.stats(queue)).failed, 2)
    }))
})
