/**
 * Keys that wait, since a fact of theirs cannot be applied: so the order of a key is kept while all others go on.
 *
 * @since 0.1.0
 */
import type { FailedFact } from "@strata/event-store/DurableSubscriptionPartition"
import type { Fact, Position, StreamId } from "@strata/event-store/Fact"
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Generation } from "./Generation.ts"
import * as GenerationSchema from "./GenerationSchema.ts"

/**
 * A key that waits.
 *
 * @category models
 * @since 0.1.0
 */
export interface ParkedKey {
  readonly projection: string
  /** The number of the generation. */
  readonly generation: number
  readonly key: string
  /** The fact that cannot be applied. */
  readonly position: Position
  readonly tenant: string
  readonly stream: StreamId
  readonly error: string
  readonly attempts: number
  /** Facts of the key that came after it, and wait too. */
  readonly held: bigint
  readonly parkedAt: Timestamp.Timestamp
}

/**
 * What is needed to let a key go on.
 *
 * @category models
 * @since 0.1.0
 */
export interface ParkedRow extends ParkedKey {
  readonly columns: ReadonlyArray<string>
}

/**
 * So many keys wait already that it is the projection that must be wrong.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooManyParked extends Data.TaggedError("TooManyParked")<{
  readonly parked: number
  readonly error: string
}> {
  override get message() {
    return `${this.parked} keys wait already, so nothing more is put aside: ${this.error}`
  }
}

/** Beyond this a partition stops: then it is not single facts that cannot be applied. */
const mostParked = 1000

/**
 * The statements of one generation.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { schema, sql }: Pick<Postgres["Service"], "schema" | "sql">,
  store: string,
  generation: Generation
) => {
  const { id, name, number, version } = generation
  const path = GenerationSchema.searchPath(generation.schema, { schema })

  /**
   * Of the keys those that wait, locked until the transaction ends: who lets one go on waits for the batch, and the other
   * way round. And the facts that are to be left out. An erasure that waits is of any key, so it is locked by every batch of its
   * part. From here on, the transaction finds the generation's tables.
   */
  const enter = Effect.fnUntraced(function*(keys: ReadonlyArray<string>, part: number | "all" | "none") {
    const [found] = yield* sql<
      { parked: ReadonlyArray<string>; erasures: ReadonlyArray<string>; skipped: ReadonlyArray<bigint> }
    >`
      select
        set_config('search_path', ${path}, true),
        array(select key from projection_parked where generation = ${id}) as parked,
        array(
          select key from projection_parked
          where generation = ${id} and starts_with(stream, '$subject-') and ${String(part)} in ('all', columns[4])
        ) as erasures,
        array(
          select position from projection_skipped
          where store = ${store} and name = ${name} and version = ${version}
        ) as skipped`
    const waiting = new Set(found?.parked)
    const affected = [...found?.erasures ?? [], ...keys.filter((key) => waiting.has(key))]
    const locked = affected.length === 0 ? [] : yield* sql<{ key: string; position: Position }>`
      select key, position from projection_parked
      where generation = ${id} and key = any(${Pg.textArray(affected)})
      order by key
      for key share`
    return {
      /** Each with the position of the fact that cannot be applied. */
      parked: new Map(locked.map(({ key, position }) => [key, position])),
      skipped: new Set(found?.skipped)
    }
  })

  // Rows by primary key, in the order of the keys.
  const hold = (counts: ReadonlyMap<string, number>) => {
    const keys = [...counts].toSorted(([a], [b]) => a < b ? -1 : 1)
    return keys.length === 0 ? Effect.void : sql`
      update projection_parked as p set held = p.held + k.facts
      from unnest(
        ${Pg.textArray(keys.map(([key]) => key))}, ${Pg.intArray(keys.map(([, facts]) => facts))}
      ) as k(key, facts)
      where p.generation = ${id} and p.key = k.key`
  }

  const add = Effect.fnUntraced(function*(
    key: { readonly text: string; readonly columns: ReadonlyArray<string> },
    { attempts, error, fact }: FailedFact
  ): Effect.fn.Return<void, SqlError | TooManyParked> {
    const [count] = yield* sql<{ parked: number }>`
      select count(*)::integer as parked from projection_parked where generation = ${id}`
    const parked = count?.parked ?? 0
    if (parked >= mostParked) return yield* new TooManyParked({ parked, error })
    // One row, by primary key.
    yield* sql`
      insert into projection_parked (generation, key, columns, position, tenant, stream, error, attempts)
      values (
        ${id}, ${key.text}, ${Pg.textArray(key.columns)}, ${Pg.bigint(fact.position)}, ${fact.tenant}, ${fact.stream},
        ${error.replaceAll("\0", "")}, ${attempts}
      )
      on conflict (generation, key) do update set held = projection_parked.held + 1`
  })

  const columns = sql.literal(`
    ${number} as generation, key, columns, position, tenant, stream, error, attempts, held, parked_at as "parkedAt"`)
  const all: Effect.Effect<ReadonlyArray<ParkedKey>, SqlError> = sql<ParkedKey>`
    select ${name}::text as projection, ${columns} from projection_parked where generation = ${id} order by position`

  /** A key that waits; locked, so that no batch with facts of the key is under way, and none begins. */
  const take = (key: string): Effect.Effect<ParkedRow | undefined, SqlError> =>
    Effect.map(
      sql<ParkedRow>`
        select ${name}::text as projection, ${columns} from projection_parked
        where generation = ${id} and key = ${key}
        for update`,
      ([row]) => row
    )

  // One row, by primary key.
  const remove = (key: string) => sql`delete from projection_parked where generation = ${id} and key = ${key}`

  const failedAgain = (key: string, error: string) =>
    sql`
      update projection_parked set error = ${error.replaceAll("\0", "")}, attempts = attempts + 1
      where generation = ${id} and key = ${key}`

  /** What a database says of a value it does not take may quote the value. */
  const forgetError = (key: string) =>
    sql`
      update projection_parked set error = 'what it said went with a subject that was erased: retry to know'
      where generation = ${id} and key = ${key}`

  const skip = (fact: Pick<Fact, "position">) =>
    sql`
      insert into projection_skipped (store, name, version, position)
      values (${store}, ${name}, ${version}, ${Pg.bigint(fact.position)})
      on conflict do nothing`

  return { enter, hold, add, all, take, remove, failedAgain, forgetError, skip }
}

/**
 * The statements of one generation.
 *
 * @category models
 * @since 0.1.0
 */
export type ParkedKeys = ReturnType<typeof make>
