/**
 * The PostgreSQL schemas that hold the tables of generations, and the views by which they are read.
 *
 * **Details**
 *
 * Readers name the tables plainly and find views on those of the live generation. A view is replaced under an exclusive
 * lock, which a reader's transaction on it holds up: the wait for it is shorter than `deadlock_timeout`, so whatever the
 * readers do, it is the switch that gives way and tries again.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Unnest from "@strata/postgres/Unnest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { createHash } from "node:crypto"
import type { Projection } from "./Projection.ts"
import { identifier } from "./SqlText.ts"

type Client = SqlClient.SqlClient

/**
 * The tables of a projection cannot be used as they are.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidTables extends Schema.TaggedError<InvalidTables>()("InvalidTables", {
  projection: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return `The tables of projection ${this.projection} cannot be used: ${this.detail}`
  }
}

/**
 * The name of a generation's schema: readable, within the 63 bytes of PostgreSQL, and the same for the same generation only.
 *
 * @category constructors
 * @since 0.1.0
 */
export const nameOf = (generation: {
  readonly schema: string
  readonly store: string
  readonly name: string
  readonly number: number
}): string => {
  const { name, number, schema, store } = generation
  const whole = [schema, store, name].join("\0")
  const readable = (store === "default" ? [schema, name] : [schema, store, name])
    .join("_").toLowerCase().replaceAll(/[^a-z0-9]+/g, "_")
  const isExact = readable.length <= 50 && store === "default" && /^[a-z0-9_]+$/.test(schema) &&
    /^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)
  const digest = createHash("sha256").update(whole).digest("hex").slice(0, 8)
  return isExact ? `${readable}_${number}` : `${readable.slice(0, 40)}_${digest}_${number}`
}

/**
 * The search path under which a projection's statements find its tables first.
 *
 * @category getters
 * @since 0.1.0
 */
export const searchPath = (generation: string, { schema }: Pick<Postgres["Service"], "schema">): string =>
  `${identifier(generation)}, ${identifier(schema)}, public`

/**
 * Lets the rest of the transaction find the tables of a generation.
 *
 * @category combinators
 * @since 0.1.0
 */
export const enter = (sql: Client, generation: string, postgres: Pick<Postgres["Service"], "schema">) =>
  sql`select set_config('search_path', ${searchPath(generation, postgres)}, true)`

/**
 * Makes a schema with the tables of a projection, inside a transaction, and gives the names of those that readers see.
 *
 * @category constructors
 * @since 0.1.0
 */
export const create = Effect.fnUntraced(function*(
  postgres: Pick<Postgres["Service"], "schema" | "sql">,
  projection: Projection,
  generation: string
): Effect.fn.Return<ReadonlyArray<string>, InvalidTables | SqlError> {
  const { sql } = postgres
  const refuse = (detail: string) => new InvalidTables({ projection: projection.name, detail })
  yield* sql`create schema ${sql(generation)}`
  yield* enter(sql, generation, postgres)
  for (const statement of projection.tables) yield* sql.unsafe(statement)
  yield* sql`select set_config('search_path', ${`${identifier(postgres.schema)}, public`}, true)`
  const tables = yield* tablesOf(sql, generation)
  if (tables.length === 0) return yield* refuse("it makes none")
  const taken = yield* sql<{ name: string }>`
    select c.relname::text as name from pg_class c
    where c.relnamespace = to_regnamespace(${identifier(postgres.schema)}) and c.relkind not in ('v', 'i', 'I')
      and c.relname = any(${Pg.textArray(tables.map(({ name }) => name))})`
  if (taken[0] !== undefined) {
    return yield* refuse(`the name ${taken[0].name} is taken in the schema ${postgres.schema}`)
  }
  if (projection.replace === undefined) {
    for (const { columns, name } of tables) {
      const missing = projection.key.columns.find((column) => !columns.includes(column))
      if (missing !== undefined) {
        return yield* refuse(`${name} has no column ${missing} of type text, which is part of the key`)
      }
    }
  }
  return tables.map(({ name }) => name)
})

// The tables of a schema, with their columns of type text; from the catalog.
const tablesOf = (sql: Client, generation: string) =>
  sql<{ name: string; columns: ReadonlyArray<string> }>`
    select c.relname::text as name, array(
      select a.attname::text from pg_attribute a
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.atttypid = 'text'::regtype
    ) as columns
    from pg_class c
    where c.relnamespace = to_regnamespace(${identifier(generation)}) and c.relkind in ('r', 'p')
    order by c.relname`

/**
 * Shows readers the tables of a generation, inside a transaction; views on tables that it does not have are removed. Waits for
 * readers no longer than is good for those who come after them, and fails with `lock_not_available` then.
 *
 * @category combinators
 * @since 0.1.0
 */
export const publish = Effect.fnUntraced(function*(
  { schema, sql }: Pick<Postgres["Service"], "schema" | "sql">,
  generation: { readonly schema: string; readonly tables: ReadonlyArray<string> },
  before: ReadonlyArray<string>
): Effect.fn.Return<void, SqlError> {
  yield* sql`select set_config('lock_timeout', ${longestWait}, true)`
  const place = (name: string) => `${identifier(schema)}.${identifier(name)}`
  // Everybody takes the locks in one order.
  for (const table of [...generation.tables].toSorted()) {
    const source = `${identifier(generation.schema)}.${identifier(table)}`
    if (!(yield* isExtension(sql, source, place(table)))) yield* sql.unsafe(`drop view ${place(table)}`)
    yield* sql.unsafe(
      `create or replace view ${place(table)} with (security_invoker = true) as select * from ${source}`
    )
  }
  for (const table of before.filter((table) => !generation.tables.includes(table))) {
    yield* sql.unsafe(`drop view if exists ${place(table)}`)
  }
})

/** Milliseconds; a deadlock is looked for after a second. */
const longestWait = "20"

// A view may be replaced by one that begins with the same columns; from the catalog.
const isExtension = (sql: Client, table: string, view: string) =>
  Effect.map(
    sql<{ fits: boolean }>`
      with columns as (
        select attrelid, attname, atttypid, atttypmod, attcollation,
          row_number() over (partition by attrelid order by attnum) as place
        from pg_attribute
        where attrelid in (to_regclass(${table}), to_regclass(${view})) and attnum > 0 and not attisdropped
      )
      select coalesce(bool_and(coalesce(
        (t.attname, t.atttypid, t.atttypmod, t.attcollation) = (v.attname, v.atttypid, v.atttypmod, v.attcollation), false
      )), true) as fits
      from columns v
      left join columns t on t.attrelid = to_regclass(${table}) and t.place = v.place
      where v.attrelid = to_regclass(${view})`,
    ([row]) => row?.fits === true
  )

/**
 * Removes the rows of keys from all tables of a generation whose schema was entered, by the columns of the key: by one statement.
 *
 * @category combinators
 * @since 0.1.0
 */
export const clear = (
  tables: ReadonlyArray<string>,
  columns: ReadonlyArray<string>,
  keys: ReadonlyArray<ReadonlyArray<string>>
): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const names = sql.csv(columns.map((column) => sql`${sql(column)}`))
    const gone = Unnest.rows(
      sql,
      Object.fromEntries(columns.map((column, place) => [column, Pg.textArray(keys.map((key) => key[place] ?? ""))]))
    )
    const removals = tables.map((table, place) =>
      sql`${sql(`removal_${place}`)} as (
        delete from ${sql(table)} where (${names}) in (select * from gone))`
    )
    return sql`with gone as ${gone}, ${sql.csv(removals)} select`
  })

/**
 * Removes a generation's tables for good.
 *
 * @category combinators
 * @since 0.1.0
 */
export const drop = (sql: Client, generation: string) => sql`drop schema if exists ${sql(generation)} cascade`
