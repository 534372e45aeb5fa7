import * as NodeServices from "@effect/platform-node/NodeServices"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { assert, layer } from "@effect/vitest"
import * as Migrations from "@strata/postgres/Migrations"
import { Postgres } from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import { pathToFileURL } from "node:url"

const query = (url: Redacted.Redacted, sql: string) =>
  Effect.scoped(
    Effect.flatMap(PgConnection.make({ url }), (connection) =>
      Effect.map(connection.query(sql), ({ rows }) => rows.map((row) => ({ ...row }))))
  )

/** Migrations whose table tells in which database and when they ran. */
const notes = Effect.fnUntraced(function*(text: string) {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped()
  yield* fs.writeFileString(
    `${directory}/0001_note.sql`,
    `create table note as select '${text}' as text, current_database()::text as made_in;`
  )
  return Migrations.make({ name: "notes", directory: pathToFileURL(`${directory}/`) })
})

layer(Layer.mergeAll(PostgresTest.layer(), NodeServices.layer), { excludeTestServices: true })("PostgresTest", (it) => {
  it.effect("is a new database with the schema first in its search path", () =>
    Effect.gen(function*() {
      const { schema, sql } = yield* Postgres
      const { database } = yield* PostgresTest
      const rows = yield* sql`select current_database() as name, current_schema() as schema`
      assert.deepStrictEqual(rows, [{ name: database, schema }])
    }))

  it.effect("gives a URL that others can connect to", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      yield* sql`create table shared as select 1 as one`
      assert.deepStrictEqual(yield* query(yield* PostgresTest.url, "select one from strata.shared"), [{ one: 1 }])
    }))

  it.effect("migrates once for many databases that are made at once, and each is its own", () =>
    Effect.gen(function*() {
      const migrations = [yield* notes("first")]
      const databases = yield* Effect.all(Array.from({ length: 5 }, () => PostgresTest.database({ migrations })), {
        concurrency: "unbounded"
      })
      const rows = yield* Effect.forEach(databases, ({ url }) => query(url, "select text, made_in from strata.note"))
      const template = rows[0]?.[0]?.["made_in"]
      assert.match(String(template), /^strata_test_\d+_t_/)
      assert.deepStrictEqual(rows, databases.map(() => [{ text: "first", made_in: template }]))
      assert.strictEqual(new Set(databases.map(({ database }) => database)).size, 5)
    }))

  it.effect("has another template for other files of the same name", () =>
    Effect.gen(function*() {
      const one = yield* PostgresTest.database({ migrations: [yield* notes("one")] })
      const two = yield* PostgresTest.database({ migrations: [yield* notes("two")] })
      const texts = yield* Effect.forEach([one, two], ({ url }) => query(url, "select text from strata.note"))
      assert.deepStrictEqual(texts, [[{ text: "one" }], [{ text: "two" }]])
    }))

  it.effect("drops the database with its scope, whoever is connected", () =>
    Effect.gen(function*() {
      const { url: admin } = yield* PostgresTest.admin
      const { database } = yield* Effect.scoped(
        Effect.tap(PostgresTest.database(), ({ url }) => PgConnection.make({ url }))
      )
      assert.deepStrictEqual(yield* query(admin, `select 1 from pg_database where datname = '${database}'`), [])
    }))

  it.effect("says which migration fails", () =>
    Effect.gen(function*() {
      const migrations = [yield* notes("it's")]
      const error = yield* Effect.flip(PostgresTest.database({ migrations }))
      assert.include(error.message, "notes/0001_note.sql")
    }))
})
