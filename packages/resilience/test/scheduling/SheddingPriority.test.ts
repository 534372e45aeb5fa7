import { assert, describe, it } from "@effect/vitest"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as Effect from "effect/Effect"

describe("priorities", () => {
  it("are numbers from 0 to 10 in four classes", () => {
    const classes = Array.from({ length: 11 }, (_, number) => Priority.fromNumber(number))
    assert.deepStrictEqual(
      classes,
      ["P3", "P3", "P3", "P3", "P2", "P2", "P2", "P1", "P1", "P1", "P0"]
    )
    for (const number of [-1, 11, 9.5, NaN, Infinity]) assert.isUndefined(Priority.fromNumber(number))
  })

  it.effect("travel with the fiber, and what finishes accepted work is P0", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* Priority.Current, "P2")
      assert.strictEqual(yield* Priority.run(Effect.yieldNow.pipe(Effect.andThen(Priority.Current)), "P3"), "P3")
      assert.strictEqual(yield* Priority.run(Priority.continuation(Priority.Current), "P3"), "P0")
    }))
})
