/**
 * Reading facts from PostgreSQL.
 *
 * **Details**
 *
 * Every statement names whose rows it may see before it looks at any: `set_config` comes first because the rest is lateral
 * to it, and lasts until the transaction ends or the next statement names another scope. Row-level security compares
 * with it; see migrations/0005_tenants.sql.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import { typePattern } from "./Belief.ts"
import { beginning, type EventId, type Fact, type Position, type StreamId } from "./Fact.ts"
import type { Page } from "./FactPaging.ts"
import type { FactQuery } from "./FactQuery.ts"

type Sql = Postgres["Service"]["sql"]

/**
 * The statements of one store.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (sql: Sql, storeId: number) => {
  const columns = sql.literal(factColumns)
  const streamId = sql.literal(streamIdColumn)

  // One row, by primary key.
  const head: Effect.Effect<Position, SqlError> = Effect.map(
    sql<{ head: Position }>`select head from store where id = ${storeId}`,
    (rows) => rows[0]?.head ?? beginning
  )

  // Served by the primary key of fact; at most `limit` rows, each with one look at its stream.
  const log = (after: Position, limit: number) =>
    facts(sql`
      select f.* from (
        select set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)
      ) as scope(tenant, every), lateral (
        select ${columns}, ${streamId} from fact
        where store = ${storeId} and position > ${Pg.bigint(after)} and scope.every is not null
        order by position
        limit ${limit}
      ) as f`)

  // One stream by stream_id, its facts by fact_version, in either direction.
  const stream = (
    tenant: string,
    id: StreamId,
    direction: "forwards" | "backwards",
    from: number | undefined,
    limit: number
  ) => {
    const versions = direction === "forwards"
      ? sql`version >= ${Pg.int(from ?? 1)} order by version`
      : sql`version <= ${Pg.int(from ?? 2_147_483_647)} order by version desc`
    return facts(
      sql`
        select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
          select ${columns} from fact
          where stream = (
            select number from stream where store = ${storeId} and tenant = scope.tenant and id = ${id}
          ) and ${versions}
          limit ${limit}
        ) as f`,
      id
    )
  }

  // Served by fact_event_id; `+ 0` keeps the planner from an index that begins with the store.
  const byId = (tenant: string, eventIds: ReadonlyArray<EventId>) =>
    facts(sql`
      select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select ${columns}, ${streamId} from fact
        where event_id = any(${Pg.uuidArray(eventIds)}) and store + 0 = ${storeId} and tenant = scope.tenant
        order by position
        limit ${eventIds.length}
      ) as f`)

  // The chain of any member: its first fact by the primary key, its revisions by fact_chain.
  const history = (tenant: string, eventId: EventId) =>
    facts(sql`
      select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select coalesce(origin, position) as origin from fact
        where event_id = ${Pg.uuid(eventId)} and store + 0 = ${storeId} and tenant = scope.tenant
        limit 1
      ) as chain, lateral (
        select * from (
          select ${columns}, ${streamId} from fact where store = ${storeId} and position = chain.origin
          union all
          select ${columns}, ${streamId} from fact
          where origin = chain.origin and store + 0 = ${storeId} and revision > 0
        ) as members
        order by revision
        limit all
      ) as f`)

  // May lock the store's row, and only until the statement ends; see migrations/0002_revisions.sql.
  const positionAt = (time: Timestamp.Timestamp) =>
    Effect.map(
      sql<{ position: Position | null }>`select position_at(${storeId}, ${Pg.timestamptz(time)}) as position`,
      (rows) => rows[0]?.position ?? null
    )

  // By position the order is that of an index: the primary key, or within a stream, whose versions follow the positions,
  // fact_version; by validity what was found is sorted. For each row one look into fact_chain tells whether a newer
  // revision was known: a scalar subquery stays such a look. `+ 0` keeps the planner from the index that is not meant.
  const query = (tenant: string, query: FactQuery, page: Page, known: Position) =>
    facts(
      sql`
        select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
          select ${columns}${query.stream === undefined ? sql`, ${streamId}` : sql``} from fact
          where ${
        sql.and([
          ...(query.stream === undefined
            ? [sql`store = ${storeId}`, sql`position <= ${Pg.bigint(known)}`]
            : [inStream(sql, storeId, query.stream), sql`position + 0 <= ${Pg.bigint(known)}`]),
          sql`tenant = scope.tenant`,
          ...filters(sql, query),
          ...believed(sql, query, known),
          ...after(sql, storeId, query, page)
        ])
      }
          ${order(sql, query, page)}
          limit ${page.limit + 1}
        ) as f`,
      query.stream
    )

  return { head, log, stream, byId, history, positionAt, query }
}

// ------------------------------------------------------------------------------------------------------------ rows

/** The columns of a fact, in the order of `FactRow`. */
const factColumns = `
  position, version, event_id, schema_version, revision, recorded_at, valid_from, valid_to, retracted, tenant, type, data,
  metadata, correlation_id, causation_id, actor, traceparent, origin, revises, reason`

/** Its stream's id: a scalar subquery stays a lookup by primary key, whatever the planner believes of the tables. */
const streamIdColumn = `(select s.id from stream s where s.number = fact.stream) as stream_id`

/** What the codecs of `PostgresTypes` make of those columns. The last one is there unless one stream was asked for. */
type FactRow = readonly [
  position: Position,
  version: number,
  eventId: EventId,
  schemaVersion: number,
  revision: number,
  recordedAt: Timestamp.Timestamp,
  validFrom: Timestamp.Timestamp,
  validTo: Timestamp.Timestamp,
  retracted: boolean,
  tenant: string,
  type: string,
  data: Schema.Json,
  metadata: { readonly [key: string]: Schema.Json },
  correlationId: string | null,
  causationId: string | null,
  actor: string | null,
  traceparent: string | null,
  origin: Position | null,
  revises: EventId | null,
  reason: string | null,
  stream: StreamId
]

/** Rows come as arrays, which the driver makes in half the time it takes to make objects of so many columns. */
const facts = (
  statement: Statement.Statement<unknown>,
  stream?: StreamId
): Effect.Effect<ReadonlyArray<Fact>, SqlError> =>
  Effect.map(statement.values, (rows) => {
    const typed: ReadonlyArray<FactRow> = cast(rows)
    return typed.map((row) => toFact(row, stream ?? row[20]))
  })

const toFact = (row: FactRow, stream: StreamId): Fact => ({
  position: row[0],
  stream,
  version: row[1],
  origin: row[17] ?? row[0],
  eventId: row[2],
  type: row[10],
  schemaVersion: row[3],
  data: row[11],
  metadata: row[12],
  correlationId: row[13] ?? row[2],
  causationId: row[14],
  tenant: row[9],
  actor: row[15],
  traceparent: row[16],
  validFrom: row[6],
  validTo: row[7],
  recordedAt: row[5],
  revision: row[4],
  revises: row[18],
  retracted: row[8],
  reason: row[19]
})

// --------------------------------------------------------------------------------------------------------- clauses

const inStream = (sql: Sql, storeId: number, stream: StreamId) =>
  sql`stream = (select number from stream where store = ${storeId} and tenant = scope.tenant and id = ${stream})`

const filters = (sql: Sql, query: FactQuery): Array<Statement.Fragment> => {
  const { category, causationId, correlationId, metadata, types, validAt, validDuring, versions } = query
  const found: Array<Statement.Fragment | false> = [
    validAt !== undefined && sql`valid_from <= ${Pg.timestamptz(validAt)} and valid_to > ${Pg.timestamptz(validAt)}`,
    validDuring !== undefined &&
    sql`valid_from < ${Pg.timestamptz(validDuring.to)} and valid_to > ${Pg.timestamptz(validDuring.from)}`,
    category !== undefined &&
    sql`(select split_part(s.id, '-', 1) from stream s where s.number = fact.stream) = ${category}`,
    types !== undefined &&
    (types.some((type) => type.includes("*"))
      ? sql`type ~ ${typePattern(types)}`
      : sql`type = any(${Pg.textArray(types)})`),
    correlationId !== undefined && sql`coalesce(correlation_id, event_id::text) = ${correlationId}`,
    causationId !== undefined && sql`causation_id = ${causationId}`,
    versions?.from !== undefined && sql`version >= ${versions.from}`,
    versions?.to !== undefined && sql`version <= ${versions.to}`
  ]
  for (const [key, value] of Object.entries(metadata ?? {})) {
    found.push(sql`metadata::jsonb -> ${key}::text = ${Pg.jsonText(toJson(value))}::jsonb`)
  }
  return found.filter((fragment) => fragment !== false)
}

const toJson = Schema.encodeSync(Schema.fromJsonString(Schema.Json))

const believed = (sql: Sql, query: FactQuery, known: Position): ReadonlyArray<Statement.Fragment> =>
  query.revisions === "all" ? [] : [sql`
    not retracted and (
      select true from fact as newer
      where newer.origin = coalesce(fact.origin, fact.position) and newer.store + 0 = fact.store and newer.revision > 0
        and newer.revision > fact.revision and newer.position + 0 <= ${Pg.bigint(known)}
      limit 1
    ) is null`]

const after = (
  sql: Sql,
  storeId: number,
  query: FactQuery,
  { after, direction, orderBy }: Page
): ReadonlyArray<Statement.Fragment> => {
  if (after === undefined) return []
  const position = Pg.bigint(after.position)
  const validFrom = Pg.timestamptz(after.validFrom)
  if (orderBy === "position" && query.stream !== undefined) {
    const version = sql`(select version from fact where store = ${storeId} and position = ${position})`
    return [direction === "forwards" ? sql`version > ${version}` : sql`version < ${version}`]
  }
  if (orderBy === "position") {
    return [direction === "forwards" ? sql`position > ${position}` : sql`position < ${position}`]
  }
  return [
    direction === "forwards"
      ? sql`(valid_from, position) > (${validFrom}, ${position})`
      : sql`(valid_from, position) < (${validFrom}, ${position})`
  ]
}

const order = (sql: Sql, { stream }: FactQuery, { direction, orderBy }: Page): Statement.Fragment =>
  orderBy === "position"
    ? sql.literal(
      `order by ${stream === undefined ? "position" : "version"} ${direction === "forwards" ? "asc" : "desc"}`
    )
    : direction === "forwards"
    ? sql`order by valid_from, position`
    : sql`order by valid_from desc, position desc`
