/**
 * A process of its own that reads a log of Strata's by a subscription and prints the bytes it holds, one number a line, after
 * every fiftieth batch. What is no longer held is collected first: how much of that lies about is up to V8. Run it with
 * `--expose-gc`. Arguments: the last position. The database's URL comes in STRATA_BENCH_URL.
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
  let batches = 0
  yield* store.catchUp(BigInt(process.argv[2] ?? "0"), () => {
    if (++batches % 50 > 0) return
    globalThis.gc!()
    const { external, heapUsed } = process.memoryUsage()
    samples.push(heapUsed + external)
  })
  yield* Effect.forEach(samples, (sample) => Console.log(sample), { discard: true })
})

program.pipe(
  Effect.scoped,
  Effect.provideService(Logger.LogToStderr, true),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  NodeRuntime.runMain
)
