import { assert, describe, it } from "@effect/vitest"
import * as Retrying from "@strata/postgres/Retrying"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

/** A call that always fails, and how often it was made. */
const failing = <E>(error: E) => {
  const made = { calls: 0 }
  const call = Effect.suspend(() => {
    made.calls++
    return Effect.fail(error)
  })
  return { call, made }
}

type Failure = "refused" | "lost"

/** A layer of three tries that can repeat what may have been done, or cannot. */
const layer = (repeats: "both" | "refused") => (call: Effect.Effect<never, Failure>) =>
  Retrying.retry(call, {
    schedule: Schedule.recurs(2),
    while: (error: Failure) => error === "refused" || repeats === "both",
    isUnknown: (error: Failure) => error === "lost"
  })

/** What such a layer tells those below. */
const above = (repeats: "both" | "refused") => <A, E>(call: Effect.Effect<A, E>) =>
  Effect.provideService(call, Retrying.Retrying, repeats === "both" ? "everything" : "harmless")

describe("layers that retry", () => {
  for (const outer of ["both", "refused"] as const) {
    for (const inner of ["both", "refused"] as const) {
      for (const failure of ["refused", "lost"] as const) {
        const calls = failure === "refused" || outer === "both" || inner === "both" ? 3 : 1
        it.effect(`that repeat ${outer} above ${inner} make ${calls} calls when they fail as ${failure}`, () =>
          Effect.gen(function*() {
            const { call, made } = failing<Failure>(failure)
            const error = yield* Effect.flip(call.pipe(layer(inner), above(outer), layer(outer)))
            assert.deepStrictEqual([error, made.calls], [failure, calls])
          }))
      }
    }
  }

  it.effect("are told apart from one that begins anew", () =>
    Effect.gen(function*() {
      const { call, made } = failing<Failure>("refused")
      yield* Effect.flip(Retrying.marked(Retrying.outermost(layer("both")(call))))
      assert.strictEqual(made.calls, 3)
    }))

  it.effect("hand the mark on to the fibers below", () =>
    Effect.gen(function*() {
      const { call, made } = failing<Failure>("lost")
      const inFibers = Effect.all([layer("both")(call), Effect.never], { concurrency: "unbounded" })
      yield* Effect.flip(Retrying.marked(inFibers))
      assert.strictEqual(made.calls, 1)
    }))
})
