import { assert, describe, it } from "@effect/vitest"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"

const start = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

const left = Effect.map(Deadline.remaining, Option.map(Duration.toMillis))

describe("a deadline", () => {
  it.effect("ends an effect when it passes, and says how long there was", () =>
    Effect.gen(function*() {
      let isInterrupted = false
      const work = Effect.onInterrupt(Effect.never, () => Effect.sync(() => (isInterrupted = true)))
      const fiber = yield* start(Effect.flip(Deadline.within("2 seconds")(work)))
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(fiber)
      assert.deepStrictEqual([error._tag, error.message, isInterrupted], [
        "DeadlineExceeded",
        "Not done within 2s",
        true
      ])
    }))

  it.effect("leaves alone what is done in time, and what fails by itself", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* Deadline.within("1 second")(Effect.succeed(42)), 42)
      assert.strictEqual(yield* Effect.flip(Deadline.within("1 second")(Effect.fail("other"))), "other")
      assert.isTrue(Option.isNone(yield* left))
    }))

  it.effect("travels to every effect below, also on other fibers", () =>
    Effect.gen(function*() {
      const fiber = yield* start(
        Deadline.within("10 seconds")(Effect.gen(function*() {
          yield* Effect.sleep("3 seconds")
          return yield* Fiber.join(yield* Effect.forkChild(left))
        }))
      )
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* Fiber.join(fiber), Option.some(7000))
    }))

  it.effect("is never made later by one inside it", () =>
    Effect.gen(function*() {
      const inner = yield* start(Effect.flip(
        Deadline.within("1 second")(Effect.flip(Deadline.within("5 seconds")(Effect.never)))
      ))
      const fallback = yield* start(
        Deadline.within("5 seconds")(
          Effect.catchTag(Deadline.within("1 second")(Effect.never), "DeadlineExceeded", () => left)
        )
      )
      assert.deepStrictEqual(yield* Deadline.within("1 second")(Deadline.within("5 seconds")(left)), Option.some(1000))
      assert.deepStrictEqual(
        yield* Deadline.within("1 second")(Deadline.within(Duration.infinity)(left)),
        Option.some(1000)
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.await(inner)
      assert.deepStrictEqual(yield* Fiber.join(fallback), Option.some(4000))
    }))

  it.effect("that has passed lets nothing start", () =>
    Effect.gen(function*() {
      let isStarted = false
      const late = Deadline.within("1 minute")(Effect.sync(() => (isStarted = true)))
      const fiber = yield* start(
        Effect.flip(
          Deadline.within("1 second")(Effect.uninterruptible(Effect.gen(function*() {
            yield* Effect.sleep("2 seconds")
            assert.strictEqual((yield* Effect.flip(late))._tag, "DeadlineExceeded")
            assert.strictEqual((yield* Effect.flip(Deadline.check))._tag, "DeadlineExceeded")
            assert.deepStrictEqual(yield* left, Option.some(0))
            assert.deepStrictEqual(yield* Deadline.without(left), Option.none())
          })))
        )
      )
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.await(fiber)
      assert.isFalse(isStarted)
      assert.strictEqual((yield* Effect.flip(Deadline.within("0 millis")(late)))._tag, "DeadlineExceeded")
      yield* Deadline.check
      yield* Deadline.within("1 second")(Deadline.check)
    }))

  it.effect("shortens the time-out of something else", () =>
    Effect.gen(function*() {
      assert.strictEqual(Duration.toMillis(yield* Deadline.shorten("5 seconds")), 5000)
      const within = Deadline.within("1 second")
      assert.strictEqual(Duration.toMillis(yield* within(Deadline.shorten("5 seconds"))), 1000)
      assert.strictEqual(Duration.toMillis(yield* within(Deadline.shorten("200 millis"))), 200)
    }))
})

describe("the header of a request", () => {
  it.effect("carries the milliseconds that are left, less those for the way back", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Deadline.toHeader(), Option.none())
      const within = Deadline.within("1500.9 millis")
      assert.deepStrictEqual(yield* within(Deadline.toHeader()), Option.some("1500"))
      assert.deepStrictEqual(yield* within(Deadline.toHeader({ reserve: "200 millis" })), Option.some("1300"))
      assert.deepStrictEqual(yield* within(Deadline.toHeader({ reserve: "2 seconds" })), Option.some("0"))
    }))

  it.effect("gives no more than is allowed, and nothing when it is not a number of milliseconds", () =>
    Effect.gen(function*() {
      const read = (value: string | undefined) =>
        Option.map(Deadline.fromHeader(value, { atMost: "30 seconds" }), Duration.toMillis)
      assert.deepStrictEqual(read("1500"), Option.some(1500))
      assert.deepStrictEqual(read("0"), Option.some(0))
      assert.deepStrictEqual(read("999999999999999"), Option.some(30_000))
      for (const value of [undefined, "", "-1", "1.5", "1e3", "soon", " 5", "9".repeat(400)]) {
        assert.deepStrictEqual(read(value), Option.none())
      }
    }))
})

describe("a client that propagates the deadline", () => {
  it.effect("tells the next service how long it has, and nothing without one", () =>
    Effect.gen(function*() {
      const seen: Array<string | undefined> = []
      const client = Deadline.propagate(HttpClient.make((request) =>
        Effect.sync(() => {
          seen.push(request.headers[Deadline.header])
          return HttpClientResponse.fromWeb(request, new Response())
        })
      ))
      yield* client.get("http://next.test/")
      yield* Deadline.within("1500.9 millis")(client.get("http://next.test/"))
      assert.deepStrictEqual(seen, [undefined, "1500"])
    }))
})

describe("the time-out of a statement", () => {
  it.effect("is what is left of the deadline, in whole milliseconds and never none", () =>
    Effect.gen(function*() {
      const timeout = Deadline.statementTimeout({ atMost: "15 seconds" })
      assert.strictEqual(yield* timeout, "15000")
      assert.strictEqual(yield* Deadline.within("1500.9 millis")(timeout), "1500")
      assert.strictEqual(yield* Deadline.within("1 minute")(timeout), "15000")
      assert.strictEqual(yield* Deadline.within("500 micros")(timeout), "1")
      const reserved = Deadline.statementTimeout({ atMost: "15 seconds", reserve: "100 millis" })
      assert.strictEqual(yield* Deadline.within("1 second")(reserved), "900")
      assert.strictEqual((yield* Effect.flip(Deadline.within("80 millis")(reserved)))._tag, "DeadlineExceeded")
    }))
})
