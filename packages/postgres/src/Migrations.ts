/**
 * Brings the tables of packages up to date: plain SQL files, applied once, in order, by whichever process comes first.
 *
 * **When to use**
 *
 * Use in the entry point, before anything reads the tables. Each package exports its `Migrations`; the application
 * lists them in the order of their dependencies.
 *
 * **Details**
 *
 * - Files are named `NNNN_name.sql`, stand in the package that owns the tables, and only go forward. They use
 *   unqualified names: the search path is the schema of the `Postgres` service, which is created when missing.
 * - Any number of processes may start together: one holds an advisory lock, the others wait for it and then find
 *   nothing left to do.
 * - What was applied is kept in the table `migration` with a SHA-256 of each file. A file that was changed, that is
 *   missing, or that came in below an applied one is refused before anything is changed.
 * - Each file is one transaction, with its entry in the ledger. Statements may take as long as they need.
 * - Everything belongs to the user of the connection. When sessions take on another role (`PostgresOptions.role`), it is
 *   granted what it needs after every run.
 * - A file whose first line is `-- no transaction` runs statement by statement, for `create index concurrently` and
 *   the like. After a failure it runs again from its beginning, so its statements must allow that.
 *
 * **Gotchas**
 *
 * A statement that waits for a table lock makes later readers of the table wait behind it. On a busy table begin the
 * file with `set local lock_timeout = '2s'` and start again when it fails.
 *
 * **Example** (A package and an application)
 *
 * ```ts
 * import * as Migrations from "@strata/postgres/Migrations"
 *
 * export const migrations = Migrations.make({
 *   name: "event-store",
 *   directory: new URL("../migrations/", import.meta.url)
 * })
 *
 * export const MigrationsLive = Migrations.layer([migrations])
 * ```
 *
 * @since 0.1.0
 */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as SqlError from "effect/sql/SqlError"
import { MigrationError } from "./MigrationsError.ts"
import * as Files from "./MigrationsFiles.ts"
import * as Grants from "./MigrationsGrants.ts"
import * as Ledger from "./MigrationsLedger.ts"
import { Postgres } from "./Postgres.ts"
import { type MigrationPolicies, PostgresPolicies } from "./PostgresPolicies.ts"

export { MigrationError }

/**
 * The migrations of one package.
 *
 * @category models
 * @since 0.1.0
 */
export interface Migrations {
  /** The package, as it stands in the ledger. Never change it. */
  readonly name: string
  /** A `file:` URL of the directory, with a slash at its end. */
  readonly directory: URL
  /** What the role of the sessions may do with its tables, where that is not all of select, insert, update and delete. */
  readonly privileges?: Grants.Privileges | undefined
  /** Whether the role of the sessions makes schemas of its own in the database, and views on them in this one. Default: no. */
  readonly makesSchemas?: boolean | undefined
}

/**
 * What a run has done.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly applied: ReadonlyArray<{ readonly package: string; readonly file: string }>
  /** How many files had been applied before. */
  readonly present: number
}

/**
 * Names the directory of a package's migrations. `new URL("../migrations/", import.meta.url)` is right from `src` and
 * from `dist`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Migrations): Migrations => options

/**
 * Applies what has not been applied yet, package by package in the order given.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run: (all: ReadonlyArray<Migrations>) => Effect.Effect<
  Report,
  MigrationError,
  Postgres | FileSystem.FileSystem
> = Effect.fn("Migrations.run")(function*(all) {
  const files = yield* Files.load(all)
  const { role, schema, sql } = yield* Postgres
  const { migrations: policies, sessions } = yield* PostgresPolicies
  return yield* session(sql.config, sessions.keepAlive).pipe(
    Effect.tap((connection) => lock(connection, schema, policies)),
    Effect.tap((connection) => Ledger.useSchema(connection, schema)),
    Effect.flatMap((connection) =>
      Effect.tap(
        applyPending(connection, schema, all, files),
        role === undefined ? Effect.void : Grants.grant(connection, schema, role, {
          privileges: privilegesOf(all),
          makesSchemas: all.some(({ makesSchemas }) => makesSchemas === true)
        })
      )
    ),
    Effect.catchTag("SqlError", (cause) =>
      Effect.fail(
        new MigrationError({
          reason: "DatabaseFailed",
          message: `Cannot migrate the schema ${schema} of the database: ${Ledger.serverMessage(cause)}`,
          cause
        })
      )),
    Effect.scoped
  )
})

/**
 * Runs the migrations while the layer is built.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  all: ReadonlyArray<Migrations>
): Layer.Layer<never, MigrationError, Postgres | FileSystem.FileSystem> => Layer.effectDiscard(run(all))

const privilegesOf = (all: ReadonlyArray<Migrations>): Grants.Privileges =>
  Object.assign({}, ...all.map(({ privileges }) => privileges))

/**
 * A session of its own, in which the user has not taken on another role. A migration may be silent for longer than a pooled
 * connection is allowed to be, so the guarded socket and the timeouts of the pool are left out; keep-alive notices a server
 * that is gone.
 */
const session = (config: PgConnection.Config, keepAlive: Duration.Duration) => {
  const { stream: _guarded, ...rest } = config
  const { role: _taken, ...parameters } = config.startupParameters ?? {}
  return PgConnection.make({
    ...rest,
    applicationName: "strata migrations",
    multiplex: false,
    prepare: false,
    keepAlive,
    startupParameters: {
      ...parameters,
      statement_timeout: "0",
      lock_timeout: "0",
      idle_in_transaction_session_timeout: "0"
    }
  })
}

const lockSpace = 1398035030

/** Held by the session until it ends. Asking again and again keeps no snapshot open, which a waiting query would. */
const lock = (connection: PgConnection.PgConnection, schema: string, policies: MigrationPolicies) =>
  connection.query("select pg_try_advisory_lock($1::int4, hashtext($2)) as locked", [lockSpace, schema]).pipe(
    Effect.map(({ rows }) => rows[0]?.["locked"] === true),
    Effect.repeat({
      until: (locked) => locked,
      schedule: policies.lockPoll.pipe(
        Schedule.tap(({ attempt }) =>
          attempt % 100 === 20
            ? Effect.logInfo(`Waiting for another process that migrates the schema ${schema}`)
            : Effect.void
        )
      )
    })
  )

const applyPending = Effect.fnUntraced(function*(
  connection: PgConnection.PgConnection,
  schema: string,
  all: ReadonlyArray<Migrations>,
  files: ReadonlyArray<Files.MigrationFile>
) {
  const applied = yield* Ledger.read(connection, schema)
  const pending = yield* Ledger.pending(all.map(({ name }) => name), files, applied)
  yield* Ledger.create(connection, schema)
  yield* Effect.forEach(pending, (file) => apply(connection, schema, file), { discard: true })
  return {
    applied: pending.map((migration) => ({ package: migration.package, file: migration.file })),
    present: files.length - pending.length
  } satisfies Report
})

const apply = Effect.fn("Migrations.apply")(function*(
  connection: PgConnection.PgConnection,
  schema: string,
  file: Files.MigrationFile
) {
  yield* Ledger.useSchema(connection, schema)
  const runAndRecord = Effect.timed(runStatements(connection, file)).pipe(
    Effect.map(([duration]) => duration),
    Effect.tap((duration) => Ledger.record(connection, schema, file, duration))
  )
  const duration = yield* file.transactional ? inTransaction(connection, runAndRecord) : runAndRecord
  yield* Effect.logInfo(`Applied ${file.package}/${file.file} in ${Math.round(Duration.toMillis(duration))} ms`)
})

const inTransaction = <A, E>(
  connection: PgConnection.PgConnection,
  body: Effect.Effect<A, E>
): Effect.Effect<A, E | SqlError.SqlError> =>
  connection.query("begin").pipe(
    Effect.andThen(body),
    Effect.tap(connection.query("commit")),
    Effect.onError(() => Effect.ignore(connection.query("rollback")))
  )

const runStatements = (connection: PgConnection.PgConnection, file: Files.MigrationFile) =>
  Effect.forEach(
    file.statements,
    (statement, index) =>
      connection.query(statement.text).pipe(
        Effect.raceFirst(report(`Statement ${index + 1} of ${file.package}/${file.file} is still running`)),
        Effect.mapError((cause) => statementFailed(file, index, cause))
      ),
    { discard: true }
  )

const report = (message: string): Effect.Effect<never> =>
  Effect.flatMap(
    PostgresPolicies,
    ({ migrations }) => Effect.logInfo(message).pipe(Effect.delay(migrations.reportInterval), Effect.forever)
  )

const statementFailed = (file: Files.MigrationFile, index: number, cause: SqlError.SqlError): MigrationError =>
  new MigrationError({
    reason: "StatementFailed",
    package: file.package,
    file: file.file,
    message:
      `Statement ${index + 1} of ${file.package}/${file.file} (line ${file.statements[index]?.line ?? 0}) failed: ` +
      `${Ledger.serverMessage(cause)}. ${
        file.transactional
          ? "Nothing of this file was applied; correct it and start again."
          : "The statements before it took effect; correct it so that it can run again from its beginning."
      }`,
    cause
  })
