/**
 * Reads topics.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Request from "effect/Request"
import * as RequestResolver from "effect/RequestResolver"
import type { SqlError } from "effect/sql/SqlError"
import type { TopicMessage } from "./Topic.ts"

/**
 * A message as it is stored.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoredMessage {
  readonly position: bigint
  readonly partition: number
  readonly id: string
  readonly key: string | null
  readonly type: string
  readonly tenant: string
  readonly correlationId: string | null
  readonly causationId: string | null
  readonly traceparent: string | null
  readonly headers: TopicMessage<unknown>["headers"] | null
  readonly data: unknown
  readonly publishedAt: Timestamp.Timestamp
}

/**
 * What was found: messages in order, and up to where all of them were seen.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  readonly messages: ReadonlyArray<StoredMessage>
  /** The position up to which there are no others. */
  readonly seen: bigint
  /** There are more. */
  readonly isFull: boolean
}

/**
 * Whose messages are asked for: those of partitions after the positions they are at, at most `limit`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Wanted {
  readonly topic: number
  /** How many the topic has. */
  readonly partitions: number
  readonly of: ReadonlyArray<{ readonly partition: number; readonly cursor: bigint }>
  readonly limit: number
}

/**
 * Reads a page.
 *
 * @category models
 * @since 0.1.0
 */
export type Read = (wanted: Wanted) => Effect.Effect<Page, SqlError>

class ReadPage extends Request.TaggedClass("ReadPage")<{ readonly wanted: Wanted }, Page, SqlError> {}

/**
 * Reads topics. Those who ask for the same at the same time, as groups do that have read all and hear that there is more, share one look.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*({ rows }: Postgres["Service"]) {
  const services = yield* Effect.context<never>()
  const pages = RequestResolver.makeGrouped<ReadPage, string>({
    key: ({ request: { wanted: { limit, of, partitions, topic } } }) =>
      `${topic} ${partitions} ${limit} ${of.map(({ cursor, partition }) => `${partition}:${cursor}`).join(" ")}`,
    resolver: (entries) =>
      // In no transaction of whoever is the first to ask.
      Effect.updateContext(Effect.exit(find(entries[0].request.wanted)), (_: Context.Context<never>) => services).pipe(
        Effect.map((page) => {
          for (const entry of entries) entry.completeUnsafe(page)
        })
      )
  })

  const find: Read = ({ limit, of, partitions, topic }) => {
    const from = of.reduce((least, { cursor }) => cursor < least ? cursor : least, of[0]!.cursor)
    return Effect.map(
      rows(read, [
        Pg.int(topic),
        Pg.int(partitions),
        Pg.intArray(of.map(({ partition }) => partition)),
        Pg.bigintArray(of.map(({ cursor }) => cursor)),
        Pg.bigint(from),
        Pg.int(limit)
      ]),
      (found) => {
        const messages = found.slice(0, -1).map(messageOf)
        // The last row has no message.
        const end: bigint = cast(found[found.length - 1]?.[0] ?? from)
        const isFull = messages.length === limit
        return { messages, isFull, seen: isFull ? messages[messages.length - 1]!.position : end > from ? end : from }
      }
    )
  }

  const ask: Read = (wanted) => Effect.request(new ReadPage({ wanted }), pages)
  return ask
})

const read = `
  select
    "position", "partition", id, key, type, tenant, correlation_id, causation_id, traceparent, headers, data,
    published_at
  from read_topic($1, $2, $3, $4, $5, $6)`

type Row = readonly [
  position: bigint,
  partition: number,
  id: string,
  key: string | null,
  type: string,
  tenant: string,
  correlationId: string | null,
  causationId: string | null,
  traceparent: string | null,
  headers: StoredMessage["headers"],
  data: unknown,
  publishedAt: Timestamp.Timestamp
]

const messageOf = (row: ReadonlyArray<unknown>): StoredMessage => {
  const [
    position,
    partition,
    id,
    key,
    type,
    tenant,
    correlationId,
    causationId,
    traceparent,
    headers,
    data,
    publishedAt
  ]: Row = cast(row)
  return {
    position,
    partition,
    id,
    key,
    type,
    tenant,
    correlationId,
    causationId,
    traceparent,
    headers,
    data,
    publishedAt
  }
}
