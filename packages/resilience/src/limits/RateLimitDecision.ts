/**
 * What a rate limit answers: where every limit stands, why a call may not go on, and the headers that say so.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as RateLimitStore from "./RateLimitStore.ts"

// ------------------------------------------------------------------------------------------------------ decisions

/**
 * Where one limit stands after a call.
 *
 * @category models
 * @since 0.1.0
 */
export const Standing = Schema.Struct({
  /** Its name. */
  limit: Schema.String,
  burst: Schema.Int,
  /** Tokens that could be taken at once. */
  remaining: Schema.Int,
  /** After so long all of them can, if none is taken. */
  resetAfter: Schema.Duration,
  /** After so long this limit lets the call pass; zero when it does. */
  retryAfter: Schema.Duration
})
export type Standing = typeof Standing.Type

/**
 * Of one limit or more, the one that makes wait longest, then has least left; of equals that of the first name, so that the order
 * in which they are asked says nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const tightestOf = (standings: ReadonlyArray<Standing>): Standing =>
  standings.reduce((one, other) => isTighter(other, one) ? other : one)

const isTighter = (one: Standing, other: Standing): boolean => {
  const waits = Duration.Order(one.retryAfter, other.retryAfter)
  if (waits !== 0) return waits > 0
  return one.remaining === other.remaining ? one.limit < other.limit : one.remaining < other.remaining
}

/**
 * The tokens were taken.
 *
 * @category models
 * @since 0.1.0
 */
export interface Allowed {
  readonly _tag: "Allowed"
  /** The limit of which the least remains. */
  readonly tightest: Standing
  /** Every limit, in the order asked. */
  readonly standings: ReadonlyArray<Standing>
}

/**
 * The store did not answer, and every limit asked for allows that.
 *
 * @category models
 * @since 0.1.0
 */
export interface Unchecked {
  readonly _tag: "Unchecked"
  readonly cause: RateLimitStore.RateLimitStoreError
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * Some limit is used up. Nothing was taken of any.
 *
 * @category errors
 * @since 0.1.0
 */
export class RateLimitExceeded
  extends Schema.TaggedError<RateLimitExceeded>("@strata/resilience/RateLimit/RateLimitExceeded")(
    "RateLimitExceeded",
    {
      /** The limit that makes the call wait longest. */
      tightest: Standing,
      /** Every limit, in the order asked. */
      standings: Schema.Array(Standing)
    }
  )
{
  /** When the same call passes, if nobody else takes tokens meanwhile. */
  get retryAfter(): Duration.Duration {
    return this.tightest.retryAfter
  }

  override get message(): string {
    const { burst, limit, retryAfter } = this.tightest
    return `The rate limit ${limit} (${burst} at once) is used up: try again after ${Duration.format(retryAfter)}`
  }
}

/**
 * A call that no waiting would let pass, or that says something nobody understands.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidCharge extends Schema.TaggedError<InvalidCharge>("@strata/resilience/RateLimit/InvalidCharge")(
  "InvalidCharge",
  { limit: Schema.String, problem: Schema.String }
) {
  override get message(): string {
    return `The rate limit ${this.limit} cannot be asked: ${this.problem}`
  }
}

/**
 * The store did not answer, and these limits refuse what they cannot check.
 *
 * @category errors
 * @since 0.1.0
 */
export class RateLimitUnavailable
  extends Schema.TaggedError<RateLimitUnavailable>("@strata/resilience/RateLimit/RateLimitUnavailable")(
    "RateLimitUnavailable",
    { limits: Schema.Array(Schema.String), cause: RateLimitStore.RateLimitStoreError }
  )
{
  override get message(): string {
    return `Refused, since ${this.limits.join(", ")} cannot be checked. ${this.cause.message}`
  }
}

/**
 * Why a call may not go on.
 *
 * @category errors
 * @since 0.1.0
 */
export class RateLimitError extends Schema.TaggedError<RateLimitError>("@strata/resilience/RateLimit/RateLimitError")(
  "RateLimitError",
  { reason: Schema.Union([RateLimitExceeded, InvalidCharge, RateLimitUnavailable]) }
) {
  override get message(): string {
    return this.reason.message
  }
}

// -------------------------------------------------------------------------------------------------------- headers

/**
 * What an HTTP response says of a decision: `RateLimit-Limit`, `-Remaining` and `-Reset` of the tightest limit, and
 * `Retry-After` when it was refused. Whole seconds, rounded up, so nobody comes back too early. Nothing when nothing was checked.
 *
 * The names are those of the IETF's draft *RateLimit header fields for HTTP*, `Retry-After` is that of RFC 9110.
 *
 * @category formatting
 * @since 0.1.0
 */
export const headers = (decision: Allowed | Unchecked | RateLimitExceeded): Readonly<Record<string, string>> => {
  if (decision._tag === "Unchecked") return {}
  const { burst, remaining, resetAfter, retryAfter } = decision.tightest
  return {
    "ratelimit-limit": String(burst),
    "ratelimit-remaining": String(remaining),
    "ratelimit-reset": seconds(resetAfter),
    ...(Duration.isZero(retryAfter) ? {} : { "retry-after": seconds(retryAfter) })
  }
}

const seconds = (duration: Duration.Duration): string =>
  String((Duration.toNanosUnsafe(duration) + 999_999_999n) / 1_000_000_000n)
