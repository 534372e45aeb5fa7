/**
 * The catalog of streams on PostgreSQL. The statement that writes is `describe_stream` in `migrations/0004_streams.sql`.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Arr from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { misplaced } from "./AppendJudgement.ts"
import { EventStoreError } from "./EventStore.ts"
import type { EventId, Fact, Position, StreamId } from "./Fact.ts"
import * as PreparedSaying from "./PreparedSaying.ts"
import { type CategoryInfo, type StreamCatalog, StreamClosed, type StreamInfo, type TypeInfo } from "./StreamCatalog.ts"

/**
 * What the store lends to it.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly storeId: number
  readonly answer: <A>(operation: string, statement: Effect.Effect<A, SqlError>) => Effect.Effect<A, EventStoreError>
  readonly forTenant: <A>(
    operation: string,
    statement: (tenant: string) => Effect.Effect<A, SqlError>
  ) => Effect.Effect<A, EventStoreError>
  readonly random: SecureRandom.SecureRandom["Service"]
  readonly factsById: (eventIds: ReadonlyArray<EventId>) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>
  readonly committed: (position: Position) => Effect.Effect<void>
}

/**
 * The catalog of one store.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { holdsConnection, sql }: Postgres["Service"],
  { answer, committed, factsById, forTenant, random, storeId }: Options
): StreamCatalog => {
  /** What is told of a stream; its version by fact_version. */
  const columns = sql.literal(`
    s.id as stream, s.state, s.metadata,
    coalesce((select f.version from fact f where f.stream = s.number order by f.version desc limit 1), 0) as version`)

  // Served by stream_id.
  const get: StreamCatalog["get"] = (stream) =>
    forTenant("streams.get", (tenant) =>
      Effect.map(
        sql<StreamInfo>`
          select found.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
            select ${columns} from stream s
            where s.store = ${storeId} and s.tenant = scope.tenant and s.id = ${stream}
            limit 1
          ) as found`,
        Arr.head
      ))

  // Served by stream_id: the ids of a category stand between `<category>-` and `<category>.`, the next byte.
  // What is no category stands before ids as well, up to their second `-`: hence the comparison.
  const list: StreamCatalog["list"] = Effect.fn("StreamCatalog.list")(function*(options = {}) {
    const { after, category, limit, states } = yield* PreparedSaying.listing(options)
    const within = category === undefined
      ? sql`true`
      : sql`s.id >= ${`${category}-`} and s.id < ${`${category}.`} and split_part(s.id, '-', 1) = ${category}`
    return yield* forTenant("streams.list", (tenant) =>
      sql<StreamInfo>`
        select found.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
          select ${columns} from stream s
          where s.store = ${storeId} and s.tenant = scope.tenant and ${within} and s.id > ${after ?? ""}
            and s.state = any(${Pg.textArray(states)})
          order by s.id
          limit ${limit}
        ) as found`)
  })

  /** The facts of a tenant by number: those that are summarized, from fact_count, and the rest of the log by its primary key. */
  const counted = sql`
    select category, type, streams, facts from fact_count where store = ${storeId} and tenant = scope.tenant
    union all
    select split_part((select s.id from stream s where s.number = f.stream), '-', 1), f.type, (f.version = 1)::integer, 1
    from fact f
    where f.store = ${storeId} and f.position > fact_summarized(${storeId}) and f.tenant = scope.tenant`

  const categories = forTenant("streams.categories", (tenant) =>
    sql<CategoryInfo>`
      select found.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select c.category, sum(c.streams)::bigint as streams, sum(c.facts)::bigint as facts
        from (${counted}) as c
        group by c.category
        order by c.category
        limit all
      ) as found`)

  const types = forTenant("streams.types", (tenant) =>
    sql<TypeInfo>`
      select found.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select c.category, c.type, sum(c.facts)::bigint as facts
        from (${counted}) as c
        group by c.category, c.type
        order by c.category, c.type
        limit all
      ) as found`)

  const say = Effect.fnUntraced(function*(stream: StreamId, change: PreparedSaying.Change) {
    if (yield* holdsConnection) return yield* misplaced("inside a transaction, nothing can be said of a stream")
    const s = yield* Effect.provideService(PreparedSaying.prepare(stream, change), SecureRandom.SecureRandom, random)
    const [row] = yield* answer(
      "streams.set",
      sql<{ readonly outcome: "written" | "tombstoned"; readonly position: Position }>`
        select outcome, "position" from describe_stream(
          ${storeId}::integer, ${Pg.text(s.tenant)}, ${Pg.text(stream)}, ${Pg.text(s.state)}, ${Pg.text(s.metadata)}, ${
        Pg.uuid(s.eventId)
      },
          ${Pg.text(s.type)}, ${Pg.text(s.reason)}, ${Pg.text(s.actor)}, ${Pg.text(s.traceparent)}
        )`
    )
    if (row!.outcome === "tombstoned") {
      return yield* new EventStoreError({ reason: new StreamClosed({ stream, state: "tombstoned" }) })
    }
    yield* committed(row!.position)
    // An id of the caller's own may have been there before.
    const [stored] = change.eventId === undefined ? [] : yield* factsById([change.eventId])
    return stored === undefined ? row!.position : yield* PreparedSaying.judge(s, stored)
  })

  return {
    get,
    list,
    categories,
    types,
    setMetadata: Effect.fn("StreamCatalog.setMetadata")((stream, metadata, saying) =>
      say(stream, { ...saying, metadata })
    ),
    setState: Effect.fn("StreamCatalog.setState")((stream, state, saying) => say(stream, { ...saying, state }))
  }
}
