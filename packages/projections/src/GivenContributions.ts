/**
 * Remembers what each fact contributed, where that cannot be found out again: personal fields show less once they are erased, and what
 * was added with them has to be taken away again.
 *
 * @since 0.1.0
 */
import type { Position } from "@strata/event-store/Fact"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Contribution } from "./ContributionsProjection.ts"
import * as SqlText from "./SqlText.ts"

/**
 * What one fact contributed. `origin` is where its chain begins, so it is the same for every revision.
 *
 * @category models
 * @since 0.1.0
 */
export interface Given {
  readonly key: ReadonlyArray<string>
  readonly origin: Position
  readonly contributions: ReadonlyArray<Contribution>
}

/**
 * The statements on the table beside one of sums: a row for each fact that contributed something.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ columns, table }: { readonly table: string; readonly columns: ReadonlyArray<string> }) => {
  const name = SqlText.identifier(table)
  const names = SqlText.list(columns)
  const fields = [
    ...columns.map((name) => ({ name, type: "text" })),
    { name: "origin", type: "bigint" },
    { name: "given", type: "jsonb" }
  ]
  const insert = `
    insert into ${name} (${SqlText.list(fields.map(({ name }) => name))})
    select * from jsonb_to_recordset($1::jsonb) as r(${SqlText.columns(fields)})`
  // Rows by the first columns of the primary key.
  const remove = `
    delete from ${name}
    where (${names}) in (select * from unnest(${columns.map((_, place) => `$${place + 1}`).join(", ")}))
    returning given`

  return {
    tables: [`create table ${name} (
      ${columns.map((column) => `${SqlText.identifier(column)} text not null`).join(", ")},
      origin bigint not null, given jsonb not null, primary key (${names}, origin)
    )`],
    /** Remembers what facts contributed. */
    note: (given: ReadonlyArray<Given>): Effect.Effect<void, SqlError, SqlClient.SqlClient> => {
      const rows = given.filter(({ contributions }) => contributions.length > 0)
      return rows.length === 0 ?
        Effect.void :
        Effect.flatMap(SqlClient.SqlClient, (sql) =>
          Effect.asVoid(sql.unsafe(insert, [
            Pg.jsonb(rows.map(({ contributions, key, origin }) => ({
              ...Object.fromEntries(columns.map((name, place) => [name, key[place]] as const)),
              origin: String(origin),
              given: contributions.map(toJson)
            })))
          ])))
    },
    /** Forgets what the facts of keys contributed, and tells it. */
    take: (
      keys: ReadonlyArray<ReadonlyArray<string>>
    ): Effect.Effect<ReadonlyArray<Contribution>, SqlError, SqlClient.SqlClient> =>
      Effect.flatMap(SqlClient.SqlClient, (sql) =>
        Effect.map(
          sql.unsafe<{ readonly given: ReadonlyArray<Contribution> }>(
            remove,
            columns.map((_, place) => Pg.textArray(keys.map((key) => key[place] ?? "")))
          ),
          (rows) => rows.flatMap(({ given }) => given)
        ))
  }
}

/** In a form that counts for the same: JSON has no bigint, and neither `NaN` nor `Infinity`. */
const toJson = ({ dimensions, values, weight }: Contribution) => ({
  dimensions: mapped(dimensions),
  ...(values === undefined ? {} : { values: mapped(values) }),
  ...(weight === undefined ? {} : { weight })
})

const mapped = (values: NonNullable<Contribution["values"]>) =>
  Object.fromEntries(
    Object.entries(values).filter(([, value]) => value !== undefined).map(([name, value]) =>
      [
        name,
        typeof value === "bigint" || (typeof value === "number" && !Number.isFinite(value)) ? String(value) : value
      ] as const
    )
  )
