/**
 * Why a call did not run: effect's errors of a circuit breaker, with the time after which to ask again for all of them.
 *
 * **Example** (A header for whoever has to wait)
 *
 * ```ts
 * import * as CircuitBreakerError from "@strata/resilience/breaker/CircuitBreakerError"
 * import * as Duration from "effect/Duration"
 *
 * const seconds = (error: CircuitBreakerError.CircuitBreakerError) => {
 *   const wait = CircuitBreakerError.retryAfter(error)
 *   return wait === undefined ? {} : { "Retry-After": String(Math.ceil(Duration.toSeconds(wait))) }
 * }
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as EffectBreaker from "effect/persistence/CircuitBreaker"
import * as Schema from "effect/Schema"
import * as Stackless from "../Stackless.ts"
import type * as CircuitState from "./CircuitState.ts"

/**
 * The circuit is half-open, and this call is none of its probes. `retryAfter` is short, since the circuit needs calls to close.
 *
 * @category errors
 * @since 0.1.0
 */
export class CircuitHalfOpen extends EffectBreaker.CircuitHalfOpen.extend<CircuitHalfOpen>(
  "@strata/resilience/CircuitBreakerError/CircuitHalfOpen"
)({
  retryAfter: Schema.DurationFromMillis
}) {
  override get message(): string {
    return `Circuit "${this.key}" is half-open, and this call is none of its probes`
  }
}

/**
 * Somebody opened the circuit, and it stays open until somebody resets it. `retryAfter` is when to ask again.
 *
 * @category errors
 * @since 0.1.0
 */
export class CircuitForcedOpen extends EffectBreaker.CircuitOpen.extend<CircuitForcedOpen>(
  "@strata/resilience/CircuitBreakerError/CircuitForcedOpen"
)({
  actor: Schema.String
}) {
  override get message(): string {
    return `Circuit "${this.key}" was opened by ${this.actor}`
  }
}

/**
 * The error of a call that did not run, as effect's breaker has it. Its `reason` is a `CircuitOpen`, which may be a
 * `CircuitForcedOpen`, a `CircuitHalfOpen`, or a `CircuitBreakerStoreError`.
 *
 * @category errors
 * @since 0.1.0
 */
export type CircuitBreakerError = EffectBreaker.CircuitBreakerError

/**
 * How long the caller of a call that was refused should wait; undefined when the store failed.
 *
 * @category getters
 * @since 0.1.0
 */
export const retryAfter = ({ reason }: CircuitBreakerError): Duration.Duration | undefined => {
  if (reason._tag === "CircuitOpen") return reason.retryAfter
  return reason instanceof CircuitHalfOpen ? reason.retryAfter : undefined
}

/**
 * The error of a call that a circuit rejected.
 *
 * @category constructors
 * @since 0.1.0
 */
export const refused = (
  key: string,
  decision: CircuitState.Decision & { readonly _tag: "Rejected" }
): CircuitBreakerError => Stackless.make(() => errorOf(key, decision))

const errorOf = (
  key: string,
  decision: CircuitState.Decision & { readonly _tag: "Rejected" }
): CircuitBreakerError => {
  const retryAfter = Duration.millis(decision.retryAfter)
  switch (decision.phase) {
    case "Open":
      return new EffectBreaker.CircuitBreakerError({ reason: new EffectBreaker.CircuitOpen({ key, retryAfter }) })
    case "HalfOpen":
      return new EffectBreaker.CircuitBreakerError({ reason: new CircuitHalfOpen({ key, retryAfter }) })
    case "ForcedOpen":
      return new EffectBreaker.CircuitBreakerError({
        reason: new CircuitForcedOpen({ key, retryAfter, actor: decision.actor })
      })
  }
}
