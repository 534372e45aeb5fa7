import { assert, describe, it } from "@effect/vitest"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as ShedLadder from "@strata/resilience/shedding/ShedLadder"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Result from "effect/Result"

const { standard } = ShedLadder

/** Shows a load every second for some seconds. */
const watch = (state: ShedLadder.State, load: number, seconds: number): ShedLadder.State => {
  let next = state
  for (let second = 0; second < seconds; second++) {
    next = ShedLadder.observe(standard, next, { load, now: (next.at ?? -1000) + 1000 })
  }
  return next
}

const step = (load: number, P1: number, P2: number, P3: number, P0 = 0): ShedLadder.Step => ({
  load,
  shed: { P0, P1, P2, P3 }
})

describe("a shed ladder", () => {
  for (
    const [what, steps, problem] of [
      ["no step", [], "it has no step"],
      ["P1 shed and not P2", [step(0.8, 25, 0, 25)], "sheds 25 % of P1 but only 0 % of P2, which matters less"],
      ["P2 shed more than P3", [step(0.8, 25, 50, 25)], "sheds 50 % of P2 but only 25 % of P3"],
      ["P0 shed", [step(0.8, 25, 25, 25, 5)], "sheds P0, which is never shed"],
      ["steps that fall", [step(0.9, 25, 25, 25), step(0.8, 25, 50, 50)], "the step at 0.8 does not come after 0.9"],
      [
        "less on a higher step",
        [step(0.8, 25, 25, 50), step(0.9, 25, 25, 25)],
        "sheds 25 % of P3, less than 50 % at 0.8"
      ],
      ["more than all", [step(0.8, 25, 25, 101)], "sheds 101 % of P3"],
      ["a share that is no number", [step(0.8, NaN, 25, 25)], "sheds NaN % of P1"],
      ["a load that is no number", [step(NaN, 25, 25, 25)], "the step at NaN does not come after 0"]
    ] as const
  ) {
    it(`is refused by name: ${what}`, () => {
      const error = Result.getOrThrow(Result.flip(ShedLadder.make({ steps })))
      assert.include(error.message, problem)
    })
  }

  it("is refused when there is no way down", () => {
    const steps = [step(0.8, 25, 25, 25)]
    for (const options of [{ ramp: 0 }, { ramp: NaN }, { margin: 0.8 }, { margin: -0.1 }, { hold: Infinity }]) {
      assert.isTrue(Result.isFailure(ShedLadder.make({ steps, ...options })), Object.entries(options).join())
    }
  })

  it("is read from the text it is written as", () => {
    const text = "0.8=25/25/25 0.85=25/50/50 0.9=25/50/75"
    assert.strictEqual(ShedLadder.format(standard), text)
    assert.deepStrictEqual(Result.getOrThrow(ShedLadder.parse(text)), standard)
    const error = Result.getOrThrow(Result.flip(ShedLadder.parse("0.8=25/25")))
    assert.include(error.message, "\"0.8=25/25\" is no step; expected one as 0.80=25/25/25")
  })

  it("goes up at once, to the step of the load", () => {
    for (const [load, level] of [[0, 0], [0.79, 0], [0.8, 1], [0.85, 2], [0.9, 3], [1, 3], [5, 3]] as const) {
      assert.strictEqual(ShedLadder.observe(standard, ShedLadder.calm, { load, now: 0 }).level, level, `${load}`)
    }
  })

  it("holds its shares for 30 seconds of calm, then lowers them by 10 points a minute", () => {
    let state = watch(watch(ShedLadder.calm, 0.95, 10), 0.5, 31)
    assert.deepStrictEqual([state.level, state.shares.P3], [0, 75])
    for (const P3 of [65, 55, 45, 35, 25, 15, 5, 0]) {
      state = watch(state, 0.5, 60)
      assert.closeTo(state.shares.P3, P3, 1e-9)
    }
    assert.deepStrictEqual(state.shares, ShedLadder.nothing)
  })

  it("holds while the load is within the margin of the step, and goes to the next that holds", () => {
    const high = watch(ShedLadder.calm, 0.95, 1)
    assert.strictEqual(watch(high, 0.86, 600).level, 3)
    const lower = watch(high, 0.82, 600)
    assert.deepStrictEqual([lower.level, lower.shares], [2, { P0: 0, P1: 25, P2: 50, P3: 50 }])
    // Calm that is interrupted begins again.
    const restless = watch(watch(watch(high, 0.5, 25), 0.86, 1), 0.5, 25)
    assert.deepStrictEqual([restless.level, restless.shares.P3], [3, 75])
  })

  it("is back on top at once when the load returns half-way down", () => {
    const halfway = watch(watch(ShedLadder.calm, 0.95, 1), 0.5, 31 + 180)
    assert.closeTo(halfway.shares.P3, 45, 1e-9)
    const back = watch(halfway, 0.9, 1)
    assert.deepStrictEqual([back.level, back.shares], [3, { P0: 0, P1: 25, P2: 50, P3: 75 }])
    // Half-way back it takes what the step says, but does not lower what is still shed.
    assert.closeTo(watch(halfway, 0.8, 1).shares.P3, 45, 0.2)
  })

  it("does not flutter when the load goes up and down around a threshold", () => {
    let state = ShedLadder.calm
    let changes = 0
    for (let second = 0; second < 60; second++) {
      const next = watch(state, second % 2 === 0 ? 0.79 : 0.81, 1)
      if (next.level !== state.level) changes++
      state = next
    }
    assert.isAtMost(changes, 2)
    assert.strictEqual(state.level, 1)
  })

  it("comes down by the time that was watched, not by what a clock says after a pause", () => {
    const high = watch(ShedLadder.calm, 0.95, 1)
    const now = (high.at ?? 0) + 3_600_000
    const woken = ShedLadder.observe(standard, high, { load: 0.5, now })
    assert.deepStrictEqual([woken.level, woken.shares.P3], [3, 75])
    const descending = watch(high, 0.5, 60)
    const later = ShedLadder.observe(standard, descending, { load: 0.5, now: (descending.at ?? 0) + 3_600_000 })
    assert.isAbove(later.shares.P3, descending.shares.P3 - 1)
    const backwards = ShedLadder.observe(standard, descending, { load: 0.5, now: 0 })
    assert.deepStrictEqual(backwards.shares, descending.shares)
  })

  it.effect("never sheds P0, nor a class less than a higher one, whatever the load does", () =>
    Effect.gen(function*() {
      let state = ShedLadder.calm
      let load = 0.5
      let now = 0
      let levels = 0
      for (let walked = 0; walked < 100_000; walked++) {
        const dice = yield* Random.next
        load = dice < 0.01 ? 1.2 * (yield* Random.next) : Math.min(1.2, Math.max(0, load + 0.1 * (dice - 0.5)))
        now += 10_000 * (yield* Random.next) ** 4
        const next = ShedLadder.observe(standard, state, { load, now })
        if (next.level !== state.level) levels++
        state = next
        const shares = Priority.all.map((priority) => state.shares[priority])
        const least = standard.steps[state.level - 1]?.shed ?? ShedLadder.nothing
        const inOrder = shares.every((share, index) => share >= (shares[index - 1] ?? 0) && share <= 75)
        const enough = Priority.all.every((priority) => state.shares[priority] >= least[priority])
        if (shares[0] !== 0 || !inOrder || !enough) {
          assert.fail(`at step ${walked}: ${shares.join("/")} on level ${state.level}`)
        }
      }
      assert.isAbove(levels, 100)
    }).pipe(Random.withSeed("a walk")))
})
