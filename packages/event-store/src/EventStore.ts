/**
 * The event store: a named log of facts, appended to in one serial order and read back in it.
 *
 * **Details**
 *
 * Positions of a store are 1, 2, 3 … without holes, in commit order, and `recordedAt` never decreases along them.
 * So a reader's cursor is one number. Appends that arrive while another batch commits are written together by one
 * statement; each of them succeeds or fails alone.
 *
 * **Example** (Appending and reading)
 *
 * ```ts
 * import * as EventStore from "@strata/event-store/EventStore"
 * import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
 * import * as Fact from "@strata/event-store/Fact"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* EventStore.EventStore
 *   const stream = Fact.streamId("account", "42")
 *   yield* store.append({ facts: [{ stream, type: "Opened", data: { owner: "Ada" } }], expect: { [stream]: "noStream" } })
 *   return yield* store.readStream(stream)
 * }).pipe(Effect.provide(EventStoreMemory.layer()))
 * ```
 *
 * @since 0.1.0
 */
import type { Publication } from "@strata/outbox/Publication"
import * as Timestamp from "@strata/postgres/Timestamp"
import type { NotCommitted } from "@strata/postgres/TransactionError"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { type CommitWork, ProjectionRefused } from "./CommitWork.ts"
import { EventId, type Fact, type NewFact, Position, type StreamId } from "./Fact.ts"
import {
  type FactCount,
  type FactFilter,
  type FactPage,
  type FactQuery,
  InvalidQuery,
  type KnownAt,
  type LogFilter
} from "./FactQuery.ts"
import { MasterKeyRefused, NoSubjectKeys, SealBroken } from "./PersonalData.ts"
import { FactRetracted, type Revised, type Revision, RevisionConflict, UnknownFact } from "./Revision.ts"
import { type StreamCatalog, StreamClosed } from "./StreamCatalog.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What a stream must look like for an append to be accepted: `any`, not there at all, there at all, or at exactly
 * this version.
 *
 * @category models
 * @since 0.1.0
 */
export type ExpectedVersion = "any" | "noStream" | "streamExists" | number

/**
 * One atomic append: all of its facts or none, over one stream or several, in the order given.
 *
 * @category models
 * @since 0.1.0
 */
export interface Append {
  readonly facts: ReadonlyArray<NewFact>
  /** Conditions by stream id; a stream that is not named is not checked, one that is not written may be. */
  readonly expect?: { readonly [stream: string]: ExpectedVersion } | undefined
  /** What must not have been recorded since the caller looked. */
  readonly condition?: AppendCondition | undefined
  /** Who does it. */
  readonly actor?: string | undefined
  /** A client's key for the whole request: kept in the same statement as the facts. */
  readonly idempotency?: IdempotencyRecord | undefined
  /**
   * What the world is to be told of it: published to the outbox in the same statement, and not at all when the append is refused or was
   * there before. Messages that do not say have its tenant, its correlation and its trace. Needs the tables of the outbox.
   */
  readonly publications?: ReadonlyArray<Publication> | undefined
}

/**
 * A boundary of consistency drawn by a question instead of a stream: the append is refused when a fact of its tenant after
 * the position matches any of the filters. Each of them must restrict something. The position is the one the caller's
 * decision has read up to: the `knownAt` of a page, or the head before reading.
 *
 * A correction is a fact as others are, and matches by what it says, not by what it replaces: one that moves a fact out of the
 * boundary is not seen. Where metadata that a boundary asks for may be corrected, ask for the streams or the types as well.
 *
 * Source: Sara Pellegrini, *Killing the Aggregate* (2023); the specification at dcb.events.
 *
 * @category models
 * @since 0.1.0
 */
export interface AppendCondition {
  readonly after: Position
  readonly noneOf: ReadonlyArray<FactFilter>
}

/**
 * The answer kept for a client's idempotency key. `fingerprint` identifies the request's content, `answer` is what a
 * repeated request is answered with. Keys are unique per tenant.
 *
 * @category models
 * @since 0.1.0
 */
export interface IdempotencyRecord {
  readonly key: string
  readonly fingerprint: string
  readonly answer: Schema.Json
}

/**
 * Where an append went. `duplicate` says that it was sent again: its facts had been stored before, and these are the first
 * result's values. What counts as the same append is told at `EventIdTaken`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Appended {
  readonly facts: ReadonlyArray<{
    readonly eventId: EventId
    readonly stream: StreamId
    readonly version: number
    readonly position: Position
  }>
  /** The position of the last of them. */
  readonly position: Position
  readonly recordedAt: Timestamp.Timestamp
  readonly duplicate: boolean
}

/**
 * A folded state kept so that a long stream need not be read from its first fact.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly stream: StreamId
  /** Version of the stream that the state has seen, and the position of that fact. */
  readonly version: number
  readonly position: Position
  /** Version of the state's own shape: a snapshot of another one is not used. */
  readonly schemaVersion: number
  readonly state: Schema.Json
}

/**
 * A part of the log.
 *
 * @category models
 * @since 0.1.0
 */
export interface LogRange {
  readonly after: Position
  readonly limit?: number | undefined
  readonly filter?: LogFilter | undefined
  /** Up to this position, which is refused when it is after the head. Default: the head. */
  readonly upTo?: Position | undefined
}

/**
 * A part of a stream, or of a fact's revisions.
 *
 * @category models
 * @since 0.1.0
 */
export interface Slice {
  /** Default: `forwards`. */
  readonly direction?: "forwards" | "backwards" | undefined
  /** Default: 1,000. */
  readonly limit?: number | undefined
}

/**
 * A part of a stream.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamSlice extends Slice {
  /** First version to read: from 1 forwards, from the last one backwards. */
  readonly fromVersion?: number | undefined
}

/**
 * A part of the revisions of a fact.
 *
 * @category models
 * @since 0.1.0
 */
export interface HistorySlice extends Slice {
  /** First revision to read: from 0 forwards, from the last one backwards. */
  readonly fromRevision?: number | undefined
}

/**
 * Facts of a stream in the order of their versions, or of a fact in the order of its revisions. `next` is the version or the
 * revision to go on from, null when there is nothing left.
 *
 * @category models
 * @since 0.1.0
 */
export interface SlicePage {
  readonly facts: ReadonlyArray<Fact>
  readonly next: number | null
}

/**
 * Facts of the log. No other fact that was asked for stands before or at `end`.
 *
 * @category models
 * @since 0.1.0
 */
export interface LogPage {
  readonly facts: ReadonlyArray<Fact>
  readonly end: Position
}

// --------------------------------------------------------------------------------------------------------- errors

/** A stream that is at another version than expected. */
const Conflict = Schema.Struct({
  stream: Schema.String,
  expected: Schema.Union([Schema.Literals(["any", "noStream", "streamExists"]), Schema.Int]),
  /** 0 when there is no such stream. */
  actual: Schema.Int
})

/**
 * The stream is not at the version the append was made for. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class VersionConflict extends Schema.TaggedError<VersionConflict>()("VersionConflict", {
  ...Conflict.fields,
  /** The other streams of the append that were at another version too. */
  others: Schema.optionalKey(Schema.Array(Conflict))
}) {
  override get message(): string {
    return [this, ...(this.others ?? [])]
      .map(({ actual, expected, stream }) => `Stream ${stream} is at version ${actual}, expected ${expected}`)
      .join("; ")
  }
}

/**
 * A fact that matches the append's condition was recorded since. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConditionFailed extends Schema.TaggedError<ConditionFailed>()("ConditionFailed", {
  after: Position,
  /** The first fact that matches. */
  position: Position
}) {
  override get message() {
    return `The fact at position ${this.position} was recorded after ${this.after} and matches the append's condition`
  }
}

/**
 * The event id belongs to a fact that this request would not have led to. Nothing was written.
 *
 * **Details**
 *
 * A request whose event ids are there already was *sent again* when it would have led to what is stored: it is answered with
 * the first result. It has to agree in every field, where one that is left out stands for its default:
 *
 * - An append: all of its facts, one after the other, in stream, type, `schemaVersion`, data, metadata (`{}`), correlation
 *   (the event id of the append's first fact, this one's or the one's that stored it: so a part of an append may be sent
 *   again), causation (none), actor (none), `validFrom` (when it was recorded) and `validTo` (no end).
 * - A revision: that it corrects or retracts, the chain and the place in it, reason and actor; and all that it may change,
 *   where what is left out is as it was in the revision before.
 * - What is said of a stream: the stream, its state or metadata, reason and actor.
 *
 * Not compared are expected versions, conditions, idempotency keys and trace contexts: they decided on the first request.
 * Neither are personal fields of which the subject was erased since: what is left of the fact decides.
 * Of JSON, the value is compared, whatever the order of its keys.
 *
 * @category errors
 * @since 0.1.0
 */
export class EventIdTaken extends Schema.TaggedError<EventIdTaken>()("EventIdTaken", {
  eventId: EventId,
  position: Position
}) {
  override get message() {
    return `Event id ${this.eventId} belongs to another fact, at position ${this.position}`
  }
}

/**
 * The idempotency key was used before. The first request's fingerprint and answer come with it. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class IdempotencyKeyUsed extends Schema.TaggedError<IdempotencyKeyUsed>()("IdempotencyKeyUsed", {
  key: Schema.String,
  fingerprint: Schema.String,
  answer: Schema.Json,
  position: Position
}) {
  override get message() {
    return `Idempotency key ${this.key} was used before, at position ${this.position}`
  }
}

/**
 * The append can never succeed as it is: `path` names the field, `message` says what is wrong with it.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidAppend extends Schema.TaggedError<InvalidAppend>()("InvalidAppend", {
  path: Schema.String,
  message: Schema.String
}) {}

/**
 * The fact is too large to be read, and so is every page that begins with it: it was not written by an append, which refuses
 * such a fact. To go on, read after its position.
 *
 * @category errors
 * @since 0.1.0
 */
export class FactUnreadable extends Schema.TaggedError<FactUnreadable>()("FactUnreadable", {
  position: Position,
  eventId: EventId,
  recordedAt: Timestamp.Timestamp,
  /** Of its data and metadata, as JSON text. */
  bytes: Schema.BigInt
}) {
  override get message() {
    return `Fact ${this.eventId} at position ${this.position} cannot be read: it holds ${this.bytes} bytes`
  }
}

/**
 * The store could not be reached or did not answer in time. For an append the outcome is unknown: repeat it with the
 * same event ids, and it is stored once.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>()("StoreUnavailable", {
  operation: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `The event store did not answer: ${this.operation}`
  }
}

/**
 * Why an operation on the store failed.
 *
 * @category errors
 * @since 0.1.0
 */
export class EventStoreError extends Schema.TaggedError<EventStoreError>()("EventStoreError", {
  reason: Schema.Union([
    VersionConflict,
    ConditionFailed,
    StreamClosed,
    EventIdTaken,
    IdempotencyKeyUsed,
    InvalidAppend,
    UnknownFact,
    FactRetracted,
    RevisionConflict,
    InvalidQuery,
    FactUnreadable,
    NoSubjectKeys,
    MasterKeyRefused,
    SealBroken,
    ProjectionRefused,
    StoreUnavailable
  ])
}) {
  override get message() {
    return this.reason.message
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * A named store, asked by the current tenant: see `CurrentTenant`.
 *
 * @category services
 * @since 0.1.0
 */
export class EventStore extends Context.Service<EventStore, {
  readonly name: string
  /**
   * Appends atomically, together with whatever other appends are waiting. Fails inside a transaction of the same
   * database, where it could commit without it: use `appendInTransaction` there.
   */
  readonly append: (append: Append) => Effect.Effect<Appended, EventStoreError>
  /**
   * Joins the caller's transaction: held back and written by the last statement before the commit, so that the head
   * of the log is not locked while other work runs. The inner effect gives the outcome after the commit; a
   * conflict fails the transaction. It fails with `NotCommitted` when there is no commit, and inside the transaction.
   */
  readonly appendInTransaction: (
    append: Append
  ) => Effect.Effect<Effect.Effect<Appended, NotCommitted>, EventStoreError>
  /**
   * Corrects or retracts a fact. `EventDefinition.EventSet` makes the correction to an event. Refused inside a transaction, where it could be committed without it: use
   * `reviseInTransaction` there.
   */
  readonly revise: (revision: Revision) => Effect.Effect<Revised, EventStoreError>
  /** Joins the caller's transaction, like `appendInTransaction`; a refusal fails the transaction. */
  readonly reviseInTransaction: (
    revision: Revision
  ) => Effect.Effect<Effect.Effect<Revised, NotCommitted>, EventStoreError>
  /**
   * Until the scope closes, does work in every transaction in which this process appends, corrects or retracts: after the facts
   * are written, before the commit, while the log is locked. The facts of the system, of streams and of erased subjects, are
   * written without it. A store in memory has no transactions: there it is a defect.
   */
  readonly beforeCommit: (work: CommitWork) => Effect.Effect<void, never, Scope.Scope>
  /** The facts that were known at a moment to hold at another, page by page. */
  readonly read: (query: FactQuery) => Effect.Effect<FactPage, EventStoreError>
  /** How many facts answer a question, counted as far as `countedAtMost`. Its order, limit and cursor are nothing to it. */
  readonly count: (query: FactQuery) => Effect.Effect<FactCount, EventStoreError>
  /** The revisions of a fact, the first one first, by the id of any of them, as `historyPage` gives them. */
  readonly history: (eventId: EventId, options?: HistorySlice) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>
  /**
   * The same, and whether there are more. None when there is no such fact. At most `limit`, and fewer where there are large
   * ones: it ends after 8 MiB of those.
   */
  readonly historyPage: (eventId: EventId, options?: HistorySlice) => Effect.Effect<SlicePage, EventStoreError>
  /** The position a moment stands for: the last one recorded at or before it. A moment after now is refused. */
  readonly positionAt: (knownAt: KnownAt) => Effect.Effect<Position, EventStoreError>
  /** The facts of one stream in version order, revisions among them, as `readStreamPage` gives them. */
  readonly readStream: (stream: StreamId, options?: StreamSlice) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>
  /**
   * The same, and whether there are more. None when there is no such stream. At most `limit`, and fewer where there are large
   * ones: it ends after 8 MiB of those.
   */
  readonly readStreamPage: (stream: StreamId, options?: StreamSlice) => Effect.Effect<SlicePage, EventStoreError>
  /**
   * Facts of all tenants after a position, in log order, those that fit the filter if one is given. At most `limit`, by
   * default 1,000, and fewer where there are large ones: it ends after 8 MiB of those. Only no facts at all say that there are no more.
   */
  readonly readLog: (options: LogRange) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>
  /** The same, and how far it went: who reads with a filter goes on from there. */
  readonly readLogPage: (options: LogRange) => Effect.Effect<LogPage, EventStoreError>
  /**
   * All facts of several streams, of any tenants, up to a position, in log order and revisions among them: for who folds what is
   * believed of many streams. All at once, however large they are: ask for no more streams than fit into memory.
   */
  readonly readStreams: (options: {
    readonly streams: ReadonlyArray<Pick<Fact, "tenant" | "stream">>
    readonly upTo: Position
  }) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>
  /** The fact with this id. */
  readonly get: (eventId: EventId) => Effect.Effect<Option.Option<Fact>, EventStoreError>
  /** The position of the last fact of any tenant, `0` in an empty store. */
  readonly head: Effect.Effect<Position, EventStoreError>
  /** The last position that this process knows of, without a look: others may have written more. */
  readonly knownHead: Effect.Effect<Position>
  /** The version of a stream's last fact, `0` when there is no such stream. */
  readonly streamVersion: (stream: StreamId) => Effect.Effect<number, EventStoreError>
  /**
   * Every fact of all tenants after a position: first those that are there, then each as it is committed, exactly once and in order,
   * in arrays as those of `readLog`. Never ends. Wake-ups are hints; the log is read again at
   * least every `pollInterval`.
   */
  readonly subscribe: (options: {
    readonly after: Position
    readonly limit?: number | undefined
  }) => Stream.Stream<NonEmptyReadonlyArray<Fact>, EventStoreError>
  /** Waits until there may be a fact after a position: at once where that is known, at the latest after the poll interval. */
  readonly changed: (after: Position) => Effect.Effect<void>
  /** The answer kept for an idempotency key. */
  readonly idempotencyRecord: (
    key: string
  ) => Effect.Effect<Option.Option<IdempotencyRecord & { readonly position: Position }>, EventStoreError>
  /** Which streams there are, and what is said of them. */
  readonly streams: StreamCatalog
  readonly saveSnapshot: (snapshot: Snapshot) => Effect.Effect<void, EventStoreError>
  readonly loadSnapshot: (
    stream: StreamId,
    schemaVersion: number
  ) => Effect.Effect<Option.Option<Snapshot>, EventStoreError>
}>()("@strata/event-store/EventStore") {}
