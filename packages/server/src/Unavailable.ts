/**
 * Tells what passes from what does not: a database that is away is answered with 503, a defect with 500.
 *
 * @since 0.1.0
 */
import { ServiceUnavailable } from "@strata/http-api/Problem"
import * as SqlState from "@strata/postgres/SqlState"
import type * as Cause from "effect/Cause"
import * as Predicate from "effect/Predicate"

/**
 * The answer to a request the database did not take.
 *
 * @category constructors
 * @since 0.1.0
 */
export const databaseUnavailable = (): ServiceUnavailable =>
  new ServiceUnavailable({
    detail: "The database does not answer. Try again; repeat a write under its Idempotency-Key.",
    retryAfter: 1
  })

const passing: ReadonlySet<SqlState.ErrorClass> = new Set(["retryable", "unknown-outcome", "disk-full"])

/** Failures that say by their tag that something is away, whatever caused it. */
const tags = new Set(["StoreUnavailable", "Unavailable", "ConnectionLost", "OutcomeUnknown"])

/**
 * True when the failure, or what it wraps, is the database being away or out of something.
 *
 * @category guards
 * @since 0.1.0
 */
export const isUnavailable = (error: unknown): boolean => {
  if (passing.has(SqlState.classify(error))) return true
  if (SqlState.sqlErrorOf(error) !== undefined) return false
  const reason = Predicate.hasProperty(error, "reason") ? error.reason : error
  return Predicate.hasProperty(reason, "_tag") && Predicate.isString(reason._tag) && tags.has(reason._tag)
}

/**
 * The same for a cause, defects included.
 *
 * @category guards
 * @since 0.1.0
 */
export const isUnavailableCause = <E>(cause: Cause.Cause<E>): boolean =>
  cause.reasons.some((reason) =>
    reason._tag === "Fail" ? isUnavailable(reason.error) : reason._tag === "Die" && isUnavailable(reason.defect)
  )
