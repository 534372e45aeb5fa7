/**
 * How much of each class is shed at which load, and how that comes back down.
 *
 * **Details**
 *
 * A ladder has steps. On each, a share of every class is refused; P0 never is, a lower class never less than a higher
 * one, and a higher step never less than a lower one. A ladder that breaks this is refused by name when it is made.
 *
 * Shares go up at once. A step is left only after the load was below its threshold by a margin for a while, and then
 * the shares go down slowly: what was shed comes back as retries, and a sudden welcome would be the next overload.
 * Only time that was watched counts: neither a clock that jumps nor a process that was stopped shortens the way down.
 *
 * The functions here are pure. `LoadShedding` feeds them with measured load.
 *
 * **Example** (A ladder of two steps)
 *
 * ```ts import.meta.vitest
 * import * as Result from "effect/Result"
 * import * as ShedLadder from "@strata/resilience/shedding/ShedLadder"
 *
 * const ladder = Result.getOrThrow(ShedLadder.parse("0.80=10/20/40 0.95=25/50/100"))
 * const state = ShedLadder.observe(ladder, ShedLadder.calm, { load: 0.82, now: 0 })
 * state.shares // => { P0: 0, P1: 10, P2: 20, P3: 40 }
 * ```
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Priority from "../scheduling/Priority.ts"

const TypeId = "~@strata/resilience/shedding/ShedLadder"

/**
 * The percentage of each class that is refused.
 *
 * @category models
 * @since 0.1.0
 */
export type Shares = Readonly<Record<Priority.Priority, number>>

/**
 * What is refused from a load on. A load of 1 is saturation.
 *
 * @category models
 * @since 0.1.0
 */
export interface Step {
  readonly load: number
  readonly shed: Shares
}

/**
 * What a ladder is made from.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** By rising load. */
  readonly steps: ReadonlyArray<Step>
  /** How far below its threshold the load must be for a step to be left. Default: 0.05. */
  readonly margin?: number | undefined
  /** For how long. Default: 30 seconds. */
  readonly hold?: Duration.Input | undefined
  /** How many points a minute a share goes down. Default: 10. */
  readonly ramp?: number | undefined
}

/**
 * A ladder that was checked: see `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface ShedLadder {
  readonly [TypeId]: typeof TypeId
  readonly steps: Arr.NonEmptyReadonlyArray<Step>
  readonly margin: number
  readonly hold: Duration.Duration
  readonly ramp: number
}

/**
 * A ladder that would do harm, and why.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidLadder extends Schema.TaggedError<InvalidLadder>("@strata/resilience/ShedLadder/InvalidLadder")(
  "InvalidLadder",
  { problem: Schema.String }
) {
  override get message(): string {
    return `The shed ladder cannot be used: ${this.problem}`
  }
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Makes a ladder, or says what is wrong with it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { hold, margin = 0.05, ramp = 10, steps }: Options
): Result.Result<ShedLadder, InvalidLadder> => {
  const heldFor = hold === undefined ? Duration.seconds(30) : Duration.fromInputUnsafe(hold)
  const problem = findStepsProblem(steps) ?? findDescentProblem(steps, margin, heldFor, ramp)
  if (problem !== undefined || !Arr.isReadonlyArrayNonEmpty(steps)) {
    return Result.fail(new InvalidLadder({ problem: problem ?? "it has no step" }))
  }
  return Result.succeed({ [TypeId]: TypeId, steps, margin, hold: heldFor, ramp })
}

const findStepsProblem = (steps: ReadonlyArray<Step>): string | undefined => {
  let below: Step = { load: 0, shed: nothing }
  for (const step of steps) {
    if (!Number.isFinite(step.load) || step.load <= below.load) {
      return `the step at ${step.load} does not come after ${below.load}`
    }
    const problem = findSharesProblem(step, below)
    if (problem !== undefined) return problem
    below = step
  }
  return undefined
}

const findSharesProblem = ({ load, shed }: Step, below: Step): string | undefined => {
  if (shed.P0 !== 0) return `the step at ${load} sheds P0, which is never shed`
  let higher: Priority.Priority = "P0"
  for (const priority of Priority.all) {
    const share = shed[priority]
    if (!(share >= 0 && share <= 100)) return `the step at ${load} sheds ${share} % of ${priority}`
    if (share < shed[higher]) {
      return `the step at ${load} sheds ${shed[higher]} % of ${higher} but only ${share} % of ${priority}, ` +
        "which matters less"
    }
    if (share < below.shed[priority]) {
      return `the step at ${load} sheds ${share} % of ${priority}, less than ${below.shed[priority]} % at ${below.load}`
    }
    higher = priority
  }
  return undefined
}

const findDescentProblem = (
  [first]: ReadonlyArray<Step>,
  margin: number,
  hold: Duration.Duration,
  ramp: number
): string | undefined => {
  if (first !== undefined && !(margin >= 0 && margin < first.load)) {
    return `its margin is ${margin}: expected 0 or more, and less than ${first.load}`
  }
  if (!Duration.isFinite(hold)) return "its hold has no end"
  return ramp > 0 && ramp < Infinity ? undefined : `its ramp is ${ramp} points a minute: expected more than 0`
}

/**
 * Reads steps as text, `0.80=25/25/25 0.85=25/50/50`: the load, and the percentages of P1, P2 and P3.
 *
 * @category constructors
 * @since 0.1.0
 */
export const parse = (
  text: string,
  options: Omit<Options, "steps"> = {}
): Result.Result<ShedLadder, InvalidLadder> => {
  const steps: Array<Step> = []
  for (const word of text.split(/\s+/).filter((word) => word !== "")) {
    const match = /^([\d.]+)=([\d.]+)\/([\d.]+)\/([\d.]+)$/.exec(word)
    if (match === null) {
      return Result.fail(new InvalidLadder({ problem: `"${word}" is no step; expected one as 0.80=25/25/25` }))
    }
    const [load, P1, P2, P3] = [Number(match[1]), Number(match[2]), Number(match[3]), Number(match[4])]
    steps.push({ load, shed: { P0: 0, P1, P2, P3 } })
  }
  return make({ ...options, steps })
}

/**
 * The ladder as one line, as `parse` reads it.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = ({ steps }: ShedLadder): string =>
  steps.map(({ load, shed }) => `${load}=${shed.P1}/${shed.P2}/${shed.P3}`).join(" ")

/**
 * Nothing is shed.
 *
 * @category constants
 * @since 0.1.0
 */
export const nothing: Shares = { P0: 0, P1: 0, P2: 0, P3: 0 }

/**
 * From 80 % load on a quarter of P1 and below, from 85 % half of P2 and below, from 90 % three quarters of P3.
 *
 * @category constants
 * @since 0.1.0
 */
export const standard: ShedLadder = {
  [TypeId]: TypeId,
  steps: [
    { load: 0.8, shed: { P0: 0, P1: 25, P2: 25, P3: 25 } },
    { load: 0.85, shed: { P0: 0, P1: 25, P2: 50, P3: 50 } },
    { load: 0.9, shed: { P0: 0, P1: 25, P2: 50, P3: 75 } }
  ],
  margin: 0.05,
  hold: Duration.seconds(30),
  ramp: 10
}

// ----------------------------------------------------------------------------------------------------------- state

/**
 * Where on a ladder somebody stands.
 *
 * @category models
 * @since 0.1.0
 */
export interface State {
  /** 0 below all steps, 1 on the first. */
  readonly level: number
  /** What is shed now: what the level says, or more while it goes down. */
  readonly shares: Shares
  /** The monotonic clock when the load was last seen, in milliseconds. */
  readonly at: number | undefined
  /** Milliseconds that were watched. */
  readonly watched: number
  /** For each step, since when the load has been below its margin, in milliseconds watched. */
  readonly calmSince: ReadonlyArray<number | undefined>
}

/**
 * Another step was taken.
 *
 * @category models
 * @since 0.1.0
 */
export interface LevelChange {
  readonly from: number
  readonly to: number
  readonly load: number
  /** The sensor that made the load rise or is blind, `calm` on the way down, `ladder` when that was changed. */
  readonly cause: string
}

/**
 * Where everybody begins.
 *
 * @category constants
 * @since 0.1.0
 */
export const calm: State = { level: 0, shares: nothing, at: undefined, watched: 0, calmSince: [] }

/** Two observations further apart were not watched in between: so much of the gap counts, in milliseconds. */
const longestGap = 5000

/**
 * Where one stands after seeing a load. `now` is a monotonic clock's, in milliseconds.
 *
 * @category transitions
 * @since 0.1.0
 */
export const observe = (
  ladder: ShedLadder,
  state: State,
  { load, now }: { readonly load: number; readonly now: number }
): State => {
  const elapsed = state.at === undefined ? 0 : Math.min(Math.max(0, now - state.at), longestGap)
  const watched = state.watched + elapsed
  const calmSince = ladder.steps.map(({ load: threshold }, index) =>
    load < threshold - ladder.margin ? state.calmSince[index] ?? watched : undefined
  )
  const hold = Duration.toMillis(ladder.hold)
  let level = 0
  for (const [index, step] of ladder.steps.entries()) {
    const since = calmSince[index]
    const held = index < state.level && (since === undefined || watched - since < hold)
    if (held || load >= step.load) level = index + 1
  }
  // The way down since the last observation began from where the level was then.
  const descended = descend(state.shares, sharesAt(ladder, state.level), (ladder.ramp * elapsed) / 60_000)
  return { level, shares: descend(descended, sharesAt(ladder, level), 0), at: now, watched, calmSince }
}

/** What a level sheds. */
const sharesAt = ({ steps }: ShedLadder, level: number): Shares =>
  level === 0 ? nothing : (steps[level - 1] ?? Arr.lastNonEmpty(steps)).shed

/** Less by some points, but not less than the target. One rule for all classes, so their order stays. */
const descend = (from: Shares, target: Shares, points: number): Shares => ({
  P0: 0,
  P1: Math.max(target.P1, from.P1 - points),
  P2: Math.max(target.P2, from.P2 - points),
  P3: Math.max(target.P3, from.P3 - points)
})
