/**
 * How the programs of this folder run: logs on standard error, one line for an error a person can act on, and the exit
 * codes 0 done, 1 failed, 2 usage, 130 interrupted. A program that checks something ends with 3 when it does not hold, one that has done a
 * part of its work with 5.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import { exitWith } from "./output.ts"

/** The command of a program, with all it needs but what Node gives. */
export type Program<Name extends string, Input> = Command.Command<
  Name,
  Input,
  object,
  { readonly message: string },
  NodeServices.NodeServices
>

/** Runs a command with the arguments of the process. */
export const run = <Name extends string, Input>(program: Program<Name, Input>): void =>
  NodeRuntime.runMain(runWith(program, process.argv.slice(2)))

/** Runs a command with these arguments. It does not fail: how it ended is told by `ExitCode`. */
export const runWith = <Name extends string, Input>(
  program: Program<Name, Input>,
  args: ReadonlyArray<string>
): Effect.Effect<void> =>
  Command.runWith(program, { version: "0.1.0" })(args).pipe(
    Effect.catch((error) =>
      CliError.isCliError(error) ? exitWith(2) : Effect.andThen(Console.error(error.message), exitWith(1))
    ),
    Effect.provide(NodeServices.layer),
    // Standard output belongs to the program's result.
    Effect.provideService(Logger.LogToStderr, true),
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )
