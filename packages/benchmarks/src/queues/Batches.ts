/**
 * A worker for the queues that are nothing but SQL: claims, handles, tells, again and again.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { type BenchmarkError, failure } from "../Suite.ts"
import type { QueueSystem } from "./QueueSystem.ts"

/**
 * Messages that are claimed by one statement.
 *
 * @category constants
 * @since 0.1.0
 */
export const batchSize = 500

/**
 * Works in `loops` at once. `turn` claims some messages, handles them and settles them, and gives how many there were.
 *
 * @category constructors
 * @since 0.1.0
 */
export const work = (
  loops: number,
  turn: (handle: Parameters<QueueSystem["work"]>[0]) => Effect.Effect<number, unknown>
): QueueSystem["work"] =>
(handle) => {
  const loop: Effect.Effect<never, BenchmarkError> = Effect.forever(
    Effect.flatMap(
      Effect.mapError(turn(handle), failure("Working by plain SQL")),
      (found) => found > 0 ? Effect.void : Effect.sleep(1)
    )
  )
  return Effect.forEach(
    Array.from({ length: loops }),
    // What fails here is found by whoever waits for the messages.
    () => Effect.forkScoped(Effect.orDie(loop)),
    { discard: true }
  )
}
