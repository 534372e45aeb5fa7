import { assert, describe, it } from "@effect/vitest"
import * as Hedge from "@strata/resilience/bounds/Hedge"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"

const range = (count: number) => Array.from({ length: count }, (_, n) => n)

const start = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

/** Each try is the next of these. */
const tries = <A, E>(...all: ReadonlyArray<Effect.Effect<A, E>>) => {
  const seen = { started: 0, interrupted: 0 }
  const read = Effect.suspend(() =>
    Effect.onInterrupt(all[seen.started++]!, () => Effect.sync(() => seen.interrupted++))
  )
  return { read, seen }
}

const answer = (after: `${number} millis`, value: string) => Effect.as(Effect.sleep(after), value)

const failure = (after: `${number} millis`, error: string) => Effect.andThen(Effect.sleep(after), Effect.fail(error))

const run = Effect.fnUntraced(function*<A, E>(read: Effect.Effect<A, E>, time: `${number} millis`) {
  const hedge = yield* Hedge.make({ delay: "50 millis" })
  const fiber = yield* start(hedge.run(read))
  yield* TestClock.adjust(time)
  return { exit: fiber.pollUnsafe(), state: yield* hedge.state }
})

describe("a hedged read", () => {
  it.effect("that answers before the delay is made once", () =>
    Effect.gen(function*() {
      const { read, seen } = tries(answer("49 millis", "first"))
      const { exit, state } = yield* run(read, "1000 millis")
      assert.deepStrictEqual(exit, Exit.succeed("first"))
      assert.deepStrictEqual([seen, state.hedges], [{ started: 1, interrupted: 0 }, 0])
    }))

  it.effect("that takes longer is made again, and whoever is late is interrupted", () =>
    Effect.gen(function*() {
      const second = tries(answer("1000 millis", "first"), answer("10 millis", "second"))
      const { exit, state } = yield* run(second.read, "60 millis")
      assert.deepStrictEqual(exit, Exit.succeed("second"))
      assert.deepStrictEqual(second.seen, { started: 2, interrupted: 1 })
      assert.deepStrictEqual([state.reads, state.hedges, state.won], [1, 1, 1])

      const first = tries(answer("55 millis", "first"), answer("10 millis", "second"))
      const other = yield* run(first.read, "55 millis")
      assert.deepStrictEqual(other.exit, Exit.succeed("first"))
      assert.deepStrictEqual([first.seen, other.state.won], [{ started: 2, interrupted: 1 }, 0])
    }))

  it.effect("that fails before the delay fails, and is not made again", () =>
    Effect.gen(function*() {
      const { read, seen } = tries(failure("10 millis", "broken"), answer("10 millis", "second"))
      const { exit } = yield* run(read, "1000 millis")
      assert.deepStrictEqual(exit, Exit.fail("broken"))
      assert.strictEqual(seen.started, 1)
    }))

  it.effect("answers as long as one of both does", () =>
    Effect.gen(function*() {
      const first = tries(failure("60 millis", "broken"), answer("100 millis", "second"))
      assert.deepStrictEqual((yield* run(first.read, "1000 millis")).exit, Exit.succeed("second"))
      const second = tries(answer("100 millis", "first"), failure("10 millis", "broken"))
      assert.deepStrictEqual((yield* run(second.read, "1000 millis")).exit, Exit.succeed("first"))
    }))

  it.effect("fails with what failed first when both do", () =>
    Effect.gen(function*() {
      const { read } = tries(failure("100 millis", "late"), failure("10 millis", "early"))
      const { exit } = yield* run(read, "1000 millis")
      assert.deepStrictEqual(exit, Exit.fail("early"))
    }))

  it.effect("ends both tries when it is interrupted", () =>
    Effect.gen(function*() {
      const { read, seen } = tries(Effect.never, Effect.never)
      const hedge = yield* Hedge.make({ delay: "50 millis" })
      const fiber = yield* start(hedge.run(read))
      yield* TestClock.adjust("50 millis")
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.deepStrictEqual(seen, { started: 2, interrupted: 2 })
    }))
})

describe("the budget of hedges", () => {
  it.effect("lets no more than its share be made again when everything is slow", () =>
    Effect.gen(function*() {
      const hedge = yield* Hedge.make({ delay: "50 millis", share: 0.05, burst: 10 })
      for (const _ of range(10)) {
        const fibers = yield* Effect.forEach(range(100), () => start(hedge.run(Effect.sleep("1 second"))))
        yield* TestClock.adjust("1 second")
        yield* Fiber.joinAll(fibers)
      }
      const { budget, denied, hedges, reads } = yield* hedge.state
      assert.strictEqual(reads, 1000)
      assert.isAtMost(hedges, 60)
      assert.isAtLeast(hedges, 45)
      assert.strictEqual(hedges + denied, 1000)
      assert.isBelow(budget, 1)
    }))

  it.effect("is refused when it makes no sense", () =>
    Effect.gen(function*() {
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Hedge.make({ delay: "1 second", share: 2 }))))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Hedge.make({ delay: "1 second", burst: -1 }))))
    }))
})
