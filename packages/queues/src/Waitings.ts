/**
 * Messages that wait: looks at them, and takes them back.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Stream from "effect/Stream"
import * as Hints from "./consuming/Hints.ts"
import { type Headers, MessageId } from "./Message.ts"
import type { PayloadStore, PayloadStoreError } from "./PayloadStore.ts"
import type { StoredQueue } from "./QueueCatalog.ts"
import { type QueueError, unavailable } from "./QueueError.ts"
import type { Policies } from "./QueuePolicies.ts"
import * as StoredPayload from "./sending/StoredPayload.ts"

/**
 * A message that may be claimed, as it is stored.
 *
 * @category models
 * @since 0.1.0
 */
export interface Waiting {
  readonly id: MessageId
  readonly sentAt: Timestamp.Timestamp
  readonly priority: number
  readonly attempts: number
  readonly tenant: string
  readonly type: string
  readonly key: string | undefined
  readonly correlationId: string | undefined
  readonly headers: Headers
  /** JSON, or bytes; undefined when it is in the `PayloadStore` and cannot be had, as that of one that was done meanwhile. */
  readonly payload: unknown
}

interface Named {
  readonly name: string
}

/** Messages that one statement takes away. */
const purged = 5000

/**
 * What may be asked of the messages that wait.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { rows }: Postgres["Service"],
  known: (queue: Named) => Effect.Effect<StoredQueue, QueueError>,
  { peek }: Policies,
  payloads: PayloadStore["Service"]
) => ({
  withdraw: Effect.fnUntraced(function*(queue: Named, id: MessageId) {
    const { id: number } = yield* known(queue)
    const [row] = yield* Effect.mapError(
      rows("select withdraw_message($1, $2)", [Pg.int(number), Pg.bigint(id)]),
      unavailable("withdraw")
    )
    return row?.[0] === true
  }),

  browse: Effect.fnUntraced(function*(
    queue: Named,
    { after, limit = 100 }: { readonly after?: Waiting | undefined; readonly limit?: number | undefined } = {}
  ) {
    const { id } = yield* known(queue)
    const found = yield* Effect.mapError(
      rows(`${columns} from browse_messages($1, $2, $3, $4)`, [
        Pg.int(id),
        Pg.int(after?.priority ?? 10),
        Pg.bigint(after?.id ?? 0n),
        Pg.int(limit)
      ]),
      unavailable("browse")
    )
    return yield* Effect.mapError(
      Effect.forEach(StoredPayload.page(found.map(storedOf)), (stored) => waitingOf(payloads, stored)),
      unavailable("browse")
    )
  }),

  tail: (queue: Named) =>
    Stream.unwrap(Effect.gen(function*() {
      const { id } = yield* known(queue)
      const ask = (text: string, parameters: ReadonlyArray<Pg.Parameter>) =>
        Effect.mapError(rows(text, parameters), unavailable("tail"))
      let last: bigint = cast((yield* ask("select coalesce(pg_sequence_last_value('message_id'), 0)", []))[0]?.[0])
      const look = Effect.suspend(() =>
        Effect.map(ask(newer, [Pg.int(id), Pg.bigint(last)]), (found) => {
          const messages = found.map(storedOf)
          last = messages.at(-1)?.id ?? last
          return messages
        })
      )
      return Hints.every(peek).pipe(
        Stream.mapEffect(() => look),
        Stream.flattenIterable,
        Stream.mapEffect((stored) => Effect.mapError(waitingOf(payloads, stored), unavailable("tail")))
      )
    })),

  purge: Effect.fnUntraced(function*(queue: Named) {
    const { id } = yield* known(queue)
    let total = 0
    for (;;) {
      const [row] = yield* Effect.mapError(
        rows("select purge_messages($1, $2)", [Pg.int(id), Pg.int(purged)]),
        unavailable("purge")
      )
      const gone = Number(row?.[0] ?? 0)
      if (gone === 0) return total
      total += gone
    }
  })
})

const columns =
  "select id, sent_at, priority, attempts, tenant, type, key, correlation_id, headers, data, bytes, stored_at"

/** The next thousand at most, found by message_order, priority by priority. */
const newer = `
  ${columns} from (
    select m.*
    from generate_series(0, 10) as p (priority)
    cross join lateral (
      select m.* from message m
      where m.queue = $1 and m.priority = p.priority
        and m.id > $2
      order by m.id
      limit 1000
    ) m
    order by m.id
    limit 1000
  ) m
  order by id`

type Stored = Omit<Waiting, "payload"> & StoredPayload.Read

const waitingOf = (
  payloads: PayloadStore["Service"],
  { bytes, data, storedAt, ...message }: Stored
): Effect.Effect<Waiting, PayloadStoreError> =>
  Effect.map(StoredPayload.payloadOf(payloads, { bytes, data, storedAt }), (payload) => ({ ...message, payload }))

const storedOf = (row: ReadonlyArray<unknown>): Stored => {
  const [id, sentAt, priority, attempts, tenant, type, key, correlationId, headers, data, bytes, storedAt]: readonly [
    bigint,
    Timestamp.Timestamp,
    number,
    number,
    string,
    string,
    string | null,
    string | null,
    Headers | null,
    unknown,
    Uint8Array | null,
    string | null
  ] = cast(row)
  return {
    id: MessageId.make(id),
    sentAt,
    priority,
    attempts,
    tenant,
    type,
    key: key ?? undefined,
    correlationId: correlationId ?? undefined,
    headers: headers ?? {},
    data,
    bytes,
    storedAt
  }
}
