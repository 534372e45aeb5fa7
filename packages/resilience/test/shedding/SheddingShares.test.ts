import { assert, describe, it } from "@effect/vitest"
import * as LoadShedding from "@strata/resilience/shedding/LoadShedding"
import * as Pressure from "@strata/resilience/shedding/Pressure"
import * as ShedLadder from "@strata/resilience/shedding/ShedLadder"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as TestClock from "effect/testing/TestClock"

/** A ladder that sheds the same of all but P0, at any load. */
const shed = (percent: number) =>
  Result.getOrThrow(ShedLadder.make({
    steps: [{ load: 0.1, shed: { P0: 0, P1: percent, P2: percent, P3: percent } }]
  }))

const open = Effect.fnUntraced(function*(percent: number) {
  const context = yield* Layer.build(LoadShedding.layer({
    sensors: [Pressure.make({ name: "full", read: Effect.succeed(1) })],
    ladder: shed(percent)
  }))
  yield* TestClock.adjust("1 second")
  const { admit, adopt } = Context.get(context, LoadShedding.LoadShedding)
  const isRefused = (request: LoadShedding.Request) => Effect.map(Effect.result(admit(request)), Result.isFailure)
  return {
    isRefused,
    adopt: (percent: number) => adopt(shed(percent)),
    /** How many of some requests are refused. */
    count: (times: number, request: (n: number) => LoadShedding.Request) =>
      Effect.map(
        Effect.forEach(Arr.range(1, times), (n) => isRefused(request(n))),
        (answers) => answers.filter((refused) => refused).length
      )
  }
})

describe("the share of a class", () => {
  it.effect("is refused exactly and evenly, for each tenant", () =>
    Effect.gen(function*() {
      for (const share of [0, 1, 10, 25, 33, 75, 99, 100]) {
        const { count } = yield* open(share)
        for (const tenant of [undefined, "a", "b"]) {
          const request = (): LoadShedding.Request => ({ priority: "P2", tenant })
          assert.strictEqual(yield* count(1000, request), 10 * share, `${share} % of ${tenant}`)
          assert.strictEqual(yield* count(100, request), share, `${share} % of ${tenant}`)
        }
      }
    }))

  it.effect("is refused also when every request comes under a new name", () =>
    Effect.gen(function*() {
      const { count } = yield* open(50)
      assert.closeTo(yield* count(20_000, (n) => ({ priority: "P3", tenant: `tenant ${n}` })), 10_000, 20)
    }))

  it.effect("is taken from the tenants that ask for most", () =>
    Effect.gen(function*() {
      const { count } = yield* open(50)
      const second = Effect.gen(function*() {
        const modest = yield* count(10, () => ({ priority: "P1", tenant: "modest" }))
        const usual = yield* count(30, () => ({ priority: "P1", tenant: "usual" }))
        const flood = yield* count(200, () => ({ priority: "P1", tenant: "flood" }))
        yield* TestClock.adjust("1 second")
        return { modest, usual, flood }
      })
      yield* second
      const seconds = yield* Effect.all(Arr.makeBy(20, () => second))
      // Of 240 a second 120 are kept: 10, 30, and 80 for the flood.
      assert.isTrue(seconds.every(({ modest, usual }) => modest === 0 && usual === 0))
      assert.strictEqual(seconds.reduce((sum, { flood }) => sum + flood, 0), 20 * 120)
    }))

  it.effect("is the same for all tenants that ask for the same", () =>
    Effect.gen(function*() {
      const { count } = yield* open(50)
      const tenants = ["a", "b", "c"]
      yield* Effect.forEach(tenants, (tenant) => count(100, () => ({ tenant })))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        yield* Effect.forEach(tenants, (tenant) => count(100, () => ({ tenant }))),
        [50, 50, 50]
      )
    }))

  it.effect("takes whole flows, and those and more when it grows", () =>
    Effect.gen(function*() {
      const { adopt, isRefused } = yield* open(25)
      const flows = Arr.makeBy(1000, (n) => `flow-${n}`)
      const refused = Effect.filter(flows, (flow) =>
        Effect.map(
          Effect.all(Arr.makeBy(4, () => isRefused({ priority: "P2", tenant: "shop", flow }))),
          (steps) => {
            assert.strictEqual(new Set(steps).size, 1)
            return steps[0] === true
          }
        ))
      const quarter = yield* refused
      yield* adopt(50)
      const half = yield* refused
      assert.closeTo(quarter.length, 250, 50)
      assert.closeTo(half.length, 500, 60)
      assert.isTrue(quarter.every((flow) => half.includes(flow)))
    }))
})
