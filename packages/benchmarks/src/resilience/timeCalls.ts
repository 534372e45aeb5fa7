/**
 * A process of its own that calls one system through one of its parts: argument one is an `Order` as JSON, and it prints the `Timing`
 * as one line of JSON. In one process with the others, each would run by what the compiler learnt of all of them.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { BenchmarkError } from "../Suite.ts"
import * as Calls from "./Calls.ts"
import * as CallSystems from "./CallSystems.ts"
import * as Loop from "./Loop.ts"

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Calls.Order))
const encode = Schema.encodeEffect(Schema.fromJsonString(Loop.Timing))

decode(process.argv[2]).pipe(
  Effect.flatMap(Effect.fnUntraced(function*({ part, seconds, system, warm }) {
    let calls = 0
    const call = (yield* CallSystems.open(system, () => ++calls))[part]
    if (call === undefined) return yield* new BenchmarkError({ message: `${system} has no ${part}` })
    yield* Loop.run(call, warm)
    calls = 0
    const timing = yield* Loop.run(call, seconds)
    if (calls === timing.calls) return timing
    return yield* new BenchmarkError({ message: `${calls} of ${timing.calls} calls were made` })
  }, Effect.scoped)),
  Effect.flatMap(encode),
  Effect.flatMap((line) => Console.log(line)),
  NodeRuntime.runMain
)
