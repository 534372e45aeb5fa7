import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"

layer(PostgresTest.layer(), { excludeTestServices: true })("a test database", (it) => {
  it.effect("is new and has the schema first in its search path", () =>
    Effect.gen(function*() {
      const { schema, sql } = yield* Postgres
      const { database } = yield* PostgresTest
      const rows = yield* sql`select current_database() as name, current_schema() as schema`
      assert.deepStrictEqual(rows, [{ name: database, schema }])
    }))
})
