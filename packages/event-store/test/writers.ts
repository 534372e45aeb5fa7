/** Writers in several processes, and what must be true of the log they leave. */
import { deepStrictEqual } from "@effect/vitest/utils"
import * as ChildProgram from "@strata/testing/ChildProgram"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type Attempt, AttemptLine } from "./Attempt.ts"
import { assertInOrder, explains, type Log } from "./LogModel.ts"
import { LookLine } from "./Look.ts"

const decode = Schema.decodeEffect(AttemptLine)
const decodeLook = Schema.decodeEffect(LookLine)
const show = Schema.encodeSync(AttemptLine)

/** Lets programs that print `ready` go at the same moment, and gives the lines of each up to `done`. */
export const runTogether = Effect.fnUntraced(function*(children: ReadonlyArray<ChildProgram.ChildProgram>) {
  yield* Effect.forEach(children, (child) => child.waitFor((line) => line === "ready"), { discard: true })
  yield* Effect.forEach(children, (child) => child.send("go"), { discard: true })
  return yield* Effect.forEach(
    children,
    (child) => child.lines.pipe(Stream.takeUntil((line) => line === "done"), Stream.runCollect),
    { concurrency: "unbounded" }
  )
})

/**
 * Lets 8 writers of 2 tenants in 2 processes ask a store for this and that, each so many times, and look at it after each. Gives what came of
 * it and what they saw.
 */
export const runWriters = Effect.fnUntraced(function*(options: {
  readonly store: string
  readonly seed: string
  readonly url: Redacted.Redacted
  readonly attempts: number
}) {
  const children = yield* Effect.forEach(
    [1, 5],
    (first) =>
      ChildProgram.start(new URL("./programs/randomWriters.ts", import.meta.url), {
        args: [options.store, options.seed, `${first}`, "4", `${options.attempts}`],
        env: { DATABASE_URL: options.url }
      }),
    { concurrency: "unbounded" }
  )
  const lines = (yield* runTogether(children)).flat()
  const said = <A, E>(word: string, read: (json: string) => Effect.Effect<A, E>) =>
    Effect.forEach(lines.filter((line) => line.startsWith(word)), (line) => read(line.slice(word.length)))
  return { attempts: yield* said("told ", decode), looks: yield* said("saw ", decodeLook) }
})

/** The log is in order, explains every answer, and holds what was acknowledged and nothing else. */
export const assertExplained = (log: Log, attempts: ReadonlyArray<Attempt>): void => {
  assertInOrder(log)
  deepStrictEqual(attempts.filter((attempt) => !explains(log, attempt)).map((attempt) => show(attempt)), [])
  const written = attempts.flatMap(({ answer }) =>
    answer._tag === "Written" && !answer.duplicate ? answer.places.map(({ position }) => position) : []
  )
  deepStrictEqual(written.toSorted((a, b) => Number(a - b)), log.map(({ position }) => position))
}
