/**
 * Revisions: how a store says that a fact was wrong, without changing it.
 *
 * **Details**
 *
 * A revision is a fact of its own, in the stream of the fact it revises: it has a position, a version and a recorded time
 * like any other, and reaches subscribers. A *correction* says how the fact should have been, its data, its validity or
 * both; a *retraction* says that it never held. The revisions of one fact form one chain, numbered 1, 2, 3 … after the
 * first fact's 0; whichever member's id names the chain, the revision is added at its end.
 *
 * A fact that is retracted cannot be corrected or retracted again: retract the retraction, by its own id, and the fact is
 * as it was before. To retract a retraction is to restore, and nothing else: it succeeds once, while the chain ends with that
 * retraction. Afterwards it is refused with `RevisionConflict`, or with `FactRetracted` where the chain ends with another
 * retraction, so that two who restore the same fact at once do not take it away again.
 *
 * What the store itself says, in streams whose names begin with `$`, is not revised: `InvalidAppend` names `revises`.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Schema from "effect/Schema"
import { EventId, Position, type StreamId } from "./Fact.ts"
import type { PersonalFields } from "./PersonalData.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What every revision says.
 *
 * - `revises`: any member of the chain
 * - `reason`, `actor`: why, and who says so
 * - `eventId`: a new UUIDv7; a revision sent again with the same id is answered with the first result: see `EventIdTaken`
 * - `correlationId`, `causationId`, `metadata`: those of the revision before
 * - `expectedRevision`: refuse unless the chain ends with this number
 *
 * @category models
 * @since 0.1.0
 */
interface RevisionFields {
  readonly revises: EventId
  readonly reason: string
  readonly actor: string
  readonly eventId?: EventId | undefined
  readonly metadata?: { readonly [key: string]: Schema.Json } | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  readonly expectedRevision?: number | undefined
}

/**
 * How the fact should have been. What is not given stays as it was; one of `data`, `validFrom` and `validTo` must be.
 * `validTo: Timestamp.infinity` opens the end again.
 *
 * @category models
 * @since 0.1.0
 */
export interface Correction extends RevisionFields {
  readonly _tag: "Correction"
  readonly data?: Schema.Json | undefined
  /**
   * The type of the fact, which no correction changes: refused when it is of another one. Default: whatever it is;
   * `encodeCorrection` of an `EventDefinition.EventSet` says that of its event.
   */
  readonly type?: string | undefined
  /**
   * The version of the data's shape. Default: that of the revision before, so data in a newer shape must say so;
   * `encodeCorrection` of an `EventDefinition.EventSet` does.
   */
  readonly schemaVersion?: number | undefined
  /** Fields of the data that are personal: see `PersonalData`. Default: none of them, whatever the revision before had. */
  readonly personal?: ReadonlyArray<PersonalFields> | undefined
  readonly validFrom?: Timestamp.Timestamp | undefined
  readonly validTo?: Timestamp.Timestamp | undefined
}

/**
 * That the fact never held, or, when `revises` is a retraction, that it did: refused then unless the chain ends with that one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Retraction extends RevisionFields {
  readonly _tag: "Retraction"
}

/**
 * A correction or a retraction.
 *
 * @category models
 * @since 0.1.0
 */
export type Revision = Correction | Retraction

/**
 * Where a revision went. `revision` is its number in the chain, `revises` the chain's first fact.
 *
 * @category models
 * @since 0.1.0
 */
export interface Revised {
  readonly eventId: EventId
  readonly revises: EventId
  readonly revision: number
  readonly stream: StreamId
  readonly version: number
  readonly position: Position
  readonly recordedAt: Timestamp.Timestamp
  readonly retracted: boolean
  /** It was sent again: see `EventIdTaken`. */
  readonly duplicate: boolean
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * There is no fact with this id to revise. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownFact extends Schema.TaggedError<UnknownFact>()("UnknownFact", { eventId: EventId }) {
  override get message() {
    return `There is no fact ${this.eventId}`
  }
}

/**
 * The fact is retracted. Nothing was written. `retraction` is the id to retract to have it back.
 *
 * @category errors
 * @since 0.1.0
 */
export class FactRetracted extends Schema.TaggedError<FactRetracted>()("FactRetracted", {
  eventId: EventId,
  retraction: EventId,
  position: Position
}) {
  override get message() {
    return `Fact ${this.eventId} is retracted since position ${this.position}; retract ${this.retraction} to restore it`
  }
}

/**
 * The chain does not end with the revision the caller has seen, or with the retraction that was to be retracted: `expected` is
 * that one's number then. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class RevisionConflict extends Schema.TaggedError<RevisionConflict>()("RevisionConflict", {
  eventId: EventId,
  expected: Schema.Int,
  actual: Schema.Int
}) {
  override get message() {
    return `Fact ${this.eventId} is at revision ${this.actual}, expected ${this.expected}`
  }
}
