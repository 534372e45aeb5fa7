import { assert, it } from "@effect/vitest"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"

it.effect("what is done at a pace is done at once, and then rests after each time", () =>
  Effect.gen(function*() {
    const at: Array<number> = []
    const look = Effect.gen(function*() {
      at.push(yield* Clock.currentTimeMillis)
      yield* Effect.sleep("2 seconds")
    })
    const fiber = yield* Effect.forkChild(look.pipe(Pace.every("5 seconds")))
    yield* TestClock.adjust("20 seconds")
    yield* Fiber.interrupt(fiber)
    yield* TestClock.adjust("1 minute")
    assert.deepStrictEqual(at, [0, 7_000, 14_000])
  }))

it.effect("a failure ends it", () =>
  Effect.gen(function*() {
    let looks = 0
    const look = Effect.suspend(() => ++looks < 3 ? Effect.void : Effect.fail("gone"))
    const fiber = yield* Effect.forkChild(Effect.flip(look.pipe(Pace.every("1 second"))))
    yield* TestClock.adjust("1 minute")
    assert.deepStrictEqual([yield* Fiber.join(fiber), looks], ["gone", 3])
  }))

it.effect("what is done after a pause begins when it is over", () =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Clock.currentTimeMillis.pipe(Pace.after("3 seconds")))
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(yield* Fiber.join(fiber), 3_000)
  }))
