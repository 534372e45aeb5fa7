/**
 * What is consumed, and by whom.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { BenchmarkError } from "../Suite.ts"

/**
 * What a message holds: its number, and when it was published, in milliseconds of the machine's monotonic clock.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Payload = Schema.Struct({ n: Schema.Int, at: Schema.Finite })
export type Payload = typeof Payload.Type

/**
 * Somebody who reads all of a log, once.
 *
 * @category models
 * @since 0.1.0
 */
export interface Consumer {
  readonly name: string
  /** Writes so many messages. */
  readonly fill: (count: number) => Effect.Effect<void, BenchmarkError>
  /** Reads so many from the beginning. */
  readonly consume: (count: number) => Effect.Effect<void, BenchmarkError>
  /** Fails unless the effect of each of so many is there once, where there is one. Not timed. */
  readonly check: (count: number) => Effect.Effect<void, BenchmarkError>
}

/**
 * Messages that are read by one transaction.
 *
 * @category constants
 * @since 0.1.0
 */
export const batchSize = 500

/**
 * So many messages of a thousand keys, in batches.
 *
 * @category constructors
 * @since 0.1.0
 */
export const payloads = (
  count: number
): ReadonlyArray<ReadonlyArray<{ readonly key: string; readonly payload: Payload }>> =>
  Array.from(
    { length: Math.ceil(count / 1000) },
    (_, batch) =>
      Array.from({ length: Math.min(1000, count - batch * 1000) }, (_, index) => ({
        key: `key ${index}`,
        payload: { n: batch * 1000 + index, at: 0 }
      }))
  )
