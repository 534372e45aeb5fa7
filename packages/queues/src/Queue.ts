/**
 * A queue as a value: its name, what its messages hold, and what holds for it.
 *
 * **When to use**
 *
 * Make one where the messages are defined, and use that value to send and to work. The name is what is stored: two values of one
 * name are one queue.
 *
 * **Example** (A queue of mails)
 *
 * ```ts
 * import * as Queue from "@strata/queues/Queue"
 * import * as QueueSettings from "@strata/queues/QueueSettings"
 * import * as Schema from "effect/Schema"
 *
 * const Mails = Queue.make({
 *   name: "mails",
 *   payload: Schema.Struct({ to: Schema.String, text: Schema.String }),
 *   settings: QueueSettings.background
 * })
 * ```
 *
 * @since 0.1.0
 */
import type * as Publication from "@strata/outbox/Publication"
import { identity } from "effect/Function"
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as QueueSettings from "./QueueSettings.ts"

/**
 * A queue whose messages hold an `A`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Queue<in out A> {
  readonly name: string
  readonly payload: Codec<A>
  /** What the queue has when it is declared for the first time. */
  readonly settings: QueueSettings.QueueSettings
}

/**
 * How payloads are stored.
 *
 * @category models
 * @since 0.1.0
 */
export type Codec<A> =
  | {
    readonly _tag: "Json"
    readonly encode: (payload: A) => Result.Result<unknown, Schema.SchemaError>
    readonly decode: (json: unknown) => Result.Result<A, Schema.SchemaError>
  }
  | {
    readonly _tag: "Bytes"
    readonly encode: (payload: A) => Uint8Array
    readonly decode: (bytes: Uint8Array) => A
  }

/**
 * A queue of messages that are stored as JSON. Throws on settings that make no sense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A, I>(options: {
  readonly name: string
  readonly payload: Schema.Codec<A, I>
  readonly settings?: QueueSettings.Options | undefined
}): Queue<A> => {
  const json = Schema.toCodecJson(options.payload)
  return {
    name: options.name,
    payload: { _tag: "Json", encode: Schema.encodeResult(json), decode: Schema.decodeUnknownResult(json) },
    settings: QueueSettings.make(options.settings)
  }
}

/**
 * A queue of messages that are bytes. Throws on settings that make no sense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeBytes = (options: {
  readonly name: string
  readonly settings?: QueueSettings.Options | undefined
}): Queue<Uint8Array> => ({
  name: options.name,
  payload: { _tag: "Bytes", encode: identity, decode: identity },
  settings: QueueSettings.make(options.settings)
})

/**
 * A queue as the outbox knows it: what is published to it is sent when the transaction has committed. Throws for a queue of bytes, since the
 * outbox takes JSON.
 *
 * @category conversions
 * @since 0.1.0
 */
export const destination = <A>({ name, payload }: Queue<A>): Publication.Destination<A> => {
  if (payload._tag === "Bytes") throw new TypeError(`payload: the messages of ${name} are bytes, expected JSON`)
  return { kind: "queue", name, encode: payload.encode }
}
