/**
 * The postmaster of a cluster: how it is started and how it is stopped.
 *
 * **Details**
 *
 * - PostgreSQL's own lock on the data directory decides between processes that start it at once: one server runs, and
 *   the others are `Busy`.
 * - Without a port of its own choice a cluster keeps the one it had last, which PostgreSQL writes down in
 *   `postmaster.opts`, as long as nobody else listens there.
 *
 * @since 0.1.0
 */
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Cluster from "./EmbeddedPostgresCluster.ts"
import { EmbeddedPostgresError } from "./EmbeddedPostgresError.ts"
import * as Process from "./EmbeddedPostgresProcess.ts"
import * as Settings from "./EmbeddedPostgresSettings.ts"
import { type EmbeddedPolicies, PostgresPolicies } from "./PostgresPolicies.ts"

/**
 * How a server is started and stopped.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The TCP port on 127.0.0.1. Defaults to the one of the last time, or a free one. */
  readonly port?: number | undefined
  /** Server settings by their names, over the defaults. */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** The longest wait until the server serves, crash recovery included. Defaults to one minute. */
  readonly startTimeout?: Duration.Input | undefined
  /** The longest wait for a fast shutdown, after which the server is made to quit at once. Defaults to 15 seconds. */
  readonly stopTimeout?: Duration.Input | undefined
}

/**
 * What passes when one tries again: somebody else is starting, stopping or using what is needed.
 *
 * @category errors
 * @since 0.1.0
 */
export class Busy {
  readonly _tag = "Busy"
  readonly message: string
  constructor(message: string) {
    this.message = message
  }
}

/**
 * Starts a server and hands it to `use`, and stops it again when that fails. It runs on when this process ends.
 *
 * @category constructors
 * @since 0.1.0
 */
export const launch = Effect.fnUntraced(function*<A, E, R>(
  cluster: Cluster.Cluster,
  options: Options,
  use: (running: Cluster.Running) => Effect.Effect<A, E, R>
) {
  const fs = yield* FileSystem.FileSystem
  const { embedded: policies } = yield* PostgresPolicies
  const port = options.port ?? (yield* choosePort(cluster))
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
    const ended = Effect.flatMap(launched.exit, () => Effect.flatMap(failed, Effect.fail))
    return yield* Effect.raceFirst(untilReady(cluster, launched.pid, policies, options.startTimeout), ended).pipe(
      Effect.flatMap(use),
      restore,
      Effect.onError(() => stop(launched.pid, options.stopTimeout))
    )
  }))
})

const untilReady = (
  cluster: Cluster.Cluster,
  pid: number,
  policies: EmbeddedPolicies,
  startTimeout: Duration.Input = policies.startTimeout
) =>
  Cluster.running(cluster.directory).pipe(
    Effect.repeat({
      until: (running) => Option.exists(running, (running) => running.ready && running.pid === pid),
      schedule: policies.processPoll
    }),
    Effect.flatMap((running) => Effect.fromOption(running)),
    Effect.mapError(() => new Busy("the server has gone again")),
    Effect.raceFirst(
      Effect.logWarning(`PostgreSQL (pid ${pid}) is not ready yet on ${cluster.directory}. See ${cluster.logFile}`)
        .pipe(
          Effect.delay(policies.readyReport),
          Effect.forever
        )
    ),
    Effect.timeoutOrElse({
      duration: startTimeout,
      orElse: () => Effect.fail(new Busy("the server that was started is not ready"))
    })
  )

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

/** Somebody else may take the port before the server does; the start is then tried again with another one. */
const choosePort = Effect.fnUntraced(function*(cluster: Cluster.Cluster) {
  const last = yield* Cluster.lastPort(cluster.directory)
  return yield* freePort(Option.getOrElse(last, () => 0)).pipe(
    Effect.catch(() => freePort(0)),
    Effect.mapError((cause) =>
      new EmbeddedPostgresError({ reason: "StartFailed", message: "No free TCP port on 127.0.0.1", cause })
    )
  )
})

/** The port itself when nobody listens there, or any free one for 0. */
const freePort = (port: number) =>
  Effect.scoped(NodeSocketServer.make({ host: "127.0.0.1", port })).pipe(
    Effect.map((server) => server.address._tag === "UnixPathAddress" ? 0 : server.address.port)
  )

const maximumLogSize = 16 * 1024 * 1024

const rotateLog = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const size = yield* fs.stat(file).pipe(Effect.map((info) => Number(info.size)), Effect.orElseSucceed(() => 0))
  if (size > maximumLogSize) yield* Effect.ignore(fs.rename(file, `${file}.1`))
})

/**
 * Fast shutdown, and when that takes too long an immediate one, from which the next start recovers.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stop = Effect.fnUntraced(function*(pid: number, stopTimeout?: Duration.Input) {
  const { embedded: policies } = yield* PostgresPolicies
  const gone = Process.isAlive(pid).pipe(
    Effect.repeat({ while: (alive) => alive, schedule: policies.processPoll })
  )
  const ends = (limit: Duration.Input) => Effect.map(Effect.timeoutOption(gone, limit), Option.isSome)
  yield* Process.signal(pid, "SIGINT")
  if (yield* ends(stopTimeout ?? policies.stopTimeout)) return
  yield* Effect.logWarning(`PostgreSQL (pid ${pid}) does not stop, so it is made to quit at once`)
  yield* Process.signal(pid, "SIGQUIT")
  if (yield* ends(policies.quitTimeout)) return
  yield* Effect.logError(`PostgreSQL (pid ${pid}) does not quit, so it is killed`)
  yield* Process.signal(pid, "SIGKILL")
})
