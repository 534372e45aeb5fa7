import { assert, describe, it } from "@effect/vitest"
import * as Pressure from "@strata/resilience/shedding/Pressure"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

const read = (sensor: Pressure.Sensor) => Effect.scoped(Effect.flatten(sensor.open))

/** Shows the same pressures every half second. */
const watch = (load: Pressure.Load, pressures: Record<string, number | undefined>, seconds: number): Pressure.Load => {
  let next = load
  for (let half = 0; half < 2 * seconds; half++) {
    next = Pressure.observe(next, new Map(Object.entries(pressures)), (next.at ?? -500) + 500)
  }
  return next
}

describe("pressure", () => {
  it.effect("is what is measured against what is saturated", () =>
    Effect.gen(function*() {
      const millis = (value: number) => Effect.succeed(Duration.millis(value))
      assert.strictEqual(yield* read(Pressure.poolWait({ waited: millis(80) })), 0.8)
      assert.strictEqual(yield* read(Pressure.poolWait({ waited: millis(80), target: "1 second" })), 0.08)
      assert.strictEqual(yield* read(Pressure.queueAge({ oldest: millis(3000), promised: "2 seconds" })), 1.5)
      assert.strictEqual(yield* read(Pressure.disk({ used: Effect.succeed(90), size: 100 })), 0.9)
      assert.isUndefined(yield* read(Pressure.poolWait({ waited: Effect.succeed(undefined) })))
    }))

  it("makes a load of the largest, smoothed over five seconds", () => {
    const before = Pressure.observe(Pressure.idle, new Map([["a", 1]]), 0)
    assert.strictEqual(before.value, 0)
    const load = watch(before, { a: 1, b: 0.3 }, 5)
    assert.closeTo(load.value, 1 - Math.exp(-1), 1e-9)
    assert.strictEqual(Pressure.dominant(load), "a")
    assert.closeTo(watch(load, { a: 0.5, b: 0.7 }, 60).value, 0.7, 1e-4)
  })

  it("of one long pause is not taken for overload", () => {
    const load = watch(watch(Pressure.idle, { loop: 0.2 }, 60), { loop: 30 }, 0.5)
    assert.isBelow(load.value, 0.8)
  })

  for (
    const [what, nothing] of [["nothing", undefined], ["NaN", NaN], ["less than nothing", -1], [
      "infinity",
      Infinity
    ]] as const
  ) {
    it(`of a sensor that reads ${what} is its last for ten seconds, then it is blind`, () => {
      const good = watch(Pressure.idle, { age: 0.6, other: 0.1 }, 60)
      const keeping = watch(good, { age: nothing, other: 0.1 }, 9.5)
      assert.deepStrictEqual(Pressure.blind(keeping), [])
      assert.closeTo(keeping.value, 0.6, 1e-3)
      const blind = watch(keeping, { age: nothing, other: 0.1 }, 0.5)
      assert.deepStrictEqual(Pressure.blind(blind), ["age"])
      assert.closeTo(watch(blind, { age: nothing, other: 0.1 }, 60).value, 0.1, 1e-3)
      assert.deepStrictEqual(Pressure.blind(watch(blind, { age: 0.6, other: 0.1 }, 0.5)), [])
    })
  }

  it("of a sensor that never reads anything is none for ten seconds, then it is blind", () => {
    const load = watch(Pressure.idle, { age: undefined }, 10)
    assert.deepStrictEqual([load.value, Pressure.blind(load)], [0, []])
    assert.deepStrictEqual(Pressure.blind(watch(load, { age: undefined }, 0.5)), ["age"])
  })
})
