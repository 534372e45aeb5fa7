/**
 * What several generations of a process want of the log is read once.
 *
 * **Details**
 *
 * Projections that want the same facts and are about equally far ask for the same pages. One that ends at a position which was
 * recorded never changes, so it is kept for a while; who comes second waits for the one who reads it. A page that shows personal
 * data, which may be erased, is kept for a moment only.
 *
 * Where a page has revisions of few streams, all of them will make their keys again from the facts of these. So those are read with
 * the page, and kept unless they show personal data. Those that have come to the end of the log look for more together.
 *
 * @since 0.1.0
 */
import type { EventStore, LogPage, LogRange } from "@strata/event-store/EventStore"
import { EventStorePolicies } from "@strata/event-store/EventStorePolicies"
import type { Fact, Position } from "@strata/event-store/Fact"
import { isPassing } from "@strata/event-store/OpenedStore"
import * as Cache from "effect/Cache"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

/** Pages that are kept, of at most a thousand facts each: partitions read several at a time, and some are ahead of others. */
const capacity = 32

/** Streams that are read with a page. */
const few = 8

/** Facts of these that are kept with it: of longer streams each reads for itself. */
const short = 1000

/**
 * So long a look at the end of the log is worth something to others, unless this process hears of more. What it has heard of is no end by
 * itself: a server that took over from another may be without it.
 */
const together = Duration.millis(10)

/** A page, and all facts of the streams with these names up to its end. */
interface Shared {
  readonly page: LogPage
  readonly streams: ReadonlySet<string>
  readonly facts: ReadonlyArray<Fact>
}

/**
 * A store whose reads of the log are shared by all who read it through this.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(
  function*(store: EventStore["Service"]): Effect.fn.Return<EventStore["Service"]> {
    const { subscriptions: { openPages } } = yield* EventStorePolicies

    const read = Effect.fnUntraced(function*(range: LogRange) {
      const page = yield* store.readLogPage(range)
      const revised = new Map(page.facts.flatMap((fact) => fact.revision === 0 ? [] : [[nameOf(fact), fact] as const]))
      const facts = revised.size > few
        ? []
        : yield* store.readStreams({ streams: [...revised.values()], upTo: page.end })
      const isKept = facts.length > 0 && facts.length <= short && !facts.some(isPassing)
      return { page, streams: new Set(isKept ? revised.keys() : []), facts: isKept ? facts : [] } satisfies Shared
    })

    const pages = yield* Cache.makeWith(read, {
      capacity,
      timeToLive: (exit) =>
        !Exit.isSuccess(exit)
          ? Duration.zero
          : exit.value.page.facts.some(isPassing)
          ? openPages
          : Duration.seconds(10)
    })
    const heads = yield* Cache.makeWith((_known: Position) => store.head, {
      capacity: 1,
      timeToLive: (exit) => Exit.isSuccess(exit) ? together : Duration.zero
    })
    return {
      ...store,
      head: Effect.flatMap(store.knownHead, (known) => Cache.get(heads, known)),
      readLogPage: (range) =>
        range.upTo === undefined ? store.readLogPage(range) : Effect.map(Cache.get(pages, range), ({ page }) => page),
      readStreams: (asked) =>
        Effect.flatMap(Cache.values(pages), (shared) => {
          const names = new Set(asked.streams.map(nameOf))
          for (const { facts, page, streams } of shared) {
            if (page.end < asked.upTo || ![...names].every((name) => streams.has(name))) continue
            return Effect.succeed(facts.filter((fact) => fact.position <= asked.upTo && names.has(nameOf(fact))))
          }
          return store.readStreams(asked)
        })
    }
  }
)

const nameOf = ({ stream, tenant }: Pick<Fact, "stream" | "tenant">): string => `${tenant}\0${stream}`
