/**
 * Appends of one fact each, by one system in a process of its own.
 *
 * **Details**
 *
 * In one process with the others, the slowest appends of a system would tell of the garbage that the others left. Each run starts a
 * process on a new database, and it warms up before it is timed: the first two seconds of a process are those of its compiler.
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
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import { BenchmarkError, failure, type Lane } from "../Suite.ts"
import type * as Server from "./Server.ts"

/**
 * What a process is to append.
 *
 * - `work`: the row.
 * - `callers`: each appends one fact at a time; where they are batched, the size of a batch.
 * - `latency`: also give its percentiles.
 * - `warm` and `seconds`: how long it warms up, and how long it is timed.
 *
 * @category models
 * @since 0.1.0
 */
export const Order = Schema.Struct({
  system: Schema.Literals(["Strata", "Emmett", "message-db", "plain SQL, single inserts", "plain SQL, batched"]),
  work: Schema.String,
  callers: Schema.Int,
  latency: Schema.Boolean,
  warm: Schema.Finite,
  seconds: Schema.Finite
})
export type Order = typeof Order.Type

/**
 * What such a process says in the end.
 *
 * @category models
 * @since 0.1.0
 */
export const Samples = Schema.Array(Schema.Struct({
  work: Schema.String,
  unit: Schema.Literals(["ops/s", "ms", "bytes"]),
  value: Schema.Finite
}))

/**
 * What it says before that, each time until it is told to go on: that it is warm, and that the timed appends are done.
 *
 * @category constants
 * @since 0.1.0
 */
export const stops = { warm: "warm", appended: "appended" } as const

/** Seconds until the compiler knows what is called. */
const warm = 2

/**
 * Makes lanes whose every run is that of a process of its own, on a new database.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(server: Server.Server) {
  const services = yield* Effect.context<ChildProcessSpawner>()
  let databases = 0
  return (options: Omit<Order, "warm" | "seconds">): Lane => ({
    system: options.system,
    run: Effect.fnUntraced(
      function*(seconds, watch) {
        const url = yield* server.temporaryDatabase(`append_${++databases}`)
        const appender = yield* start(url, { ...options, warm, seconds })
        yield* appender.until(stops.warm)
        yield* server.checkpoint
        yield* watch(Effect.andThen(appender.goOn, appender.until(stops.appended)))
        yield* appender.goOn
        const samples = yield* decode(yield* appender.line)
        yield* appender.ended
        return samples
      },
      Effect.scoped,
      Effect.provide(services),
      Effect.mapError(failure(`${options.system} in a process of its own, ${options.work}`))
    )
  })
})

/** Starts a process that appends, for the time of the scope. */
const start = Effect.fnUntraced(function*(url: Redacted.Redacted, order: Order) {
  const spawner = yield* ChildProcessSpawner
  const told = yield* Queue.unbounded<string, Cause.Done>()
  const program = fileURLToPath(new URL("./append.ts", import.meta.url))
  const child = yield* spawner.spawn(
    ChildProcess.make(process.execPath, [...process.execArgv, program, yield* encode(order)], {
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

const encode = Schema.encodeEffect(Schema.fromJsonString(Order))
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Samples))
