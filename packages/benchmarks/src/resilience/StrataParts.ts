/**
 * Each part of Strata's resilience around one call, and all of them together.
 *
 * @since 0.1.0
 */
import * as Bulkhead from "@strata/resilience/bounds/Bulkhead"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Fallback from "@strata/resilience/bounds/Fallback"
import { CircuitBreaker } from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitBreakers from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as Policy from "@strata/resilience/Policy"
import { Resilience } from "@strata/resilience/Resilience"
import * as Resiliences from "@strata/resilience/Resilience"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Parts from "./Parts.ts"

/**
 * All parts, in the order in which they apply.
 *
 * @category constants
 * @since 0.1.0
 */
export const policy = Policy.make({
  name: "bench",
  deadline: "3 seconds",
  // A token is taken for every call, and there is always one.
  limits: [RateLimit.make({ name: "bench", rate: 1_000_000, burst: 1_000_000 })],
  bulkhead: { limit: 10, queue: 10 },
  breaker: { policy: CircuitPolicy.standard },
  retry: { policy: RetryPolicy.realtime, idempotent: true },
  attempt: "1 second",
  fallback: { answer: Fallback.value(0) }
})

/**
 * A call in each part, for the time of the scope. Circuits and limits are kept in memory.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(call: Effect.Effect<number>) {
  const services = yield* Layer.build(Layer.merge(
    CircuitBreakers.layer({ name: "bench" }).pipe(Layer.provide(CircuitStore.layerMemory())),
    Resiliences.layerMemory
  ))
  const breaker = Context.get(services, CircuitBreaker)
  const { protect } = Context.get(services, Resilience)
  const bulkhead = yield* Bulkhead.make({ name: "bench", limit: 10, queue: 10 })
  const retry = { policy: RetryPolicy.realtime, idempotent: true }
  const fallback = Fallback.value(0)
  const always = { when: () => true }
  const parts: Record<Parts.Part, () => Effect.Effect<unknown, Error>> = {
    "bare": () => call,
    "retry": () => RetryPolicy.retry(call, retry),
    "breaker": () => breaker.execute(call, { key: "bench" }),
    "bulkhead": () => bulkhead.run(call),
    "time-out": () => Deadline.within("1 second")(call),
    "fallback": () => Fallback.apply(call, fallback, always),
    "full stack": () => protect(call, policy)
  }
  return parts
})
