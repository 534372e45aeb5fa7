/**
 * Pages of the log that several generations of a process want are read once.
 *
 * **Details**
 *
 * Projections that want the same facts and are about equally far ask for the same pages. One that ends at a position which was
 * recorded never changes, so it is kept for a while; who comes second waits for the one who reads it.
 *
 * @since 0.1.0
 */
import type { EventStore, LogRange } from "@strata/event-store/EventStore"
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
export const make = (store: EventStore["Service"]): Effect.Effect<EventStore["Service"]> =>
  Effect.map(
    Cache.makeWith((range: LogRange) => store.readLogPage(range), {
      capacity,
      timeToLive: (exit) => Exit.isSuccess(exit) ? Duration.seconds(10) : Duration.zero
    }),
    (pages) => ({
      ...store,
      readLogPage: (range) => range.upTo === undefined ? store.readLogPage(range) : Cache.get(pages, range)
    })
  )
