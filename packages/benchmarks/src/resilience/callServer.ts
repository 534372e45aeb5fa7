/**
 * A process of its own that calls the HTTP server: argument one is an `Order` as JSON, and it prints the `Result` as one line of JSON.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Caller from "./Caller.ts"
import * as Load from "./Load.ts"

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Load.Order))
const encode = Schema.encodeEffect(Schema.fromJsonString(Load.Result))

decode(process.argv[2]).pipe(
  Effect.flatMap(Caller.run),
  Effect.flatMap(encode),
  Effect.flatMap((line) => Console.log(line)),
  NodeRuntime.runMain
)
