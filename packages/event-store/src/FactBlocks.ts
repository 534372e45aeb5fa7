/**
 * Where in a log the facts may be that a question asks for, by the summaries of its chunks: see `migrations/0006_chunks.sql`.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Statement from "effect/sql/Statement"
import { EventId } from "./Fact.ts"
import type { FactFilter } from "./FactQuery.ts"

type Sql = Postgres["Service"]["sql"]

/**
 * Positions from one to another, both included.
 *
 * @category models
 * @since 0.1.0
 */
export interface Span {
  readonly low: bigint
  readonly high: bigint
}

/** Positions that a chunk and a segment hold. */
const chunk = 256n
const segment = 1n << 20n

/**
 * Cuts positions into pieces of one segment each, in their order.
 *
 * @category constructors
 * @since 0.1.0
 */
export const segments = (low: bigint, high: bigint): ReadonlyArray<Span> => {
  const found: Array<Span> = []
  for (let from = low; from <= high;) {
    const to = min(lastOf(from, segment), high)
    found.push({ low: from, high: to })
    from = to + 1n
  }
  return found
}

/**
 * The segments in the order of the way through them, the first one cut in two: of a short piece no summary is looked at, and
 * where much answers a question the page is full by then.
 *
 * @category constructors
 * @since 0.1.0
 */
export const spans = (low: bigint, high: bigint, direction: "forwards" | "backwards"): ReadonlyArray<Span> => {
  if (direction === "forwards") {
    const short = min(lastOf(low, chunk) + chunk, lastOf(low, segment), high)
    return [...segments(low, short), ...segments(short + 1n, high)]
  }
  const short = max(lastOf(high, chunk) - 2n * chunk, lastOf(high, segment) - segment, low - 1n)
  return [...segments(low, short), ...segments(short + 1n, high)].toReversed()
}

/** The last position of the piece of this size that a position is in. */
const lastOf = (position: bigint, size: bigint): bigint => ((position - 1n) / size + 1n) * size

const min = (...numbers: ReadonlyArray<bigint>): bigint => numbers.reduce((a, b) => a < b ? a : b)
const max = (...numbers: ReadonlyArray<bigint>): bigint => numbers.reduce((a, b) => a > b ? a : b)

/**
 * One row with what is asked of the summaries: `labels` and `alternatives` as the parameters `_labels` and `_any` of
 * `fact_chunks`, and `also`, the place of the fact whose own id is the correlation that is asked for. Of all tenants when
 * none is given.
 *
 * @category constructors
 * @since 0.1.0
 */
export const asked = (
  sql: Sql,
  storeId: number,
  tenant: Statement.Fragment | undefined,
  { category, causationId, correlationId, metadata, types }: FactFilter
): Statement.Fragment => {
  const label = (kind: string, value: Statement.Fragment) =>
    sql`fact_label(${storeId}::integer, ${tenant ?? sql`''`}, ${kind}, ${value})`
  const labels: Array<Statement.Fragment | false> = [
    tenant !== undefined && label("tenant", sql`''`),
    category !== undefined && label("category", sql`${category}`),
    correlationId !== undefined && label("correlation", sql`${correlationId}`),
    causationId !== undefined && label("causation", sql`${causationId}`)
  ]
  const ofMetadata = metadata === undefined
    ? sql``
    : sql` || array(
        select jsonb_hash_extended(m.value, ${label("metadata", sql`m.key`)})
        from jsonb_each(${Pg.jsonText(toJson(metadata))}::jsonb) as m
      )`
  // A pattern has no label.
  const alternatives = types === undefined || types.some((type) => type.includes("*"))
    ? sql`'{}'::bigint[]`
    : sql`array(select ${label("type", sql`t.type`)} from unnest(${Pg.textArray(types)}) as t(type))`
  const own = correlationId === undefined ? Option.none() : asEventId(correlationId)
  const also = tenant === undefined || Option.isNone(own)
    ? sql`null::bigint`
    : sql`(
        select position from fact
        where event_id = ${Pg.uuid(own.value)} and store + 0 = ${storeId} and tenant = ${tenant}
      )`
  return sql`
    select array[${sql.csv(labels.filter((each) => each !== false))}]::bigint[]${ofMetadata} as labels,
      ${alternatives} as alternatives, ${also} as also
    offset 0`
}

const asEventId = Schema.decodeUnknownOption(EventId)
const toJson = Schema.encodeSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Json)))
