/** The databases of a test run and the templates they are copied from. */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Files from "@strata/postgres/MigrationsFiles"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as NodeCrypto from "node:crypto"
import { inject } from "vitest"
import type { TestRun } from "./testRun.ts"

/** @internal */
export class HarnessError extends Schema.TaggedError<HarnessError>("@strata/testing/HarnessError")("HarnessError", {
  message: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

/** @internal */
export const run: Effect.Effect<TestRun> = Effect.suspend(() => {
  const run = inject("strataTestRun")
  return run === undefined
    ? Effect.die(
      new HarnessError({
        message: "No PostgreSQL for the tests: name the file *.pg.test.ts, so that it runs in the project postgres"
      })
    )
    : Effect.succeed(run)
})

/** @internal */
export const admin = Effect.map(run, ({ adminUrl }) => ({ url: Redacted.make(adminUrl) }))

const connect = Effect.flatMap(admin, ({ url }) => PgConnection.make({ url }))

/** This worker's session for making and dropping databases: a server takes as long to begin a session as to copy a database. */
const administer = (statement: string) =>
  Effect.gen(function*() {
    administrator ??= yield* Scope.provide(connect, workersLife)
    yield* administrator.query(statement, [], false)
  }).pipe(
    Effect.tapError(() =>
      Effect.sync(() => {
        administrator = undefined
      })
    ),
    // A test may have ended all sessions.
    Effect.retry({ times: 1 })
  )

let administrator: PgConnection.PgConnection | undefined
const workersLife = Scope.makeUnsafe()

const urlOf = (name: string) =>
  Effect.map(run, ({ adminUrl }) => {
    const url = new URL(adminUrl)
    url.pathname = `/${name}`
    return Redacted.make(url.href)
  })

/** @internal */
export const failed = (doing: string) => (cause: { readonly message: string }) =>
  new HarnessError({ message: `${doing} failed: ${cause.message}`, cause })

/** Keys of template locks: the second number is the hash of the name. */
const templateLock = 1398035031

/**
 * The name of the template for these migrations, made by the first worker that asks while the others wait. Nobody can
 * connect to a finished template, since a copy needs it to be idle.
 *
 * @internal
 */
export const template = Effect.fnUntraced(function*<E extends { readonly message: string }, R>(
  { role, schema }: { readonly schema: string; readonly role: string | undefined },
  packages: Parameters<typeof Files.load>[0],
  migrate: (url: Redacted.Redacted) => Effect.Effect<void, E, R>
) {
  const files = yield* Effect.mapError(Files.load(packages), failed("Reading the migrations"))
  const key = files.map(({ checksum, file, package: owner }) => `${owner}/${file}:${checksum}`).join("\n")
  const hash = NodeCrypto.createHash("sha256").update(`${schema}\n${role ?? ""}\n${key}`).digest("hex").slice(0, 12)
  const { prefix } = yield* run
  const name = `${prefix}t_${hash}`
  if (finished.has(name)) return name
  const url = yield* urlOf(name)
  yield* Effect.gen(function*() {
    // A lock of the session, which ends with it.
    const connection = yield* connect
    yield* connection.query("select pg_advisory_lock($1::int4, hashtext($2))", [templateLock, name])
    const { rows } = yield* connection.query("select datistemplate from pg_database where datname = $1", [name])
    if (rows[0]?.["datistemplate"] === true) return
    yield* connection.query(`drop database if exists "${name}" with (force)`, [], false)
    yield* connection.query(`create database "${name}"`, [], false)
    yield* migrate(url)
    yield* connection.query(`alter database "${name}" is_template true allow_connections false`, [], false)
  }).pipe(
    Effect.scoped,
    Effect.mapError(failed(`Making the template of ${packages.map((one) => one.name).join(", ")}`))
  )
  finished.add(name)
  return name
})

/** Templates that this worker has found finished: they stay for the run. */
const finished = new Set<string>()

/**
 * A copy of a template, for the time of the scope. Rights on a database are not copied: `maker` may make schemas in it.
 *
 * @internal
 */
export const create = Effect.fnUntraced(function*(template: string, maker: string | undefined) {
  const { prefix, strategy } = yield* run
  const random = SecureRandom.make(SecureRandom.randomBytesUnsafe)
  const database = `${prefix}${Hex.encode(yield* random.randomBytes(6))}`
  yield* Effect.acquireRelease(
    Effect.andThen(
      administer(`create database "${database}" template "${template}" strategy ${strategy}`),
      maker === undefined ? Effect.void : administer(`grant create on database "${database}" to "${maker}"`)
    ),
    () => Effect.ignore(administer(`drop database if exists "${database}" with (force)`), { log: "Warn" })
  ).pipe(Effect.mapError(failed("Creating a database")))
  return { database, url: yield* urlOf(database) }
})
