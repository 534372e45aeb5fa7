/**
 * Questions on two time axes: which facts were believed at one moment, to hold at another.
 *
 * **Details**
 *
 * *Known at K*: of each fact recorded at or before K, its newest revision recorded at or before K; retracted ones are
 * gone. *Valid at V*: its period holds V. Both combine in every read, with every filter. A filter looks at the
 * revision that is believed, not at the ones it replaced.
 *
 * A question about a past K is answered the same for ever.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Schema from "effect/Schema"
import type { EventId, Fact, Position, StreamId } from "./Fact.ts"

/**
 * A moment of what was known: a time (by the database's clock), or a position in the log.
 *
 * @category models
 * @since 0.1.0
 */
export type KnownAt =
  | { readonly time: Timestamp.Timestamp }
  | { readonly position: Position }

/**
 * Which facts, whatever the time axes say. Everything that is given must hold; what is not given does not restrict.
 *
 * @category models
 * @since 0.1.0
 */
export interface FactFilter {
  readonly stream?: StreamId | undefined
  readonly category?: string | undefined
  /** Any of these; `*` stands for one segment between dots: `order.*.paid`. */
  readonly types?: ReadonlyArray<string> | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  /** Top-level metadata that must be equal. */
  readonly metadata?: { readonly [key: string]: Schema.Json } | undefined
}

/**
 * Which facts of the log as a whole, of all tenants unless one is given. Everything that is given must hold; what is not
 * given does not restrict.
 *
 * @category models
 * @since 0.1.0
 */
export interface LogFilter extends Pick<FactFilter, "category" | "types" | "stream"> {
  readonly tenant?: string | undefined
}

/**
 * A question. Everything that is given must hold; what is not given does not restrict.
 *
 * @category models
 * @since 0.1.0
 */
export interface FactQuery extends FactFilter {
  /**
   * Default: now. Appends in flight end first then, so many such reads of a store that is written to all the time slow its writers
   * down; a position or a time that is known already waits for nobody.
   */
  readonly knownAt?: KnownAt | undefined
  readonly validAt?: Timestamp.Timestamp | undefined
  /**
   * What must stand in the data, all of it. Each fact that fits otherwise is looked into, so ask for types or a stream as well.
   * Data with NUL or half of a surrogate pair in it fits nothing.
   */
  readonly data?: ReadonlyArray<DataCondition> | undefined
  /** Periods that overlap `[from, to)`. Not together with `validAt`. */
  readonly validDuring?: { readonly from: Timestamp.Timestamp; readonly to: Timestamp.Timestamp } | undefined
  /** Versions in the stream, both ends included. */
  readonly versions?: { readonly from?: number | undefined; readonly to?: number | undefined } | undefined
  /** `belief` (the default): the newest revision of each fact. `all`: every row of the log, retractions too. */
  readonly revisions?: "belief" | "all" | undefined
  /** Default: `position`. By `validity`: by `validFrom`, and by position where that is equal. */
  readonly orderBy?: "position" | "validity" | undefined
  /** Default: `forwards`. */
  readonly direction?: "forwards" | "backwards" | undefined
  /** Facts on a page, 1 to 1,000. Default: 100. */
  readonly limit?: number | undefined
  /** Where the page before ended: its `next`. The same tenant must ask the same question of the same store. */
  readonly cursor?: string | undefined
}

/**
 * What must stand at one place of a fact's data.
 *
 * **Example** (Orders of gold customers, from a hundred euros on)
 *
 * ```ts
 * import type { FactQuery } from "@strata/event-store/FactQuery"
 *
 * const query: FactQuery = {
 *   types: ["order.placed"],
 *   data: [
 *     { path: "/customer/tier", is: "equal", value: "gold" },
 *     { path: "/cents", is: "atLeast", value: 10_000 }
 *   ]
 * }
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface DataCondition {
  /** A JSON Pointer (RFC 6901): `/lines/0/sku`, and an empty text for the whole. */
  readonly path: string
  /** `equal` compares any values. The others compare numbers with numbers and texts with texts, these by their UTF-8 bytes. */
  readonly is: "equal" | "above" | "atLeast" | "below" | "atMost"
  readonly value: Schema.Json
}

/**
 * A page of an answer.
 *
 * @category models
 * @since 0.1.0
 */
export interface FactPage {
  readonly facts: ReadonlyArray<Fact>
  /** The cursor of the next page, null when this is the last one. All pages answer for the same moment. */
  readonly next: string | null
  /** The moment it answers for: the last position that was known. */
  readonly knownAt: Position
}

/**
 * How many facts answer a question, of those that were known at a position. Where it is not exact there are more, or there may be: no more
 * are counted than `countedAtMost`, and of a log in which facts that fit are rare and everywhere, no more than 100,000 facts are looked at.
 *
 * @category models
 * @since 0.1.0
 */
export interface FactCount {
  readonly value: number
  readonly exact: boolean
  readonly knownAt: Position
}

/**
 * Facts that are counted; more of them are not looked for.
 *
 * @category constants
 * @since 0.1.0
 */
export const countedAtMost = 10_000

/**
 * A point of the plane: what was known at `knownAt` to hold at `validAt`. Both default to now.
 *
 * @category models
 * @since 0.1.0
 */
export interface Point {
  readonly validAt?: Timestamp.Timestamp | undefined
  readonly knownAt?: KnownAt | undefined
}

/**
 * A fact that is seen otherwise from one point than from another. `worldMoved`: its validity began or ended between them.
 * `weLearned`: it was recorded, corrected or retracted between them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Difference {
  /** The first fact of the chain. */
  readonly eventId: EventId
  readonly before: Fact | null
  readonly after: Fact | null
  readonly worldMoved: boolean
  readonly weLearned: boolean
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * The question cannot be answered: `path` names the field, `message` says what is wrong with it.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidQuery extends Schema.TaggedError<InvalidQuery>()("InvalidQuery", {
  path: Schema.String,
  message: Schema.String
}) {}
