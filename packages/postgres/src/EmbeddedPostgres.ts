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
 *   and asks for a random password that is kept in the cluster, readable by its owner. Its port is the one it had the
 *   last time, as long as that is free: the URL of a directory stays the same.
 * - Processes share the server of a directory: the first one starts it, the last one stops it. Each holds a session
 *   with a shared advisory lock, so a process that is killed counts no more, and a server it left behind is joined by
 *   the next start.
 * - A server that ends is started again on the same port by one of the processes that use it, and PostgreSQL recovers
 *   what was committed. Until then queries fail; the pool of `Postgres.layer` then finds it again.
 * - `fsync`, full page writes and data checksums are on.
 * - The URL is a superuser's. The role of `ApplicationRole` is there for sessions to take on.
 * - As root the server runs as the owner of the cluster, else as `postgres`, else as `nobody`.
 *
 * **Gotchas**
 *
 * - Settings are those of the process that started the server; one that joins does not change them.
 * - A process whose port somebody else has taken while the server was down waits until that port is free.
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
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import type * as Scope from "effect/Scope"
import * as Binaries from "./EmbeddedPostgresBinaries.ts"
import * as Cluster from "./EmbeddedPostgresCluster.ts"
import { EmbeddedPostgresError } from "./EmbeddedPostgresError.ts"
import * as Seat from "./EmbeddedPostgresSeat.ts"
import * as PostgresServer from "./EmbeddedPostgresServer.ts"
import { withWarnings } from "./internal/retry.ts"
import { PostgresPolicies } from "./PostgresPolicies.ts"
import * as Retrying from "./Retrying.ts"

export { EmbeddedPostgresError }

/**
 * How an embedded server is run.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends PostgresServer.Options {
  /** Where cluster and log are kept. Defaults to `.strata` in the working directory. */
  readonly directory?: string | undefined
  /** Whether a server that ends while this process uses it is started again. Defaults to `true`. */
  readonly restart?: boolean | undefined
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
  /** The process id of the postmaster; a server that was started again has another one. */
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
  yield* Effect.forkScoped(Retrying.outermost(keep(cluster, options, membership)))
  return membership.server
})

/**
 * Stops the server of a directory that processes left behind, within some 25 seconds. Does nothing when
 * none runs there. Processes that still use it start it again.
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
  if (Option.isSome(running)) yield* PostgresServer.stop(running.value.pid, options.stopTimeout)
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

interface Membership {
  readonly server: Server
  readonly seat: Ref.Ref<Seat.Seat>
}

const enter = Effect.fnUntraced(function*(cluster: Cluster.Cluster, options: Options) {
  const { embedded, sessions } = yield* PostgresPolicies
  const limit = Duration.fromInputUnsafe(options.startTimeout ?? embedded.startTimeout)
  const { seat, started } = yield* withWarnings(attempt(cluster, options), {
    while: (error) => error._tag === "Busy",
    schedule: embedded.startPoll(limit),
    quietFor: embedded.startQuiet,
    betweenWarnings: sessions.betweenWarnings,
    warning: (error, waited) =>
      `No PostgreSQL on ${cluster.directory} after ${Duration.format(waited)}, ` +
      `waiting ${Duration.format(limit)} at most: ${error.message}`
  }).pipe(
    Effect.catchIf((error) => error._tag === "Busy", (busy) =>
      Effect.fail(
        new EmbeddedPostgresError({
          reason: "NotReady",
          message: `No server on ${cluster.directory}, waiting ${Duration.format(limit)} at most: ${busy.message}. ` +
            `See ${cluster.logFile}.`
        })
      ))
  )
  const { pid, port } = seat.running
  yield* Effect.logDebug(`PostgreSQL serves ${cluster.directory} on 127.0.0.1:${port} (pid ${pid})`)
  return {
    seat: yield* Ref.make(seat),
    server: { url: seat.url, port, pid, dataDirectory: cluster.directory, logFile: cluster.logFile, started }
  } satisfies Membership
})

/** Joins the server that runs, or starts one. */
const attempt = Effect.fnUntraced(function*(cluster: Cluster.Cluster, options: Options) {
  const running = yield* Cluster.running(cluster.directory)
  if (Option.isNone(running)) {
    const seat = yield* PostgresServer.launch(cluster, options, (launched) => join(cluster, launched))
    return { seat, started: true }
  }
  const { pid, ready } = running.value
  if (!ready) return yield* Effect.fail(new PostgresServer.Busy(`the server with pid ${pid} is starting or stopping`))
  return { seat: yield* join(cluster, running.value), started: false }
})

const join = (cluster: Cluster.Cluster, running: Cluster.Running) =>
  Seat.take(
    Redacted.make(`postgresql://postgres:${Redacted.value(cluster.password)}@127.0.0.1:${running.port}/postgres`),
    running
  )

/**
 * Takes the place again whenever its session is lost. A server that lost one of its processes ends every session and
 * goes on; one that is gone is started again.
 */
const keep = Effect.fnUntraced(function*(cluster: Cluster.Cluster, options: Options, membership: Membership) {
  const lost = yield* Ref.get(membership.seat)
  yield* lost.ended
  // All processes notice at once; a short while apart, one of them finds what another has started.
  const { embedded } = yield* PostgresPolicies
  yield* Effect.sleep(Duration.times(embedded.restartSpread, yield* Random.next))
  yield* Effect.uninterruptibleMask((restore) =>
    restore(comeBack(cluster, options, lost)).pipe(
      Effect.flatMap((seat) => Ref.set(membership.seat, seat)),
      Effect.andThen(Seat.release(lost))
    )
  )
}, (each) => Effect.forever(each))

/** Never gives up: the process that uses the server has no other. */
const comeBack = Effect.fnUntraced(function*(cluster: Cluster.Cluster, options: Options, lost: Seat.Seat) {
  const { embedded, sessions } = yield* PostgresPolicies
  const { pid, port } = lost.running
  if (Option.isNone(yield* Cluster.running(cluster.directory))) {
    yield* Effect.logWarning(
      `PostgreSQL (pid ${pid}) on ${cluster.directory} has ended, starting it again. See ${cluster.logFile}`
    )
  }
  // Recovery takes as long as it takes; whoever cuts it short begins it anew.
  const again = attemptAt(port, cluster, { ...options, startTimeout: Duration.infinity })
  const { seat, started } = yield* Effect.orDie(withWarnings(again, {
    while: () => true,
    schedule: embedded.restart,
    quietFor: embedded.restartQuiet,
    betweenWarnings: sessions.betweenWarnings,
    warning: (error, waited) =>
      `No PostgreSQL on ${cluster.directory} for ${Duration.format(waited)}, trying again: ${error.message}`
  }))
  if (seat.running.pid !== pid) {
    yield* Effect.logWarning(
      `PostgreSQL serves ${cluster.directory} again on 127.0.0.1:${port} (pid ${seat.running.pid}), ` +
        `started by ${started ? "this" : "another"} process`
    )
  }
  return seat
})

/** As `attempt`, on the port that the users of the server were told. */
const attemptAt = Effect.fnUntraced(function*(port: number, cluster: Cluster.Cluster, options: Options) {
  const running = yield* Cluster.running(cluster.directory)
  if (Option.exists(running, (running) => running.ready && running.port !== port)) {
    return yield* Effect.fail(
      new PostgresServer.Busy(
        `another process has started the server on another port; stop that process, this one needs port ${port}`
      )
    )
  }
  if (Option.isNone(running) && options.restart === false) {
    return yield* Effect.fail(new PostgresServer.Busy("it is not to be started by this process"))
  }
  return yield* attempt(cluster, { ...options, port })
})

/** Gives up the place, and stops the server when nobody else has one. */
const leave = Effect.fnUntraced(function*(cluster: Cluster.Cluster, options: Options, membership: Membership) {
  const seat = yield* Ref.get(membership.seat)
  const last = yield* Seat.isLast(seat)
  const running = yield* Cluster.running(cluster.directory)
  if (last && Option.exists(running, ({ pid }) => pid === seat.running.pid)) {
    yield* PostgresServer.stop(seat.running.pid, options.stopTimeout)
  }
  yield* Seat.release(seat)
})
