/** Runs migrations when told to, and prints how many files it applied. Arguments: a directory. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { pathToFileURL } from "node:url"

const directory = pathToFileURL(`${process.argv[2] ?? ""}/`)

const program = Effect.gen(function*() {
  const stdio = yield* Stdio.Stdio
  yield* Console.log("ready")
  yield* stdio.stdin.pipe(Stream.take(1), Stream.runDrain)
  const report = yield* Migrations.run([Migrations.make({ name: "shop", directory })])
  yield* Console.log(`applied ${report.applied.length}`)
})

NodeRuntime.runMain(
  Effect.provide(program, Layer.mergeAll(Postgres.layerConfig, NodeServices.layer, Logger.layer([])))
)
