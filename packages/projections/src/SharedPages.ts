/**
 * Pages of the log that several generations of a process want are read once.
 *
 * **Details**
 *
 * Projections that want the same facts and are about equally far ask for the same pages. One that ends at a position which was
 * recorded never changes, so it is kept for a while; who comes second waits for the one who reads it. A page that shows personal
 * data, which may be erased, is kept for a moment only.
 *
 * @since 0.1.0
 */
import type { EventStore, LogRange } from "@strata/event-store/EventStore"
import { EventStorePolicies } from "@strata/event-store/EventStorePolicies"
import { isPassing } from "@strata/event-store/OpenedStore"
import * as Cache from "effect/Cache"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

/** Pages that are kept, of at most a thousand facts each. */
const capacity = 8

/**
 * A store whose pages of the log are shared by all who read them through it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(
  function*(store: EventStore["Service"]): Effect.fn.Return<EventStore["Service"]> {
    const { subscriptions: { openPages } } = yield* EventStorePolicies
    const pages = yield* Cache.makeWith((range: LogRange) => store.readLogPage(range), {
      capacity,
      timeToLive: (exit) =>
        !Exit.isSuccess(exit)
          ? Duration.zero
          : exit.value.facts.some(isPassing)
          ? openPages
          : Duration.seconds(10)
    })
    return {
      ...store,
      readLogPage: (range) => range.upTo === undefined ? store.readLogPage(range) : Cache.get(pages, range)
    }
  }
)
