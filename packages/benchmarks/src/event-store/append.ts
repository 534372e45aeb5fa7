/**
 * A process of its own that appends to one system: argument one is an `Order` as JSON, and it prints the `Samples` as one line of JSON.
 * Before and after what is timed, it says so and waits for a line on its standard input. The database's URL comes in STRATA_BENCH_URL.
 */
// First of all: schemas are compiled from here on.
import "effect/schema/SchemaJITCompiler/enable"

import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import type * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import { Stdio } from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Appender from "./Appender.ts"
import * as EmmettSystem from "./EmmettSystem.ts"
import * as Lanes from "./Lanes.ts"
import * as MessageDbSystem from "./MessageDbSystem.ts"
import * as PlainSystem from "./PlainSystem.ts"
import * as StrataSystem from "./StrataSystem.ts"

const open = (order: Appender.Order, url: Redacted.Redacted) => {
  const options = { ...order, facts: 1 }
  switch (order.system) {
    case "Strata":
      return Effect.map(StrataSystem.make(url), (strata) => Lanes.append(strata, options))
    case "Emmett":
      return Effect.map(EmmettSystem.make(url), (emmett) => Lanes.append(emmett, options))
    case "message-db":
      return Effect.map(MessageDbSystem.make(url), (messageDb) => Lanes.append(messageDb, options))
    case "plain SQL, single inserts":
      return Effect.map(PlainSystem.make(url), (plain) => Lanes.plainInserts(plain, order))
    case "plain SQL, batched":
      return Effect.map(PlainSystem.make(url), (plain) => Lanes.plainBatches(plain, order))
  }
}

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Appender.Order))
const encode = Schema.encodeEffect(Schema.fromJsonString(Appender.Samples))

Effect.gen(function*() {
  const order = yield* decode(process.argv[2])
  const lane = yield* open(order, yield* Config.Redacted("STRATA_BENCH_URL"))
  // Each chunk is a line, since one is sent only when it is waited for. Without anybody to tell, it goes on and ends.
  const told = yield* Effect.flatMap(Stdio, ({ stdin }) => Stream.toPull(stdin))
  const stop = (at: string) => Effect.andThen(Console.log(at), Effect.ignore(told))

  yield* lane.run(order.warm, (timed) => timed)
  yield* stop(Appender.stops.warm)
  const samples = yield* lane.run(order.seconds, (timed) => Effect.tap(timed, stop(Appender.stops.appended)))
  yield* Console.log(yield* encode(samples))
}).pipe(
  Effect.scoped,
  // Standard output belongs to what is said, and the runtime would complain there.
  Effect.tapCause((cause) => Effect.logError(cause)),
  Effect.provide(NodeServices.layer),
  Effect.provideService(Logger.LogToStderr, true),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  NodeRuntime.runMain({ disableErrorReporting: true })
)
