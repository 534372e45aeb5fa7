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
import * as Arr from "effect/Array"
import * as Cache from "effect/Cache"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { partitionOf } from "./DurableSubscriptionFilter.ts"
import type { EventStore, EventStoreError } from "./EventStore.ts"
import type { Fact, Position } from "./Fact.ts"

/**
 * What a subscription wants of a page of the log.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  /** The last position of the page; null at the end of the log. */
  readonly end: Position | null
  /** The facts that are wanted, by partition. */
  readonly partitions: ReadonlyArray<ReadonlyArray<Fact>>
}

/**
 * The page after a position.
 *
 * @category models
 * @since 0.1.0
 */
export type Pages = (after: Position) => Effect.Effect<Page, EventStoreError>

/**
 * Reads a log.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (log: Pick<EventStore["Service"], "readLog">, options: {
  readonly partitions: number
  readonly wants: (fact: Fact) => boolean
  readonly key: (fact: Fact) => string
}): Effect.Effect<Pages> => {
  const split = (facts: ReadonlyArray<Fact>): Page => {
    const partitions = Arr.makeBy(options.partitions, (): Array<Fact> => [])
    for (const fact of facts) {
      if (options.wants(fact)) partitions[partitionOf(options.key(fact), options.partitions)]?.push(fact)
    }
    return { end: facts.at(-1)?.position ?? null, partitions }
  }
  const read: Pages = (after) =>
    Effect.map(log.readLog({ after, limit: pageSize - Number(after % BigInt(pageSize)) }), split)
  if (options.partitions === 1) return Effect.succeed(read)
  return Effect.map(
    Cache.makeWith(read, {
      capacity: 8,
      timeToLive: (exit) => Exit.isSuccess(exit) && exit.value.end !== null ? Duration.infinity : Duration.zero
    }),
    (cache) => (after) => Cache.get(cache, after)
  )
}

/** Facts in a page. */
const pageSize = 1000
