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
  readonly correlationId: string
  readonly causationId: string | null
  readonly traceparent: string | null
  readonly headers: TopicMessage<unknown>["headers"] | null
  readonly data: unknown
  readonly publishedAt: Timestamp.Timestamp
}

/**
 * A life of the server. What is relayed is not waited for to be on the disk, so in another life other messages may have the positions of
 * those that were read. Null where nobody has made one yet.
 *
 * @category models
 * @since 0.1.0
 */
export type Life = string | null

/**
 * What was found: messages in order, and up to where all of them were seen.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  readonly life: Life
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
  /** It is read before it is asked for, so nobody else asks for the same at this moment. */
  readonly isAhead?: boolean | undefined
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
 * What is read ahead is asked for apart. The batches of requests are kept and used again, and what was emptied of them leads from each page
 * to the next one: of hundreds a second the collector would take all for used that came since it looked at old ones last.
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
      Effect.map(Effect.exit(find(entries[0].request.wanted)), (page) => {
        for (const entry of entries) entry.completeUnsafe(page)
      })
  })

  const look = ({ limit, of, partitions, topic }: Wanted): Effect.Effect<Page, SqlError> => {
    const from = of.reduce((least, { cursor }) => cursor < least ? cursor : least, of[0]!.cursor)
    const isWhole = of.length === partitions && of.every(({ cursor }) => cursor === from)
    const found = isWhole
      ? rows(readWhole, [Pg.int(topic), Pg.int(partitions), Pg.bigint(from), Pg.int(limit), Pg.int(lowOf(partitions))])
      : rows(readParts, [
        Pg.int(topic),
        Pg.int(partitions),
        Pg.intArray(of.map(({ partition }) => partition)),
        Pg.bigintArray(of.map(({ cursor }) => cursor)),
        Pg.bigint(from),
        Pg.int(limit)
      ])
    return Effect.map(found, (found) => {
      const messages = messagesOf(found)
      // The last row has no message.
      const [end, isCut, life]: EndRow = cast(found[found.length - 1]!)
      const last = messages[messages.length - 1]?.position
      // There is one at each position of the whole.
      if (last !== undefined && (messages.length === limit || isWhole && last < end)) {
        return { life, messages, isFull: true, seen: last }
      }
      return { life, messages, isFull: isCut !== null, seen: end > from ? end : from }
    })
  }

  // In no transaction of whoever asks.
  const find: Read = (wanted) => Effect.updateContext(look(wanted), (_: Context.Context<never>) => services)

  const ask: Read = (wanted) => wanted.isAhead === true ? find(wanted) : Effect.request(new ReadPage({ wanted }), pages)
  return ask
})

/** Bytes of chunks in a page at most, but for what is more by itself: a batch is held in memory, and so is the one after it. */
const heaviest = 16_777_216

/** The fields of a chunk, of which each message has one. */
const fields = "ids hashes types tenants published_at keys correlation_ids causation_ids traceparents headers data"
  .split(" ")

/** A field of a chunk, without what comes before the page and after it. */
const unnested = (field: string) =>
  `unnest(c.${field}[greatest($3 - c.first + 2, 1):greatest($3 - c.first + 1, 0) + $4]) as ${field}`

/** What all messages of a chunk share stands in the first row of it: a null is what the row before has. */
const shared = (field: string) =>
  `coalesce(m.${field}, case when m.position = greatest(c.first, $3 + 1) then c.${field}[1] end)`

/**
 * Served by the primary key. Chunks come in order, and each is unpacked in order, no more of it than a page holds: nothing is sorted after
 * that. The last row tells where the topic ends, and in which life.
 */
const readWhole = `
  (
    select
      m.position, partition_of(m.hashes, $2, $5), m.ids, m.keys, ${shared("types")}, ${shared("tenants")},
      m.correlation_ids, m.causation_ids, m.traceparents, m.headers, m.data, ${shared("published_at")}
    from (
      select c.*, sum(c.bytes) over (order by c.last rows unbounded preceding) - c.bytes as before
      from topic_chunk c
      where c.topic = $1 and c.last > $3
      order by c.last
      limit $4
    ) c
    cross join lateral (
      select
        generate_series(greatest(c.first, $3 + 1), least(c.last, greatest(c.first - 1, $3) + $4)) as position,
        ${fields.map(unnested).join(", ")}
    ) m
    where c.before < ${heaviest}
    limit $4
  )
  union all
  select
    topic_end($1), null::integer, (select l.id from topic_life l), null::text, null::text, null::text, null::text, null::text, null::text,
    null::jsonb, null::json, null::timestamptz`

/** What `highest_power` says: as a parameter, for the partition of each message is written out in the statement then. */
const lowOf = (partitions: number): number => 2 ** (31 - Math.clz32(partitions))

const readParts = `
  select
    "position", "partition", id, key, type, tenant, correlation_id, causation_id, traceparent, headers, data,
    published_at
  from read_topic($1, $2, $3, $4, $5, $6)`

type Row = readonly [
  position: bigint,
  partition: number,
  id: string,
  key: string | null,
  type: string | null,
  tenant: string | null,
  correlationId: string | null,
  causationId: string | null,
  traceparent: string | null,
  headers: StoredMessage["headers"],
  data: unknown,
  publishedAt: Timestamp.Timestamp | null
]

type EndRow = readonly [end: bigint, isCut: number | null, life: Life]

/** The messages of a page, without the last row. */
const messagesOf = (found: ReadonlyArray<ReadonlyArray<unknown>>): ReadonlyArray<StoredMessage> => {
  let before: StoredMessage
  return found.slice(0, -1).map((row): StoredMessage => {
    const [position, partition, id, key, type, tenant, correlationId, causationId, traceparent, headers, data, at]:
      Row = cast(row)
    return before = {
      position,
      partition,
      id,
      key,
      type: type ?? before.type,
      tenant: tenant ?? before.tenant,
      correlationId: correlationId ?? id,
      causationId,
      traceparent,
      headers,
      data,
      publishedAt: at ?? before.publishedAt
    }
  })
}
