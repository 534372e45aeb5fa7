/** Uses the embedded server of a directory until standard input ends. Arguments: the directory. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { smallServer } from "../smallServer.ts"

const use = Effect.scoped(Effect.gen(function*() {
  const server = yield* EmbeddedPostgres.start({
    directory: process.argv[2],
    initialSync: false,
    settings: smallServer
  })
  yield* Console.log(`pid ${server.pid}`)
  const stdio = yield* Stdio.Stdio
  yield* Stream.runDrain(stdio.stdin)
}))

NodeRuntime.runMain(Effect.provide(Effect.andThen(use, Console.log("left")), NodeServices.layer))
