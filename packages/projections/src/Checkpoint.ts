/**
 * Checkpoints: how far each projection is, in the database whose tables it fills.
 *
 * @since 0.1.0
 */
import { Position } from "@strata/event-store/Fact"
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { ApplyError, PreparedBatch, Projection } from "./Projection.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * A projection's row.
 *
 * @category models
 * @since 0.1.0
 */
export interface Checkpoint {
  readonly name: string
  readonly version: number
  readonly position: Position
  readonly state: "running" | "failed"
  readonly error: string | null
}

/**
 * A projection's row, and the database's clock when it was read.
 *
 * @category models
 * @since 0.1.0
 */
export interface CheckpointNow extends Checkpoint {
  readonly now: Timestamp.Timestamp
}

/**
 * What became of a batch: where the checkpoint stands now, and whether this process moved it there.
 *
 * @category models
 * @since 0.1.0
 */
export interface Moved {
  readonly position: Position
  readonly applied: boolean
}

/**
 * Another process runs another version of the projection, or the checkpoint is gone.
 *
 * @category errors
 * @since 0.1.0
 */
export class Superseded extends Data.TaggedError("Superseded")<{ readonly version: number | undefined }> {}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * The checkpoints of a store's projections.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (postgres: Postgres["Service"], store: string) => {
  const { sql, transact } = postgres
  const withSql = Effect.provideService(SqlClient.SqlClient, sql)

  // Locks the projection's row until the transaction ends. By primary key.
  const lock = (name: string) =>
    Effect.map(
      sql<Checkpoint>`
        select name, version, position, state, error from projection
        where store = ${store} and name = ${name}
        for update`,
      (rows) => rows[0]
    )

  // By primary key, on a row this transaction has locked.
  const move = (projection: Projection, to: bigint) =>
    sql`
      update projection
      set position = ${Pg.bigint(to)}, version = ${projection.version}, state = 'running', error = null,
        updated_at = clock_timestamp()
      where store = ${store} and name = ${projection.name}`

  /**
   * Makes the row of a new projection, and empties the tables of one whose version is another. A failed one may try
   * again. Gives the position to go on from.
   */
  const open = (projection: Projection): Effect.Effect<Position, ApplyError | TransactionError> =>
    Effect.gen(function*() {
      // One row, by primary key.
      yield* sql`
        insert into projection (store, name, version, position, state)
        values (${store}, ${projection.name}, ${projection.version}, 0, 'running')
        on conflict (store, name) do nothing`
      const row = yield* lock(projection.name)
      const position = row?.version === projection.version ? row.position : Position.make(0n)
      if (row?.version !== projection.version) yield* withSql(projection.reset)
      yield* move(projection, position)
      return position
    }).pipe((body) => transact(body, { idempotent: true }))

  /**
   * Applies what the checkpoint has not seen of a batch that was read after `after`, and moves the checkpoint to `last`.
   * Applies nothing when another process moved it past the batch, or back before it. Repeating it is safe.
   */
  const advance = (projection: Projection, batch: {
    readonly prepared: PreparedBatch
    readonly after: Position
    readonly last: Position
  }): Effect.Effect<Moved, ApplyError | TransactionError | Superseded> =>
    Effect.gen(function*() {
      const row = yield* lock(projection.name)
      if (row?.version !== projection.version) return yield* new Superseded({ version: row?.version })
      if (row.position < batch.after || row.position >= batch.last) return { position: row.position, applied: false }
      yield* withSql(batch.prepared.applyAfter(row.position))
      yield* move(projection, batch.last)
      return { position: batch.last, applied: true }
    }).pipe((body) => transact(body, { idempotent: true }))

  /**
   * Writes down why a projection stops at a position, and gives that position back. Leaves a checkpoint alone that another
   * process has moved, and gives the position to go on from.
   */
  const fail = (
    projection: Projection,
    at: Position,
    error: string
  ): Effect.Effect<Position, SqlError | TransactionError | Superseded> =>
    Effect.gen(function*() {
      const row = yield* lock(projection.name)
      if (row?.version !== projection.version) return yield* new Superseded({ version: row?.version })
      if (row.position !== at) return row.position
      // By primary key, on a row this transaction has locked.
      yield* sql`
        update projection
        set state = 'failed', error = ${error.replaceAll("\0", "")}, updated_at = clock_timestamp()
        where store = ${store} and name = ${projection.name}`
      return at
    }).pipe((body) => transact(body, { idempotent: true }))

  // A handful of rows, by the first column of the primary key.
  const all: Effect.Effect<ReadonlyArray<CheckpointNow>, SqlError> = sql<CheckpointNow>`
    select name, version, position, state, error, clock_timestamp() as now from projection
    where store = ${store}`

  return { open, advance, fail, all }
}

/**
 * The checkpoints of a store's projections.
 *
 * @category models
 * @since 0.1.0
 */
export type Checkpoints = ReturnType<typeof make>
