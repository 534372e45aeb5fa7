/**
 * A process of its own that works on a database, and says line by line how far it is.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Queue from "effect/Queue"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import { BenchmarkError } from "./Suite.ts"

/**
 * Starts a program for the time of the scope, with one argument, and the database's URL in `STRATA_BENCH_URL`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.fnUntraced(function*(program: URL, url: Redacted.Redacted, argument: string) {
  const spawner = yield* ChildProcessSpawner
  const told = yield* Queue.unbounded<string, Cause.Done>()
  const child = yield* spawner.spawn(
    ChildProcess.make(process.execPath, [...process.execArgv, fileURLToPath(program), argument], {
      env: { STRATA_BENCH_URL: url },
      extendEnv: true,
      stdin: Stream.encodeText(Stream.fromQueue(told)),
      forceKillAfter: "5 seconds"
    })
  )
  const complaints = yield* Effect.forkScoped(Stream.mkString(Stream.decodeText(child.stderr)))
  const lines = yield* child.stdout.pipe(
    Stream.decodeText,
    Stream.splitLines,
    Stream.toQueue({ capacity: "unbounded" })
  )

  // Fails, with what it printed, when it ended.
  const line = Queue.take(lines).pipe(
    Effect.catch(() =>
      Effect.flatMap(Fiber.join(complaints), (printed) => new BenchmarkError({ message: `it ended: ${printed}` }))
    )
  )
  return {
    line,
    until: (stop: string) =>
      Effect.filterOrFail(
        line,
        (said) => said === stop,
        (said) => new BenchmarkError({ message: `it said ${said} instead of ${stop}` })
      ),
    goOn: Queue.offer(told, "go on\n"),
    // By itself, so that its connections are closed before its database is dropped.
    ended: Effect.andThen(Queue.end(told), child.exitCode)
  }
})

/**
 * A process of its own.
 *
 * - `line`: the next line it prints.
 * - `until`: waits for a line, and fails on another one.
 * - `goOn`: gives it a line.
 * - `ended`: ends its input, and waits until it ends.
 *
 * @category models
 * @since 0.1.0
 */
export type Apart = Effect.Success<ReturnType<typeof start>>
