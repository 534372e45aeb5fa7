/**
 * Where the keys of subjects are kept: wrapped, one for each subject of a tenant, and a record of each that was destroyed.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import type * as Effect from "effect/Effect"
import type { EventStoreError } from "./EventStore.ts"
import type { EventId, Position, StreamId } from "./Fact.ts"
import type { Subject } from "./MasterKeys.ts"

/**
 * A key under a master key, which `master` names.
 *
 * @category models
 * @since 0.1.0
 */
export interface WrappedKey {
  readonly master: string
  readonly wrapped: Uint8Array
}

/**
 * A key by its number, which no other key has ever had.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyRef extends Subject {
  readonly key: number
}

/**
 * A key as it is kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoredKey extends KeyRef, WrappedKey {}

/**
 * What is asked of a key's number: the key, null when it was destroyed.
 *
 * @category models
 * @since 0.1.0
 */
export interface FoundKey extends KeyRef {
  readonly found: WrappedKey | null
}

/**
 * A stream of a store that holds something of a subject.
 *
 * @category models
 * @since 0.1.0
 */
export interface Place {
  readonly subject: string
  readonly store: string
  readonly stream: StreamId
}

/**
 * An erasure that is to be recorded. The id is that of the facts that tell of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Erasing extends Subject {
  readonly eventId: EventId
  readonly reason: string
  readonly actor: string
  readonly traceparent: string | null
}

/**
 * What was recorded of an erasure. `key` is 0 where the subject never had one; `again` says that it was recorded before, with
 * the first one's reason, actor and time. `told` are the stores that hold something of the subject, and where
 * their logs have the fact that tells of it: null where the store has yet to write it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorded extends KeyRef {
  readonly reason: string
  readonly actor: string
  readonly erasedAt: Timestamp.Timestamp
  readonly again: boolean
  readonly told: ReadonlyArray<{ readonly store: string; readonly position: Position | null }>
}

/**
 * A page of a subject's streams, in byte order.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamsOf extends Subject {
  readonly store: string
  readonly after: StreamId | undefined
  readonly limit: number
}

/**
 * Keys, the erasures of them, and which streams hold what is sealed under them. `aside` is asked for by a caller who is in a
 * transaction: what is done then is no part of it, and waits for nobody who may wait for it.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubjectKeyTable {
  readonly inTransaction: Effect.Effect<boolean>
  /** The keys of subjects of one tenant; whoever has none gets the candidate, unless another caller was faster. */
  readonly hold: (
    tenant: string,
    candidates: ReadonlyArray<WrappedKey & Pick<Subject, "subject">>,
    aside: boolean
  ) => Effect.Effect<ReadonlyArray<StoredKey>, EventStoreError>
  /** Remembers which streams hold something of whom, all of one tenant. */
  readonly note: (tenant: string, places: ReadonlyArray<Place>, aside: boolean) => Effect.Effect<void, EventStoreError>
  /** Keys of any tenants. One of which nothing is known is left out. */
  readonly find: (
    refs: ReadonlyArray<KeyRef>,
    aside: boolean
  ) => Effect.Effect<ReadonlyArray<FoundKey>, EventStoreError>
  /** Destroys the subject's key. */
  readonly erase: (erasing: Erasing) => Effect.Effect<Recorded, EventStoreError>
  readonly streamsOf: (asked: StreamsOf) => Effect.Effect<ReadonlyArray<StreamId>, EventStoreError>
  /** Keys of all tenants that are wrapped under another master key than this one, in the order of tenant and subject. */
  readonly wrappedOtherwise: (
    master: string,
    after: Subject | undefined
  ) => Effect.Effect<ReadonlyArray<StoredKey>, EventStoreError>
  /** Puts keys of one tenant in the place of the same keys, otherwise wrapped; tells how many. One that is gone stays gone. */
  readonly replace: (tenant: string, keys: ReadonlyArray<StoredKey>) => Effect.Effect<number, EventStoreError>
}
