/**
 * Where payloads are that are too large for the row of a message.
 *
 * **When to use**
 *
 * Nobody has to: `Queues.layer` has the one of its database. Provide another one to `Queues.layerNoDeps` to have large payloads
 * somewhere else, as in an object store.
 *
 * **Details**
 *
 * A payload of more than `QueuePolicies.inline` bytes is stored when its message is sent, and the message says where. Whoever gets
 * the message gets the payload with it. A stored payload belongs to one message: it stays while that waits, runs, is a dead
 * letter or is kept as history, and is removed soon after the transaction that ended it.
 *
 * **Gotchas**
 *
 * `put` is called in the transaction that sends. A store elsewhere keeps what was put by one that was rolled back: have it
 * forget by itself what is older than any message gets.
 *
 * **Example** (Queues whose large payloads are in memory, for a test)
 *
 * ```ts
 * import * as PayloadStore from "@strata/queues/PayloadStore"
 * import * as Queues from "@strata/queues/Queues"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Option from "effect/Option"
 *
 * const stored = new Map<string, Uint8Array>()
 *
 * const memory = Layer.succeed(PayloadStore.PayloadStore, {
 *   put: (content) => Effect.sync(() => (stored.set(String(stored.size), content), String(stored.size - 1))),
 *   get: (key) => Effect.sync(() => Option.fromUndefinedOr(stored.get(key))),
 *   remove: (keys) => Effect.sync(() => keys.forEach((key) => stored.delete(key)))
 * })
 *
 * const layer = Queues.layerNoDeps.pipe(Layer.provide(memory))
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/**
 * The store did not do what it was asked.
 *
 * @category errors
 * @since 0.1.0
 */
export class PayloadStoreError extends Schema.TaggedError<PayloadStoreError>()("PayloadStoreError", {
  operation: Schema.Literals(["put", "get", "remove"]),
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `The store of large payloads could not be reached: ${this.operation}`
  }
}

/**
 * A store of payloads.
 *
 * @category services
 * @since 0.1.0
 */
export class PayloadStore extends Context.Service<PayloadStore, {
  /** Stores a payload, in the transaction of the caller where it can, and gives its key. */
  readonly put: (content: Uint8Array) => Effect.Effect<string, PayloadStoreError>
  /** A payload; none when it is not there. */
  readonly get: (key: string) => Effect.Effect<Option.Option<Uint8Array>, PayloadStoreError>
  /** Removes payloads. Those that are not there are no failure. */
  readonly remove: (keys: ReadonlyArray<string>) => Effect.Effect<void, PayloadStoreError>
}>()("@strata/queues/PayloadStore") {}

/** Bytes of a part: the client takes no message of the server that is longer than 16 MiB. */
const partSize = 4_194_304

/**
 * Stores payloads in the database in the context, in parts.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPostgres: Layer.Layer<PayloadStore, never, Postgres> = Layer.effect(
  PayloadStore,
  Effect.map(Postgres, ({ rows }) => {
    const ask = (operation: PayloadStoreError["operation"], text: string, parameters: ReadonlyArray<Pg.Parameter>) =>
      Effect.mapError(rows(text, parameters), (cause) => new PayloadStoreError({ operation, cause }))

    return PayloadStore.of({
      put: Effect.fnUntraced(function*(content) {
        let key: bigint | null = null
        for (let part = 0; part === 0 || part * partSize < content.length; part++) {
          const [row]: ReadonlyArray<ReadonlyArray<unknown>> = yield* ask("put", insert, [
            Pg.bigint(key),
            Pg.int(part),
            Pg.bytea(content.subarray(part * partSize, (part + 1) * partSize))
          ])
          key = cast(row?.[0])
        }
        return String(key)
      }),
      get: (key) =>
        Effect.map(
          ask("get", "select content from queue_payload where key = $1::bigint order by part", [Pg.text(key)]),
          (found) => found.length === 0 ? Option.none() : Option.some(joined(found.map(([part]) => cast(part))))
        ),
      remove: (keys) =>
        Effect.asVoid(
          ask("remove", "delete from queue_payload where key = any($1::bigint[])", [Pg.textArray(keys)])
        )
    })
  })
)

const insert = `
  insert into queue_payload (key, part, content) values (coalesce($1, nextval('queue_payload_key')), $2, $3)
  returning key`

const joined = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (parts.length === 1) return parts[0]!
  const whole = new Uint8Array(parts.reduce((size, { length }) => size + length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
