/**
 * The statements that send, and what they answer.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import type { SqlError } from "effect/sql/SqlError"
import { MessageId, type Sent } from "../Message.ts"
import type { PreparedMessage } from "./PreparedMessage.ts"

/**
 * What became of a message.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome = Sent | {
  readonly outcome: "full"
  readonly depth: number
  readonly maxDepth: number
  readonly retryAfter: number
}

/**
 * Writes the messages of some calls, each call whole or, where its queue is full, not at all. Locks nothing but what it writes, and the
 * unique keys it names.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ rows }: Postgres["Service"]) => {
  /** Where nothing has to be looked at. */
  const plain = (messages: ReadonlyArray<PreparedMessage>, channels: ReadonlyArray<string>) =>
    Effect.map(
      rows(insert, [...parameters(messages), Pg.textArray(channels)]),
      (found) => found.map(([id]): Outcome => ({ outcome: "inserted", id: MessageId.make(cast(id)) }))
    )

  const judged = (calls: ReadonlyArray<ReadonlyArray<PreparedMessage>>, channels: ReadonlyArray<string>) => {
    const messages = calls.flat()
    return Effect.map(
      rows(judge, [
        Pg.intArray(calls.flatMap((call, index) => call.map(() => index))),
        ...parameters(messages),
        Pg.doubleArray(messages.map(({ delay }) => delay)),
        Pg.textArray(messages.map(({ unique }) => unique?.key ?? null)),
        Pg.textArray(messages.map(({ unique }) => unique === null ? null : `{${unique.states.join(",")}}`)),
        Pg.doubleArray(messages.map(({ unique }) => unique?.window ?? null)),
        Pg.booleanArray(messages.map(({ unique }) => unique?.replaces ?? false)),
        Pg.textArray(channels)
      ]),
      (found) =>
        found.map((row): Outcome => {
          const [outcome, id, depth, most, retryAfter]: JudgedRow = cast(row)
          return outcome === "full"
            ? { outcome, depth: Number(depth), maxDepth: Number(most), retryAfter }
            : { outcome, id: MessageId.make(id) }
        })
    )
  }

  return (
    calls: ReadonlyArray<ReadonlyArray<PreparedMessage>>,
    isBounded: (queue: number) => boolean,
    channels: ReadonlyArray<string> = []
  ): Effect.Effect<ReadonlyArray<Outcome>, SqlError> => {
    const isPlain = calls.every((call) =>
      call.every(({ delay, queue, unique }) => delay === 0 && unique === null && !isBounded(queue))
    )
    return isPlain ? plain(calls.length === 1 ? calls[0]! : calls.flat(), channels) : judged(calls, channels)
  }
}

type JudgedRow = readonly [
  outcome: "inserted" | "replaced" | "skipped" | "full",
  id: bigint,
  depth: bigint,
  most: bigint,
  wait: number
]

const columns =
  "queue, priority, tenant, type, key, correlation_id, causation_id, traceparent, headers, data, bytes, stored_at"

// A scalar subquery is asked once, and not for each message.
const insert = `
  with sent as (
    insert into message (slot, ${columns})
    select (select message_slot_now()), ${columns}
    from unnest(
      $1::integer[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
      $9::text[]::jsonb[], $10::text[]::json[], $11::bytea[], $12::text[]
    ) with ordinality as m (${columns}, place)
    order by place
    returning id, queue
  ), counted as (
    insert into queue_delta (queue, ready, sent) select queue, count(*), count(*) from sent group by queue
  )
  select id from sent, (select count(pg_notify(channel, '')) from unnest($13::text[]) as channel) as notified order by id`

const judge = `
  select outcome, id, depth, most, wait from send_messages(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[]::jsonb[], $11::text[]::json[], $12, $13, $14, $15, $16, $17, $18
  ), (select count(pg_notify(channel, '')) from unnest($19::text[]) as channel) as notified`

/** Those of all messages. What is nowhere goes as an empty array, which costs nothing. */
const parameters = (messages: ReadonlyArray<PreparedMessage>): ReadonlyArray<Pg.Parameter> => [
  Pg.intArray(messages.map(({ queue }) => queue)),
  Pg.intArray(messages.map(({ priority }) => priority)),
  Pg.textArray(messages.map(({ tenant }) => tenant)),
  Pg.textArray(messages.map(({ type }) => type)),
  Pg.textArray(unlessNull(messages.map(({ key }) => key))),
  Pg.textArray(unlessNull(messages.map(({ correlationId }) => correlationId))),
  Pg.textArray(unlessNull(messages.map(({ causationId }) => causationId))),
  Pg.textArray(unlessNull(messages.map(({ traceparent }) => traceparent))),
  Pg.textArray(unlessNull(messages.map(({ headers }) => headers))),
  Pg.textArray(unlessNull(messages.map(({ data }) => data))),
  Pg.byteaArray(unlessNull(messages.map(({ bytes }) => bytes))),
  Pg.textArray(unlessNull(messages.map(({ storedAt }) => storedAt)))
]

const unlessNull = <A>(values: ReadonlyArray<A | null>): ReadonlyArray<A | null> =>
  values.some((value) => value !== null) ? values : []
