import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"

/** Runs a program of this repository to its end: what it printed, and its exit code. */
export const runProgram = (program: string, url: Redacted.Redacted, ...args: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const file = fileURLToPath(new URL(`../${program}.ts`, import.meta.url))
    const child = yield* ChildProcess.make(process.execPath, ["--conditions=strata:source", file, ...args], {
      env: { DATABASE_URL: Redacted.value(url) },
      extendEnv: true,
      stdin: "ignore"
    })
    const text = (stream: typeof child.stdout) => Stream.mkString(Stream.decodeText(stream))
    const [stdout, stderr, exitCode] = yield* Effect.all([text(child.stdout), text(child.stderr), child.exitCode], {
      concurrency: "unbounded"
    })
    return { stdout, stderr, exitCode: Number(exitCode) }
  }).pipe(Effect.scoped)
