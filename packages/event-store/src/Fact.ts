/**
 * Facts: what a store holds, and what an append brings to it.
 *
 * **Details**
 *
 * A fact is immutable. It carries two clocks: when it holds in the world (`validFrom`, `validTo`) and when the store
 * learned it (`recordedAt`, the database's clock). A revision is a fact of its own that names the one it revises.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Schema from "effect/Schema"
import type { PersonalFields } from "./PersonalData.ts"

/**
 * The place of a fact in its store: 1, 2, 3 … without holes, in commit order. `0` stands before the first fact.
 *
 * @category models
 * @since 0.1.0
 */
export const Position = Schema.BigInt.pipe(
  Schema.check(Schema.isGreaterThanOrEqualToBigInt(0n)),
  Schema.brand("@strata/event-store/Position")
)
export type Position = typeof Position.Type

/**
 * The position before the first fact: reading after it reads everything.
 *
 * @category constants
 * @since 0.1.0
 */
export const beginning = Position.make(0n)

/**
 * A UUID (RFC 9562) in lower case. The store makes a version 7 one where none is given.
 *
 * @category models
 * @since 0.1.0
 */
export const EventId = Schema.String.pipe(
  Schema.check(Schema.isPattern(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, {
    message: "Expected a UUID in lower case"
  })),
  Schema.brand("@strata/event-store/EventId")
)
export type EventId = typeof EventId.Type

/**
 * `<category>-<id>`: the history of one aggregate. The category is what stands before the first `-`.
 * At most 512 characters, none of them NUL.
 *
 * @category models
 * @since 0.1.0
 */
export const StreamId = Schema.String.pipe(
  Schema.check(
    Schema.isPattern(/^[^-\0]+-[^\0]+$/, { message: "Expected <category>-<id>" }),
    Schema.isMaxLength(512)
  ),
  Schema.brand("@strata/event-store/StreamId")
)
export type StreamId = typeof StreamId.Type

/**
 * The stream of an aggregate.
 *
 * @category constructors
 * @since 0.1.0
 */
export const streamId = (category: string, id: string): StreamId => StreamId.make(`${category}-${id}`)

/**
 * What stands before the first `-` of a stream id.
 *
 * @category getters
 * @since 0.1.0
 */
export const categoryOf = (stream: StreamId): string => stream.slice(0, stream.indexOf("-"))

/**
 * A fact to be appended. Everything but the type and the data has a default.
 *
 * - `eventId`: a new UUIDv7. An append sent again with the same ids is answered with the first result: see `EventIdTaken`.
 * - `schemaVersion`: 1
 * - `validFrom`: the moment it is recorded; `validTo`: open
 * - `correlationId`: the event id of the first fact of the append; `causationId`: none
 * - `tenant`, `actor`, `traceparent`: from the append's options
 * - `personal`: none of the data's fields. See `PersonalData`
 *
 * @category models
 * @since 0.1.0
 */
export interface NewFact {
  readonly stream: StreamId
  readonly type: string
  readonly data: Schema.Json
  readonly eventId?: EventId | undefined
  readonly schemaVersion?: number | undefined
  readonly metadata?: { readonly [key: string]: Schema.Json } | undefined
  readonly validFrom?: Timestamp.Timestamp | undefined
  readonly validTo?: Timestamp.Timestamp | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  readonly personal?: ReadonlyArray<PersonalFields> | undefined
}

/**
 * A stored fact. `version` counts from 1 in its stream. `revision` is 0 for a first fact; a revision carries the number
 * it has in its chain, the id of the chain's first fact in `revises`, and a `reason`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Fact {
  readonly position: Position
  readonly stream: StreamId
  readonly version: number
  /** Position of the first fact of its chain: its own, unless it is a revision. */
  readonly origin: Position
  readonly eventId: EventId
  readonly type: string
  readonly schemaVersion: number
  readonly data: Schema.Json
  readonly metadata: { readonly [key: string]: Schema.Json }
  readonly correlationId: string
  readonly causationId: string | null
  readonly tenant: string
  readonly actor: string | null
  /** W3C trace context of the request that caused it, if there was one. */
  readonly traceparent: string | null
  readonly validFrom: Timestamp.Timestamp
  /** `Timestamp.infinity` while open. */
  readonly validTo: Timestamp.Timestamp
  readonly recordedAt: Timestamp.Timestamp
  readonly revision: number
  readonly revises: EventId | null
  readonly retracted: boolean
  readonly reason: string | null
}
