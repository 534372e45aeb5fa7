/**
 * What is published, and to whom.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Result from "effect/Result"
import type * as Schema from "effect/Schema"

/**
 * Where messages go: a topic, of which each group of consumers gets all of them, or a queue, of which each message is worked on once.
 *
 * @category models
 * @since 0.1.0
 */
export interface Destination<in A> {
  readonly kind: "topic" | "queue"
  /** 1 to 128 characters. One that nobody has made is made when the first message comes. */
  readonly name: string
  /** As JSON. */
  readonly encode: (payload: A) => Result.Result<unknown, Schema.SchemaError>
}

/**
 * A message to publish. Only the payload has no default.
 *
 * @category models
 * @since 0.1.0
 */
export interface NewMessage<out A> {
  readonly payload: A
  /**
   * For a topic: a UUID by which whoever gets it twice knows that. Default: a new UUIDv7; with an append, the first messages have the ids that
   * were made for its facts.
   */
  readonly id?: string | undefined
  /** Messages of one key keep their order. At most 512 characters. Default: none. */
  readonly key?: string | undefined
  /** What kind of message it is. At most 512 characters. Default: the name of the destination. */
  readonly type?: string | undefined
  readonly headers?: Headers | undefined
  /** Whose it is. Default: `default`; with an append, the tenant of that. */
  readonly tenant?: string | undefined
  /** What it belongs to. Default: with an append, that of its first fact; otherwise, in a topic, its own id. */
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  /** For a queue: from 0 to 10, the most urgent. Default: 5. */
  readonly priority?: number | undefined
  /** For a queue: not before so long after it was published. Default: at once. */
  readonly delay?: Duration.Input | undefined
}

/**
 * What is said of a message beside what it holds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Headers {
  readonly [name: string]: string | number | boolean
}

/**
 * Messages for one destination.
 *
 * @category models
 * @since 0.1.0
 */
export interface Publication {
  readonly destination: Pick<Destination<never>, "kind" | "name">
  readonly messages: ReadonlyArray<Omit<NewMessage<unknown>, "payload">>
  /** The payload of the message at this place, as JSON. */
  readonly payload: (index: number) => Result.Result<unknown, Schema.SchemaError>
}

/**
 * Messages for a destination, to be published with others.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A>(destination: Destination<A>, messages: ReadonlyArray<NewMessage<A>>): Publication => ({
  destination,
  messages,
  payload: (index) => destination.encode(messages[index]!.payload)
})
