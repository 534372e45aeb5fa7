/**
 * `call`: what it costs to call something through each part, and through all of them.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import { failure, type Lane, type Work } from "../Suite.ts"
import * as CallSystems from "./CallSystems.ts"
import * as Loop from "./Loop.ts"
import * as Parts from "./Parts.ts"

/**
 * What a process is to call, and for how long: first to warm up, then timed.
 *
 * @category models
 * @since 0.1.0
 */
export const Order = Schema.Struct({
  system: Schema.Literals(CallSystems.all),
  part: Schema.Literals(Parts.all),
  warm: Schema.Finite,
  seconds: Schema.Finite
})
export type Order = typeof Order.Type

/** Seconds until the compiler knows what is called. */
const warm = 1

/**
 * One caller of a call that succeeds at once, in a process of its own.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.map(Effect.context<ChildProcessSpawner>(), (services): Work => ({
  name: "call",
  warmsUp: true,
  lanes: Effect.gen(function*() {
    const systems = yield* Effect.forEach(
      CallSystems.all,
      (system) => Effect.map(Effect.scoped(CallSystems.open(system, () => 0)), (calls) => ({ calls, system }))
    )
    return Parts.all.flatMap((part) =>
      systems.filter(({ calls }) => part in calls).map(({ system }): Lane => ({
        system,
        run: Effect.fnUntraced(function*(seconds, watch) {
          const timing = yield* watch(Effect.provide(time({ system, part, warm, seconds }), services))
          return [{ work: Parts.workOf(part), unit: "ops/s", value: timing.calls / timing.seconds }]
        })
      }))
    )
  })
}))

const time = Effect.fnUntraced(function*(order: Order) {
  const spawner = yield* ChildProcessSpawner
  const program = fileURLToPath(new URL("./timeCalls.ts", import.meta.url))
  const [line = ""] = yield* spawner.lines(
    ChildProcess.make(process.execPath, [...process.execArgv, program, yield* encode(order)], { stderr: "inherit" })
  )
  return yield* decode(line)
}, Effect.mapError(failure("Calling")))

const encode = Schema.encodeEffect(Schema.fromJsonString(Order))
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Loop.Timing))
