/**
 * A process of its own that reads a log of Strata's by a subscription and prints its resident memory in bytes, one number a
 * line, after every batch. Arguments: the last position. The database's URL comes in STRATA_BENCH_URL.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as StrataSystem from "./StrataSystem.ts"

const program = Effect.gen(function*() {
  const store = yield* Effect.flatMap(Config.Redacted("STRATA_BENCH_URL"), StrataSystem.make)
  const samples: Array<number> = []
  yield* store.catchUp(BigInt(process.argv[2] ?? "0"), () => samples.push(process.memoryUsage.rss()))
  yield* Effect.forEach(samples, (sample) => Console.log(sample), { discard: true })
})

program.pipe(
  Effect.scoped,
  Effect.provideService(Logger.LogToStderr, true),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  NodeRuntime.runMain
)
