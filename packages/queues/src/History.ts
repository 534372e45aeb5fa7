/**
 * Messages that are done, of queues that keep them.
 *
 * **When to use**
 *
 * Where somebody asks what became of a message: give the queue a `history` in its settings, and ask `Queues.history`.
 *
 * **Details**
 *
 * A message goes into the history in the statement that settles it, as it was when it was claimed the last time. It stays there for as
 * long as the settings of the queue say now, and half a second or so longer. Queues without a history pay nothing for it.
 *
 * **Gotchas**
 *
 * By id and by correlation a message is found at once. By type, all messages of the queue are looked at.
 *
 * **Example** (All that was done for an order)
 *
 * ```ts
 * import * as Queue from "@strata/queues/Queue"
 * import * as Queues from "@strata/queues/Queues"
 * import * as Effect from "effect/Effect"
 * import * as Schema from "effect/Schema"
 *
 * const Mails = Queue.make({
 *   name: "mails",
 *   payload: Schema.Struct({ to: Schema.String }),
 *   settings: { history: "7 days", keepDead: "90 days" }
 * })
 *
 * const mailsOf = (order: string) =>
 *   Effect.flatMap(Queues.Queues, (queues) => queues.history(Mails, { correlationId: order }))
 * ```
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import { type Failure, type Headers, MessageId } from "./Message.ts"
import type { PayloadStore } from "./PayloadStore.ts"
import type { StoredQueue } from "./QueueCatalog.ts"
import { type QueueError, unavailable } from "./QueueError.ts"
import * as StoredPayload from "./sending/StoredPayload.ts"

/**
 * A message that is done, as it is stored.
 *
 * @category models
 * @since 0.1.0
 */
export interface Done {
  readonly id: MessageId
  readonly doneAt: Timestamp.Timestamp
  readonly sentAt: Timestamp.Timestamp
  readonly priority: number
  /** Which try it was, from 1. */
  readonly attempts: number
  readonly tenant: string
  readonly type: string
  readonly key: string | undefined
  readonly correlationId: string | undefined
  readonly headers: Headers
  /** The tries that failed, the oldest first. */
  readonly failures: ReadonlyArray<Failure>
  /** JSON, or bytes; undefined when it is in the `PayloadStore` and cannot be had. */
  readonly payload: unknown
}

/**
 * Which messages are meant: those for which all holds that is said. Nothing said: all of the queue.
 *
 * @category models
 * @since 0.1.0
 */
export interface Filter {
  readonly ids?: ReadonlyArray<MessageId> | undefined
  readonly type?: string | undefined
  readonly correlationId?: string | undefined
}

interface Named {
  readonly name: string
}

/**
 * What may be asked of the messages that are done.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { rows }: Postgres["Service"],
  known: (queue: Named) => Effect.Effect<StoredQueue, QueueError>,
  payloads: PayloadStore["Service"]
) =>
  Effect.fnUntraced(function*(
    queue: Named,
    filter: Filter = {},
    { after, limit = 100 }: { readonly after?: MessageId | undefined; readonly limit?: number | undefined } = {}
  ): Effect.fn.Return<ReadonlyArray<Done>, QueueError> {
    const { id } = yield* known(queue)
    const { parameters, text } = select(id, filter, after ?? 0n, limit)
    const found = yield* Effect.mapError(rows(text, parameters), unavailable("look at the history"))
    return yield* Effect.mapError(
      Effect.forEach(StoredPayload.page(found.map(doneOf)), ({ bytes, data, storedAt, ...done }) =>
        Effect.map(
          StoredPayload.payloadOf(payloads, { bytes, data, storedAt }),
          (payload): Done => ({ ...done, payload })
        )),
      unavailable("look at the history")
    )
  })

/** Found by message_history_order, or by message_history_correlation. */
const select = (queue: number, { correlationId, ids, type }: Filter, after: bigint, limit: number) => {
  const parameters: Array<Pg.Parameter> = [Pg.int(queue), Pg.bigint(after), Pg.int(limit)]
  const conditions = ["queue = $1", "id > $2"]
  const add = (condition: string, parameter: Pg.Parameter) =>
    conditions.push(condition.replace("?", `$${parameters.push(parameter)}`))
  if (ids !== undefined) add("id = any(?)", Pg.bigintArray(ids))
  if (type !== undefined) add("(message).type = ?", Pg.text(type))
  if (correlationId !== undefined) add("(message).correlation_id = ?", Pg.text(correlationId))
  return { parameters, text: `${columns} from message_history where ${conditions.join(" and ")} order by id limit $3` }
}

const columns = `
  select
    id, done_at, (message).sent_at, (message).priority, (message).attempts, (message).tenant, (message).type, (message).key,
    (message).correlation_id, (message).headers, (message).failures, (message).data, (message).bytes, (message).stored_at`

const doneOf = (row: ReadonlyArray<unknown>) => {
  const [
    id,
    doneAt,
    sentAt,
    priority,
    attempts,
    tenant,
    type,
    key,
    correlationId,
    headers,
    failures,
    data,
    bytes,
    storedAt
  ]: readonly [
    bigint,
    Timestamp.Timestamp,
    Timestamp.Timestamp,
    number,
    number,
    string,
    string,
    string | null,
    string | null,
    Headers | null,
    ReadonlyArray<Failure> | null,
    unknown,
    Uint8Array | null,
    string | null
  ] = cast(row)
  return {
    id: MessageId.make(id),
    doneAt,
    sentAt,
    priority,
    attempts,
    tenant,
    type,
    key: key ?? undefined,
    correlationId: correlationId ?? undefined,
    headers: headers ?? {},
    failures: failures ?? [],
    data,
    bytes,
    storedAt
  }
}
