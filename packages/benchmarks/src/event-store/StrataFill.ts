/**
 * Fills a store by SQL, faster than any writer could.
 *
 * @since 0.1.0
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import { failure } from "../Suite.ts"
import * as Workload from "./Workload.ts"

/**
 * Facts of one fill: 100 streams of 100 facts, written in turns.
 *
 * @category constants
 * @since 0.1.0
 */
export const blockSize = 10_000

/** The facts of a stream. */
const length = 100

/**
 * The stream that is the nth of those filled in, from 0.
 *
 * @category constructors
 * @since 0.1.0
 */
export const streamName = (n: number): string => Workload.streamName("filled", n)

/**
 * Appends facts to an empty store until it has `facts`, a multiple of the block size.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fill = Effect.fnUntraced(function*(sql: PgClient.PgClient, facts: number) {
  const data = Workload.toJson(Workload.data(1))
  const metadata = Workload.toJson(Workload.metadata)
  for (let block = 0; block * blockSize < facts; block++) {
    // The rows that append_facts would write for 100 appends of 100 facts. Nobody else writes.
    yield* sql`
      insert into fact (
        store, position, origin, stream, version, event_id, type, schema_version, data, metadata,
        correlation_id, tenant, valid_from, valid_to, recorded_at
      )
      select
        store.id, store.head + n + 1, store.head + n + 1, format('orders%s-filled-%s', s.number % 32, s.number), n / 100 + 1, id.id,
        ${Workload.type}, 1, ${Pg.jsonText(data)}::json, ${Pg.jsonText(metadata)}::jsonb, id.id::text, 'default',
        clock_timestamp(), 'infinity', clock_timestamp()
      from
        store,
        generate_series(0, ${Pg.int(blockSize - 1)}) as n,
        lateral (select ${Pg.int(block * length)} + n % 100 as number) as s,
        lateral (select uuidv7() as id where n is not null) as id`
    yield* sql`
      insert into stream (store, id, version)
      select store.id, format('orders%s-filled-%s', number % 32, number), ${Pg.int(length)}
      from store, generate_series(${Pg.int(block * length)}, ${Pg.int(block * length + length - 1)}) as number`
    yield* sql`update store set head = head + ${Pg.int(blockSize)}, head_at = clock_timestamp()`
  }
  yield* sql`analyze`
}, Effect.mapError(failure("Filling Strata's store")))

/**
 * Empties a store, and fills it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const refill = Effect.fnUntraced(function*(sql: PgClient.PgClient, facts: number) {
  yield* sql`truncate fact, stream`.pipe(Effect.mapError(failure("Emptying Strata's store")))
  yield* sql`update store set head = 0`.pipe(Effect.mapError(failure("Emptying Strata's store")))
  yield* fill(sql, facts)
})
