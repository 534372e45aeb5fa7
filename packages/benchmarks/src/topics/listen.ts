/**
 * A process of its own with as many groups as its argument says, each of which gets every message and does nothing with it. Says `listening`
 * when they have joined, and ends with its standard input. The database's URL comes in STRATA_BENCH_URL.
 */
// First of all: schemas are compiled from here on.
import "effect/schema/SchemaJITCompiler/enable"

import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import { Stdio } from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as StrataTopics from "./StrataTopics.ts"

Effect.gen(function*() {
  const topics = yield* StrataTopics.make(yield* Config.Redacted("STRATA_BENCH_URL"))
  for (let n = 0; n < Number(process.argv[2]); n++) yield* topics.listen(`fan-out ${n}`, () => undefined)
  yield* Console.log("listening")
  const { stdin } = yield* Stdio
  yield* Stream.runDrain(stdin)
}).pipe(
  Effect.scoped,
  // Standard output belongs to what is said, and the runtime would complain there.
  Effect.tapCause((cause) => Effect.logError(cause)),
  Effect.provide(NodeServices.layer),
  Effect.provideService(Logger.LogToStderr, true),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  NodeRuntime.runMain({ disableErrorReporting: true })
)
