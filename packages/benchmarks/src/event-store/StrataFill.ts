/**
 * Fills a store by SQL, faster than any writer could.
 *
 * @since 0.1.0
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as FactChunks from "@strata/event-store/FactChunks"
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
      with streams as (
        insert into stream (store, tenant, id)
        select store.id, 'default', format('orders%s-filled-%s', number % 32, number)
        from store, generate_series(${Pg.int(block * length)}, ${Pg.int(block * length + length - 1)}) as number
        returning number, id
      ), numbered as (
        select number, row_number() over (order by number) - 1 as nth from streams
      )
      insert into fact (
        store, version, position, stream, event_id, schema_version, recorded_at, valid_from, valid_to, tenant, type, data,
        metadata
      )
      select
        store.id, n / 100 + 1, store.head + n + 1, s.number, uuidv7(), 1, clock_timestamp(), clock_timestamp(), 'infinity',
        'default', ${Workload.type}, ${Pg.jsonText(data)}::json, ${Pg.jsonText(metadata)}::json
      from store, generate_series(0, ${Pg.int(blockSize - 1)}) as n
      join numbered as s on s.nth = n % 100
      order by n`
    yield* sql`update store set head = head + ${Pg.int(blockSize)}, head_at = clock_timestamp()`
  }
  // As a store that has grown over time is: nothing of it is left to do in the background, beside what is measured.
  const [store] = yield* sql<{ id: number }>`select id from store`
  yield* FactChunks.summarize(sql, store!.id).pipe(
    Effect.repeat({ until: ({ head, summarized }) => summarized !== null && head - summarized < 256n })
  )
  yield* sql`vacuum (analyze)`
}, Effect.mapError(failure("Filling Strata's store")))
