/**
 * What is done about failures of one class: steps, one after the other.
 *
 * **When to use**
 *
 * Put actions together for an `ErrorStrategy`, which has one for each class of failures.
 *
 * **Details**
 *
 * | step | |
 * | --- | --- |
 * | `retry` | tries again while the policy has a try left; the steps after it are for what failed for good |
 * | `circuitBreaker` | counts the failure in a circuit, and keeps work back while that is open |
 * | `deadLetter` | puts the work aside for somebody to look at, and goes on |
 * | `ignore` | says so in the log, and goes on |
 * | `stop` | gives the failure back, and whoever feeds the handler stops |
 * | `alert` | tells people |
 *
 * An action without an end of its own gives the failure back, unless an alert is its last step: who is told goes on.
 *
 * **Example** (Tries, then puts aside and tells somebody)
 *
 * ```ts import.meta.vitest
 * import { pipe } from "effect/Function"
 * import * as ErrorAction from "@strata/resilience/errors/ErrorAction"
 * import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
 *
 * const action = pipe(
 *   ErrorAction.retry(RetryPolicy.realtime),
 *   ErrorAction.andThen(ErrorAction.deadLetter()),
 *   ErrorAction.andThen(ErrorAction.alert("warning"))
 * )
 * ErrorAction.format(action)
 * // => "retry (3 tries, waits 25ms × 2, full jitter, 1s in total), then dead letter, then alert (warning)"
 * ```
 *
 * @since 0.1.0
 */
import { dual } from "effect/Function"
import type * as Alert from "../alerts/Alert.ts"
import type { Alerts } from "../alerts/Alerts.ts"
import type { CircuitBreaker } from "../breaker/CircuitBreaker.ts"
import type { CircuitBreakerError } from "../breaker/CircuitBreakerError.ts"
import type * as FailureClass from "../retry/FailureClass.ts"
import * as RetryPolicy from "../retry/RetryPolicy.ts"
import type { DeadLetterNotKept, DeadLetters } from "./DeadLetters.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * @category models
 * @since 0.1.0
 */
export interface Retry {
  readonly _tag: "Retry"
  readonly policy: RetryPolicy.RetryPolicy
}

/**
 * @category models
 * @since 0.1.0
 */
export interface ThroughCircuit {
  readonly _tag: "CircuitBreaker"
  readonly key: string
}

/**
 * @category models
 * @since 0.1.0
 */
export interface ToDeadLetters {
  readonly _tag: "DeadLetter"
  readonly reason: string | undefined
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Ignore {
  readonly _tag: "Ignore"
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Stop {
  readonly _tag: "Stop"
}

/**
 * @category models
 * @since 0.1.0
 */
export interface RaiseAlert {
  readonly _tag: "Alert"
  readonly severity: Alert.Severity
}

/**
 * One step of an action.
 *
 * @category models
 * @since 0.1.0
 */
export type Step = Retry | ThroughCircuit | ToDeadLetters | Ignore | Stop | RaiseAlert

/**
 * The steps that are done about a failure.
 *
 * @category models
 * @since 0.1.0
 */
export type ErrorAction<S extends Step = Step> = ReadonlyArray<S>

/**
 * What is needed to do some steps.
 *
 * @category models
 * @since 0.1.0
 */
export type Services<S extends Step> = S extends ThroughCircuit ? CircuitBreaker
  : S extends ToDeadLetters ? DeadLetters
  : S extends RaiseAlert ? Alerts
  : never

/**
 * What may go wrong in doing some steps.
 *
 * @category models
 * @since 0.1.0
 */
export type Errors<S extends Step> = S extends ThroughCircuit ? CircuitBreakerError
  : S extends ToDeadLetters ? DeadLetterNotKept
  : never

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Tries again, as the policy says for the class of the failure.
 *
 * @category constructors
 * @since 0.1.0
 */
export const retry = (policy: RetryPolicy.RetryPolicy): ErrorAction<Retry> => [{ _tag: "Retry", policy }]

/**
 * Counts the failure in the circuit with this key. All tries of one call are one failure there.
 *
 * @category constructors
 * @since 0.1.0
 */
export const circuitBreaker = (key: string): ErrorAction<ThroughCircuit> => [{ _tag: "CircuitBreaker", key }]

/**
 * Puts the work aside. Default reason: what went wrong, in words.
 *
 * @category constructors
 * @since 0.1.0
 */
export const deadLetter = (reason?: string): ErrorAction<ToDeadLetters> => [{ _tag: "DeadLetter", reason }]

/**
 * Goes on as if nothing had happened.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ignore: ErrorAction<Ignore> = [{ _tag: "Ignore" }]

/**
 * Gives the failure back.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stop: ErrorAction<Stop> = [{ _tag: "Stop" }]

/**
 * Tells people.
 *
 * @category constructors
 * @since 0.1.0
 */
export const alert = (severity: Alert.Severity): ErrorAction<RaiseAlert> => [{ _tag: "Alert", severity }]

/**
 * The steps of one action, then those of another.
 *
 * @category combinators
 * @since 0.1.0
 */
export const andThen: {
  <S2 extends Step>(that: ErrorAction<S2>): <S extends Step>(self: ErrorAction<S>) => ErrorAction<S | S2>
  <S extends Step, S2 extends Step>(self: ErrorAction<S>, that: ErrorAction<S2>): ErrorAction<S | S2>
} = dual(
  2,
  <S extends Step, S2 extends Step>(self: ErrorAction<S>, that: ErrorAction<S2>): ErrorAction<S | S2> => [
    ...self,
    ...that
  ]
)

// -------------------------------------------------------------------------------------------------------- reading

/**
 * A step that cannot stand where it stands, counted from 1, and why.
 *
 * @category models
 * @since 0.1.0
 */
export interface Problem {
  readonly step: number
  readonly problem: string
}

/**
 * What is wrong with an action for a class of failures; `undefined` when nothing is.
 *
 * @category getters
 * @since 0.1.0
 */
export const findProblem = (
  action: ErrorAction,
  failureClass: FailureClass.FailureClass["_tag"]
): Problem | undefined => {
  if (action.length === 0) return { step: 1, problem: "there is no step: say ignore where nothing is to be done" }
  for (const [index, step] of action.entries()) {
    const problem = problemOf(step, failureClass) ?? problemAfter(action.slice(0, index), step)
    if (problem !== undefined) return { step: index + 1, problem }
  }
  return undefined
}

const problemOf = (step: Step, failureClass: FailureClass.FailureClass["_tag"]): string | undefined => {
  if (step._tag === "Retry" && (failureClass === "Permanent" || failureClass === "Fatal")) {
    return "retry does nothing about what fails the same way every time"
  }
  return step._tag === "CircuitBreaker" && step.key === "" ? "circuitBreaker has no key" : undefined
}

const problemAfter = (before: ErrorAction, step: Step): string | undefined => {
  if (step._tag === "Alert") {
    return before.some(({ _tag }) => _tag === "Alert") ? "alert is there already: one is enough" : undefined
  }
  const end = before.find(isEnd)
  if (end !== undefined) return `${nameOf(step)} comes after ${nameOf(end)}, after which only alert may come`
  if (step._tag === "Retry" && before.length > 0) return `retry comes after ${nameOf(before[0]!)}: it must come first`
  return step._tag === "CircuitBreaker" && before.some(({ _tag }) => _tag === "CircuitBreaker")
    ? "circuitBreaker is there already: a failure counts in one circuit"
    : undefined
}

const isEnd = (step: Step): step is ToDeadLetters | Ignore | Stop =>
  step._tag === "DeadLetter" || step._tag === "Ignore" || step._tag === "Stop"

const nameOf = (step: Step): string =>
  ({
    Retry: "retry",
    CircuitBreaker: "circuitBreaker",
    DeadLetter: "deadLetter",
    Ignore: "ignore",
    Stop: "stop",
    Alert: "alert"
  })[step._tag]

/**
 * How an action ends when no try is left.
 *
 * @category getters
 * @since 0.1.0
 */
export const endOf = (action: ErrorAction): ToDeadLetters | Ignore | Stop =>
  action.find(isEnd) ?? (action.at(-1)?._tag === "Alert" ? { _tag: "Ignore" } : { _tag: "Stop" })

/**
 * An action as one line to read.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (action: ErrorAction): string => action.map(formatStep).join(", then ")

const formatStep = (step: Step): string => {
  switch (step._tag) {
    case "Retry":
      return `retry (${RetryPolicy.format(step.policy)})`
    case "CircuitBreaker":
      return `circuit "${step.key}"`
    case "DeadLetter":
      return step.reason === undefined ? "dead letter" : `dead letter (${step.reason})`
    case "Ignore":
      return "ignore"
    case "Stop":
      return "stop"
    case "Alert":
      return `alert (${step.severity})`
  }
}
