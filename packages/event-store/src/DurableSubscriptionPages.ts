/**
 * Reads the log page by page for the partitions of a durable subscription.
 *
 * **Details**
 *
 * The ends of pages do not depend on where a reader begins, so partitions at about the same place ask for the same ones,
 * and share each answer: positions have no holes, so what was read after a position once is the beginning of what stands there
 * for ever. The last few pages are kept; a partition that is far from the others reads for itself.
 *
 * @since 0.1.0
 */
import * as Cache from "effect/Cache"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { EventStore, EventStoreError } from "./EventStore.ts"
import type { Fact, Position } from "./Fact.ts"

/**
 * The facts after a position: at most a page, none at the end of the log.
 *
 * @category models
 * @since 0.1.0
 */
export type Pages = (after: Position) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>

/**
 * Reads a log.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (log: Pick<EventStore["Service"], "readLog">, options: {
  /** Whether several partitions read. */
  readonly shared: boolean
}): Effect.Effect<Pages> => {
  const read: Pages = (after) => log.readLog({ after, limit: pageSize - Number(after % BigInt(pageSize)) })
  if (!options.shared) return Effect.succeed(read)
  return Effect.map(
    Cache.makeWith(read, {
      capacity: 8,
      timeToLive: (exit) => Exit.isSuccess(exit) && exit.value.length > 0 ? Duration.infinity : Duration.zero
    }),
    (cache) => (after) => Cache.get(cache, after)
  )
}

/** Facts in a page. */
const pageSize = 1000
