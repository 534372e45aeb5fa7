import * as NodeServices from "@effect/platform-node/NodeServices"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { assert, layer } from "@effect/vitest"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

const Announced = Schema.fromJsonString(
  Schema.Struct({ adminUrl: Schema.String, prefix: Schema.String, directory: Schema.String })
)

const program = new URL("../src/internal/testServer.ts", import.meta.url)

const start = Effect.fnUntraced(function*(env: ChildProgram.Options["env"]) {
  const child = yield* ChildProgram.start(program, { env })
  const line = yield* child.waitFor((line) => line.startsWith("{"))
  return { child, ...(yield* Schema.decodeEffect(Announced)(line)) }
})

const execute = (url: Redacted.Redacted, sql: string) =>
  Effect.scoped(
    Effect.flatMap(PgConnection.make({ url }), (connection) => connection.query(sql, [], false)).pipe(
      Effect.map(({ rows }) => rows.map((row) => ({ ...row })))
    )
  )

const embedded = { STRATA_TEST_DATABASE_URL: undefined }

layer(NodeServices.layer, { excludeTestServices: true })("the server of a test run", (it) => {
  it.effect("leaves nothing when its run ends, however that ended", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { adminUrl, child, directory } = yield* start(embedded)
      yield* execute(Redacted.make(adminUrl), "select 1")
      yield* child.end
      assert.strictEqual(yield* child.exitCode, 0)
      assert.isFalse(yield* fs.exists(directory))
      yield* Effect.flip(execute(Redacted.make(adminUrl), "select 1"))
    }))

  it.effect("leaves nothing when it is asked to terminate", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { child, directory } = yield* start(embedded)
      yield* child.terminate
      yield* child.exitCode
      assert.isFalse(yield* fs.exists(directory))
    }))

  it.effect("cleans up after one that was killed", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const killed = yield* start(embedded)
      yield* killed.child.kill9
      yield* execute(Redacted.make(killed.adminUrl), "select 1")
      const next = yield* start(embedded)
      assert.isFalse(yield* fs.exists(killed.directory))
      yield* Effect.flip(execute(Redacted.make(killed.adminUrl), "select 1"))
      yield* next.child.end
      yield* next.child.exitCode
    }))

  it.effect("drops only its own databases and those of dead runs on a server that is not its own", () =>
    Effect.gen(function*() {
      const { url } = yield* PostgresTest.admin
      const { database } = yield* PostgresTest.database()
      const onServer = { STRATA_TEST_DATABASE_URL: url }
      const killed = yield* start(onServer)
      yield* execute(url, `create database ${killed.prefix}left`)
      yield* killed.child.kill9
      const next = yield* start(onServer)
      yield* execute(url, `create database ${next.prefix}mine is_template true`)
      yield* next.child.end
      yield* next.child.exitCode
      const rows = yield* execute(
        url,
        `select datname from pg_database
         where datname in ('${killed.prefix}left', '${next.prefix}mine', '${database}')`
      )
      assert.deepStrictEqual(rows, [{ datname: database }])
    }))
})
