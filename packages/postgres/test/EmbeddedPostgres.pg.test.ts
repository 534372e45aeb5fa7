import * as NodeServices from "@effect/platform-node/NodeServices"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { assert, layer } from "@effect/vitest"
import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
import * as Binaries from "@strata/postgres/EmbeddedPostgresBinaries"
import * as Cluster from "@strata/postgres/EmbeddedPostgresCluster"
import * as Process from "@strata/postgres/EmbeddedPostgresProcess"
import * as PostgresServer from "@strata/postgres/EmbeddedPostgresServer"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import { systemError } from "effect/PlatformError"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Os from "node:os"
import { fileURLToPath, pathToFileURL } from "node:url"
import { smallServer } from "./smallServer.ts"

const isRoot = Os.userInfo().uid === 0

/** The name of a test that changes the user, which is skipped for anybody else. */
const asRoot = (name: string) => isRoot ? name : `${name} (skipped: only root can run programs as another user)`

/** A place for a cluster. It is closed to other users, as `mktemp -d` makes it. */
const place = Effect.flatMap(
  Effect.all([FileSystem.FileSystem, PostgresTest.directory]),
  ([fs, run]) =>
    Effect.acquireRelease(
      fs.makeTempDirectory({ directory: run, prefix: "embedded-" }),
      (directory) =>
        EmbeddedPostgres.stop({ directory }).pipe(
          Effect.andThen(fs.remove(directory, { recursive: true, force: true })),
          Effect.orDie
        )
    )
)

/** A place with a cluster, for what begins when there is one. */
const furnished = Effect.tap(place, PostgresTest.initialise)

const start = (directory: string, options: EmbeddedPostgres.Options = {}) =>
  EmbeddedPostgres.start({ initialSync: false, settings: smallServer, ...options, directory })

const query = (url: Redacted.Redacted, sql: string) =>
  Effect.scoped(
    Effect.flatMap(PgConnection.make({ url }), (connection) =>
      Effect.map(connection.query(sql), ({ rows }) => rows.map((row) => ({ ...row }))))
  )

const untilGone = (pid: number) =>
  Process.isAlive(pid).pipe(
    Effect.repeat({ while: (alive) => alive, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("1 minute")
  )

const pidOf = (child: ChildProgram.ChildProgram) =>
  Effect.map(child.waitFor((line) => line.startsWith("pid ")), (line) => Number(line.slice(4)))

/** What lets another user start a program in a checkout that is closed to it. */
const passClosedDirectories = [
  "--securebits=+no_setuid_fixup",
  "--inh-caps=+dac_override",
  "--ambient-caps=+dac_override"
]

const program = new URL("./programs/embedded.ts", import.meta.url)

layer(Layer.mergeAll(NodeServices.layer, Logger.layer([])), { excludeTestServices: true })("EmbeddedPostgres", (it) => {
  it.effect("serves a safe and checked cluster while its scope is open, and nothing after", () =>
    Effect.gen(function*() {
      const directory = yield* place
      const server = yield* Effect.scoped(
        Effect.tap(start(directory), ({ pid, started, url }) =>
          Effect.gen(function*() {
            assert.isTrue(started)
            assert.isTrue(yield* Process.isAlive(pid))
            const rows = yield* query(
              url,
              "select current_setting('fsync') as fsync, current_setting('full_page_writes') as pages, " +
                "current_setting('data_checksums') as checksums, current_setting('server_encoding') as encoding, " +
                "current_setting('server_version_num')::int4 / 10000 as major"
            )
            assert.deepStrictEqual(rows, [{ fsync: "on", pages: "on", checksums: "on", encoding: "UTF8", major: 18 }])
          }))
      )
      assert.isFalse(yield* Process.isAlive(server.pid))
    }))

  it.effect("lets nobody in without the password, which others cannot read", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { dataDirectory, url } = yield* start(yield* place)
      const wrong = new URL(Redacted.value(url))
      wrong.password = "guess"
      yield* Effect.flip(query(Redacted.make(wrong.href), "select 1"))
      assert.strictEqual((yield* fs.stat(`${dataDirectory}/strata.password`)).mode & 0o777, 0o600)
      assert.strictEqual((yield* fs.stat(dataDirectory)).mode & 0o777, 0o700)
    }))

  it.effect("takes the password that it made at little cost, and keeps those that others set as servers do", () =>
    Effect.gen(function*() {
      const { url } = yield* start(yield* furnished)
      yield* query(url, "create role ada login password 'a word'")
      const rows = yield* query(
        url,
        "select rolname as name, split_part(rolpassword, ':', 1) as kept from pg_authid where rolpassword is not null order by 1"
      )
      assert.deepStrictEqual(rows, [
        { name: "ada", kept: "SCRAM-SHA-256$4096" },
        { name: "postgres", kept: "SCRAM-SHA-256$1" }
      ])
    }))

  it.effect("keeps its data over restarts", () =>
    Effect.gen(function*() {
      const directory = yield* furnished
      yield* Effect.scoped(
        Effect.flatMap(start(directory), ({ url }) => query(url, "create table kept as select 7 as n"))
      )
      const { url } = yield* start(directory)
      assert.deepStrictEqual(yield* query(url, "select n from kept"), [{ n: 7 }])
    }))

  it.effect("recovers after the server was killed, within the same process", () =>
    Effect.gen(function*() {
      const directory = yield* furnished
      const killed = yield* start(directory)
      yield* query(killed.url, "create table kept as select 7 as n")
      yield* Process.signal(killed.pid, "SIGKILL")
      yield* untilGone(killed.pid)
      const { pid, url } = yield* start(directory)
      assert.notStrictEqual(pid, killed.pid)
      assert.deepStrictEqual(yield* query(url, "select n from kept"), [{ n: 7 }])
    }))

  it.effect("takes over the server that a killed process left behind, and stops it", () =>
    Effect.gen(function*() {
      const directory = yield* furnished
      const child = yield* ChildProgram.start(program, { args: [directory] })
      const pid = yield* pidOf(child)
      yield* child.kill9
      assert.isTrue(yield* Process.isAlive(pid))
      const server = yield* Effect.scoped(start(directory))
      assert.deepStrictEqual([server.pid, server.started], [pid, false])
      assert.isFalse(yield* Process.isAlive(pid))
    }))

  it.effect("recovers when a process and its server were killed together", () =>
    Effect.gen(function*() {
      const directory = yield* furnished
      const child = yield* ChildProgram.start(program, { args: [directory] })
      const pid = yield* pidOf(child)
      yield* child.kill9
      yield* Process.signal(pid, "SIGKILL")
      const server = yield* start(directory)
      assert.isTrue(server.started)
      assert.deepStrictEqual(yield* query(server.url, "select 1 as one"), [{ one: 1 }])
    }))

  it.effect("is one server for all processes that start it at once, and the last one stops it", () =>
    Effect.gen(function*() {
      const directory = yield* place
      const children = yield* Effect.forEach([1, 2, 3], () => ChildProgram.start(program, { args: [directory] }), {
        concurrency: "unbounded"
      })
      const pids = yield* Effect.forEach(children, pidOf, { concurrency: "unbounded" })
      const pid = pids[0] ?? 0
      assert.deepStrictEqual(pids, [pid, pid, pid])
      for (const child of children) {
        assert.isTrue(yield* Process.isAlive(pid))
        yield* child.end
        yield* child.waitFor((line) => line === "left")
      }
      assert.isFalse(yield* Process.isAlive(pid))
    }))

  it.effect("goes on serving all its processes after it has ended every session", () =>
    Effect.gen(function*() {
      const directory = yield* furnished
      const { pid, url } = yield* start(directory)
      const child = yield* ChildProgram.start(program, { args: [directory] })
      yield* pidOf(child)
      const sessions = query(url, "select pid from pg_locks where locktype = 'advisory' and granted order by pid")
      const before = yield* sessions
      assert.strictEqual(before.length, 2)
      yield* query(url, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
      yield* sessions.pipe(
        Effect.repeat({ until: (rows) => rows.length === 2, schedule: Schedule.spaced("50 millis") }),
        Effect.timeout("1 minute")
      )
      yield* child.end
      yield* child.waitFor((line) => line === "left")
      assert.isTrue(yield* Process.isAlive(pid))
    }))

  it.effect("stops when the process is asked to terminate", () =>
    Effect.gen(function*() {
      const child = yield* ChildProgram.start(program, { args: [yield* furnished] })
      const pid = yield* pidOf(child)
      yield* child.terminate
      yield* child.exitCode
      assert.isFalse(yield* Process.isAlive(pid))
    }))

  it.effect("is not misled by a pid file whose process id belongs to another program by now", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* furnished
      const { dataDirectory } = yield* Effect.scoped(start(directory))
      yield* fs.writeFileString(
        `${dataDirectory}/postmaster.pid`,
        `${process.pid}\n${dataDirectory}\n1\n5432\n\n127.0.0.1\n0 0\nready   \n`
      )
      assert.isTrue((yield* start(directory)).started)
    }))

  it.effect("removes what a killed initialisation left", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* place
      yield* fs.makeDirectory(`${directory}/postgres.new-999999999-x/cluster`, { recursive: true })
      yield* start(directory)
      assert.deepStrictEqual((yield* fs.readDirectory(directory)).toSorted(), ["postgres", "postgres.log"])
    }))

  it.effect("refuses the data of another major version and says so", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* place
      yield* fs.makeDirectory(`${directory}/postgres`)
      yield* fs.writeFileString(`${directory}/postgres/PG_VERSION`, "17\n")
      const error = yield* Effect.flip(start(directory))
      assert.strictEqual(error.reason, "VersionMismatch")
      assert.include(error.message, `${directory}/postgres was written by PostgreSQL 17, this is PostgreSQL 18`)
    }))

  it.effect("reports the end of the log when the server does not start", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(start(yield* furnished, { settings: { shared_buffers: "plenty" } }))
      assert.strictEqual(error.reason, "StartFailed")
      assert.include(error.message, "invalid value for parameter \"shared_buffers\": \"plenty\"")
    }))

  it.effect("leaves a directory alone that is something else", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* place
      yield* fs.makeDirectory(`${directory}/postgres`)
      yield* fs.writeFileString(`${directory}/postgres/letter.txt`, "Dear")
      const error = yield* Effect.flip(start(directory))
      assert.strictEqual(error.reason, "DirectoryUnusable")
      assert.deepStrictEqual(yield* fs.readDirectory(`${directory}/postgres`), ["letter.txt"])
    }))

  it.effect("reports a directory that cannot be made", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const file = `${yield* place}/file`
      yield* fs.writeFileString(file, "")
      const error = yield* Effect.flip(start(`${file}/below`))
      assert.strictEqual(error.reason, "DirectoryUnusable")
      assert.include(error.message, "STRATA_DATA_DIR")
    }))

  it.effect("says what a read-only file system refuses, and where", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* place
      const cause = Object.assign(new Error(`EROFS: read-only file system, mkdtemp '${directory}/postgres.new'`), {
        code: "EROFS"
      })
      const readOnly = FileSystem.FileSystem.of({
        ...fs,
        makeTempDirectory: () =>
          Effect.fail(systemError({ _tag: "Unknown", module: "FileSystem", method: "makeTempDirectory", cause }))
      })
      const error = yield* Effect.flip(Effect.provideService(start(directory), FileSystem.FileSystem, readOnly))
      assert.strictEqual(error.reason, "DirectoryUnusable")
      assert.include(error.message, `The data directory ${directory} cannot be used: EROFS: read-only file system`)
      assert.include(error.message, "STRATA_DATA_DIR")
    }))

  it.effect("makes the links that an install script was not allowed to make", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const root = yield* fs.makeTempDirectoryScoped()
      yield* fs.makeDirectory(`${root}/native/lib`, { recursive: true })
      yield* fs.makeDirectory(`${root}/native/bin`)
      yield* Effect.forEach(["bin/initdb", "bin/postgres", "lib/libpq.so.5.18"], (file) =>
        fs.writeFileString(`${root}/native/${file}`, file))
      yield* fs.writeFileString(
        `${root}/native/pg-symlinks.json`,
        `[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]`
      )
      yield* Binaries.mend(root)
      yield* Binaries.mend(root)
      assert.strictEqual(yield* fs.readLink(`${root}/native/lib/libpq.so.5`), "libpq.so.5.18")
      assert.strictEqual((yield* fs.stat(`${root}/native/bin/postgres`)).mode & 0o111, 0o111)
    }))

  it.effect.skipIf(!isRoot)(
    asRoot("runs where everything is closed to the user that runs it"),
    () =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const closed = yield* place
        const { initdb } = yield* Binaries.locate()
        yield* fs.copy(fileURLToPath(new URL("..", pathToFileURL(initdb))), `${closed}/native`)
        const programs = { initdb: `${closed}/native/bin/initdb`, postgres: `${closed}/native/bin/postgres` }

        const cluster = yield* Cluster.open(`${closed}/data`, programs, { sync: false })
        const user = Option.getOrThrow(cluster.user)
        assert.strictEqual(user.reach, "capability")
        const reach = { initdb: programs.initdb, directory: closed }
        assert.isTrue(yield* Process.canReach(Option.some(user), reach))
        assert.isFalse(yield* Process.canReach(Option.some({ ...user, reach: "plain" }), reach))

        const running = yield* Effect.acquireRelease(
          PostgresServer.launch(cluster, {}, Effect.succeed),
          ({ pid }) => PostgresServer.stop(pid)
        )
        assert.isTrue(running.ready)
      })
  )

  it.effect.skipIf(!isRoot)(asRoot("works for a user who is not root"), () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* place
      yield* fs.chown(directory, 65534, 65534)
      const { initdb } = yield* Binaries.locate()
      const checkout = { initdb, directory: fileURLToPath(new URL(".", program)) }
      const isOpen = yield* Process.canReach(Option.some({ uid: 65534, gid: 65534, reach: "plain" }), checkout)
      const child = yield* ChildProcess.make(
        "setpriv",
        [
          "--reuid=65534",
          "--regid=65534",
          "--clear-groups",
          ...(isOpen ? [] : passClosedDirectories),
          process.execPath,
          "--conditions=strata:source",
          fileURLToPath(program),
          directory
        ],
        { stdin: "ignore", stderr: "inherit" }
      )
      const output = yield* Stream.mkString(Stream.decodeText(child.stdout))
      assert.match(output, /^pid \d+\nleft\n$/)
      const { uid } = yield* fs.stat(`${directory}/postgres`)
      assert.strictEqual(Option.getOrNull(uid), 65534)
    }))
})
