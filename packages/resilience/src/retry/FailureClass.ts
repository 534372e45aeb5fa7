/**
 * What a failure means for whoever thinks of trying again: wait a little, wait as long as told, decide again, nobody
 * knows what happened, no, or stop.
 *
 * **When to use**
 *
 * Use `classify` as it is for databases, time-outs and whoever says how long to wait. Use `extend` where a caller knows
 * more about its own errors.
 *
 * **Details**
 *
 * An error that wraps another as its `reason` or `cause` is what the outermost of them that is known says.
 *
 * **Example** (A caller's own errors first)
 *
 * ```ts
 * import * as FailureClass from "@strata/resilience/retry/FailureClass"
 *
 * const classify = FailureClass.extend((error: PaymentError) =>
 *   error._tag === "CardRefused" ? FailureClass.permanent : undefined
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as SqlState from "@strata/postgres/SqlState"
import * as TransactionError from "@strata/postgres/TransactionError"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as SqlError from "effect/sql/SqlError"
import * as Deadline from "../bounds/Deadline.ts"

/**
 * The classes of failures.
 *
 * - `Transient`: nothing was done, and the same may succeed a little later.
 * - `Throttled`: nothing was done, and whoever was asked says when to ask again.
 * - `Conflict`: somebody else was first; what was decided has to be decided again.
 * - `UnknownOutcome`: it may have taken effect, as after a time-out. Only what is idempotent may be repeated.
 * - `Permanent`: repeating gives the same.
 * - `Fatal`: a bug, or something that nobody but a person can mend; whatever comes next would fail too.
 *
 * @category models
 * @since 0.1.0
 */
export type FailureClass =
  | { readonly _tag: "Transient" }
  | { readonly _tag: "Throttled"; readonly retryAfter: Duration.Duration }
  | { readonly _tag: "Conflict" }
  | { readonly _tag: "UnknownOutcome" }
  | { readonly _tag: "Permanent" }
  | { readonly _tag: "Fatal" }

/**
 * Tells the class of an error.
 *
 * @category models
 * @since 0.1.0
 */
export type Classifier<in E = unknown> = (error: E) => FailureClass

/**
 * @category constructors
 * @since 0.1.0
 */
export const transient: FailureClass = { _tag: "Transient" }

/**
 * @category constructors
 * @since 0.1.0
 */
export const throttled = (retryAfter: Duration.Input): FailureClass => ({
  _tag: "Throttled",
  retryAfter: Duration.max(Duration.fromInputUnsafe(retryAfter), Duration.zero)
})

/**
 * @category constructors
 * @since 0.1.0
 */
export const conflict: FailureClass = { _tag: "Conflict" }

/**
 * @category constructors
 * @since 0.1.0
 */
export const unknownOutcome: FailureClass = { _tag: "UnknownOutcome" }

/**
 * @category constructors
 * @since 0.1.0
 */
export const permanent: FailureClass = { _tag: "Permanent" }

/**
 * @category constructors
 * @since 0.1.0
 */
export const fatal: FailureClass = { _tag: "Fatal" }

/**
 * The class of an error, as far as it can be told without knowing the caller.
 *
 * **Details**
 *
 * A database error is what its SQLSTATE says; a full disk is fatal. A time-out, that of a deadline too, leaves the outcome unknown. What carries a
 * `retryAfter` as a `Duration` is throttled: the refusals of effect's rate limiter and circuit breaker do, for instance.
 * Everything else is permanent: what is not known to pass is not repeated.
 *
 * @category classifiers
 * @since 0.1.0
 */
export const classify: Classifier = (error) => {
  let current = error
  for (let depth = 0; depth < maxDepth; depth++) {
    const found = classOf(current)
    if (found !== undefined) return found
    if (Predicate.hasProperty(current, "reason") && Predicate.isObject(current.reason)) current = current.reason
    else if (Predicate.hasProperty(current, "cause")) current = current.cause
    else return permanent
  }
  return permanent
}

/** Wrappers of wrappers exist; cycles may. */
const maxDepth = 8

const classOf = (error: unknown): FailureClass | undefined => {
  if (SqlError.isSqlError(error)) return ofDatabase[SqlState.classify(error)]
  // These two know more than the database error they hold: whether COMMIT was sent.
  if (error instanceof TransactionError.ConnectionLost) return transient
  if (error instanceof TransactionError.OutcomeUnknown) return unknownOutcome
  if (Cause.isTimeoutError(error) || error instanceof Deadline.DeadlineExceeded) return unknownOutcome
  return Predicate.hasProperty(error, "retryAfter") && Duration.isDuration(error.retryAfter)
    ? throttled(error.retryAfter)
    : undefined
}

const ofDatabase: Readonly<Record<SqlState.ErrorClass, FailureClass>> = {
  retryable: transient,
  conflict,
  "unknown-outcome": unknownOutcome,
  "disk-full": fatal,
  permanent
}

/**
 * A classifier that asks `own` first, and `otherwise` about what `own` does not know. Default: `classify`.
 *
 * @category classifiers
 * @since 0.1.0
 */
export const extend =
  <E>(own: (error: E) => FailureClass | undefined, otherwise: Classifier<E> = classify): Classifier<E> => (error) =>
    own(error) ?? otherwise(error)

/**
 * The class of all that went wrong: the worst one. A defect is fatal. `undefined` when there was nothing but an
 * interruption, which is no failure.
 *
 * @category classifiers
 * @since 0.1.0
 */
export const classifyCause = <E>(
  cause: Cause.Cause<E>,
  classifier: Classifier<E> = classify
): FailureClass | undefined => {
  let worst: FailureClass | undefined
  for (const reason of cause.reasons) {
    if (Cause.isInterruptReason(reason)) continue
    const found = Cause.isFailReason(reason) ? classifier(reason.error) : fatal
    if (worst === undefined || severity[found._tag] > severity[worst._tag]) worst = found
  }
  return worst
}

const severity: Readonly<Record<FailureClass["_tag"], number>> = {
  Transient: 0,
  Throttled: 1,
  Conflict: 2,
  UnknownOutcome: 3,
  Permanent: 4,
  Fatal: 5
}

/**
 * A class in words.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (failure: FailureClass): string =>
  failure._tag === "Throttled" ? `throttled for ${Duration.format(failure.retryAfter)}` : names[failure._tag]

const names: Readonly<Record<Exclude<FailureClass["_tag"], "Throttled">, string>> = {
  Transient: "transient",
  Conflict: "conflict",
  UnknownOutcome: "unknown outcome",
  Permanent: "permanent",
  Fatal: "fatal"
}
