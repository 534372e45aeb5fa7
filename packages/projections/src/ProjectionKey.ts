/**
 * Keys: which rows of a projection's tables belong to which facts.
 *
 * **When to use**
 *
 * Say what a projection's key is where its tables have the id of a stream under a name of their own (`streamId`), or where
 * rows are made of facts of several streams (`make`). The default is the tenant and the stream.
 *
 * **Details**
 *
 * Facts of one key are applied in order, and by one process at a time. When a fact is corrected or retracted, the rows of
 * its key are removed and made again from what is believed then. So every table has the key's columns, as `text`, and an
 * index that begins with them.
 *
 * **Gotchas**
 *
 * A key that is not the stream's is applied by one process, fact by fact of the whole log: facts of a key may stand in any
 * stream, and a correction may move one from key to key.
 *
 * **Example** (Orders by customer)
 *
 * ```ts
 * import * as ProjectionKey from "@strata/projections/ProjectionKey"
 *
 * const byCustomer = ProjectionKey.make<OrderEvent>({
 *   columns: ["tenant", "customer"],
 *   of: (event, fact) => [fact.tenant, event.customer]
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { Fact } from "@strata/event-store/Fact"

/**
 * The columns of a key, and what a fact says of each.
 *
 * @category models
 * @since 0.1.0
 */
export type ProjectionKey<Event> = StreamKey | EventKey<Event>

/**
 * A key that is a stream's.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamKey {
  readonly _tag: "StreamKey"
  /** Whether it tells streams apart in one category only. */
  readonly isOfCategory: boolean
  readonly columns: ReadonlyArray<string>
  readonly of: (fact: Fact) => ReadonlyArray<string>
}

/**
 * A key that the events themselves tell.
 *
 * @category models
 * @since 0.1.0
 */
export interface EventKey<in Event> {
  readonly _tag: "EventKey"
  readonly columns: ReadonlyArray<string>
  readonly of: (event: Event, fact: Fact) => ReadonlyArray<string>
}

/**
 * The columns `tenant` and `stream`.
 *
 * @category keys
 * @since 0.1.0
 */
export const stream: StreamKey = {
  _tag: "StreamKey",
  isOfCategory: false,
  columns: ["tenant", "stream"],
  of: (fact) => [fact.tenant, fact.stream]
}

/**
 * The column `tenant`, and one that holds the stream's id without its category. For projections of one category.
 *
 * @category keys
 * @since 0.1.0
 */
export const streamId = (column: string): StreamKey => ({
  _tag: "StreamKey",
  isOfCategory: true,
  columns: ["tenant", column],
  of: (fact) => [fact.tenant, fact.stream.slice(fact.stream.indexOf("-") + 1)]
})

/**
 * A key of its own.
 *
 * @category keys
 * @since 0.1.0
 */
export const make = <Event>(options: Omit<EventKey<Event>, "_tag">): EventKey<Event> => ({
  ...options,
  _tag: "EventKey"
})

/**
 * A key as one text: its columns with `/` between them.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (columns: ReadonlyArray<string>): string =>
  columns.map((value) => value.replaceAll("%", "%25").replaceAll("/", "%2F")).join("/")

/**
 * The columns of a key that was formatted.
 *
 * @category formatting
 * @since 0.1.0
 */
export const parse = (text: string): ReadonlyArray<string> =>
  text.split("/").map((value) => value.replaceAll("%2F", "/").replaceAll("%25", "%"))
