import * as NodeServices from "@effect/platform-node/NodeServices"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import { assert, layer } from "@effect/vitest"
import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
import * as Cluster from "@strata/postgres/EmbeddedPostgresCluster"
import * as Process from "@strata/postgres/EmbeddedPostgresProcess"
import * as Postgres from "@strata/postgres/Postgres"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"

const place = Effect.flatMap(
  Effect.all([FileSystem.FileSystem, PostgresTest.directory]),
  ([fs, run]) =>
    Effect.acquireRelease(
      fs.makeTempDirectory({ directory: run, prefix: "restart-" }),
      (directory) =>
        EmbeddedPostgres.stop({ directory }).pipe(
          Effect.andThen(fs.remove(directory, { recursive: true, force: true })),
          Effect.orDie
        )
    )
).pipe(Effect.tap(PostgresTest.initialise))

/** The embedded server and a pool on it, both for the time of the scope. */
const connect = Effect.fnUntraced(function*(directory: string) {
  const server = yield* EmbeddedPostgres.start({ directory, initialSync: false })
  const postgres = yield* Layer.build(Postgres.layer({ url: server.url }))
  return { server, sql: Context.get(postgres, Postgres.Postgres).sql }
})

const runningIn = (dataDirectory: string) =>
  Effect.flatMap(Cluster.running(dataDirectory), (running) => Effect.fromOption(running))

const untilGone = (pid: number) =>
  Process.isAlive(pid).pipe(
    Effect.repeat({ while: (alive) => alive, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("1 minute")
  )

const kill9 = (pid: number) => Effect.andThen(Process.signal(pid, "SIGKILL"), untilGone(pid))

const eventually = <A, E, R>(query: Effect.Effect<A, E, R>) =>
  query.pipe(Effect.retry(Schedule.spaced("50 millis")), Effect.timeout("20 seconds"))

const listen = (port: number) => NodeSocketServer.make({ host: "127.0.0.1", port })

const program = new URL("./programs/embeddedQueries.ts", import.meta.url)

const startChild = Effect.fnUntraced(function*(directory: string) {
  const child = yield* ChildProgram.start(program, { args: [directory] })
  yield* child.waitFor((line) => line === "serving")
  return child
})

/** The port and the start of the server as the child sees them. */
const serverOf = (child: ChildProgram.ChildProgram) =>
  Effect.andThen(child.send("which"), child.waitFor((line) => line.startsWith("server "))).pipe(
    Effect.timeout("20 seconds")
  )

layer(Layer.mergeAll(NodeServices.layer, Logger.layer([])), { excludeTestServices: true })(
  "An embedded server that ends while it is used",
  (it) => {
    it.effect("is started again on the same URL, with what was committed, and stopped at the end", () =>
      Effect.gen(function*() {
        const directory = yield* place
        const { dataDirectory } = yield* Effect.scoped(Effect.gen(function*() {
          const { server, sql } = yield* connect(directory)
          yield* sql`create table public.kept as select 7 as n`
          // Twice: what was started again is kept as well.
          for (const _ of [1, 2]) {
            const { pid } = yield* runningIn(server.dataDirectory)
            yield* kill9(pid)
            assert.deepStrictEqual(yield* eventually(sql`select n from kept`), [{ n: 7 }])
            // A backend that has not noticed yet may have answered.
            const running = yield* eventually(runningIn(server.dataDirectory))
            assert.notStrictEqual(running.pid, pid)
            assert.strictEqual(running.port, server.port)
            assert.deepStrictEqual(yield* eventually(sql`select n from kept`), [{ n: 7 }])
          }
          return server
        }))
        assert.isTrue(Option.isNone(yield* Cluster.running(dataDirectory)))
      }))

    it.effect("is started again once for all processes that use it", () =>
      Effect.gen(function*() {
        const directory = yield* place
        const children = yield* Effect.forEach([1, 2, 3], () => startChild(directory), { concurrency: "unbounded" })
        const { pid, port } = yield* runningIn(`${directory}/postgres`)
        const [before] = yield* Effect.forEach(children, serverOf)
        yield* kill9(pid)
        const [after, ...others] = yield* Effect.forEach(
          children,
          // A backend that has not noticed yet may answer once more.
          (child) => Effect.repeat(serverOf(child), { until: (server) => server !== before }),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(others, [after, after])
        assert.include(after, `server ${port} `)
        for (const child of children) {
          yield* child.end
          yield* child.exitCode
        }
        assert.isTrue(Option.isNone(yield* Cluster.running(`${directory}/postgres`)))
      }))

    it.effect("is waited for as long as a stranger has its port", () =>
      Effect.gen(function*() {
        const directory = yield* place
        const child = yield* startChild(directory)
        const { pid, port } = yield* runningIn(`${directory}/postgres`)
        yield* child.pause
        yield* kill9(pid)
        yield* Effect.scoped(Effect.gen(function*() {
          yield* listen(port)
          yield* child.resume
          yield* child.waitFor((line) => line.includes("could not create any TCP/IP sockets"))
        }))
        assert.include(yield* serverOf(child), `server ${port} `)
      }))
  }
)

layer(Layer.mergeAll(NodeServices.layer, Logger.layer([])), { excludeTestServices: true })(
  "The port of a directory",
  (it) => {
    const portOf = (directory: string) =>
      Effect.scoped(Effect.map(EmbeddedPostgres.start({ directory, initialSync: false }), ({ port }) => port))

    it.effect("is the same at every start", () =>
      Effect.gen(function*() {
        const directory = yield* place
        const first = yield* EmbeddedPostgres.start({ directory, initialSync: false }).pipe(Effect.scoped)
        const second = yield* EmbeddedPostgres.start({ directory, initialSync: false })
        assert.strictEqual(Redacted.value(second.url), Redacted.value(first.url))
      }))

    it.effect("is another one when somebody else has taken it", () =>
      Effect.gen(function*() {
        const directory = yield* place
        const first = yield* portOf(directory)
        const second = yield* Effect.scoped(Effect.andThen(listen(first), portOf(directory)))
        assert.notStrictEqual(second, first)
        assert.strictEqual(yield* portOf(directory), second)
      }))
  }
)
