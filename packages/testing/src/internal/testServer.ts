/**
 * The program that keeps the server of one test run. It prints how to reach it as one line of JSON and serves until
 * its standard input ends.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as ApplicationRole from "@strata/postgres/ApplicationRole"
import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
import * as Process from "@strata/postgres/EmbeddedPostgresProcess"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as NodeFs from "node:fs"
import * as Os from "node:os"
import * as Clusters from "./clusters.ts"
import { fewProcesses } from "./fewProcesses.ts"
import { TestRun } from "./testRun.ts"

class UnsupportedServer extends Data.TaggedError("UnsupportedServer")<{ readonly message: string }> {}

const program = Effect.gen(function*() {
  const directory = yield* runDirectory
  const external = yield* Config.option(Config.Redacted("STRATA_TEST_DATABASE_URL"))
  const cluster = yield* Clusters.make(directory)
  const adminUrl = Option.isSome(external) ? external.value : (yield* startServer(directory, cluster)).url
  const admin = yield* PgConnection.make({ url: adminUrl, applicationName: "strata test run" })
  yield* requireSupported(admin)
  yield* ApplicationRole.create(admin)
  const prefix = yield* claimPrefix(admin)
  yield* Effect.addFinalizer(() => Option.isSome(external) ? Effect.ignore(dropAll(admin, prefix)) : Effect.void)
  const run = yield* Schema.encodeEffect(Schema.fromJsonString(TestRun))({
    adminUrl: Redacted.value(adminUrl),
    prefix,
    directory,
    cluster,
    strategy: Option.isNone(external) && directory.startsWith(memory.directory) ? "file_copy" : "wal_log"
  })
  yield* Console.log(run)
  const stdio = yield* Stdio.Stdio
  yield* Stream.runDrain(stdio.stdin)
})

const directoryPattern = /^strata-test-(\d+)-/

/** The directory of this run. Those of runs that were killed together with their server program are removed first. */
const runDirectory = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const temporary = yield* fs.realPath(yield* roomiest)
  yield* Effect.forEach(
    yield* fs.readDirectory(temporary),
    Effect.fnUntraced(function*(name) {
      const pid = Number(directoryPattern.exec(name)?.[1] ?? 0)
      if (pid > 0 && !(yield* isTestServer(pid))) yield* Effect.ignore(removeRun(path.join(temporary, name)))
    }),
    { discard: true }
  )
  const directory = yield* Effect.acquireRelease(
    fs.makeTempDirectory({ directory: temporary, prefix: `strata-test-${process.pid}-` }),
    (directory) => Effect.ignore(removeRun(directory), { log: "Error" })
  )
  // Servers may run as another user, which has to pass but not to look.
  yield* fs.chmod(directory, 0o711)
  return directory
})

/** A file system in memory, and the room that a run wants there: of the databases that tests make, few are there at a time. */
const memory = { directory: "/dev/shm", bytes: 4 * 2 ** 30 }

/**
 * The memory's file system where there is one with room, since tests make hundreds of databases that nobody looks at again; elsewhere the
 * directory for temporary files. Servers are killed in tests, machines are not: both keep what was written.
 */
const roomiest = Effect.tryPromise(() => NodeFs.promises.statfs(memory.directory)).pipe(
  Effect.map(({ bavail, bsize }) => bavail * bsize >= memory.bytes ? memory.directory : Os.tmpdir()),
  Effect.orElseSucceed(() => Os.tmpdir())
)

const isTestServer = Effect.fnUntraced(function*(pid: number) {
  if (!(yield* Process.isAlive(pid))) return false
  const fs = yield* FileSystem.FileSystem
  return yield* fs.readFileString(`/proc/${pid}/cmdline`).pipe(
    Effect.map((command) => command.includes("testServer")),
    // Where the command line cannot be read, better keep a directory too many.
    Effect.orElseSucceed(() => true)
  )
})

/** Stops every server that still runs below the directory: those of tests that were killed. */
const removeRun = Effect.fnUntraced(function*(directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* Effect.forEach(
    yield* fs.readDirectory(directory),
    (name) => EmbeddedPostgres.stop({ directory: path.join(directory, name), stopTimeout: "5 seconds" }),
    { concurrency: 4, discard: true }
  )
  yield* fs.remove(directory, { recursive: true, force: true })
})

const startServer = Effect.fnUntraced(function*(parent: string, cluster: string) {
  const path = yield* Path.Path
  const directory = path.join(parent, "run")
  yield* Clusters.copy(cluster, directory)
  return yield* EmbeddedPostgres.start({
    directory,
    initialSync: false,
    stopTimeout: "5 seconds",
    settings: {
      max_connections: "300",
      shared_buffers: "128MB",
      checkpoint_timeout: "1h",
      max_wal_size: "4GB",
      wal_compression: "off",
      ...fewProcesses,
      // There are dozens of databases, and few of them live for so long.
      autovacuum_naptime: "10min"
    }
  })
})

const requireSupported = Effect.fnUntraced(function*(admin: PgConnection.PgConnection) {
  const { rows } = yield* admin.query("select current_setting('server_version_num')::int4 / 10000 as major")
  const major = Number(rows[0]?.["major"])
  if (major >= 15 && major <= 18) return
  return yield* new UnsupportedServer({
    message: `STRATA_TEST_DATABASE_URL is PostgreSQL ${major}; supported are 15 to 18`
  })
})

/** Locks of the maintenance database whose second number is a run's. */
const runLock = 1398035029

/**
 * A prefix that no living run has: a run holds the lock of its number for as long as its session lives. Databases
 * whose run is dead are dropped.
 */
const claimPrefix = Effect.fnUntraced(function*(admin: PgConnection.PgConnection) {
  const run = yield* Random.nextIntBetween(1, 2 ** 31)
  yield* admin.query("select pg_advisory_lock($1::int4, $2::int4)", [runLock, run])
  const { rows } = yield* admin.query(
    "select distinct substring(datname from '^strata_test_([0-9]+)_')::int4 as run from pg_database " +
      "where datname ~ '^strata_test_[0-9]+_'"
  )
  yield* Effect.forEach(
    rows,
    Effect.fnUntraced(function*(row) {
      const locked = yield* admin.query("select pg_try_advisory_lock($1::int4, $2::int4) as dead", [
        runLock,
        row["run"]
      ])
      if (row["run"] !== run && locked.rows[0]?.["dead"] === true) {
        yield* Effect.ignore(dropAll(admin, `strata_test_${String(row["run"])}_`), { log: "Warn" })
      }
    }),
    { discard: true }
  )
  return `strata_test_${run}_`
})

const dropAll = Effect.fnUntraced(function*(admin: PgConnection.PgConnection, prefix: string) {
  const { rows } = yield* admin.query(
    "select datname, datistemplate from pg_database where starts_with(datname, $1)",
    [prefix]
  )
  yield* Effect.forEach(
    rows,
    Effect.fnUntraced(function*(row) {
      const name = `"${String(row["datname"])}"`
      if (row["datistemplate"] === true) yield* admin.query(`alter database ${name} is_template false`, [], false)
      yield* admin.query(`drop database if exists ${name} with (force)`, [], false)
    }),
    { discard: true }
  )
})

NodeRuntime.runMain(
  program.pipe(
    Effect.scoped,
    // Standard output is for the announcement alone.
    Effect.tapCause((cause) => Effect.logError(Cause.pretty(cause))),
    Effect.provide([NodeServices.layer, Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)])])
  ),
  { disableErrorReporting: true }
)
