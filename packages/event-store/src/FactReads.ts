/**
 * Reading facts from PostgreSQL.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
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

  // One row, by primary key.
  const head: Effect.Effect<Position, SqlError> = Effect.map(
    sql<{ head: Position }>`select head from store where id = ${storeId}`,
    (rows) => rows[0]?.head ?? beginning
  )

  // Served by the primary key of fact; at most `limit` rows.
  const log = (after: Position, limit: number) =>
    sql<Fact>`
      select ${columns} from fact
      where store = ${storeId} and position > ${Pg.bigint(after)}
      order by position
      limit ${limit}`

  // Served by fact_version, in either direction.
  const stream = (id: StreamId, direction: "forwards" | "backwards", from: number | undefined, limit: number) =>
    direction === "forwards"
      ? sql<Fact>`
          select ${columns} from fact
          where store = ${storeId} and stream = ${id} and version >= ${from ?? 1}
          order by version
          limit ${limit}`
      : sql<Fact>`
          select ${columns} from fact
          where store = ${storeId} and stream = ${id} and version <= ${from ?? 2_147_483_647}
          order by version desc
          limit ${limit}`

  // Served by fact_event_id; `+ 0` keeps the planner from an index that begins with the store.
  const byId = (eventIds: ReadonlyArray<EventId>) =>
    sql<Fact>`
      select ${columns} from fact
      where event_id = any(${Pg.uuidArray(eventIds)}) and store + 0 = ${storeId}
      order by position`

  // The chain of any member: its first fact by the primary key, its revisions by fact_chain.
  const history = (eventId: EventId) => {
    const origin = sql`(select origin from fact where event_id = ${Pg.uuid(eventId)} and store + 0 = ${storeId})`
    return sql<Fact>`
      select ${columns} from fact where store = ${storeId} and position = ${origin}
      union all
      select ${columns} from fact where origin = ${origin} and store + 0 = ${storeId} and revision > 0
      order by revision`
  }

  // May lock the store's row, and only until the statement ends; see migrations/0002_revisions.sql.
  const positionAt = (time: Timestamp.Timestamp) =>
    Effect.map(
      sql<{ position: Position | null }>`select position_at(${storeId}, ${Pg.timestamptz(time)}) as position`,
      (rows) => rows[0]?.position ?? null
    )

  // By position the order is that of an index: the primary key, or fact_version within a stream; by validity what was
  // found is sorted. For each row one look into fact_chain tells whether a newer revision was known: a scalar subquery
  // stays such a look, and `+ 0` keeps the planner from an index that begins with the store or the position.
  const query = (query: FactQuery, page: Page, known: Position) =>
    sql<Fact>`
      select ${columns} from fact
      where ${
      sql.and([
        sql`store = ${storeId}`,
        sql`position <= ${Pg.bigint(known)}`,
        ...filters(sql, query),
        ...believed(sql, query, known),
        ...after(sql, page)
      ])
    }
      ${order(sql, page)}
      limit ${page.limit + 1}`

  return { head, log, stream, byId, history, positionAt, query }
}

/** The columns of a fact under the names of the model. */
const factColumns = `
  position, stream, version, origin, event_id as "eventId", type, schema_version as "schemaVersion", data, metadata,
  correlation_id as "correlationId", causation_id as "causationId", tenant, actor, traceparent,
  valid_from as "validFrom", valid_to as "validTo", recorded_at as "recordedAt", revision, revises, retracted, reason`

const filters = (sql: Sql, query: FactQuery): Array<Statement.Fragment> => {
  const { category, causationId, correlationId, metadata, stream, tenant, types, validAt, validDuring, versions } =
    query
  const found: Array<Statement.Fragment | false> = [
    validAt !== undefined && sql`valid_from <= ${Pg.timestamptz(validAt)} and valid_to > ${Pg.timestamptz(validAt)}`,
    validDuring !== undefined &&
    sql`valid_from < ${Pg.timestamptz(validDuring.to)} and valid_to > ${Pg.timestamptz(validDuring.from)}`,
    tenant !== undefined && sql`tenant = ${tenant}`,
    stream !== undefined && sql`stream = ${stream}`,
    category !== undefined && sql`split_part(stream, '-', 1) = ${category}`,
    types !== undefined &&
    (types.some((type) => type.includes("*"))
      ? sql`type ~ ${typePattern(types)}`
      : sql`type = any(${Pg.textArray(types)})`),
    correlationId !== undefined && sql`correlation_id = ${correlationId}`,
    causationId !== undefined && sql`causation_id = ${causationId}`,
    versions?.from !== undefined && sql`version >= ${versions.from}`,
    versions?.to !== undefined && sql`version <= ${versions.to}`
  ]
  for (const [key, value] of Object.entries(metadata ?? {})) {
    found.push(sql`metadata -> ${key}::text = ${Pg.jsonText(toJson(value))}::jsonb`)
  }
  return found.filter((fragment) => fragment !== false)
}

const toJson = Schema.encodeSync(Schema.fromJsonString(Schema.Json))

const believed = (sql: Sql, query: FactQuery, known: Position): ReadonlyArray<Statement.Fragment> =>
  query.revisions === "all" ? [] : [sql`
    not retracted and (
      select true from fact as newer
      where newer.origin = fact.origin and newer.store + 0 = fact.store and newer.revision > 0
        and newer.revision > fact.revision and newer.position + 0 <= ${Pg.bigint(known)}
      limit 1
    ) is null`]

const after = (sql: Sql, { after, direction, orderBy }: Page): ReadonlyArray<Statement.Fragment> => {
  if (after === undefined) return []
  const position = Pg.bigint(after.position)
  const validFrom = Pg.timestamptz(after.validFrom)
  if (orderBy === "position") {
    return [direction === "forwards" ? sql`position > ${position}` : sql`position < ${position}`]
  }
  return [
    direction === "forwards"
      ? sql`(valid_from, position) > (${validFrom}, ${position})`
      : sql`(valid_from, position) < (${validFrom}, ${position})`
  ]
}

const order = (sql: Sql, { direction, orderBy }: Page): Statement.Fragment =>
  orderBy === "position"
    ? direction === "forwards" ? sql`order by position` : sql`order by position desc`
    : direction === "forwards"
    ? sql`order by valid_from, position`
    : sql`order by valid_from desc, position desc`
