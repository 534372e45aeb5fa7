import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Callers from "@strata/benchmarks/Callers"
import * as Rounds from "@strata/benchmarks/Rounds"
import { BenchmarkError, type Lane } from "@strata/benchmarks/Suite"
import * as Effect from "effect/Effect"

const options: Rounds.Options = {
  rounds: 3,
  seconds: 0,
  serverPid: 0,
  warmUp: true,
  tolerance: 1,
  repeats: 0,
  say: () => Effect.void
}

/** Gives 1, 2, 3 … and notes its turns. */
const counting = (system: string, turns: Array<string>): Lane => {
  let runs = 0
  return {
    system,
    run: (_, watch) =>
      watch(Effect.sync(() => {
        turns.push(system)
        return [{ work: "counting", unit: "ops/s", value: ++runs }]
      }))
  }
}

describe("rounds", () => {
  it.effect("warm every lane up and then take turns", () =>
    Effect.gen(function*() {
      const turns: Array<string> = []
      const { rows } = yield* Rounds.measure([counting("A", turns), counting("B", turns)], options)
      assert.strictEqual(turns.join(""), "ABABABAB")
      assert.deepStrictEqual(
        rows.map(({ max, median, min, runs, system }) => ({ system, min, median, max, runs })),
        [
          { system: "A", min: 2, median: 3, max: 4, runs: 3 },
          { system: "B", min: 2, median: 3, max: 4, runs: 3 }
        ]
      )
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("repeat a run in which others took the machine, up to a bound, and mark what remains", () =>
    Effect.gen(function*() {
      const turns: Array<string> = []
      const said: Array<string> = []
      const say = (line: string) => Effect.sync(() => void said.push(line))
      const { discarded, rows } = yield* Rounds.measure([counting("A", turns)], {
        ...options,
        rounds: 1,
        warmUp: false,
        tolerance: -1,
        repeats: 1,
        say
      })
      assert.strictEqual(discarded, 1)
      assert.strictEqual(said.length, 1)
      assert.strictEqual(rows[0]?.disturbed, 1)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("end with the failure of a lane that did not do its work", () =>
    Effect.gen(function*() {
      const lazy: Lane = { system: "A", run: () => new BenchmarkError({ message: "nothing was written" }) }
      const error = yield* Effect.flip(Rounds.measure([lazy], options))
      assert.strictEqual(error.message, "nothing was written")
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("callers", () => {
  it.live("call one after the other until the time is over, and are all waited for", () =>
    Effect.gen(function*() {
      let calling = 0
      let most = 0
      const timing = yield* Callers.run({
        callers: 4,
        seconds: 0.02,
        call: () =>
          Effect.suspend(() => {
            most = Math.max(most, ++calling)
            return Effect.sleep("1 millis")
          }).pipe(Effect.ensuring(Effect.sync(() => calling--)))
      })
      assert.strictEqual(most, 4)
      assert.strictEqual(calling, 0)
      assert.strictEqual(timing.latencies.length, timing.calls)
      assert.isAtLeast(timing.seconds, 0.02)
      assert.isAtMost(Callers.percentile(timing, 0.5), Callers.percentile(timing, 0.99))
    }))
})
