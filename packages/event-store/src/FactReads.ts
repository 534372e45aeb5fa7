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
import type { SqlError } from "effect/sql/SqlError"
import { beginning, type EventId, type Fact, type Position, type StreamId } from "./Fact.ts"
import * as FactQueries from "./FactQueries.ts"
import * as FactRows from "./FactRows.ts"

/**
 * The statements of one store.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ rows, sql }: Postgres["Service"], storeId: number) => {
  const columnsOfAny = sql.literal(FactRows.columnsOfAny)
  const columnsOfWhole = sql.literal(FactRows.columnsOfWhole)

  // One row, by primary key.
  const head: Effect.Effect<Position, SqlError> = Effect.map(
    sql<{ head: Position }>`select head from store where id = ${storeId}`,
    (rows) => rows[0]?.head ?? beginning
  )

  // Served by the primary key of fact; at most `limit` rows, each with one look at its stream.
  const log = (after: Position, limit: number, upTo: Position | undefined) =>
    FactRows.found(sql`
      select f.* from (
        select set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)
      ) as scope(tenant, every), lateral (
        select ${columnsOfAny} from fact
        where store = ${storeId} and position > ${Pg.bigint(after)} and position <= ${Pg.bigint(upTo ?? lastPosition)}
          and scope.every is not null
        order by position
        limit ${limit}
      ) as f`)

  // One stream by stream_id, its facts by fact_version, in either direction. The scope is set where the stream is looked for,
  // without which no fact can be.
  const ofStream = (versions: string) => `
    select ${FactRows.columns} from fact
    where stream = (
      select s.number from (select set_config('strata.tenant', $1, true)) as scope(tenant), lateral (
        select number from stream where store = $2 and tenant = scope.tenant and id = $3 limit 1
      ) as s
    ) and ${versions}
    limit $5`
  const forwards = ofStream("version >= $4 order by version")
  const backwards = ofStream("version <= $4 order by version desc")
  const stream = (
    tenant: string,
    id: StreamId,
    direction: "forwards" | "backwards",
    from: number | undefined,
    limit: number
  ) =>
    FactRows.foundOf(
      tenant,
      id,
      direction === "forwards"
        ? rows(forwards, [tenant, storeId, id, Pg.int(from ?? 1), limit])
        : rows(backwards, [tenant, storeId, id, Pg.int(from ?? 2_147_483_647), limit])
    )

  // Streams by stream_id, their facts by fact_version.
  const streams = (asked: ReadonlyArray<Pick<Fact, "tenant" | "stream">>, upTo: Position) =>
    FactRows.facts(sql`
      select f.* from (
        select set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)
      ) as scope(tenant, every), lateral (
        select ${columnsOfWhole} from fact
        where stream = any(array(
          select s.number from unnest(
            ${Pg.textArray(asked.map(({ tenant }) => tenant))}, ${Pg.textArray(asked.map(({ stream }) => stream))}
          ) as a(tenant, id)
          join stream as s on s.store = ${storeId} and s.tenant = a.tenant and s.id = a.id
          where scope.every is not null
        )) and position <= ${Pg.bigint(upTo)}
        order by position
        limit 9223372036854775807
      ) as f`)

  // Served by fact_event_id; `+ 0` keeps the planner from an index that begins with the store.
  const byId = (tenant: string, eventIds: ReadonlyArray<EventId>) =>
    FactRows.facts(sql`
      select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select ${columnsOfWhole} from fact
        where event_id = any(${Pg.uuidArray(eventIds)}) and store + 0 = ${storeId} and tenant = scope.tenant
        order by position
        limit ${eventIds.length}
      ) as f`)

  // The chain of any member: its first fact by the primary key, its revisions by fact_chain, in either direction.
  const history = (
    tenant: string,
    eventId: EventId,
    direction: "forwards" | "backwards",
    from: number | undefined,
    limit: number
  ) => {
    const backwards = direction === "backwards"
    const start = from ?? (backwards ? 2_147_483_647 : 0)
    const order = sql.literal(backwards ? "revision desc" : "revision")
    const beyond = sql.literal(backwards ? "<=" : ">=")
    return FactRows.found(sql`
      select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select coalesce(origin, position) as origin from fact
        where event_id = ${Pg.uuid(eventId)} and store + 0 = ${storeId} and tenant = scope.tenant
        limit 1
      ) as chain, lateral (
        select * from (
          (
            select ${columnsOfAny}, revision from fact
            where store = ${storeId} and position = chain.origin and 0 ${beyond} ${Pg.int(start)}
          )
          union all
          (
            select ${columnsOfAny}, revision from fact
            where origin = chain.origin and store + 0 = ${storeId} and revision > 0 and revision ${beyond} ${
      Pg.int(start)
    }
            order by ${order}
            limit ${limit}
          )
        ) as members
        order by ${order}
        limit ${limit}
      ) as f`)
  }

  // May lock the store's row, and only until the statement ends; see migrations/0002_revisions.sql. Asked by a client of which
  // the caller is in no transaction.
  const positionAt = (client: Postgres["Service"]["sql"], time: Timestamp.Timestamp) =>
    Effect.map(
      client<{ position: Position | null }>`select position_at(${storeId}, ${Pg.timestamptz(time)}) as position`,
      (rows) => rows[0]?.position ?? null
    )

  return { head, log, stream, streams, byId, history, positionAt, ...FactQueries.make(sql, storeId) }
}

/** No log gets there. */
const lastPosition = 9_223_372_036_854_775_807n
