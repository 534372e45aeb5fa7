/**
 * The table `migration`: which files were applied to a schema, and whether the files at hand still agree with it.
 *
 * @since 0.1.0
 */
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as SqlError from "effect/sql/SqlError"
import { MigrationError } from "./MigrationsError.ts"
import type { MigrationFile } from "./MigrationsFiles.ts"
import * as SqlState from "./SqlState.ts"

const Row = Schema.Struct({
  package: Schema.String,
  id: Schema.Int,
  name: Schema.String,
  checksum: Schema.String
})

/**
 * An applied file.
 *
 * @category models
 * @since 0.1.0
 */
export type Applied = typeof Row.Type

/**
 * Quotes a name.
 *
 * @category formatting
 * @since 0.1.0
 */
export const identifier = (name: string): string => `"${name.replaceAll("\"", "\"\"")}"`

/** By its full name: a migration may change the search path. */
const table = (schema: string): string => `${identifier(schema)}.migration`

const decodeRows = Schema.decodeUnknownEffect(Schema.Array(Row))

/**
 * The files that were applied; none when the table does not exist. Changes nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const read = Effect.fnUntraced(function*(connection: PgConnection.PgConnection, schema: string) {
  const { rows: [found] } = yield* connection.query("select to_regclass($1) is not null as exists", [table(schema)])
  if (found?.["exists"] !== true) return []
  const { rows } = yield* connection.query(`select package, id, name, checksum from ${table(schema)}`)
  return yield* decodeRows(rows).pipe(
    Effect.mapError((cause) =>
      new MigrationError({
        reason: "DatabaseFailed",
        message: `The table ${schema}.migration is not the ledger of these migrations: ${cause.message}`,
        cause
      })
    )
  )
})

/**
 * Puts the schema first in the search path. Said under the lock, because a path that the session worked out while
 * another one was creating the schema may not have it, and again for each file, because the one before may have changed
 * it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const useSchema = Effect.fnUntraced(function*(connection: PgConnection.PgConnection, schema: string) {
  yield* connection.query("select set_config('search_path', $1, false)", [`${identifier(schema)}, public`])
  if (yield* exists(connection, schema)) yield* requireCurrent(connection, schema)
})

const exists = (connection: PgConnection.PgConnection, schema: string) =>
  Effect.map(
    connection.query("select 1 from pg_namespace where nspname = $1", [schema]),
    ({ rows }) => rows.length > 0
  )

/** PostgreSQL leaves a schema that the role may not use out of the path, and names would go to the next one. */
const requireCurrent = Effect.fnUntraced(function*(connection: PgConnection.PgConnection, schema: string) {
  const { rows } = yield* connection.query("select current_schema() as name")
  if (rows[0]?.["name"] === schema) return
  return yield* new MigrationError({
    reason: "DatabaseFailed",
    message: `The role of this connection may not use the schema ${schema}. Grant it usage and create on the schema.`
  })
})

/**
 * Creates the schema and the table where they are missing.
 *
 * @category constructors
 * @since 0.1.0
 */
export const create = Effect.fnUntraced(function*(connection: PgConnection.PgConnection, schema: string) {
  // Asking first lets a role without the right to create schemas work in one that was made for it.
  if (!(yield* exists(connection, schema))) {
    yield* connection.query(`create schema if not exists ${identifier(schema)}`).pipe(
      Effect.catchIf(isForbidden, (cause) => Effect.flatMap(names(connection), mayNotCreateSchema(schema, cause)))
    )
    yield* requireCurrent(connection, schema)
  }
  yield* createTable(connection, schema).pipe(
    Effect.catchIf(isForbidden, (cause) => Effect.flatMap(names(connection), mayNotCreateTable(schema, cause)))
  )
})

const createTable = (connection: PgConnection.PgConnection, schema: string) =>
  connection.query(`
    create table if not exists ${table(schema)} (
      package    text        not null,
      id         integer     not null,
      name       text        not null,
      checksum   text        not null,
      applied_at timestamptz not null default clock_timestamp(),
      duration   interval    not null,
      primary key (package, id)
    )`)

const isForbidden = (error: SqlError.SqlError): boolean => SqlState.codeOf(error) === "42501"

interface Names {
  readonly database: string
  readonly role: string
}

/** Of this session, quoted. */
const names = (connection: PgConnection.PgConnection) =>
  Effect.map(
    connection.query("select quote_ident(current_database()) as database, quote_ident(current_user) as role"),
    ({ rows: [row] }): Names => ({ database: String(row?.["database"]), role: String(row?.["role"]) })
  )

const mayNotCreateSchema = (schema: string, cause: SqlError.SqlError) => ({ database, role }: Names) =>
  Effect.fail(
    new MigrationError({
      reason: "DatabaseFailed",
      message: `The role ${role} may not create the schema ${schema}: ${serverMessage(cause)}. ` +
        `Run "grant create on database ${database} to ${role}" or ` +
        `"create schema ${identifier(schema)} authorization ${role}" as its owner, or name another schema in ` +
        "STRATA_DATABASE_SCHEMA.",
      cause
    })
  )

const mayNotCreateTable = (schema: string, cause: SqlError.SqlError) => ({ role }: Names) =>
  Effect.fail(
    new MigrationError({
      reason: "DatabaseFailed",
      message: `The role ${role} may not create tables in the schema ${schema}: ${serverMessage(cause)}. ` +
        `Run "grant usage, create on schema ${
          identifier(schema)
        } to ${role}" as its owner, or name another schema in ` +
        "STRATA_DATABASE_SCHEMA.",
      cause
    })
  )

/**
 * Enters a file that was just applied.
 *
 * @category constructors
 * @since 0.1.0
 */
export const record = (
  connection: PgConnection.PgConnection,
  schema: string,
  file: MigrationFile,
  duration: Duration.Duration
) =>
  connection.query(
    `insert into ${table(schema)} (package, id, name, checksum, duration)
     values ($1, $2::int4, $3, $4, make_interval(secs => $5::float8))`,
    [file.package, file.id, file.name, file.checksum, Duration.toSeconds(duration)]
  )

/**
 * The files still to apply, or the first disagreement between files and ledger. Other packages in the ledger are left
 * alone: another application may share the schema.
 *
 * @category getters
 * @since 0.1.0
 */
export const pending = Effect.fnUntraced(function*(
  packages: ReadonlyArray<string>,
  files: ReadonlyArray<MigrationFile>,
  applied: ReadonlyArray<Applied>
) {
  for (const row of applied.filter((row) => packages.includes(row.package))) {
    const file = files.find((file) => file.package === row.package && file.id === row.id)
    if (file === undefined) return yield* missing(row)
    if (file.checksum !== row.checksum || file.name !== row.name) return yield* changed(file, row)
  }
  const fresh = files.filter((file) => !applied.some((row) => row.package === file.package && row.id === file.id))
  for (const file of fresh) {
    const later = applied.find((row) => row.package === file.package && row.id > file.id)
    if (later !== undefined) return yield* outOfOrder(file, later)
  }
  return fresh
})

const fileName = (row: { readonly id: number; readonly name: string }): string =>
  `${String(row.id).padStart(4, "0")}_${row.name}.sql`

const missing = (row: Applied): MigrationError =>
  new MigrationError({
    reason: "Missing",
    package: row.package,
    file: fileName(row),
    message: `The migration ${row.package}/${fileName(row)} was applied to this database and is not in the package. ` +
      "Run a version of the package that has it, or put the file back; migrations are never removed."
  })

const changed = (file: MigrationFile, row: Applied): MigrationError =>
  new MigrationError({
    reason: "Changed",
    package: file.package,
    file: file.file,
    message:
      `The migration ${file.package}/${file.file} is not what was applied to this database as ${fileName(row)}. ` +
      "Put the file back as it was and write the change as a new migration."
  })

const outOfOrder = (file: MigrationFile, later: Applied): MigrationError =>
  new MigrationError({
    reason: "OutOfOrder",
    package: file.package,
    file: file.file,
    message: `The migration ${file.package}/${file.file} is new, but ${fileName(later)} was applied to this database ` +
      "already. Give the new file the next free number."
  })

/**
 * PostgreSQL's own words for a failure.
 *
 * @category formatting
 * @since 0.1.0
 */
export const serverMessage = (error: SqlError.SqlError): string => {
  const { cause } = error.reason
  return Predicate.hasProperty(cause, "message") && Predicate.isString(cause.message) ? cause.message : error.message
}
