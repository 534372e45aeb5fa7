import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Loop from "@strata/benchmarks/resilience/Loop"
import * as Parts from "@strata/benchmarks/resilience/Parts"
import * as StrataParts from "@strata/benchmarks/resilience/StrataParts"
import { BenchmarkError } from "@strata/benchmarks/Suite"
import * as Effect from "effect/Effect"

const seconds = 0.01

/** Runs a lane of calls, of which every `every`th is made. */
const run = (make: (call: () => number) => Loop.Call, every = 1) => {
  let asked = 0
  let done = 0
  const call = make(() => ++asked % every === 0 ? ++done : done)
  return Loop.lane({ system: "A", work: "calling", call, done: () => done }).run(seconds, (timed) => timed)
}

const calls: ReadonlyArray<readonly [string, (call: () => number) => Loop.Call]> = [
  ["effects", (call) => Loop.effect(() => Effect.sync(call))],
  ["promises", (call) => Loop.promise(() => Promise.resolve(call()))],
  ["effects from outside", (call) => Loop.effectFromOutside(() => Effect.sync(call))]
]

describe("a loop of calls", () => {
  for (const [what, make] of calls) {
    it.live(`says how many ${what} there are in a second`, () =>
      Effect.gen(function*() {
        const [sample] = yield* run(make)
        assert.strictEqual(sample?.unit, "ops/s")
        assert.isAbove(sample!.value, 1000)
      }))

    it.live(`fails when not all ${what} were made`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(run(make, 2))
        assert.match(error.message, /^calling by A: \d+ of \d+ calls were made$/)
      }))
  }

  it.live("fails with the call that fails", () =>
    Effect.gen(function*() {
      const errors = yield* Effect.all([
        Effect.flip(run(() => Loop.effect(() => new BenchmarkError({ message: "broken" })))),
        Effect.flip(run(() => Loop.promise(() => Promise.reject(new Error("broken")))))
      ])
      assert.deepStrictEqual(errors.map(({ message }) => message), [
        "calling by A: broken",
        "calling by A: broken"
      ])
    }))
})

describe("every part", () => {
  it.live("makes the call once and answers what it answers", () =>
    Effect.gen(function*() {
      let calls = 0
      const parts = yield* StrataParts.make(Effect.sync(() => ++calls))
      for (const [index, part] of Parts.all.entries()) {
        assert.strictEqual(yield* parts[part](), index + 1)
        assert.strictEqual(calls, index + 1)
      }
    }).pipe(Effect.provide(NodeServices.layer)))
})
