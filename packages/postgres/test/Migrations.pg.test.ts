import * as NodeServices from "@effect/platform-node/NodeServices"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { assert, layer } from "@effect/vitest"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import type { PostgresOptions } from "@strata/postgres/PostgresConfig"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as PlatformError from "effect/PlatformError"
import * as Redacted from "effect/Redacted"
import { pathToFileURL } from "node:url"

type Files = Readonly<Record<string, string>>

const write = Effect.fnUntraced(function*(directory: string, files: Files) {
  const fs = yield* FileSystem.FileSystem
  yield* Effect.forEach(Object.entries(files), ([name, text]) => fs.writeFileString(`${directory}/${name}`, text))
})

/** A package with these files. */
const shop = Effect.fnUntraced(
  function*(files: Files, name = "shop", privileges?: Migrations.Migrations["privileges"]) {
    const fs = yield* FileSystem.FileSystem
    const directory = yield* fs.makeTempDirectoryScoped({ prefix: "strata-migrations-" })
    yield* write(directory, files)
    return { directory, migrations: Migrations.make({ name, directory: pathToFileURL(`${directory}/`), privileges }) }
  }
)

/** Transactions that last wrote to the rights on things of the schema. */
const catalogWrites = Effect.flatMap(
  Postgres.Postgres,
  ({ sql }) =>
    sql`select relname::text, xmin::text from pg_class where relnamespace = 'strata'::regnamespace order by 1`
)

/** Runs on a database that nothing was done to. */
const onDatabase = <A, E, R>(effect: Effect.Effect<A, E, R>, options: PostgresOptions = {}) =>
  Effect.scoped(Effect.flatMap(PostgresTest.database(), ({ url }) =>
    Effect.gen(function*() {
      // The harness has created the schema and an empty ledger.
      const { sql } = yield* Postgres.Postgres
      yield* sql.withTransaction(Effect.andThen(sql`set local role none`, sql`drop schema strata cascade`))
      return yield* effect
    }).pipe(Effect.provide(Postgres.layer({ ...options, url })))))

/** A role without any right, on a database of its own. */
const guest = Effect.gen(function*() {
  const { database, url } = yield* PostgresTest.database()
  const role = database.replace("strata_test", "guest")
  const admin = yield* PgConnection.make({ url })
  yield* Effect.acquireRelease(
    admin.query(`create role ${role} login password 'guest'`),
    () => Effect.ignore(Effect.andThen(admin.query(`drop owned by ${role}`), admin.query(`drop role ${role}`)))
  )
  const asGuest = new URL(Redacted.value(url))
  asGuest.username = role
  asGuest.password = "guest"
  return { admin, database, role, url: Redacted.make(asGuest.href) }
})

const tables = Effect.flatMap(Postgres.Postgres, ({ sql }) =>
  Effect.map(
    sql<{ readonly name: string }>`
      select c.relname as name
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = 'strata' and c.relkind = 'r'
      order by 1`,
    (rows) => rows.map(({ name }) => name)
  ))

/** What the application's role was granted, on each thing of the schema and on the schema itself. */
const granted = Effect.flatMap(Postgres.Postgres, ({ sql }) =>
  Effect.map(
    sql<{ readonly name: string; readonly rights: string }>`
      select relname::text as name, string_agg(lower(privilege_type), ' ' order by privilege_type) as rights
      from (
        select relname, relacl from pg_class where relnamespace = 'strata'::regnamespace
        union all
        select nspname, nspacl from pg_namespace where nspname = 'strata'
      ) as things, aclexplode(relacl) as acl
      where acl.grantee = ${applicationRole}::regrole
      group by relname`,
    (rows) => Object.fromEntries(rows.map(({ name, rights }) => [name, rights]))
  ))

const items = { "0001_items.sql": "create table item (id int primary key);\ninsert into item values (1);" }
const orders = { "0002_orders.sql": "create table orders (id int primary key, item int references item);" }

layer(Layer.mergeAll(NodeServices.layer, Logger.layer([])), { excludeTestServices: true })("Migrations.run", (it) => {
  it.effect("applies each file once, in order, and remembers it", () =>
    onDatabase(Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const { migrations } = yield* shop({ ...orders, ...items })
      const first = yield* Migrations.run([migrations])
      assert.deepStrictEqual(first, {
        applied: [{ package: "shop", file: "0001_items.sql" }, { package: "shop", file: "0002_orders.sql" }],
        present: 0
      })
      const second = yield* Migrations.run([migrations])
      assert.deepStrictEqual(second, { applied: [], present: 2 })
      const rows = yield* sql`
        select package, id, name, length(checksum) as digits, applied_at <= now() as past, duration >= interval '0' as took
        from migration
        order by id`
      assert.deepStrictEqual(rows, [
        { package: "shop", id: 1, name: "items", digits: 64, past: true, took: true },
        { package: "shop", id: 2, name: "orders", digits: 64, past: true, took: true }
      ])
    })))

  it.effect("applies the packages in the order given, each with ids of its own", () =>
    onDatabase(Effect.gen(function*() {
      const base = yield* shop(items, "base")
      const above = yield* shop({ "0001_stock.sql": "create table stock (item int references item)" }, "above")
      const report = yield* Migrations.run([base.migrations, above.migrations])
      assert.deepStrictEqual(report.applied.map((file) => file.package), ["base", "above"])
    })))

  it.effect("creates the schema of the service, whatever its name", () =>
    onDatabase(
      Effect.gen(function*() {
        const { sql } = yield* Postgres.Postgres
        const { migrations } = yield* shop(items)
        yield* Migrations.run([migrations])
        const rows = yield* sql`select count(*)::int4 as n from "odd ""name".item`
        assert.deepStrictEqual(rows, [{ n: 1 }])
      }),
      { schema: "odd \"name" }
    ))

  it.effect("applies once when many start together", () =>
    onDatabase(Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const { migrations } = yield* shop({
        ...items,
        "0002_slow.sql": "select pg_sleep(0.2);\ninsert into item values (2)"
      })
      const reports = yield* Effect.all(Array.from({ length: 8 }, () => Migrations.run([migrations])), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(reports.map(({ applied }) => applied.length).toSorted(), [0, 0, 0, 0, 0, 0, 0, 2])
      assert.deepStrictEqual(yield* sql`select id from item order by id`, [{ id: 1 }, { id: 2 }])
    })))

  it.effect("applies once when several processes start together", () =>
    Effect.gen(function*() {
      const { url } = yield* PostgresTest.database()
      const { directory } = yield* shop({ ...items, ...orders })
      const children = yield* Effect.forEach(
        [1, 2, 3],
        () =>
          ChildProgram.start(new URL("./programs/migrate.ts", import.meta.url), {
            args: [directory],
            env: { DATABASE_URL: url }
          }),
        { concurrency: "unbounded" }
      )
      yield* Effect.forEach(children, (child) => child.waitFor((line) => line === "ready"))
      yield* Effect.forEach(children, (child) => child.send("go"))
      const printed = yield* Effect.forEach(children, (child) => child.waitFor((line) => line.startsWith("applied")))
      assert.deepStrictEqual(printed.toSorted(), ["applied 0", "applied 0", "applied 2"])
    }))

  const refused = (
    name: string,
    change: (directory: string) => Effect.Effect<void, PlatformError.PlatformError, FileSystem.FileSystem>,
    expected: { readonly reason: string; readonly file: string; readonly says: string }
  ) =>
    it.effect(name, () =>
      onDatabase(Effect.gen(function*() {
        const { directory, migrations } = yield* shop({ ...items, ...orders })
        yield* Migrations.run([migrations])
        const before = yield* tables
        yield* Effect.orDie(change(directory))
        const error = yield* Effect.flip(Migrations.run([migrations]))
        assert.deepStrictEqual([error.reason, error.package, error.file], [expected.reason, "shop", expected.file])
        assert.include(error.message, `shop/${expected.file}`)
        assert.include(error.message, expected.says)
        assert.deepStrictEqual(yield* tables, before)
      })))

  const more = { "0003_more.sql": "create table more (id int);" }

  refused(
    "refuses a file that changed after it was applied",
    (directory) => write(directory, { ...more, "0001_items.sql": "create table item (id bigint primary key);" }),
    { reason: "Changed", file: "0001_items.sql", says: "Put the file back as it was" }
  )

  refused(
    "refuses when an applied file is missing",
    (directory) => Effect.flatMap(FileSystem.FileSystem, (fs) => fs.remove(`${directory}/0002_orders.sql`)),
    { reason: "Missing", file: "0002_orders.sql", says: "put the file back" }
  )

  refused(
    "refuses a new file below an applied one",
    (directory) => write(directory, { ...more, "0000_early.sql": "create table early (id int);" }),
    { reason: "OutOfOrder", file: "0000_early.sql", says: "next free number" }
  )

  refused(
    "refuses two files with one id",
    (directory) => write(directory, { ...more, "0003_other.sql": "create table other (id int);" }),
    { reason: "InvalidFile", file: "0003_other.sql", says: "has the id of another file" }
  )

  refused("refuses a name it cannot order", (directory) => write(directory, { "3_more.sql": "select 1" }), {
    reason: "InvalidFile",
    file: "3_more.sql",
    says: "NNNN_name.sql"
  })

  refused(
    "refuses a file that commits by itself",
    (directory) => write(directory, { "0003_x.sql": "select 1;\ncommit" }),
    {
      reason: "InvalidFile",
      file: "0003_x.sql",
      says: "\"commit\" on line 2"
    }
  )

  refused("refuses a file that ends inside a quote", (directory) => write(directory, { "0003_x.sql": "select 'a" }), {
    reason: "InvalidFile",
    file: "0003_x.sql",
    says: "string that begins on line 1 does not end"
  })

  it.effect("names the statement that failed and keeps nothing of its file", () =>
    onDatabase(Effect.gen(function*() {
      const { directory, migrations } = yield* shop({
        ...items,
        "0002_orders.sql": "create table orders (id int);\n\nselect 1 / 0;\ncreate table never (id int)"
      })
      const error = yield* Effect.flip(Migrations.run([migrations]))
      assert.strictEqual(error.reason, "StatementFailed")
      assert.include(error.message, "Statement 2 of shop/0002_orders.sql (line 3) failed: division by zero")
      assert.deepStrictEqual(yield* tables, ["item", "migration"])
      yield* write(directory, orders)
      assert.deepStrictEqual((yield* Migrations.run([migrations])).applied, [{
        package: "shop",
        file: "0002_orders.sql"
      }])
    })))

  it.effect("runs a file outside a transaction when its first line says so", () =>
    onDatabase(Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const { migrations } = yield* shop({
        ...items,
        "0002_index.sql": "-- no transaction\ncreate index concurrently if not exists by_id on item (id desc);\n"
      })
      assert.strictEqual((yield* Migrations.run([migrations])).applied.length, 2)
      const rows = yield* sql`select count(*)::int4 as n from pg_indexes where indexname = 'by_id'`
      assert.deepStrictEqual(rows, [{ n: 1 }])
    })))

  it.effect("is not cut by the timeouts of the pool", () =>
    onDatabase(
      Effect.gen(function*() {
        const { migrations } = yield* shop({ "0001_slow.sql": "select pg_sleep(1.5)" })
        assert.strictEqual((yield* Migrations.run([migrations])).applied.length, 1)
      }),
      { statementTimeout: "300 millis", socketTimeout: "700 millis", lockTimeout: "100 millis" }
    ))

  it.effect("is not led astray by a file that changes the search path", () =>
    onDatabase(Effect.gen(function*() {
      const { migrations } = yield* shop({
        "0001_dump.sql": "select set_config('search_path', '', false);\ncreate table strata.item (id int primary key);",
        ...orders
      })
      assert.strictEqual((yield* Migrations.run([migrations])).applied.length, 2)
      assert.deepStrictEqual(yield* tables, ["item", "migration", "orders"])
    })))

  it.effect("refuses a schema that its role may not use, where names would go to another one", () =>
    Effect.gen(function*() {
      const { admin, role, url } = yield* guest
      yield* admin.query(`grant create on schema public to ${role}`)
      const { migrations } = yield* shop(items)
      const error = yield* Effect.flip(Effect.provide(Migrations.run([migrations]), Postgres.layer({ url })))
      assert.strictEqual(error.reason, "DatabaseFailed")
      assert.include(error.message, "may not use the schema strata")
      const made = yield* admin.query("select 1 from pg_class where relname = 'item'")
      assert.strictEqual(made.rows.length, 0)
    }))

  it.effect("says what to grant to a role that may not create the schema, and works once it was", () =>
    Effect.gen(function*() {
      const { admin, database, role, url } = yield* guest
      yield* admin.query("drop schema strata cascade")
      const { migrations } = yield* shop(items)
      const run = Effect.provide(Migrations.run([migrations]), Postgres.layer({ url }))
      const error = yield* Effect.flip(run)
      assert.strictEqual(error.reason, "DatabaseFailed")
      const grant = `grant create on database ${database} to ${role}`
      assert.include(error.message, `The role ${role} may not create the schema strata: permission denied for database`)
      assert.include(error.message, `"${grant}" or "create schema "strata" authorization ${role}"`)
      assert.include(error.message, "STRATA_DATABASE_SCHEMA")
      yield* admin.query(grant)
      assert.strictEqual((yield* run).applied.length, 1)
    }))

  it.effect("says what to grant to a role that may not create tables in the schema, and works once it was", () =>
    Effect.gen(function*() {
      const { admin, role, url } = yield* guest
      yield* admin.query("drop schema strata cascade")
      yield* admin.query("create schema strata")
      yield* admin.query(`grant usage on schema strata to ${role}`)
      const { migrations } = yield* shop(items)
      const run = Effect.provide(Migrations.run([migrations]), Postgres.layer({ url }))
      const error = yield* Effect.flip(run)
      const grant = `grant usage, create on schema "strata" to ${role}`
      assert.include(error.message, grant)
      yield* admin.query(grant)
      assert.strictEqual((yield* run).applied.length, 1)
    }))

  it.effect("grants the role of the sessions what its packages say, no more, and takes back what they no longer say", () =>
    onDatabase(
      Effect.gen(function*() {
        const { sql } = yield* Postgres.Postgres
        const files = { ...items, "0002_tag.sql": "create table tag (id int generated always as identity)" }
        const run = Effect.fnUntraced(function*(privileges: Migrations.Migrations["privileges"]) {
          yield* Migrations.run([(yield* shop(files, "shop", privileges)).migrations])
          return yield* granted
        })
        const expected = { migration: "select", strata: "usage", tag_id_seq: "usage" }
        const all = "delete insert select update"
        assert.deepStrictEqual(yield* run({ item: ["select", "insert"] }), {
          ...expected,
          item: "insert select",
          tag: all
        })
        assert.deepStrictEqual(yield* sql`select id from item`, [{ id: 1 }])
        yield* sql`insert into tag default values`
        const refused = yield* Effect.flip(sql`delete from item`)
        assert.strictEqual(refused.reason._tag, "AuthorizationError")
        assert.deepStrictEqual(yield* run({ item: ["select"] }), { ...expected, item: "select", tag: all })
        const before = yield* catalogWrites
        assert.deepStrictEqual(yield* run({ item: ["select"] }), { ...expected, item: "select", tag: all })
        assert.deepStrictEqual(yield* catalogWrites, before)
      }),
      { role: applicationRole }
    ))

  it.effect("lets the role of the sessions make schemas and views where a package says that it does, and not otherwise", () =>
    onDatabase(
      Effect.gen(function*() {
        const { sql } = yield* Postgres.Postgres
        const { migrations } = yield* shop(items)
        const make = Effect.andThen(
          sql`create schema apart`,
          sql`create view items with (security_invoker = true) as select id from item`
        )
        yield* Migrations.run([migrations])
        assert.strictEqual((yield* Effect.flip(make)).reason._tag, "AuthorizationError")
        yield* Migrations.run([{ ...migrations, makesSchemas: true }])
        yield* make
        assert.deepStrictEqual(yield* sql`select id from items`, [{ id: 1 }])
      }),
      { role: applicationRole }
    ))

  it.effect("leaves what it makes to the user who logs in, not to the role of the sessions", () =>
    onDatabase(
      Effect.gen(function*() {
        const { sql } = yield* Postgres.Postgres
        yield* Migrations.run([(yield* shop(items)).migrations])
        const owners =
          yield* sql`select distinct relowner = session_user::regrole as own from pg_class where relname in ('item', 'migration')`
        assert.deepStrictEqual(owners, [{ own: true }])
        assert.deepStrictEqual(yield* sql`select current_user::text as role`, [{ role: applicationRole }])
      }),
      { role: applicationRole }
    ))

  it.effect("says what cannot be read", () =>
    onDatabase(Effect.gen(function*() {
      const error = yield* Effect.flip(
        Migrations.run([Migrations.make({ name: "shop", directory: new URL("file:///nowhere/at/all/") })])
      )
      assert.strictEqual(error.reason, "DirectoryUnreadable")
      assert.include(error.message, "/nowhere/at/all")
    })))
})
