/**
 * cockatiel's policies around one call, with the numbers of `StrataParts`.
 *
 * @since 0.1.0
 */
import * as Cockatiel from "cockatiel"
import type * as Parts from "./Parts.ts"

/**
 * A call in each part.
 *
 * **Details**
 *
 * Its time-out is the aggressive one, which answers in time whatever the call does, as ours does. It has no rate limiter.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (call: () => Promise<number>): Parts.PeerParts => {
  const retry = Cockatiel.retry(Cockatiel.handleAll, {
    maxAttempts: 2,
    backoff: new Cockatiel.ExponentialBackoff({ initialDelay: 25, maxDelay: 1000 })
  })
  const breaker = makeBreaker()
  const bulkhead = Cockatiel.bulkhead(10, 10)
  const attempt = Cockatiel.timeout(1000, Cockatiel.TimeoutStrategy.Aggressive)
  const deadline = Cockatiel.timeout(3000, Cockatiel.TimeoutStrategy.Aggressive)
  const fallback = Cockatiel.fallback(Cockatiel.handleAll, 0)
  const stack = Cockatiel.wrap(fallback, deadline, bulkhead, breaker, retry, attempt)
  return {
    "retry": () => retry.execute(call),
    "breaker": () => breaker.execute(call),
    "bulkhead": () => bulkhead.execute(call),
    "time-out": () => attempt.execute(call),
    "fallback": () => fallback.execute(call),
    "full stack": () => stack.execute(call)
  }
}

/**
 * A breaker that opens at half of the calls of the last minute, from 20 calls a minute on.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeBreaker = (): Cockatiel.CircuitBreakerPolicy =>
  Cockatiel.circuitBreaker(Cockatiel.handleAll, {
    halfOpenAfter: 30_000,
    breaker: new Cockatiel.SamplingBreaker({ threshold: 0.5, duration: 60_000, minimumRps: 20 / 60 })
  })
