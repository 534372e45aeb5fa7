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
import { refuseInTransaction } from "./AppendJudgement.ts"
import { EventStoreError } from "./EventStore.ts"
import type { Position, StreamId } from "./Fact.ts"
import * as PreparedSaying from "./PreparedSaying.ts"
import { type CategoryInfo, type StreamCatalog, StreamClosed, type StreamInfo } from "./StreamCatalog.ts"

/**
 * What the store lends to it.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly storeId: number
  readonly answer: <A>(operation: string, statement: Effect.Effect<A, SqlError>) => Effect.Effect<A, EventStoreError>
  readonly random: SecureRandom.SecureRandom["Service"]
  readonly committed: (position: Position) => Effect.Effect<void>
}

/**
 * The catalog of one store.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { inTransaction, sql }: Postgres["Service"],
  { answer, committed, random, storeId }: Options
): StreamCatalog => {
  // Served by the primary key of stream.
  const get: StreamCatalog["get"] = (stream) =>
    answer(
      "streams.get",
      Effect.map(
        sql<StreamInfo>`
          select id as stream, version, state, metadata from stream
          where store = ${storeId} and id = ${stream}`,
        Arr.head
      )
    )

  // Served by the primary key of stream: the ids of a category stand between `<category>-` and `<category>.`, the next byte.
  // What is no category stands before ids as well, up to their second `-`: hence the comparison.
  const list: StreamCatalog["list"] = Effect.fn("StreamCatalog.list")(function*(options = {}) {
    const { after, category, limit, states } = yield* PreparedSaying.listing(options)
    const within = category === undefined
      ? sql`true`
      : sql`id >= ${`${category}-`} and id < ${`${category}.`} and split_part(id, '-', 1) = ${category}`
    return yield* answer(
      "streams.list",
      sql<StreamInfo>`
        select id as stream, version, state, metadata from stream
        where store = ${storeId} and ${within} and id > ${after ?? ""} and state = any(${Pg.textArray(states)})
        order by id
        limit ${limit}`
    )
  })

  // One row per category, by primary key.
  const categories = answer(
    "streams.categories",
    sql<CategoryInfo>`select name as category, streams, facts from category where store = ${storeId} order by name`
  )

  const say = Effect.fnUntraced(function*(stream: StreamId, change: PreparedSaying.Change) {
    if (yield* inTransaction) return yield* refuseInTransaction
    const s = yield* Effect.provideService(PreparedSaying.prepare(stream, change), SecureRandom.SecureRandom, random)
    const [row] = yield* answer(
      "streams.set",
      sql<{ readonly outcome: "written" | "tombstoned"; readonly position: Position }>`
        select outcome, "position" from describe_stream(
          ${storeId}::integer, ${Pg.text(stream)}, ${Pg.text(s.state)}, ${Pg.text(s.metadata)}, ${Pg.uuid(s.eventId)},
          ${Pg.text(s.type)}, ${Pg.text(s.reason)}, ${Pg.text(s.tenant)}, ${Pg.text(s.actor)}, ${Pg.text(s.traceparent)}
        )`
    )
    if (row!.outcome === "tombstoned") {
      return yield* new EventStoreError({ reason: new StreamClosed({ stream, state: "tombstoned" }) })
    }
    yield* committed(row!.position)
    return row!.position
  })

  return {
    get,
    list,
    categories,
    setMetadata: Effect.fn("StreamCatalog.setMetadata")((stream, metadata, saying) =>
      say(stream, { ...saying, metadata })
    ),
    setState: Effect.fn("StreamCatalog.setState")((stream, state, saying) => say(stream, { ...saying, state }))
  }
}
