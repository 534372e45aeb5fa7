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
import * as Effect from "effect/Effect"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Apart from "../Apart.ts"
import { failure, type Lane } from "../Suite.ts"
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

const program = new URL("./append.ts", import.meta.url)

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
        const appender = yield* Apart.start(program, url, yield* encode({ ...options, warm, seconds }))
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

const encode = Schema.encodeEffect(Schema.fromJsonString(Order))
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Samples))
