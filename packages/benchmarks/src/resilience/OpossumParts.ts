/**
 * opossum's breaker around one call. Its time-out, its capacity and its fallback are options of the breaker, so each of its parts
 * has the breaker in it. It has no retries.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import CircuitBreaker from "opossum"
import type * as Parts from "./Parts.ts"

/**
 * A call in each part, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(call: () => Promise<number>) {
  const breaker = yield* makeBreaker(call)
  const bulkhead = yield* makeBreaker(call, { capacity: 10 })
  const timeout = yield* makeBreaker(call, { timeout: 1000 })
  const fallback = yield* makeBreaker(call)
  fallback.fallback(() => 0)
  const stack = yield* makeBreaker(call, { capacity: 10, timeout: 1000 })
  stack.fallback(() => 0)
  const parts: Parts.PeerParts = {
    "breaker": () => breaker.fire(),
    "bulkhead": () => bulkhead.fire(),
    "time-out": () => timeout.fire(),
    "fallback": () => fallback.fire(),
    "full stack": () => stack.fire()
  }
  return parts
})

/**
 * A breaker that opens at half of the calls of the last minute, from 20 calls on, and has no other option than those given.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeBreaker = (
  call: () => Promise<number>,
  options: { readonly capacity?: number; readonly timeout?: number; readonly resetTimeout?: number } = {}
) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      new CircuitBreaker(call, {
        timeout: false,
        errorThresholdPercentage: 50,
        resetTimeout: 30_000,
        rollingCountTimeout: 60_000,
        rollingCountBuckets: 20,
        volumeThreshold: 20,
        ...options
      })
    ),
    (breaker) => Effect.sync(() => breaker.shutdown())
  )
