/**
 * A real PostgreSQL server that lives with the application: nothing to install, nothing to configure.
 *
 * **When to use**
 *
 * Use for development, tests, demos and single-machine installations. Where PostgreSQL is already run by somebody, give
 * its URL to `Postgres.layer` instead.
 *
 * **Details**
 *
 * - The cluster lives in `<directory>/postgres`, its log in `<directory>/postgres.log`. It listens on 127.0.0.1 only,
 *   on a free port, and asks for a random password that is kept in the cluster, readable by its owner.
 * - Processes share the server of a directory: the first one starts it, the last one stops it. Each holds a session
 *   with a shared advisory lock, so a process that is killed counts no more, and a server it left behind is joined by
 *   the next start.
 * - `fsync`, full page writes and data checksums are on. A killed server recovers when it is started again.
 * - As root the server runs as the owner of the cluster, else as `postgres`, else as `nobody`.
 *
 * **Gotchas**
 *
 * - Settings are those of the process that started the server; one that joins does not change them.
 * - Where the directory is closed to the user that runs the server for root, as under `/root`, the server gets the
 *   capability to pass (`CAP_DAC_OVERRIDE`, by `setpriv`), and so may read what root may.
 *
 * **Example** (Serving a database of its own)
 *
 * ```ts
 * import * as NodeServices from "@effect/platform-node/NodeServices"
 * import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
 * import * as Postgres from "@strata/postgres/Postgres"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * const Database = Layer.unwrap(
 *   Effect.map(EmbeddedPostgres.url, (url) => Postgres.layer({ url }))
 * ).pipe(
 *   Layer.provide(EmbeddedPostgres.layer({ directory: ".strata" })),
 *   Layer.provide(NodeServices.layer)
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Binaries from "./EmbeddedPostgresBinaries.ts"
import * as Cluster from "./EmbeddedPostgresCluster.ts"
import { EmbeddedPostgresError } from "./EmbeddedPostgresError.ts"
import * as Process from "./EmbeddedPostgresProcess.ts"
import * as Settings from "./EmbeddedPostgresSettings.ts"

export { EmbeddedPostgresError }

/**
 * How an embedded server is run.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Where cluster and log are kept. Defaults to `.strata` in the working directory. */
  readonly directory?: string | undefined
  /** The TCP port on 127.0.0.1. Defaults to a free one. */
  readonly port?: number | undefined
  /** Server settings by their names, over the defaults here. */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** The longest wait until the server serves, crash recovery included. Defaults to one minute. */
  readonly startTimeout?: Duration.Input | undefined
  /** The longest wait for a fast shutdown, after which the server is made to quit at once. Defaults to 15 seconds. */
  readonly stopTimeout?: Duration.Input | undefined
  /** Whether `initdb` waits until its files are on disk. Defaults to `true`. */
  readonly initialSync?: boolean | undefined
}

/**
 * A server that is ready.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server {
  /** `postgresql://postgres:…@127.0.0.1:port/postgres`, as `psql` takes it. */
  readonly url: Redacted.Redacted
  readonly port: number
  /** The process id of the postmaster. */
  readonly pid: number
  /** PostgreSQL's data directory. */
  readonly dataDirectory: string
  readonly logFile: string
  /** True when this process started the server, false when it joined one. */
  readonly started: boolean
}

/**
 * The options as the environment gives them: `STRATA_DATA_DIR`.
 *
 * @category options
 * @since 0.1.0
 */
export const config: Config.Config<Options> = Config.all({
  directory: Config.NonEmptyString("STRATA_DATA_DIR").pipe(Config.withDefault(".strata"))
})

/**
 * Starts the server of a directory, or joins the one that runs there, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.fn("EmbeddedPostgres.start")(function*(options: Options = {}): Effect.fn.Return<
  Server,
  EmbeddedPostgresError,
  FileSystem.FileSystem | Path.Path | Scope.Scope
> {
  const binaries = yield* Binaries.locate()
  const cluster = yield* Cluster.open(options.directory ?? ".strata", binaries, { sync: options.initialSync ?? true })
  const membership = yield* Effect.acquireRelease(
    enter(cluster, options),
    (membership) => leave(cluster, options, membership),
    { interruptible: true }
  )
  yield* Effect.forkScoped(keepSeat(membership))
  return membership.server
})

/**
 * Stops the server of a directory whoever uses it, within some 25 seconds. Does nothing when none runs there.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stop = Effect.fn("EmbeddedPostgres.stop")(function*(options: Pick<Options, "directory" | "stopTimeout">) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const cluster = path.join(options.directory ?? ".strata", "postgres")
  if (!(yield* Effect.orElseSucceed(fs.exists(cluster), () => false))) return
  const running = yield* Effect.flatMap(Effect.orDie(fs.realPath(cluster)), Cluster.running)
  if (Option.isSome(running)) yield* shutdown(running.value.pid, options)
})

/**
 * The embedded server as a service.
 *
 * @category services
 * @since 0.1.0
 */
export class EmbeddedPostgres extends Context.Service<EmbeddedPostgres, Server>()(
  "@strata/postgres/EmbeddedPostgres"
) {}

/**
 * The URL of the embedded server.
 *
 * @category getters
 * @since 0.1.0
 */
export const url: Effect.Effect<Redacted.Redacted, never, EmbeddedPostgres> = Effect.map(
  EmbeddedPostgres,
  (server) => server.url
)

/**
 * Runs the server for the life of the layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<EmbeddedPostgres, EmbeddedPostgresError, FileSystem.FileSystem | Path.Path> =>
  Layer.effect(EmbeddedPostgres, start(options))

/**
 * As `layer`, with the options from `STRATA_DATA_DIR`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig: Layer.Layer<
  EmbeddedPostgres,
  EmbeddedPostgresError | Config.ConfigError,
  FileSystem.FileSystem | Path.Path
> = Layer.effect(EmbeddedPostgres, Effect.flatMap(config, start))

/** A place among the users of a server: its session holds the shared lock. */
interface Seat {
  readonly session: PgConnection.PgConnection
  readonly scope: Scope.Closeable
}

interface Membership {
  readonly server: Server
  readonly seat: Ref.Ref<Seat>
}

/** What to do before trying again: somebody else is starting, stopping or using what we need. */
class Busy {
  readonly _tag = "Busy"
  readonly detail: string
  constructor(detail: string) {
    this.detail = detail
  }
}

const enter = Effect.fnUntraced(function*(cluster: Cluster.Cluster, options: Options) {
  const limit = Duration.fromInputUnsafe(options.startTimeout ?? "1 minute")
  const attempt: Effect.Effect<Membership, EmbeddedPostgresError | Busy, FileSystem.FileSystem | Path.Path> = Effect
    .flatMap(
      Cluster.running(cluster.directory),
      Option.match({
        onNone: () => launch(cluster, options),
        onSome: (running) =>
          running.ready
            ? join(cluster, running, false)
            : Effect.fail(new Busy(`the server with pid ${running.pid} is starting or stopping`))
      })
    )
  return yield* attempt.pipe(
    Effect.retry({
      while: (error) => error._tag === "Busy",
      schedule: Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: limit }))
    }),
    Effect.catchIf((error) => error._tag === "Busy", (busy) =>
      Effect.fail(
        new EmbeddedPostgresError({
          reason: "NotReady",
          message: `No server on ${cluster.directory} after ${Duration.format(limit)}: ${busy.detail}. ` +
            `See ${cluster.logFile}.`
        })
      ))
  )
})

/** Starts a server and joins it. PostgreSQL's own lock on the directory decides between two that do so at once. */
const launch = Effect.fnUntraced(function*(cluster: Cluster.Cluster, options: Options) {
  const fs = yield* FileSystem.FileSystem
  const port = options.port ?? (yield* freePort)
  yield* rotateLog(cluster.logFile)
  const offset = yield* fs.stat(cluster.logFile).pipe(
    Effect.map((info) => Number(info.size)),
    Effect.orElseSucceed(() => 0)
  )
  const failed = Effect.map(Cluster.lastLines(cluster.logFile, offset), startFailure(cluster))
  return yield* Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
    const launched = yield* Effect.scoped(Effect.flatMap(Cluster.openLog(cluster.logFile), (log) =>
      Process.launch({
        command: cluster.binaries.postgres,
        args: Settings.serverArguments(cluster.directory, port, options.settings),
        user: cluster.user,
        log,
        outlives: true
      }).pipe(Effect.mapError((cause) => startFailure(cluster)(cause.message)))))
    const ready = Cluster.running(cluster.directory).pipe(
      Effect.repeat({
        until: (running) => Option.exists(running, ({ pid, ready }) => ready && pid === launched.pid),
        schedule: Schedule.spaced("20 millis")
      }),
      Effect.flatMap((running) => Effect.fromOption(running)),
      Effect.mapError(() => new Busy("the server has gone again")),
      Effect.timeoutOrElse({
        duration: options.startTimeout ?? "1 minute",
        orElse: () => Effect.fail(new Busy("the server that was started is not ready"))
      })
    )
    return yield* restore(
      Effect.raceFirst(ready, Effect.flatMap(launched.exit, () => Effect.flatMap(failed, Effect.fail))).pipe(
        Effect.flatMap((running) => join(cluster, running, true))
      )
    ).pipe(Effect.onError(() => shutdown(launched.pid, options)))
  }))
})

/** The failures that pass when one tries again: another server on the directory or the port, or the end of one. */
const transientStart =
  /lock file "postmaster\.pid"|pre-existing shared memory block|could not create any TCP\/IP sockets/

const startFailure = (cluster: Cluster.Cluster) => (log: string): EmbeddedPostgresError | Busy =>
  transientStart.test(log)
    ? new Busy(log)
    : new EmbeddedPostgresError({
      reason: "StartFailed",
      message: `PostgreSQL did not start on ${cluster.directory}. The end of ${cluster.logFile}:\n${log}`
    })

/** Another process may take the port before the server does; the start is then tried again with another one. */
const freePort = Effect.scoped(NodeSocketServer.make({ host: "127.0.0.1", port: 0 })).pipe(
  Effect.map((server) => server.address._tag === "UnixPathAddress" ? 0 : server.address.port),
  Effect.mapError((cause) =>
    new EmbeddedPostgresError({ reason: "StartFailed", message: "No free TCP port on 127.0.0.1", cause })
  )
)

const maximumLogSize = 16 * 1024 * 1024

const rotateLog = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const size = yield* fs.stat(file).pipe(Effect.map((info) => Number(info.size)), Effect.orElseSucceed(() => 0))
  if (size > maximumLogSize) yield* Effect.ignore(fs.rename(file, `${file}.1`))
})

/** Any two numbers nobody else uses on the maintenance database of this cluster. */
const lockKey = [1398035028, 1] as const

const join = Effect.fnUntraced(function*(cluster: Cluster.Cluster, running: Cluster.Running, started: boolean) {
  const url = Redacted.make(
    `postgresql://postgres:${Redacted.value(cluster.password)}@127.0.0.1:${running.port}/postgres`
  )
  const seat = yield* takeSeat(url).pipe(
    Effect.mapError((cause) => new Busy(`the server with pid ${running.pid} does not let us in: ${cause.message}`))
  )
  const server: Server = {
    url,
    port: running.port,
    pid: running.pid,
    dataDirectory: cluster.directory,
    logFile: cluster.logFile,
    started
  }
  yield* Effect.logDebug(`PostgreSQL serves ${cluster.directory} on 127.0.0.1:${running.port} (pid ${running.pid})`)
  return { server, seat: yield* Ref.make(seat) } satisfies Membership
})

const takeSeat = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const scope = yield* Scope.make()
  const session = yield* connect(url).pipe(
    // Waits while the last user has the lock exclusively, and loses the session when that one stops the server.
    Effect.tap((session) => session.query("select pg_advisory_lock_shared($1::int4, $2::int4)", lockKey)),
    Scope.provide(scope),
    Effect.timeout("15 seconds"),
    Effect.onError(() => Scope.close(scope, Exit.void))
  )
  return { session, scope } satisfies Seat
})

/** A server that lost one of its processes ends every session and goes on; the seat is then taken again. */
const keepSeat = ({ seat, server }: Membership) =>
  Ref.get(seat).pipe(
    Effect.flatMap(({ session }) => session.query("select 1")),
    Effect.repeat(Schedule.spaced("2 seconds")),
    Effect.catch(() =>
      Effect.uninterruptibleMask((restore) =>
        restore(Effect.retry(takeSeat(server.url), Schedule.spaced("1 second"))).pipe(
          Effect.flatMap((fresh) => Ref.getAndSet(seat, fresh)),
          Effect.flatMap((lost) => Scope.close(lost.scope, Exit.void))
        )
      )
    ),
    Effect.forever
  )

const connect = (url: Redacted.Redacted) =>
  PgConnection.make({ url, applicationName: "strata embedded server", connectTimeout: "10 seconds" })

/** Gives up the place, and stops the server when nobody else has one. */
const leave = Effect.fnUntraced(function*(cluster: Cluster.Cluster, options: Options, membership: Membership) {
  const { pid, url } = membership.server
  const { scope, session } = yield* Ref.get(membership.seat)
  const last = yield* isLast(session).pipe(
    // The session is lost: the server was killed, or somebody has ended the session.
    Effect.catch(() => Effect.scoped(Effect.flatMap(connect(url), isLast))),
    Effect.timeout("5 seconds"),
    Effect.orElseSucceed(() => true)
  )
  const running = yield* Cluster.running(cluster.directory)
  if (last && Option.exists(running, (running) => running.pid === pid)) yield* shutdown(pid, options)
  yield* Scope.close(scope, Exit.void)
})

const isLast = Effect.fnUntraced(function*(session: PgConnection.PgConnection) {
  yield* session.query("select pg_advisory_unlock_shared($1::int4, $2::int4)", lockKey)
  const { rows } = yield* session.query("select pg_try_advisory_lock($1::int4, $2::int4) as last", lockKey)
  return rows[0]?.["last"] === true
})

/** Fast shutdown, and when that takes too long an immediate one, from which the next start recovers. */
const shutdown = Effect.fnUntraced(function*(pid: number, options: Options) {
  const gone = Process.isAlive(pid).pipe(
    Effect.repeat({ while: (alive) => alive, schedule: Schedule.spaced("20 millis") })
  )
  const ends = (limit: Duration.Input) => Effect.map(Effect.timeoutOption(gone, limit), Option.isSome)
  yield* Process.signal(pid, "SIGINT")
  if (yield* ends(options.stopTimeout ?? "15 seconds")) return
  yield* Effect.logWarning(`PostgreSQL (pid ${pid}) does not stop, so it is made to quit at once`)
  yield* Process.signal(pid, "SIGQUIT")
  if (yield* ends("10 seconds")) return
  yield* Effect.logError(`PostgreSQL (pid ${pid}) does not quit, so it is killed`)
  yield* Process.signal(pid, "SIGKILL")
})
