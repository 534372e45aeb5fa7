/**
 * What this process knows of a log's end, and how its readers wait for more.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { beginning, type Position } from "./Fact.ts"

/**
 * The newest position known here. The log may be further: others write to it as well.
 *
 * @category models
 * @since 0.1.0
 */
export interface LogHead {
  /** Tells that a position exists, and wakes those who wait for it. */
  readonly advance: (position: Position) => Effect.Effect<void>
  /** The newest position known. */
  readonly known: Effect.Effect<Position>
  /** True for a position that is not later than the newest one known. */
  readonly knows: (position: bigint) => boolean
  /** Ends at once when a later position than `after` is known, otherwise with the next one or after the poll interval. */
  readonly changed: (after: Position) => Effect.Effect<void>
  /** Ends when this position is known to exist, and after a while in any case. */
  readonly reached: (position: Position, patience: Duration.Input) => Effect.Effect<void>
}

/**
 * Starts at the beginning.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (pollInterval: Duration.Input): LogHead => {
  const advanced = Latch.makeUnsafe(false)
  // Those who wait for a position further on are not woken by every one before it.
  const waiting = new Set<{ readonly position: Position; readonly proceed: () => void }>()
  let known = beginning
  return {
    advance: (position) =>
      Effect.suspend(() => {
        if (position <= known) return Effect.void
        known = position
        for (const waiter of waiting) if (waiter.position <= known) waiter.proceed()
        return Effect.asVoid(advanced.release)
      }),
    known: Effect.sync(() => known),
    knows: (position) => position <= known,
    changed: (after) =>
      Effect.suspend(() =>
        known > after ? Effect.void : Effect.asVoid(Effect.timeoutOption(advanced.await, pollInterval))
      ),
    reached: (position, patience) =>
      Effect.callback<void>((resume) => {
        if (position <= known) return resume(Effect.void)
        const waiter = { position, proceed: () => resume(leave) }
        const leave = Effect.sync(() => {
          waiting.delete(waiter)
        })
        waiting.add(waiter)
        return leave
      }).pipe(Effect.timeoutOption(patience), Effect.asVoid)
  }
}
