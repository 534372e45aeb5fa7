/**
 * Reads the log page by page for the partitions of a durable subscription.
 *
 * **Details**
 *
 * The ends of pages do not depend on where a reader begins, so partitions at about the same place ask for the same ones,
 * and share each answer: positions have no holes, so what was read after a position once is the beginning of what stands there
 * for ever. The last few pages are kept; a partition that is far from the others reads for itself. A page that shows personal data,
 * which may be erased, is kept for a moment only.
 *
 * With a filter a page goes as far as it takes to be full of facts that fit, past all that do not. It ends where a bigger
 * step of the log ends than any other step within it: wherever two readers begin, they soon meet at such a place.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cache from "effect/Cache"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { type Filter, partitionOf } from "./DurableSubscriptionFilter.ts"
import type { EventStore, EventStoreError } from "./EventStore.ts"
import { EventStorePolicies } from "./EventStorePolicies.ts"
import { type Fact, Position } from "./Fact.ts"
import { isPassing } from "./OpenedStore.ts"

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
export const make = (log: Pick<EventStore["Service"], "readLogPage" | "head">, options: {
  readonly partitions: number
  readonly filter: Filter | undefined
  readonly key: (fact: Fact) => string
  readonly toAll?: ((fact: Fact) => boolean) | undefined
}): Effect.Effect<Pages> => {
  const { filter, toAll = () => false } = options
  const split = (facts: ReadonlyArray<Fact>, end: Position | null): Page => {
    const partitions = Arr.makeBy(options.partitions, (): Array<Fact> => [])
    for (const fact of facts) {
      if (toAll(fact)) { for (const each of partitions) each.push(fact) }
      else partitions[partitionOf(options.key(fact), options.partitions)]?.push(fact)
    }
    return { end, partitions }
  }
  const readAll: Pages = (after) =>
    Effect.map(
      log.readLogPage({ after, limit: pageSize - Number(after % BigInt(pageSize)) }),
      ({ end, facts }) => split(facts, facts.length === 0 ? null : end)
    )
  const readFiltered: Pages = Effect.fnUntraced(function*(after) {
    const head = yield* log.head
    if (head <= after) return split([], null)
    const upTo = head < reachOf(after) ? head : reachOf(after)
    const { end: seen, facts } = yield* log.readLogPage({ after, limit: pageSize, filter, upTo })
    if (facts.length < pageSize) return split(facts, seen)
    const end = endWithin(after, seen)
    return split(facts.filter((fact) => fact.position <= end), end)
  })
  const read = filter === undefined || Object.values(filter).every((each) => each === undefined)
    ? readAll
    : readFiltered
  if (options.partitions === 1) return Effect.succeed(read)
  return Effect.gen(function*() {
    const { openPages } = (yield* EventStorePolicies).subscriptions
    const timeToLive = ({ end, partitions }: Page) =>
      end === null ? Duration.zero : partitions.some((facts) => facts.some(isPassing)) ? openPages : Duration.infinity
    const cache = yield* Cache.makeWith(read, {
      // Each reads as many at a time as there are partitions, and some are ahead of others.
      capacity: 8 * options.partitions,
      timeToLive: (exit) => Exit.isSuccess(exit) ? timeToLive(exit.value) : Duration.zero
    })
    return (after) => Cache.get(cache, after)
  })
}

/** Facts in a page. */
const pageSize = 1000

/** How far a page goes at most: one statement looks at so many facts while nothing is summarized. */
const reachOf = (after: Position): Position => Position.make((after / reach + 1n) * reach)
const reach = 1000n * BigInt(pageSize)

/** After the first position and not after the second, the multiple of the page size that is one of its highest power of two. */
const endWithin = (after: Position, last: Position): Position => {
  const page = BigInt(pageSize)
  const bits = (after / page ^ last / page).toString(2).length - 1
  return Position.make((last / page >> BigInt(bits) << BigInt(bits)) * page)
}
