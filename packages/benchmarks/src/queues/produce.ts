/**
 * A process of its own that sends messages: argument one is an `Order` as JSON. Says so in the end. The database's URL comes in STRATA_BENCH_URL.
 */
// First of all: schemas are compiled from here on.
import "effect/schema/SchemaJITCompiler/enable"

import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import type * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as GraphileWorker from "./GraphileWorker.ts"
import * as PgBossQueue from "./PgBossQueue.ts"
import * as Producer from "./Producer.ts"
import * as StrataQueue from "./StrataQueue.ts"

const open = (system: Producer.Order["system"], url: Redacted.Redacted) => {
  switch (system) {
    case "Strata":
      return Effect.map(StrataQueue.make(url), ({ system }) => system)
    case "graphile-worker":
      return Effect.map(GraphileWorker.make(url), ({ system }) => system)
    case "pg-boss":
      return Effect.map(PgBossQueue.make(url), ({ notifying }) => notifying)
  }
}

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Producer.Order))

Effect.gen(function*() {
  const order = yield* decode(process.argv[2])
  const system = yield* open(order.system, yield* Config.Redacted("STRATA_BENCH_URL"))
  yield* Producer.produce(system, order)
  yield* Console.log(Producer.allSent)
}).pipe(
  Effect.scoped,
  Effect.provideService(Logger.LogToStderr, true),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  NodeRuntime.runMain
)
