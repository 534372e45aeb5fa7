/**
 * How many batches are handled at a time, and whose is next.
 *
 * **When to use**
 *
 * Use one for several durable subscriptions of a process that would take too much of it together.
 *
 * **Details**
 *
 * Batches at the end of the log come first, in the order in which they came: they are short, and somebody may wait for them. Of the
 * others the one that is furthest behind comes first. So those that read the same log go through it together, and a page that is
 * read for one is there for all.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { Position } from "./Fact.ts"

/**
 * Permits for batches.
 *
 * @category models
 * @since 0.1.0
 */
export interface BatchPermits {
  /** Runs what handles a batch once there is a permit for it, by where the batch is. */
  readonly withPermit: (batch: Place) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/**
 * Where a batch is: the position that its facts follow, and whether the log ends with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Place {
  readonly after: Position
  readonly isLast: boolean
}

/** Who waits for a permit, or has one. */
class Turn {
  readonly rank: bigint
  granted = false
  go: (begin: Effect.Effect<void>) => void = () => {}

  constructor({ after, isLast }: Place) {
    this.rank = isLast ? -1n : after
  }
}

/**
 * So many permits.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (permits: number): BatchPermits => {
  // In the order in which they came.
  const waiting = new Set<Turn>()
  let free = permits

  const begin = (turn: Turn): Effect.Effect<void> =>
    Effect.callback((go) => {
      if (free > 0) {
        free--
        turn.granted = true
        return go(Effect.void)
      }
      turn.go = go
      waiting.add(turn)
    })

  /** A permit that is given back is the next one's at once: nobody comes between. */
  const end = (turn: Turn): void => {
    if (!turn.granted) {
      waiting.delete(turn)
      return
    }
    let next: Turn | undefined
    for (const each of waiting) if (next === undefined || each.rank < next.rank) next = each
    if (next === undefined) {
      free++
      return
    }
    waiting.delete(next)
    next.granted = true
    next.go(Effect.void)
  }

  return {
    withPermit: (batch) => (self) =>
      Effect.suspend(() => {
        const turn = new Turn(batch)
        return Effect.onExit(Effect.andThen(begin(turn), self), () => Effect.sync(() => end(turn)))
      })
  }
}
