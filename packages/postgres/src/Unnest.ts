/**
 * Rows out of arrays, in statements that are planned once.
 *
 * **When to use**
 *
 * Use in a statement that joins a table with few rows at one time and many at another, and is run often. To insert rows, a plain
 * `unnest` does as well.
 *
 * **Details**
 *
 * PostgreSQL keeps the plan of a prepared statement if it seems no worse than one made for the parameters at hand. Of `unnest` with
 * parameters it knows the number of rows when it plans for them, and believes in ten when it does not: so for a row or two it
 * plans again every time, which may take longer than to run. Behind a subquery it believes in ten either way.
 *
 * **Example** (Removing rows by their keys)
 *
 * ```ts
 * import * as Pg from "@strata/postgres/PostgresTypes"
 * import * as Unnest from "@strata/postgres/Unnest"
 *
 * const keys = Unnest.rows(sql, { tenant: Pg.textArray(tenants), id: Pg.textArray(ids) })
 * sql`delete from account where (tenant, id) in (select * from ${keys} as k)`
 * ```
 *
 * @since 0.1.0
 */
import type * as SqlClient from "effect/sql/SqlClient"
import type * as Statement from "effect/sql/Statement"
import type { Parameter } from "./PostgresTypes.ts"

/**
 * A subquery with a row for each place in the arrays, and these columns, in this order. The shorter ones are filled up with null.
 *
 * @category constructors
 * @since 0.1.0
 */
export const rows = (
  sql: SqlClient.SqlClient,
  columns: { readonly [name: string]: Parameter }
): Statement.Fragment => {
  const names = sql.csv(Object.keys(columns).map((name) => sql`${sql(name)}`))
  const arrays = sql.csv(Object.entries(columns).map(([name, array]) => sql`${array} as ${sql(name)}`))
  return sql`(select u.* from (select ${arrays} offset 0) as a, unnest(${names}) as u(${names}))`
}
