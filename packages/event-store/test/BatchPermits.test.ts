import { assert, describe, it } from "@effect/vitest"
import * as BatchPermits from "@strata/event-store/BatchPermits"
import { Position } from "@strata/event-store/Fact"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"

const place = (after: number, isLast = false) => ({ after: Position.make(BigInt(after)), isLast })

describe("permits for batches", () => {
  it.effect("go to the end of the log first, and then to who is furthest behind", () =>
    Effect.gen(function*() {
      const permits = BatchPermits.make(1)
      const latch = yield* Latch.make()
      const begun: Array<string> = []
      const batch = (name: string, place: BatchPermits.Place, work: Effect.Effect<unknown> = Effect.void) =>
        Effect.forkChild(permits.withPermit(place)(Effect.andThen(Effect.sync(() => begun.push(name)), work)))
      const fibers = [yield* batch("first", place(9000), latch.await)]
      yield* Effect.yieldNow
      for (const after of [5000, 3000, 4000]) fibers.push(yield* batch(`after ${after}`, place(after)))
      for (const name of ["new", "newer"]) fibers.push(yield* batch(name, place(10_000, true)))
      yield* Effect.yieldNow
      assert.deepStrictEqual(begun, ["first"])
      yield* latch.open
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(begun, ["first", "new", "newer", "after 3000", "after 4000", "after 5000"])
    }))

  it.effect("are given back by who fails, and by who is interrupted while it waits or works", () =>
    Effect.gen(function*() {
      const permits = BatchPermits.make(2)
      let working = 0
      let most = 0
      const hold = <A, E>(work: Effect.Effect<A, E>) =>
        permits.withPermit(place(1))(
          Effect.suspend(() => {
            most = Math.max(most, ++working)
            return Effect.ensuring(work, Effect.sync(() => working--))
          })
        )
      yield* Effect.exit(hold(Effect.fail("no")))
      const holders = yield* Effect.forEach([1, 2], () => Effect.forkChild(hold(Effect.never)))
      yield* Effect.yieldNow
      const waiting = yield* Effect.forkChild(hold(Effect.never))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(waiting)
      yield* Fiber.interruptAll(holders)
      assert.strictEqual(working, 0)
      assert.deepStrictEqual(
        yield* Effect.forEach([1, 2, 3, 4], (n) => hold(Effect.as(Effect.yieldNow, n)), { concurrency: 4 }),
        [1, 2, 3, 4]
      )
      assert.strictEqual(most, 2)
    }))
})
