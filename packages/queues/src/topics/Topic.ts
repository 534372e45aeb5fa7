/**
 * A topic as a value: its name, what its messages hold, and what holds for it.
 *
 * **When to use**
 *
 * Make one where the messages are defined, and use that value to publish and to consume. The name is what is stored: two values of one
 * name are one topic.
 *
 * **Example** (What happens to orders)
 *
 * ```ts
 * import * as Topic from "@strata/queues/topics/Topic"
 * import * as Schema from "effect/Schema"
 *
 * const Orders = Topic.make({
 *   name: "orders",
 *   payload: Schema.Struct({ order: Schema.Int, state: Schema.Literals(["placed", "sent"]) }),
 *   settings: { keepFor: "7 days" }
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { Destination } from "@strata/outbox/Publication"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Duration from "effect/Duration"
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A topic whose messages hold an `A`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Topic<in out A> extends Destination<A> {
  readonly kind: "topic"
  readonly decode: (json: unknown) => Result.Result<A, Schema.SchemaError>
  /** What the topic has when it is declared for the first time. */
  readonly settings: Settings
}

/**
 * What holds for a topic.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Into how many partitions its keys fall, 1 to 1,024; powers of two are the most even. Can grow later. Default: 8. */
  readonly partitions?: number | undefined
  /** Messages are kept so long, and until every live group has read them. Default: for ever. */
  readonly keepFor?: Duration.Input | undefined
  /** So many bytes are kept at least, and what a live group has not read. Default: all. */
  readonly keepBytes?: number | undefined
  /** Publishing is refused while no live group reads the topic. Default: false. */
  readonly requiresGroup?: boolean | undefined
}

/**
 * What holds for a topic, as it is stored.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Settings = Schema.Struct({
  partitions: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1024 })),
  keepSeconds: Schema.NullOr(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))),
  keepBytes: Schema.NullOr(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  requiresGroup: Schema.Boolean
})
export type Settings = typeof Settings.Type

/**
 * A message as a group gets it.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicMessage<out A> {
  readonly topic: string
  /** Its place in the topic, from 1. */
  readonly position: bigint
  readonly partition: number
  /** The one it was published under: what is handled twice has one id. */
  readonly id: string
  readonly payload: A
  readonly key: string | undefined
  readonly type: string
  readonly tenant: string
  readonly headers: { readonly [name: string]: string | number | boolean }
  /** What it belongs to: its own id where nothing was said. */
  readonly correlationId: string
  readonly causationId: string | undefined
  readonly traceparent: string | undefined
  readonly publishedAt: Timestamp.Timestamp
  /** Which try this is, from 1. */
  readonly attempt: number
}

/**
 * Where a group begins to read a topic: at its beginning, at its end, after a position, or with what came at a time or later.
 *
 * @category models
 * @since 0.1.0
 */
export type StartFrom =
  | "beginning"
  | "end"
  | { readonly position: bigint }
  | { readonly time: Timestamp.Timestamp }

// --------------------------------------------------------------------------------------------------- constructors

/**
 * A topic of messages that are stored as JSON. Throws on settings that make no sense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A, I>(options: {
  readonly name: string
  readonly payload: Schema.Codec<A, I>
  readonly settings?: Options | undefined
}): Topic<A> => {
  const json = Schema.toCodecJson(options.payload)
  return {
    kind: "topic",
    name: options.name,
    encode: Schema.encodeResult(json),
    decode: Schema.decodeUnknownResult(json),
    settings: settingsOf(options.settings)
  }
}

/**
 * Settings with what is not said filled in. Throws where they make no sense, and names the field.
 *
 * @category constructors
 * @since 0.1.0
 */
export const settingsOf = ({ keepBytes, keepFor, partitions = 8, requiresGroup = false }: Options = {}): Settings =>
  Settings.make({
    partitions,
    keepSeconds: keepFor === undefined ? null : Duration.toSeconds(Duration.fromInputUnsafe(keepFor)),
    keepBytes: keepBytes ?? null,
    requiresGroup
  })
