/**
 * What a store says of its streams: which there are, how many facts they hold, what they are for, and whether they take
 * more.
 *
 * **Details**
 *
 * Metadata and state are told by facts too, in the stream `$stream-<id>`, so the log has who changed them, when and why.
 * Nothing else is written there: streams that begin with `$` are the system's. An
 * *archived* stream takes no facts until it is reopened, and is left out of lists unless asked for. A *tombstoned* one never
 * takes any again. Both stay readable: what was recorded stays recorded.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { EventStoreError } from "./EventStore.ts"
import { type EventId, type Position, StreamId } from "./Fact.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * Whether a stream takes facts.
 *
 * @category models
 * @since 0.1.0
 */
export const StreamState = Schema.Literals(["open", "archived", "tombstoned"])
export type StreamState = typeof StreamState.Type

/**
 * The stream that tells what was said of a stream. Its id may be eight characters longer than that of another one.
 *
 * @category getters
 * @since 0.1.0
 */
export const aboutStream = (stream: StreamId): StreamId => StreamId.make(`$stream-${stream}`, { disableChecks: true })

/**
 * A stream. `version` is how many facts it holds, revisions among them.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamInfo {
  readonly stream: StreamId
  readonly version: number
  readonly state: StreamState
  readonly metadata: { readonly [key: string]: Schema.Json }
}

/**
 * A category, and what it holds.
 *
 * @category models
 * @since 0.1.0
 */
export interface CategoryInfo {
  readonly category: string
  readonly streams: bigint
  readonly facts: bigint
}

/**
 * A type of facts, and how many a category holds.
 *
 * @category models
 * @since 0.1.0
 */
export interface TypeInfo {
  readonly category: string
  readonly type: string
  readonly facts: bigint
}

/**
 * Who says something of a stream, and why.
 *
 * @category models
 * @since 0.1.0
 */
export interface Saying {
  readonly actor: string
  readonly reason: string
  /** Of the fact that tells it. Said again under the same id, it is said once: see `EventIdTaken`. Default: a new UUIDv7. */
  readonly eventId?: EventId | undefined
}

/**
 * Which streams to list, in the byte order of their ids.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListStreams {
  readonly category?: string | undefined
  /** Default: open ones. */
  readonly states?: ReadonlyArray<StreamState> | undefined
  /** Streams after this one: the last of the page before. */
  readonly after?: StreamId | undefined
  /** 1 to 1,000. Default: 100. */
  readonly limit?: number | undefined
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * The stream is archived or tombstoned. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class StreamClosed extends Schema.TaggedError<StreamClosed>()("StreamClosed", {
  stream: Schema.String,
  state: Schema.Literals(["archived", "tombstoned"])
}) {
  override get message() {
    return `Stream ${this.stream} is ${this.state} and takes no facts`
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * The current tenant's streams of a store.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamCatalog {
  /** None when there are neither facts nor anything said of it. */
  readonly get: (stream: StreamId) => Effect.Effect<Option.Option<StreamInfo>, EventStoreError>
  readonly list: (options?: ListStreams) => Effect.Effect<ReadonlyArray<StreamInfo>, EventStoreError>
  /** Every category by name. Counted as facts come: the log is not read for it. */
  readonly categories: Effect.Effect<ReadonlyArray<CategoryInfo>, EventStoreError>
  /** Every type of each category, by their names. */
  readonly types: Effect.Effect<ReadonlyArray<TypeInfo>, EventStoreError>
  /** Replaces the metadata; a stream need not have facts yet. */
  readonly setMetadata: (
    stream: StreamId,
    metadata: { readonly [key: string]: Schema.Json },
    saying: Saying
  ) => Effect.Effect<Position, EventStoreError>
  /** Fails with `StreamClosed` when it is tombstoned; the same state again is said again. */
  readonly setState: (stream: StreamId, state: StreamState, saying: Saying) => Effect.Effect<Position, EventStoreError>
}
