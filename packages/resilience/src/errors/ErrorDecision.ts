/**
 * What comes of a failure: another try, or an end.
 *
 * **When to use**
 *
 * `ErrorStrategy.decide` finds the action by the class of the failure. Use it where attempts are stored: write the time of
 * the next attempt beside the work, or the letter, in the transaction that ends the claim.
 *
 * **Example** (The next attempt of something stored)
 *
 * ```ts import.meta.vitest
 * import * as Timestamp from "@strata/postgres/Timestamp"
 * import * as ErrorStrategy from "@strata/resilience/errors/ErrorStrategy"
 * import * as FailureClass from "@strata/resilience/retry/FailureClass"
 *
 * const at = Timestamp.fromMillis(0)
 * const failed = { failure: FailureClass.transient, attempt: 2, random: 0.5, firstAt: at, now: at }
 * const decision = ErrorStrategy.decide(ErrorStrategy.standard, failed)
 * decision._tag === "Retry" ? Timestamp.format(decision.at) : "" // => "1970-01-01T00:00:01.000000Z"
 * ```
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type * as Alert from "../alerts/Alert.ts"
import * as FailureClass from "../retry/FailureClass.ts"
import * as RetryPolicy from "../retry/RetryPolicy.ts"
import * as ErrorAction from "./ErrorAction.ts"
import * as PoisonDetection from "./PoisonDetection.ts"

/**
 * What is known of work that failed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failed extends RetryPolicy.Failed {
  /** When the first try began. */
  readonly firstAt: Timestamp.Timestamp
  readonly now: Timestamp.Timestamp
  /** What a deadline leaves. Default: there is none. */
  readonly remaining?: Duration.Duration | undefined
  /** False for work that was refused before it began. Default: true. */
  readonly begun?: boolean | undefined
  /** Why the work is not to be tried again, whatever its class. */
  readonly poison?: PoisonDetection.Poison | undefined
}

/**
 * It is to be done again: at `at`, which is `delay` from now. What is postponed does not count as an attempt.
 *
 * @category models
 * @since 0.1.0
 */
export interface Again<Tag extends "Retry" | "Postpone"> {
  readonly _tag: Tag
  readonly delay: Duration.Duration
  readonly at: Timestamp.Timestamp
}

/**
 * It is not tried any more, and these alerts are to be raised.
 *
 * - `DeadLetter`: put it aside, and go on.
 * - `Ignore`: go on.
 * - `Stop`: give the failure back, and stop whatever feeds the handler.
 *
 * @category models
 * @since 0.1.0
 */
export type End =
  | { readonly _tag: "DeadLetter"; readonly reason: string; readonly alerts: ReadonlyArray<Alert.Severity> }
  | { readonly _tag: "Ignore"; readonly alerts: ReadonlyArray<Alert.Severity> }
  | { readonly _tag: "Stop"; readonly alerts: ReadonlyArray<Alert.Severity> }

/**
 * What is to be done.
 *
 * @category models
 * @since 0.1.0
 */
export type ErrorDecision = Again<"Retry"> | Again<"Postpone"> | End

/**
 * What is to be done about a failure, by the action of its class.
 *
 * **Details**
 *
 * Poison is not tried again: it goes where the action ends, and to the dead letters where that is to stop.
 *
 * @category getters
 * @since 0.1.0
 */
export const decide = (action: ErrorAction.ErrorAction, failed: Failed): ErrorDecision => {
  const { failure, now, poison } = failed
  if (failed.begun === false && failure._tag === "Throttled" && Duration.isFinite(failure.retryAfter)) {
    // All who were told the same would come back at once.
    return again("Postpone", now, Duration.times(failure.retryAfter, 1 + failed.random / 2))
  }
  const elapsed = Duration.micros(now - failed.firstAt)
  const [first] = action
  if (first?._tag === "Retry" && poison === undefined) {
    const delay = RetryPolicy.nextDelay(first.policy, { ...failed, elapsed })
    if (Option.isSome(delay)) return again("Retry", now, delay.value)
  }
  const end = ErrorAction.endOf(action)
  const alerts = action.flatMap((step) => step._tag === "Alert" ? [step.severity] : [])
  if (end._tag === "DeadLetter" || end._tag === "Stop" && poison !== undefined) {
    const asked = end._tag === "DeadLetter" ? end.reason : undefined
    const reason = poison === undefined
      ? asked ?? `${FailureClass.format(failure)}, after ${tries(failed.attempt)}`
      : PoisonDetection.format(poison)
    return { _tag: "DeadLetter", reason, alerts }
  }
  return { _tag: end._tag, alerts }
}

const tries = (attempt: number): string => attempt === 1 ? "1 try" : `${attempt} tries`

const again = <Tag extends "Retry" | "Postpone">(
  _tag: Tag,
  now: Timestamp.Timestamp,
  delay: Duration.Duration
): Again<Tag> => ({
  _tag,
  delay,
  at: Timestamp.fromMicros(now + BigInt(Math.ceil(Duration.toMillis(delay) * 1000)))
})
