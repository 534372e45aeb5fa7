import { assert, describe, it } from "@effect/vitest"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as WorkerShares from "@strata/resilience/scheduling/WorkerShares"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

describe("the shares of workers", () => {
  it("are half for real-time work, a fifth for batches and the rest for all, unless somebody says so", () => {
    assert.strictEqual(
      WorkerShares.format(WorkerShares.standard),
      "real-time 50 % (P0 alone 20 %), shared 30 %, best effort 20 %; deadlines 100ms, 30s, none"
    )
    assert.strictEqual(
      WorkerShares.format(WorkerShares.forCommands),
      "real-time 0 % (P0 alone 20 %), shared 80 %, best effort 0 %; deadlines none, none, none"
    )
  })

  it("say of every class what kind of work it is, and by when it has to be done", () => {
    assert.deepStrictEqual(Priority.all.map(WorkerShares.kindOf), ["real-time", "real-time", "background", "batch"])
    assert.deepStrictEqual(
      Priority.all.map((priority) => Duration.toMillis(WorkerShares.deadlineOf(WorkerShares.standard, priority))),
      [100, 100, 30_000, Infinity]
    )
  })

  for (
    const [what, options, problem] of [
      ["more than all", { realTime: 0.7, bestEffort: 0.4 }, "shares of 100 % together at most, got 110 %"],
      ["a reserve larger than what is left", { reserved: 0.9 }, "got 110 %"],
      ["a share below nothing", { bestEffort: -0.1 }, "bestEffort"],
      ["a share that is no number", { realTime: NaN }, "realTime"],
      ["no time at all", { realTimeDeadline: "0 millis" }, "above zero"],
      ["a time that is none", { batchDeadline: "soon" }, "batchDeadline"]
    ] as const
  ) {
    it(`are refused by name: ${what}`, () => {
      assert.throws(() => WorkerShares.make(options), new RegExp(`The shares of workers cannot be used: .*${problem}`))
    })
  }

  it.effect("are read from the environment, and refused there too", () =>
    Effect.gen(function*() {
      const read = (env: Record<string, string>) =>
        Effect.provideService(
          WorkerShares.config("STRATA_WORKERS", WorkerShares.standard),
          ConfigProvider.ConfigProvider,
          ConfigProvider.fromEnv({ env })
        )
      assert.deepStrictEqual(yield* read({}), WorkerShares.standard)
      const set = yield* read({ STRATA_WORKERS_BEST_EFFORT: "0.1", STRATA_WORKERS_BATCH_DEADLINE: "1 hour" })
      assert.deepStrictEqual([set.bestEffort, Duration.toMillis(set.batchDeadline)], [0.1, 3_600_000])
      const error = yield* Effect.flip(read({ STRATA_WORKERS_RESERVED: "0.95" }))
      assert.include(error.message, "got 115 %")
    }))
})
