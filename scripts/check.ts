/**
 * `npm run check`: types, lint, format, the direction of imports, where retries stand and what was released, all at once.
 *
 * Prints a line for each check with its time, then all that the failed ones had to say. Ends with 1 when one failed.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

interface Check {
  readonly name: string
  readonly command: readonly [program: string, ...args: ReadonlyArray<string>]
  /** What mends it, when something can. */
  readonly mend?: string
}

const checks: ReadonlyArray<Check> = [
  { name: "types", command: ["tsc", "-b"] },
  { name: "lint", command: ["oxlint"], mend: "npm run fix" },
  { name: "format", command: ["dprint", "check", "--list-different"], mend: "npm run fix" },
  { name: "imports", command: ["node", "scripts/check-dependencies.ts"] },
  { name: "policies", command: ["node", "scripts/check-policies.ts"] },
  { name: "migrations", command: ["node", "scripts/check-migrations.ts"] },
  { name: "lockfile", command: ["node", "scripts/lockfile.ts", "--check"], mend: "npm run lockfile" }
]

/** Said already, line by line. */
class ChecksFailed extends Schema.TaggedError<ChecksFailed>()("ChecksFailed", {}) {
  override readonly [Runtime.errorReported] = false
}

const seconds = (duration: Duration.Duration) => `${Duration.toSeconds(duration).toFixed(1)} s`

const run = Effect.fnUntraced(
  function*(check: Check, root: string) {
    const [program, ...args] = check.command
    const handle = yield* ChildProcess.make(program, args, {
      cwd: root,
      stdin: "ignore",
      env: { NO_COLOR: "1" },
      extendEnv: true
    })
    const output = yield* Stream.mkString(Stream.decodeText(handle.all))
    return { output, ok: (yield* handle.exitCode) === 0 }
  },
  Effect.scoped,
  Effect.timed
)

const main = Effect.gen(function*() {
  const path = yield* Path.Path
  const root = path.join(import.meta.dirname, "..")
  const width = Math.max(...checks.map((check) => check.name.length))

  const [total, results] = yield* Effect.timed(Effect.forEach(
    checks,
    Effect.fnUntraced(function*(check) {
      const [duration, { ok, output }] = yield* run(check, root)
      yield* Console.log(`${ok ? "✓" : "✗"} ${check.name.padEnd(width)}  ${seconds(duration)}`)
      return { check, ok, output }
    }),
    { concurrency: "unbounded" }
  ))

  const failed = results.filter((result) => !result.ok)
  for (const { check, output } of failed) {
    const hint = check.mend === undefined ? "" : ` (${check.mend} mends what can be mended)`
    yield* Console.log(`\n── ${check.name}: ${check.command.join(" ")}${hint}\n${output.trimEnd()}`)
  }
  yield* Console.log(
    failed.length === 0
      ? `All ${checks.length} checks passed in ${seconds(total)}`
      : `\n${failed.length} of ${checks.length} checks failed: ${failed.map(({ check }) => check.name).join(", ")}`
  )
  if (failed.length > 0) return yield* new ChecksFailed()
})

main.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
