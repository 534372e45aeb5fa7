import { assert, describe, it } from "@effect/vitest"
import * as ClientThrottle from "@strata/resilience/shedding/ClientThrottle"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as TestClock from "effect/testing/TestClock"

/** A service that answers, refuses or breaks, and how many calls it got. */
const open = Effect.fnUntraced(function*() {
  const throttle = yield* ClientThrottle.make({ name: "service", isRefusal: (error) => error === "busy" })
  let received = 0
  return {
    ...throttle,
    /** Ten calls a second; how many of them reach the service. */
    call: (seconds: number, answer: Effect.Effect<void, string>) =>
      Effect.gen(function*() {
        const before = received
        for (const _ of Arr.range(1, 10 * seconds)) {
          yield* Effect.result(throttle.run(Effect.andThen(Effect.sync(() => received++), answer)))
          yield* TestClock.adjust("100 millis")
        }
        return received - before
      })
  }
})

describe("a client throttle", () => {
  it.effect("sends everything while half of it is accepted", () =>
    Effect.gen(function*() {
      const { call, ratio } = yield* open()
      let n = 0
      const half = Effect.suspend(() => n++ % 2 === 1 ? Effect.fail("busy") : Effect.void)
      assert.strictEqual(yield* call(120, half), 1200)
      assert.strictEqual(yield* ratio, 0)
    }))

  it.effect("sends less and less to a service that refuses everything, and all again within a window of its recovery", () =>
    Effect.gen(function*() {
      const { call, ratio } = yield* open()
      yield* call(120, Effect.void)
      yield* call(60, Effect.fail("busy"))
      const early = yield* ratio
      yield* call(180, Effect.fail("busy"))
      const late = yield* ratio
      assert.isAbove(late, early)
      assert.isTrue(late > 0.5 && late < 1, `${late}`)
      assert.isBelow(yield* call(60, Effect.fail("busy")), 60)
      yield* call(120, Effect.void)
      assert.strictEqual(yield* ratio, 0)
      assert.strictEqual(yield* call(60, Effect.void), 600)
    }).pipe(Random.withSeed("throttle")))

  it.effect("takes other failures for answers", () =>
    Effect.gen(function*() {
      const { call, ratio } = yield* open()
      assert.strictEqual(yield* call(30, Effect.fail("not found")), 300)
      assert.strictEqual(yield* ratio, 0)
    }))

  it.effect("says that a call was not sent", () =>
    Effect.gen(function*() {
      const { run } = yield* open()
      const errors = yield* Effect.forEach(Arr.range(1, 200), () => Effect.result(run(Effect.fail("busy"))))
      const failures = errors.filter(Result.isFailure).map(({ failure }) => failure)
      const throttled = failures.find((failure) => typeof failure !== "string")
      assert.match(throttled?.message ?? "", /^service refuses too much: \d+ % of the calls to it are not sent/)
    }).pipe(Random.withSeed("said")))
})
