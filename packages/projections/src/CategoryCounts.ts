/**
 * The projection `category-counts`: how many streams and facts each category of a tenant has, without counting them when
 * somebody asks.
 *
 * **Details**
 *
 * Every fact counts, revisions and what is said of streams among them; a stream counts from its first fact on. The counts are
 * exact for the position of the projection's checkpoint, which is told with them.
 *
 * @since 0.1.0
 */
import { categoryOf, type Fact, type Position } from "@strata/event-store/Fact"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Projection } from "./Projection.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * The projection's name.
 *
 * @category constants
 * @since 0.1.0
 */
export const name = "category-counts"

/**
 * What a tenant has in a store, as it was at a position.
 *
 * @category models
 * @since 0.1.0
 */
export interface Counts {
  readonly position: Position
  readonly streams: bigint
  readonly facts: bigint
  readonly categoryCount: bigint
  /** The largest by their facts, at most as many as were asked for. */
  readonly categories: ReadonlyArray<CategoryCount>
}

/**
 * What a category has.
 *
 * @category models
 * @since 0.1.0
 */
export interface CategoryCount {
  readonly category: string
  readonly streams: bigint
  readonly facts: bigint
}

// ----------------------------------------------------------------------------------------------------- projection

/**
 * Fills `category_count` for a store.
 *
 * @category projections
 * @since 0.1.0
 */
export const make = (store: string): Projection => ({
  name,
  version: 1,
  prepare: (facts) =>
    Result.succeed({
      size: facts.length,
      applyAfter: (position) => add(store, facts.filter((fact) => fact.position > position))
    }),
  reset: Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.asVoid(sql`delete from category_count where store = ${store}`)
  )
})

interface Change {
  readonly tenant: string
  readonly category: string
  streams: number
  facts: number
}

const changesOf = (facts: ReadonlyArray<Fact>): ReadonlyArray<Change> => {
  const changes = new Map<string, Change>()
  for (const { stream, tenant, version } of facts) {
    const category = categoryOf(stream)
    const key = `${tenant}\0${category}`
    const change = changes.get(key) ?? { tenant, category, streams: 0, facts: 0 }
    change.facts++
    if (version === 1) change.streams++
    changes.set(key, change)
  }
  return [...changes.values()]
}

// One row per tenant and category of the batch, by primary key. The checkpoint's lock keeps others away.
const add = Effect.fnUntraced(function*(store: string, facts: ReadonlyArray<Fact>) {
  if (facts.length === 0) return
  const sql = yield* SqlClient.SqlClient
  const changes = changesOf(facts)
  yield* sql`
    insert into category_count as c (store, tenant, category, streams, facts)
    select ${store}, d.tenant, d.category, d.streams, d.facts
    from unnest(
      ${Pg.textArray(changes.map(({ tenant }) => tenant))},
      ${Pg.textArray(changes.map(({ category }) => category))},
      ${Pg.intArray(changes.map(({ streams }) => streams))},
      ${Pg.intArray(changes.map(({ facts }) => facts))}
    ) as d(tenant, category, streams, facts)
    on conflict (store, tenant, category) do update
    set streams = c.streams + excluded.streams, facts = c.facts + excluded.facts`
})

// ---------------------------------------------------------------------------------------------------------- reading

interface Row extends Omit<Counts, "categories"> {
  readonly category: string | null
  readonly categoryStreams: bigint
  readonly categoryFacts: bigint
}

/**
 * Reads a tenant's counts, and the position they are for, in one look.
 *
 * @category queries
 * @since 0.1.0
 */
export const read = (
  sql: SqlClient.SqlClient,
  { limit, store, tenant }: { readonly store: string; readonly tenant: string; readonly limit: number }
): Effect.Effect<Counts, SqlError> =>
  // The tenant's rows by the primary key of category_count, as many as it has categories.
  Effect.map(
    sql<Row>`
      select p.position, c.category, c.streams as "categoryStreams", c.facts as "categoryFacts",
        count(c.category) over () as "categoryCount",
        coalesce(sum(c.streams) over (), 0)::bigint as streams, coalesce(sum(c.facts) over (), 0)::bigint as facts
      from (
        select coalesce((select position from projection where store = ${store} and name = ${name}), 0) as position
      ) as p
      left join category_count as c on c.store = ${store} and c.tenant = ${tenant}
      order by c.facts desc nulls last, c.category
      limit ${limit}`,
    (rows) => {
      const { categoryCount, facts, position, streams } = rows[0]!
      const categories = Arr.flatMap(rows, (row) =>
        row.category === null
          ? []
          : [{ category: row.category, streams: row.categoryStreams, facts: row.categoryFacts }])
      return { position, streams, facts, categoryCount, categories }
    }
  )
