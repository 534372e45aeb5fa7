/**
 * What the end of a call says about the health of what was called.
 *
 * **Details**
 *
 * The outcomes are those of effect's `CircuitBreaker` and one more, `TimedOut`, since time-outs have a rate of their own. So a
 * classifier written for effect's breaker, such as `HttpClient.circuitBreakerClassifier`, fits as it is.
 *
 * @since 0.1.0
 */
import * as SqlState from "@strata/postgres/SqlState"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as EffectBreaker from "effect/persistence/CircuitBreaker"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SqlError from "effect/sql/SqlError"
import { DeadlineExceeded } from "../bounds/Deadline.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * The call did not end in time: a failure that also counts as a time-out.
 *
 * @category models
 * @since 0.1.0
 */
export interface TimedOut {
  readonly _tag: "TimedOut"
  readonly retryAfter?: Duration.Duration | undefined
}

/**
 * What the end of a call says: well, ill, too late, or nothing.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome = EffectBreaker.Outcome | TimedOut

/**
 * Tells the outcome of a call. It is not asked about calls that were only interrupted: these say nothing.
 *
 * @category models
 * @since 0.1.0
 */
export type Classifier<in A = unknown, in E = unknown, out R = never> = (
  exit: Exit.Exit<A, E>
) => Outcome | Effect.Effect<Outcome, never, R>

/**
 * What was called is well.
 *
 * @category constructors
 * @since 0.1.0
 */
export const success: Outcome = EffectBreaker.success

/**
 * Nothing is known of what was called.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ignored: Outcome = EffectBreaker.ignored

/**
 * What was called is ill, and may say for how long.
 *
 * @category constructors
 * @since 0.1.0
 */
export const failure: (options?: { readonly retryAfter?: Duration.Input | undefined }) => Outcome =
  EffectBreaker.failure

/**
 * What was called did not answer in time.
 *
 * @category constructors
 * @since 0.1.0
 */
export const timedOut: Outcome = { _tag: "TimedOut" }

// ------------------------------------------------------------------------------------------------------ classifier

/**
 * The outcome of a call, as far as it can be told without knowing the callee.
 *
 * **Details**
 *
 * - A success is a success, and a defect is a failure: what a promise rejects with arrives as one.
 * - An interruption says nothing. Nor does a refusal before the callee was asked: by a breaker, a limit, a bulkhead or load
 *   shedding; nor what the caller did wrong: a value that fits no schema, a status from 400 to 499, a violated constraint.
 * - `TimeoutError`, `DeadlineExceeded`, a statement or lock time-out of the database and the statuses 408 and 504 are time-outs.
 * - Everything else is a failure, the statuses 425 and 429 included, with the `retryAfter` of the error if it has one.
 *
 * @category classifiers
 * @since 0.1.0
 */
export const classify = (exit: Exit.Exit<unknown, unknown>): Outcome => {
  if (Exit.isSuccess(exit)) return success
  if (Cause.hasDies(exit.cause)) return failure()
  for (const reason of exit.cause.reasons) {
    if (Cause.isFailReason(reason)) return classifyError(reason.error)
  }
  return ignored
}

/**
 * The outcome of a call that failed with an error. One that wraps another as its `reason` or `cause` is what the outermost of
 * them that is known says.
 *
 * @category classifiers
 * @since 0.1.0
 */
export const classifyError = (error: unknown): Outcome => {
  let current = error
  for (let depth = 0; depth < maxDepth; depth++) {
    const outcome = outcomeOf(current)
    if (outcome !== undefined) return outcome
    if (Predicate.hasProperty(current, "reason") && Predicate.isObject(current.reason)) current = current.reason
    else if (Predicate.hasProperty(current, "cause")) current = current.cause
    else break
  }
  return failure()
}

/** Wrappers of wrappers exist; cycles may. */
const maxDepth = 8

/** effect's errors of what refuses a call before the callee is asked. */
const refusals = new Set<unknown>(["CircuitBreakerError", "RateLimiterError"])

/** All other errors of this package are such: their classes are named after it. A tag alone might be the callee's. */
const isRefusal = (error: object): boolean =>
  Predicate.hasProperty(error, "_tag") && refusals.has(error._tag) ||
  Predicate.hasProperty(error.constructor, "identifier") && Predicate.isString(error.constructor.identifier) &&
    error.constructor.identifier.startsWith("@strata/resilience/")

const outcomeOf = (error: unknown): Outcome | undefined => {
  if (Cause.isTimeoutError(error) || error instanceof DeadlineExceeded) return timedOut
  if (SqlError.isSqlError(error)) return ofDatabase(error)
  if (Schema.isSchemaError(error)) return ignored
  if (!Predicate.isObject(error)) return undefined
  if (isRefusal(error)) return ignored
  const retryAfter = Predicate.hasProperty(error, "retryAfter") && Duration.isDuration(error.retryAfter)
    ? error.retryAfter
    : undefined
  const status = statusOf(error)
  if (status !== undefined && status >= 400) return ofStatus(status, retryAfter)
  return retryAfter === undefined ? undefined : failure({ retryAfter })
}

const ofDatabase = (error: SqlError.SqlError): Outcome => {
  switch (error.reason._tag) {
    case "StatementTimeoutError":
    case "LockTimeoutError":
      return timedOut
    case "AuthenticationError":
      return failure()
    // Callers in each other's way.
    case "SerializationError":
    case "DeadlockError":
      return ignored
    default: {
      const found = SqlState.classify(error)
      return found === "conflict" || found === "permanent" ? ignored : failure()
    }
  }
}

const ofStatus = (status: number, retryAfter: Duration.Duration | undefined): Outcome => {
  if (status === 408 || status === 504) return { _tag: "TimedOut", retryAfter }
  return status >= 500 || status === 429 || status === 425 ? failure({ retryAfter }) : ignored
}

const statusOf = (error: object): number | undefined => {
  if (Predicate.hasProperty(error, "status") && Predicate.isNumber(error.status)) return error.status
  return Predicate.hasProperty(error, "response") && Predicate.isObject(error.response)
    ? statusOf(error.response)
    : undefined
}
