/**
 * effect's own operators around one call: what a part costs at least in a fiber.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as CircuitBreaker from "effect/persistence/CircuitBreaker"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import type * as Parts from "./Parts.ts"

/**
 * A call in each part, with the numbers of `StrataParts` as far as effect has them.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(call: Effect.Effect<number, Error>) {
  const store = yield* Layer.build(CircuitBreaker.layerStoreMemory())
  const breaker = yield* Effect.provide(
    CircuitBreaker.make({ tripPolicy: CircuitBreaker.rate({ threshold: 0.5 }), openDuration: "30 seconds" }),
    store
  )
  const places = yield* Semaphore.make(10)
  const schedule = Schedule.exponential("25 millis")
  const parts: Partial<Record<Parts.Part, () => Effect.Effect<unknown, Error>>> = {
    "retry": () => Effect.retry(call, { schedule, times: 2 }),
    "breaker": () => breaker.execute(call, { key: "bench" }),
    "bulkhead": () => places.withPermit(call),
    "time-out": () => Effect.timeout(call, "1 second"),
    "fallback": () => Effect.catch(call, () => Effect.succeed(0))
  }
  return parts
})
