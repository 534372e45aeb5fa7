import { assert, describe, it } from "@effect/vitest"
import * as Report from "@strata/benchmarks/Report"
import type * as Rounds from "@strata/benchmarks/Rounds"
import type { Goal, Unit } from "@strata/benchmarks/Suite"

const row = (system: string, work: string, unit: Unit, median: number): Rounds.Row => ({
  work,
  system,
  unit,
  median,
  min: median,
  max: median,
  runs: 5,
  disturbed: 0,
  client: 0,
  server: 0
})

const rows = [
  row("ours", "append", "ops/s", 900),
  row("peer", "append", "ops/s", 100),
  row("peer", "append in hundreds", "ops/s", 300),
  row("ours", "latency", "ms", 25)
]

const goal = (work: string, theirs: Goal["theirs"], atLeast: number): Goal => ({
  ours: { work, system: "ours" },
  against: "peer",
  theirs,
  goal: atLeast
})

describe("goals", () => {
  it("compare with the best that the peer can do", () => {
    const theirs = [{ work: "append", system: "peer" }, { work: "append in hundreds", system: "peer" }]
    assert.deepStrictEqual(Report.judge([goal("append", theirs, 4)], rows), [
      { work: "append", against: "peer", ratio: 3, goal: 4, met: false }
    ])
  })

  it("have a larger ratio when a time is shorter", () => {
    assert.deepStrictEqual(Report.judge([goal("latency", 50, 1)], rows), [
      { work: "latency", against: "peer", ratio: 2, goal: 1, met: true }
    ])
  })

  it("are not judged when a row was not measured", () => {
    assert.deepStrictEqual(
      Report.judge([goal("read", 50, 1), goal("append", [{ work: "x", system: "y" }], 1)], rows),
      []
    )
  })
})
