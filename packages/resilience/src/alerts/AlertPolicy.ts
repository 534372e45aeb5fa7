/**
 * Who is told of an alert, when, and how often: one value that can be read and checked.
 *
 * **When to use**
 *
 * Use `make` with the steps of an escalation where more than one channel stands by. Without steps all channels are told
 * at once.
 *
 * **Details**
 *
 * - A new alert is told at once. What is raised under its key in the `groupWindow` after that is only counted, and told
 *   as one summary when the window ends.
 * - After that, an alert that is still active is told again each `repeatAfter`, however often it is raised.
 * - A step of the escalation is taken when the alert was active so long and nobody acknowledged it. Who has been told
 *   once is told of all that follows.
 * - Acknowledging stops both. An alert that gets worse is told at once, has to be acknowledged again, and its escalation
 *   begins anew.
 *
 * **Example** (First the team's room, after five minutes whoever is on call)
 *
 * ```ts import.meta.vitest
 * import * as Result from "effect/Result"
 * import * as AlertPolicy from "@strata/resilience/alerts/AlertPolicy"
 *
 * const policy = Result.getOrThrow(AlertPolicy.make({
 *   steps: [{ channels: ["log", "room"] }, { after: "5 minutes", channels: ["pager"], severity: "critical" }]
 * }))
 * AlertPolicy.format(policy)
 * // => "at once: log, room; after 5m: pager from critical on; summary after 1m, again after 1h"
 * ```
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Alert from "./Alert.ts"

const TypeId = "~@strata/resilience/alerts/AlertPolicy"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * A step of an escalation.
 *
 * @category models
 * @since 0.1.0
 */
export interface Step {
  /** How long the alert must be active and not acknowledged. */
  readonly after: Duration.Duration
  /** The names of the channels that are told from then on. */
  readonly channels: Arr.NonEmptyReadonlyArray<string>
  /** Alerts that are less severe do not take this step. */
  readonly severity: Alert.Severity
}

/**
 * A policy that was checked: see `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface AlertPolicy {
  readonly [TypeId]: typeof TypeId
  /** None later than the next. Without any, all channels are told at once. */
  readonly steps: ReadonlyArray<Step>
  readonly groupWindow: Duration.Duration
  readonly repeatAfter: Duration.Duration
  readonly capacity: number
}

/**
 * What a policy is made from.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** `after` is 0 and `severity` info when not said. Default: all channels at once. */
  readonly steps?:
    | ReadonlyArray<{
      readonly after?: Duration.Input | undefined
      readonly channels: ReadonlyArray<string>
      readonly severity?: Alert.Severity | undefined
    }>
    | undefined
  /** For how long equal alerts are counted before the summary. Default: 1 minute. */
  readonly groupWindow?: Duration.Input | undefined
  /** When an alert that is still active is told again. Default: 1 hour. */
  readonly repeatAfter?: Duration.Input | undefined
  /** How many alerts may be active. The oldest of the least severe makes room for one more. Default: 1000. */
  readonly capacity?: number | undefined
}

/**
 * A policy that would do harm, and why.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidAlertPolicy
  extends Schema.TaggedError<InvalidAlertPolicy>("@strata/resilience/AlertPolicy/InvalidAlertPolicy")(
    "InvalidAlertPolicy",
    { problem: Schema.String }
  )
{
  override get message(): string {
    return `The alert policy cannot be used: ${this.problem}`
  }
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Makes a policy, or says what is wrong with it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Result.Result<AlertPolicy, InvalidAlertPolicy> => {
  const { capacity = 1000 } = options
  const groupWindow = Duration.fromInputUnsafe(options.groupWindow ?? "1 minute")
  const repeatAfter = Duration.fromInputUnsafe(options.repeatAfter ?? "1 hour")
  const steps: Array<Step> = []
  for (const [index, { after, channels, severity = "info" }] of (options.steps ?? []).entries()) {
    const step = { after: Duration.fromInputUnsafe(after ?? 0), severity }
    const problem = findStepProblem(step.after, steps.at(-1)?.after)
    if (problem !== undefined) return invalid(`step ${index + 1} ${problem}`)
    if (!Arr.isReadonlyArrayNonEmpty(channels)) return invalid(`step ${index + 1} names no channel`)
    steps.push({ ...step, channels })
  }
  if (!(Duration.isFinite(groupWindow) && Duration.isPositive(groupWindow))) {
    return invalid(`its groupWindow is ${Duration.format(groupWindow)}: expected a time above zero`)
  }
  if (!(Duration.isFinite(repeatAfter) && Duration.isGreaterThan(repeatAfter, groupWindow))) {
    return invalid(
      `its repeatAfter is ${Duration.format(repeatAfter)}: expected more than the groupWindow of ${
        Duration.format(groupWindow)
      }`
    )
  }
  if (!(Number.isInteger(capacity) && capacity >= 1)) return invalid(`its capacity is ${capacity}: expected 1 or more`)
  return Result.succeed({ [TypeId]: TypeId, steps, groupWindow, repeatAfter, capacity })
}

const invalid = (problem: string) => Result.fail(new InvalidAlertPolicy({ problem }))

const findStepProblem = (after: Duration.Duration, before: Duration.Duration | undefined): string | undefined => {
  if (!Duration.isFinite(after) || Duration.isNegative(after)) return `comes after ${Duration.format(after)}`
  return before !== undefined && Duration.isLessThan(after, before)
    ? `comes after ${Duration.format(after)}, which is sooner than the step before it`
    : undefined
}

/**
 * The policy without any option.
 *
 * @category constants
 * @since 0.1.0
 */
export const standard: AlertPolicy = {
  [TypeId]: TypeId,
  steps: [],
  groupWindow: Duration.minutes(1),
  repeatAfter: Duration.hours(1),
  capacity: 1000
}

/**
 * The policy for these channels, whose steps name no others; all of them at once when it has no steps.
 *
 * @category combinators
 * @since 0.1.0
 */
export const forChannels = (
  policy: AlertPolicy,
  names: ReadonlyArray<string>
): Result.Result<AlertPolicy, InvalidAlertPolicy> => {
  if (!Arr.isReadonlyArrayNonEmpty(names)) return invalid("there is no channel to tell")
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) return invalid(`two channels are named "${twice}"`)
  for (const [index, { channels }] of policy.steps.entries()) {
    const unknown = channels.find((name) => !names.includes(name))
    if (unknown !== undefined) {
      return invalid(`step ${index + 1} names "${unknown}", expected ${names.map((name) => `"${name}"`).join(" or ")}`)
    }
  }
  const steps = policy.steps.length > 0
    ? policy.steps
    : [{ after: Duration.zero, channels: names, severity: "info" } as const]
  return Result.succeed({ ...policy, steps })
}

/**
 * A policy as one line to read.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = ({ groupWindow, repeatAfter, steps }: AlertPolicy): string => {
  const told = steps.map(({ after, channels, severity }) =>
    `${Duration.isZero(after) ? "at once" : `after ${Duration.format(after)}`}: ${channels.join(", ")}${
      severity === "info" ? "" : ` from ${severity} on`
    }`
  )
  return [
    ...(told.length > 0 ? told : ["at once: all channels"]),
    `summary after ${Duration.format(groupWindow)}, again after ${Duration.format(repeatAfter)}`
  ].join("; ")
}
