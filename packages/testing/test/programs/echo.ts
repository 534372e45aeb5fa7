/** Prints its arguments and one variable, then every line it is sent, and at last a goodbye. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"

const program = Effect.gen(function*() {
  yield* Console.log(`${process.argv.slice(2).join(" ")} ${yield* Config.String("GREETING")}`)
  const stdio = yield* Stdio.Stdio
  yield* stdio.stdin.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => Console.log(`echo ${line}`))
  )
  yield* Console.log("goodbye")
})

NodeRuntime.runMain(Effect.provide(program, NodeServices.layer))
