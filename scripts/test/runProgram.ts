import * as ConfigProvider from "effect/ConfigProvider"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { ExitCode } from "../output.ts"
import { type Program, runWith } from "../program.ts"

/** Runs a program of this repository in this process to its end: what it printed, and its exit code. */
export const runProgram = Effect.fnUntraced(function*<Name extends string, Input>(
  program: Program<Name, Input>,
  url: Redacted.Redacted,
  ...args: ReadonlyArray<string>
) {
  let [stdout, stderr, exitCode] = ["", "", 0]
  const console: Console.Console = {
    ...globalThis.console,
    log: (...texts) => {
      stdout += `${texts.join(" ")}\n`
    },
    error: (...texts) => {
      stderr += `${texts.join(" ")}\n`
    }
  }
  yield* runWith(program, args).pipe(
    Effect.provideService(Console.Console, console),
    Effect.provideService(ExitCode, (code) => {
      exitCode = code
    }),
    Effect.provideService(
      ConfigProvider.ConfigProvider,
      ConfigProvider.fromEnv({ env: { DATABASE_URL: Redacted.value(url), STRATA_DATABASE_POOL: "4" } })
    )
  )
  return { stdout, stderr, exitCode }
})

/** Starts a program as a process of its own, which ends with the scope. */
export const startProgram = (file: URL, url: Redacted.Redacted, ...args: ReadonlyArray<string>) =>
  ChildProcess.make(process.execPath, ["--conditions=strata:source", file.pathname, ...args], {
    env: { DATABASE_URL: Redacted.value(url) },
    extendEnv: true,
    stdin: "ignore"
  })

/** What a process printed, and its exit code. */
export const ending = Effect.fnUntraced(function*(child: Effect.Success<ReturnType<typeof startProgram>>) {
  const text = (stream: typeof child.stdout) => Stream.mkString(Stream.decodeText(stream))
  const [stdout, stderr, exitCode] = yield* Effect.all([text(child.stdout), text(child.stderr), child.exitCode], {
    concurrency: "unbounded"
  })
  return { stdout, stderr, exitCode: Number(exitCode) }
})
