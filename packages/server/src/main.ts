/**
 * The server's process: `node packages/server/src/main.ts`. SIGTERM and SIGINT stop it in order with exit code 0, another
 * one more than a second later at once; a stop that takes far longer than it may ends with 1. When it cannot start it says why in one line, with exit code 1.
 *
 * @since 0.1.0
 */
// First of all: schemas are compiled from here on.
import "effect/schema/SchemaJITCompiler/enable"

import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { ServeError } from "effect/http/HttpServerError"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import NodeProcess from "node:process"
import * as Server from "./Server.ts"
import { explain, ServerConfig } from "./ServerConfig.ts"
import * as Telemetry from "./Telemetry.ts"

/** 128 and the number of SIGINT, as a shell would have it. */
const interrupted = 130

/** Signals closer together than this are one: a terminal or `timeout` may send it to the group and to the process. */
const oneSignal = 1000

/** Waits for the given number of signals. */
const signals = (expected: number) =>
  Effect.flatMap(Clock.Clock, (clock) =>
    Effect.callback<void>((resume) => {
      let seen = 0
      let last = Number.NEGATIVE_INFINITY
      const count = () => {
        const now = clock.currentTimeMillisUnsafe()
        if (now - last < oneSignal) return
        last = now
        seen += 1
        if (seen === expected) resume(Effect.void)
      }
      NodeProcess.on("SIGTERM", count)
      NodeProcess.on("SIGINT", count)
    }))

const exit = (code: number) => Effect.sync(() => NodeProcess.exit(code))

/** Outlives the program, which the first signal interrupts. */
const watch = <E, R>(effect: Effect.Effect<void, E, R>) => Effect.forkDetach(effect, { startImmediately: true })

const exitAtOnceOnSecondSignal = watch(Effect.andThen(signals(2), exit(interrupted)))

/** Releasing the database takes moments; a connection that answers nothing any more could hold it up for ever. */
const releaseTimeout = Duration.seconds(10)

const exitWhenStopIsStuck = Effect.flatMap(ServerConfig, ({ shutdownTimeout }) =>
  watch(Effect.gen(function*() {
    yield* signals(1)
    yield* Console.error("Did not stop in time: the database was not released in order").pipe(
      Pace.after(Duration.sum(shutdownTimeout, releaseTimeout))
    )
    return yield* exit(1)
  })))

/** Expected failures carry a message for people; anything else is a defect and is shown whole. */
const report = (cause: Cause.Cause<unknown>) => {
  const error = Cause.squash(cause)
  if (error instanceof Config.ConfigError) return Console.error(explain(error).message)
  if (error instanceof ServeError) return Console.error(`Cannot start: ${String(error.cause)}. See HOST and PORT.`)
  const isExpected = cause.reasons.some(Cause.isFailReason) && Predicate.hasProperty(error, "message")
  return Console.error(isExpected ? String(error.message).replaceAll(/\s+/g, " ") : Cause.pretty(cause))
}

const program = Effect.all([exitAtOnceOnSecondSignal, exitWhenStopIsStuck], { discard: true }).pipe(
  Effect.andThen(Layer.launch(Server.layer)),
  Effect.provide(Telemetry.layer.pipe(Layer.provideMerge(ServerConfig.layer))),
  Effect.tapCause((cause) => Cause.hasInterruptsOnly(cause) ? Effect.void : report(cause))
)

NodeRuntime.runMain(program, {
  disableErrorReporting: true,
  teardown: (exit, onExit) => onExit(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
})
