/**
 * Messages: what is sent to a queue, and what a worker gets.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import type { Claimed } from "./consuming/Claims.ts"
import type { HeaderValue } from "./consuming/HeaderFilter.ts"

/**
 * The id of a message, as decimal digits. Ids are in the order of sending, but for transactions that run at the same time.
 *
 * @category schemas
 * @since 0.1.0
 */
export const MessageId = Schema.BigInt.pipe(Schema.brand("MessageId"))
export type MessageId = typeof MessageId.Type

/**
 * What is said of a message beside what it holds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Headers {
  readonly [name: string]: HeaderValue
}

/**
 * A key that no two messages of a queue have at a time.
 *
 * - `key`: at most 512 characters.
 * - `during` (`waiting`, `later`, `running`): the states of the other message in which this one is not sent. `dead` and `done` may be
 *   named too; `done` needs `window`.
 * - `window` (none): after so long from the sending of the other message, this one is sent whatever became of the other.
 * - `onConflict` (`skip`): `replace` puts this message in the place of one that has not begun.
 *
 * @category models
 * @since 0.1.0
 */
export interface Unique {
  readonly key: string
  readonly during?: ReadonlyArray<State> | undefined
  readonly window?: Duration.Input | undefined
  readonly onConflict?: "skip" | "replace" | undefined
}

/**
 * Where a message is.
 *
 * @category models
 * @since 0.1.0
 */
export type State = "waiting" | "later" | "running" | "dead" | "done"

/**
 * A message to send. Only the payload has no default.
 *
 * @category models
 * @since 0.1.0
 */
export interface NewMessage<out A> {
  readonly payload: A
  /** From 0 to 10, the most urgent. Default: 5. */
  readonly priority?: number | undefined
  /** Messages of one key are worked on in the order in which they were sent. At most 512 characters. Default: none. */
  readonly key?: string | undefined
  /** Not before so long from now. Default: at once. */
  readonly delay?: Duration.Input | undefined
  readonly headers?: Headers | undefined
  /** What kind of message it is. At most 512 characters. Default: the name of the queue. */
  readonly type?: string | undefined
  /** Whose it is: tenants have equal parts of the workers. Default: `default`. */
  readonly tenant?: string | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  readonly unique?: Unique | undefined
}

/**
 * What became of a message that was sent.
 *
 * - `inserted`: it is in the queue, under this id.
 * - `replaced`: it is in the queue, in the place of another one with its unique key.
 * - `skipped`: another one with its unique key is there, under this id.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sent {
  readonly outcome: "inserted" | "replaced" | "skipped"
  readonly id: MessageId
}

/**
 * A try that failed.
 *
 * @category models
 * @since 0.1.0
 */
export const Failure = Schema.Struct({
  attempt: Schema.Int,
  /** When, as the database writes it. */
  at: Schema.String,
  worker: Schema.String,
  /** The name of the error. */
  type: Schema.String,
  message: Schema.String
})
export type Failure = typeof Failure.Type

/**
 * A message as a worker gets it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Message<out A> {
  readonly id: MessageId
  readonly queue: string
  readonly payload: A
  readonly type: string
  readonly tenant: string
  readonly priority: number
  readonly key: string | undefined
  readonly headers: Headers
  readonly correlationId: string | undefined
  readonly causationId: string | undefined
  readonly sentAt: Timestamp.Timestamp
  /** Which try this is, from 1. */
  readonly attempt: number
  /** The tries that failed, the oldest first. */
  readonly failures: ReadonlyArray<Failure>
}

/**
 * A message as a worker gets it, of what was claimed.
 *
 * @category converting
 * @since 0.1.0
 */
export const messageOf = <A>(queue: string, claimed: Claimed, payload: A): Message<A> => ({
  id: MessageId.make(claimed.id),
  queue,
  payload,
  type: claimed.type,
  tenant: claimed.tenant,
  priority: claimed.priority,
  key: claimed.key ?? undefined,
  headers: claimed.headers ?? {},
  correlationId: claimed.correlationId ?? undefined,
  causationId: claimed.causationId ?? undefined,
  sentAt: claimed.sentAt,
  attempt: claimed.attempts,
  failures: claimed.failures ?? []
})
