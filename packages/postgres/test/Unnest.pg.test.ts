import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Unnest from "@strata/postgres/Unnest"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import type * as Statement from "effect/sql/Statement"

// One session: plans are its own.
layer(PostgresTest.layer({ options: { maxConnections: 1 } }), { excludeTestServices: true })("Unnest", (it) => {
  it.effect("rows have the columns, and null where an array ends before the others", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const rows = Unnest.rows(sql, { "a b": Pg.textArray(["x", "y"]), n: Pg.intArray([1, 2, 3]) })
      assert.deepStrictEqual(yield* sql`select * from ${rows} as r order by n`, [
        { "a b": "x", n: 1 },
        { "a b": "y", n: 2 },
        { "a b": null, n: 3 }
      ])
      const none = Unnest.rows(sql, { id: Pg.textArray([]) })
      assert.deepStrictEqual(yield* sql`select * from ${none} as r`, [])
    }))

  it.effect("a join with them is planned once, where that with a plain unnest is planned again", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      yield* sql`create table account (id text primary key, cents integer not null)`
      yield* sql`insert into account select n::text, n from generate_series(1, 10000) as n`
      yield* sql`analyze account`
      const plans = Effect.fnUntraced(function*(mark: string, rowsOf: (ids: Pg.Parameter) => Statement.Fragment) {
        for (let turn = 1; turn <= 20; turn++) {
          const ids = rowsOf(Pg.textArray([String(turn)]))
          const found = yield* sql`
            select cents from account join ${ids} as r using (id) where ${sql.literal(`'${mark}' <> ''`)}`
          assert.deepStrictEqual(found, [{ cents: turn }])
        }
        const [row] = yield* sql<{ again: bigint }>`
          select custom_plans as again from pg_prepared_statements
          where statement like ${`%'${mark}' <> ''%`} and statement not like '%pg_prepared%'`
        return row?.again
      })
      assert.strictEqual(yield* plans("unnest", (ids) => sql`(select * from unnest(${ids}) as u(id))`), 20n)
      // Five times PostgreSQL looks what plans for the parameters cost.
      assert.strictEqual(yield* plans("rows", (ids) => Unnest.rows(sql, { id: ids })), 5n)
    }))
})
