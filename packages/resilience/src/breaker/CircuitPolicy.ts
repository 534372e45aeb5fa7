/**
 * When a circuit opens, for how long, and what closes it again: one value that can be read, written down and checked.
 *
 * **When to use**
 *
 * Use `make` with what differs from the defaults. Durations are text, so the same names and values stand in code, in JSON and
 * in configuration.
 *
 * **Example** (A policy for a hot path)
 *
 * ```ts
 * import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
 *
 * const payments = CircuitPolicy.make({ minimumCalls: 50, halfOpenCalls: 50, slowCallDuration: "2 seconds" })
 * const line = CircuitPolicy.format(payments) // "opens at 50 % failures, …"
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

// --------------------------------------------------------------------------------------------------------- fields

const Period = Schema.DurationFromString.pipe(
  Schema.check(
    Schema.makeFilter((duration: Duration.Duration) =>
      Duration.isFinite(duration) && Duration.toMillis(duration) > 0 || "Expected a finite duration above zero"
    )
  )
)
const Share = Schema.Finite.pipe(
  Schema.check(Schema.isGreaterThan(0), Schema.isLessThanOrEqualTo(1)),
  Schema.annotate({ expected: "a share above 0 and up to 1" })
)
const Count = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 })))
const Factor = Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 1000 })))

const period = (value: Duration.Input) =>
  Period.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(Duration.fromInputUnsafe(value))))
const share = (value: number) => Share.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(value)))
const count = (value: number) => Count.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(value)))
const factor = (value: number) => Factor.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(value)))

// ---------------------------------------------------------------------------------------------------------- model

/**
 * The policy of a circuit. Every field has a default.
 *
 * **Details**
 *
 * Rates are shares of the calls that ended in the window, and count as exceeded when they are reached.
 *
 * - `window` (1 minute): how far back outcomes count, to a twentieth of it.
 * - `minimumCalls` (20): before so many calls ended in the window, nothing opens the circuit.
 * - `failureRate` (0.5), `timeoutRate` (0.1): what opens it. A time-out is a failure too.
 * - `slowCallRate` (0.5): what opens it. A call is slow when it took longer than `slowCallDuration`, or without one longer
 *   than `slowCallFactor` (2) times the normal latency, and in any case longer than `slowCallFloor` (10 ms).
 * - `openDuration` (30 s): of the first opening. Each further one before the circuit closes is `openFactor` (2) times as
 *   long, up to `maxOpenDuration` (10 min). What the callee asks for with a Retry-After is kept up to `maxRetryAfter` (1 h).
 * - `halfOpenShare` (0.1): the share of calls that are let through as probes, at most `halfOpenInFlight` (5) at a time, and
 *   `halfOpenCalls` (20) in all.
 * - `halfOpenSuccessRate` (0.9): what closes the circuit when all probes have ended. With `earlyReopen` (true) it opens again
 *   as soon as this can no longer be reached.
 * - `maxHalfOpen` (60 s): then the circuit is judged by the probes that have ended, or opens again if they are fewer than
 *   `halfOpenMinimumCalls` (5). A circuit with few calls needs a larger share or a smaller minimum to close.
 * - `halfOpenRetryAfter` (1 s): what a call is told that is no probe. Short, since the circuit needs calls to close.
 * - `probeLease` (10 s): a probe that takes longer has failed. Set it to the time-out of the call and a second.
 *
 * @category models
 * @since 0.1.0
 */
export const CircuitPolicy = Schema.Struct({
  window: period("1 minute"),
  minimumCalls: count(20),
  failureRate: share(0.5),
  timeoutRate: share(0.1),
  slowCallRate: share(0.5),
  slowCallDuration: Schema.optionalKey(Period),
  slowCallFactor: factor(2),
  slowCallFloor: period("10 millis"),
  openDuration: period("30 seconds"),
  openFactor: factor(2),
  maxOpenDuration: period("10 minutes"),
  maxRetryAfter: period("1 hour"),
  halfOpenShare: share(0.1),
  halfOpenInFlight: count(5),
  halfOpenCalls: count(20),
  halfOpenMinimumCalls: count(5),
  halfOpenSuccessRate: share(0.9),
  earlyReopen: Schema.Boolean.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(true))),
  maxHalfOpen: period("60 seconds"),
  halfOpenRetryAfter: period("1 second"),
  probeLease: period("10 seconds")
}).pipe(Schema.check(
  Schema.makeFilter((policy: {
    readonly openDuration: Duration.Duration
    readonly maxOpenDuration: Duration.Duration
    readonly probeLease: Duration.Duration
    readonly maxHalfOpen: Duration.Duration
    readonly halfOpenMinimumCalls: number
    readonly halfOpenCalls: number
  }) => {
    if (Duration.isGreaterThan(policy.openDuration, policy.maxOpenDuration)) {
      return "Expected openDuration up to maxOpenDuration"
    }
    if (Duration.isGreaterThan(policy.probeLease, policy.maxHalfOpen)) return "Expected probeLease up to maxHalfOpen"
    if (policy.halfOpenMinimumCalls > policy.halfOpenCalls) return "Expected halfOpenMinimumCalls up to halfOpenCalls"
    return true
  })
))
export type CircuitPolicy = typeof CircuitPolicy.Type

/**
 * What may be said of a policy: any of its fields, durations as text such as `"30 seconds"`.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = typeof CircuitPolicy.Encoded

// --------------------------------------------------------------------------------------------------- constructors

/**
 * A policy with the defaults for what is not said. Throws on nonsense, so build policies where the program starts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options: Options) => CircuitPolicy = Schema.decodeSync(CircuitPolicy)

/**
 * The policy without any option.
 *
 * @category constructors
 * @since 0.1.0
 */
export const standard: CircuitPolicy = make({})

// ----------------------------------------------------------------------------------------------------- formatting

const percent = (rate: number) => `${Number((rate * 100).toFixed(2))} %`

/**
 * A policy as one line to read.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (policy: CircuitPolicy): string => {
  const slow = policy.slowCallDuration === undefined
    ? `${policy.slowCallFactor} × normal`
    : Duration.format(policy.slowCallDuration)
  return [
    `opens at ${percent(policy.failureRate)} failures, ${percent(policy.timeoutRate)} time-outs or ` +
    `${percent(policy.slowCallRate)} over ${slow}, of ${policy.minimumCalls} calls or more in ${
      Duration.format(policy.window)
    }`,
    `for ${Duration.format(policy.openDuration)} × ${policy.openFactor} up to ${
      Duration.format(policy.maxOpenDuration)
    }`,
    `half-open ${percent(policy.halfOpenShare)} of calls`,
    `closes at ${percent(policy.halfOpenSuccessRate)} of ${policy.halfOpenCalls}`
  ].join("; ")
}
