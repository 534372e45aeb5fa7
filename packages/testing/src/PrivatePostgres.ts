/**
 * A PostgreSQL server of a test's own, to be killed, stopped and started again, or set differently.
 *
 * **When to use**
 *
 * Use only where the shared server of `PostgresTest` would be harmed; this one takes about half a second to make. It keeps
 * its port over restarts, so clients find it again.
 *
 * **Example** (A crash)
 *
 * ```ts
 * import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const server = yield* PrivatePostgres.make({ settings: { max_connections: "20" } })
 *   yield* server.kill9
 *   yield* server.start()
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
import * as Process from "@strata/postgres/EmbeddedPostgresProcess"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import type * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Databases from "./internal/databases.ts"
import { fewProcesses } from "./internal/fewProcesses.ts"
import { PostgresTest } from "./PostgresTest.ts"

/**
 * How the server is made.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Server settings by their names. */
  readonly settings?: Readonly<Record<string, string>> | undefined
}

/**
 * A private server, running unless it was killed or stopped.
 *
 * @category models
 * @since 0.1.0
 */
export interface PrivatePostgres {
  /** A superuser's access to the database `postgres`; the same over restarts. */
  readonly url: Redacted.Redacted
  readonly port: number
  readonly dataDirectory: string
  /** The process id of the postmaster. */
  readonly pid: Effect.Effect<number>
  /** Kills the postmaster with SIGKILL and waits until it is gone. Its backends notice and go. */
  readonly kill9: Effect.Effect<void>
  /** Kills one backend with SIGKILL, upon which the server resets all connections and recovers. */
  readonly kill9Backend: (pid: number) => Effect.Effect<void>
  /** Shuts down in order. */
  readonly stop: Effect.Effect<void>
  /** Starts it again after `kill9` or `stop`, with other settings if given. */
  readonly start: (
    settings?: Readonly<Record<string, string>>
  ) => Effect.Effect<void, EmbeddedPostgres.EmbeddedPostgresError>
}

/**
 * Makes a cluster and starts its server; both go with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fn("PrivatePostgres.make")(function*(
  options: Options = {}
): Effect.fn.Return<
  PrivatePostgres,
  EmbeddedPostgres.EmbeddedPostgresError | PlatformError.PlatformError,
  FileSystem.FileSystem | Path.Path | Scope.Scope
> {
  const fs = yield* FileSystem.FileSystem
  const services = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
  const run = yield* Databases.run
  const directory = yield* fs.makeTempDirectoryScoped({ directory: run.directory, prefix: "private-" })
  // The server may run as another user, which has to pass but not to look.
  yield* fs.chmod(directory, 0o711)
  yield* Effect.orDie(PostgresTest.initialise(directory))

  const open = Effect.fnUntraced(function*(port: number | undefined, settings: Options["settings"]) {
    const scope = yield* Scope.make()
    const server = yield* EmbeddedPostgres.start({
      directory,
      port,
      // The test alone decides when the server runs.
      restart: false,
      initialSync: false,
      stopTimeout: "5 seconds",
      settings: { shared_buffers: "32MB", ...fewProcesses, ...settings }
    }).pipe(
      Scope.provide(scope),
      Effect.provide(services),
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
    return { scope, server }
  })
  const current = yield* Ref.make(yield* open(undefined, options.settings))
  const { dataDirectory, port, url } = (yield* Ref.get(current)).server
  const stop = Effect.flatMap(Ref.get(current), ({ scope }) => Scope.close(scope, Exit.void))
  yield* Effect.addFinalizer(() => stop)

  return {
    url,
    port,
    dataDirectory,
    pid: Effect.map(Ref.get(current), ({ server }) => server.pid),
    kill9: Ref.get(current).pipe(
      Effect.flatMap(({ server }) => kill9(server.pid)),
      Effect.andThen(stop),
      Effect.provide(services)
    ),
    kill9Backend: (pid) => Effect.provide(kill9(pid), services),
    stop,
    start: (settings) =>
      open(port, settings ?? options.settings).pipe(
        Effect.flatMap((opened) => Ref.set(current, opened)),
        Effect.uninterruptible
      )
  }
})

const kill9 = Effect.fnUntraced(function*(pid: number) {
  yield* Process.signal(pid, "SIGKILL")
  yield* Process.isAlive(pid).pipe(
    Effect.repeat({ while: (alive) => alive, schedule: Schedule.spaced("5 millis") })
  )
})
