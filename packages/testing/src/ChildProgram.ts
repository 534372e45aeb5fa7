/**
 * A TypeScript program in a Node process of its own, for tests about several processes and about being killed.
 *
 * **Details**
 *
 * Lines are the protocol: what the program prints arrives as `lines`, and `send` writes one line to its standard input.
 * Within a run of `vitestGlobalSetup` a program is bundled into one file first, which starts in a third of the time. Standard error goes
 * to the test's. The process is killed with the scope. A program should end when its standard input
 * does, so that it does not outlive a killed test.
 *
 * **Example** (Waiting until it is ready)
 *
 * ```ts
 * import * as ChildProgram from "@strata/testing/ChildProgram"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const child = yield* ChildProgram.start(new URL("./writer.ts", import.meta.url))
 *   yield* child.waitFor((line) => line === "ready")
 *   yield* child.kill9
 * })
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as PlatformError from "effect/PlatformError"
import * as ChildProcess from "effect/process/ChildProcess"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Queue from "effect/Queue"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import * as Bundles from "./internal/bundles.ts"

/**
 * The program ended before it printed what was waited for.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChildEnded extends Schema.TaggedError<ChildEnded>("@strata/testing/ChildEnded")("ChildEnded", {
  program: Schema.String
}) {
  override get message(): string {
    return `${this.program} ended before it printed the line that was waited for`
  }
}

/**
 * How a program is run.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly args?: ReadonlyArray<string> | undefined
  /** Added to the environment of the test. */
  readonly env?: Readonly<Record<string, string | Redacted.Redacted | undefined>> | undefined
  /** Where it runs. Defaults to the directory of the test. */
  readonly cwd?: string | undefined
}

/**
 * What a program printed until its end, and its exit code.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ended {
  readonly stdout: string
  readonly stderr: string
  readonly exitCode: number
}

/**
 * A started program.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildProgram {
  readonly pid: number
  /** Lines printed and not read yet; ends with the program. Each line goes to one reader. */
  readonly lines: Stream.Stream<string>
  /** Reads lines until one fits, and returns it. */
  readonly waitFor: (predicate: (line: string) => boolean) => Effect.Effect<string, ChildEnded>
  readonly send: (line: string) => Effect.Effect<void>
  /** Ends its standard input. */
  readonly end: Effect.Effect<void>
  /** The exit code; 128 and the signal's number when a signal ended it. */
  readonly exitCode: Effect.Effect<number, PlatformError.PlatformError>
  /** SIGKILL; returns when the process is gone. */
  readonly kill9: Effect.Effect<void>
  /** SIGTERM; returns at once. */
  readonly terminate: Effect.Effect<void>
  /** SIGSTOP: the process stands still until `resume`. */
  readonly pause: Effect.Effect<void>
  /** SIGCONT. */
  readonly resume: Effect.Effect<void>
}

/**
 * Starts a program, given by its source, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.fnUntraced(function*(
  program: URL,
  options: Options = {}
): Effect.fn.Return<ChildProgram, PlatformError.PlatformError, ChildProcessSpawner | Scope.Scope> {
  const input = yield* Queue.unbounded<string, Cause.Done>()
  const output = yield* Queue.unbounded<string, Cause.Done>()
  const child = yield* spawn(program, options, {
    stdin: { stream: Stream.encodeText(Stream.map(Stream.fromQueue(input), (line) => `${line}\n`)) },
    stderr: "inherit",
    killSignal: "SIGKILL"
  })
  yield* child.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => Queue.offer(output, line)),
    Effect.ignore,
    Effect.andThen(Queue.end(output)),
    Effect.forkScoped
  )
  const lines = Stream.fromQueue(output)
  const signal = (name: NodeJS.Signals) => Effect.sync(() => void process.kill(child.pid, name))
  return {
    pid: child.pid,
    lines,
    waitFor: (predicate) =>
      // One line at a time, so that none is taken that nobody asked for.
      Queue.take(output).pipe(
        Effect.repeat({ until: predicate }),
        Effect.mapError(() => new ChildEnded({ program: fileURLToPath(program) }))
      ),
    send: (line) => Effect.asVoid(Queue.offer(input, line)),
    end: Effect.asVoid(Queue.end(input)),
    exitCode: child.exitCode,
    kill9: Effect.andThen(signal("SIGKILL"), Effect.ignore(child.exitCode)),
    terminate: signal("SIGTERM"),
    pause: signal("SIGSTOP"),
    resume: signal("SIGCONT")
  }
})

/**
 * Runs a program, given by its source, to its end.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*(program: URL, options: Options = {}) {
  const child = yield* spawn(program, options, { stdin: "ignore" })
  const text = (stream: typeof child.stdout) => Stream.mkString(Stream.decodeText(stream))
  const [stdout, stderr, exitCode] = yield* Effect.all([text(child.stdout), text(child.stderr), child.exitCode], {
    concurrency: "unbounded"
  })
  return { stdout, stderr, exitCode: Number(exitCode) } satisfies Ended
}, Effect.scoped)

const spawn = Effect.fnUntraced(function*(
  program: URL,
  { args = [], cwd, env }: Options,
  options: ChildProcess.CommandOptions
) {
  const file = yield* Bundles.of(fileURLToPath(program))
  return yield* ChildProcess.make(process.execPath, ["--conditions=strata:source", file, ...args], {
    ...options,
    env: { ...env },
    extendEnv: true,
    cwd
  })
})
