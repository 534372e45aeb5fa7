import { assert, describe, it } from "@effect/vitest"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as TestClock from "effect/testing/TestClock"
import * as Turns from "../src/internal/turns.ts"

const open = Effect.fnUntraced(function*(max: number) {
  const state: Turns.TurnsState = { max, inUse: 0, waiting: 0 }
  const turns = yield* Turns.make({ state, timeout: Duration.seconds(5), timedOut: () => "late" as const })
  return { state, ...turns }
})

const start = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

describe("turns", () => {
  it.effect("are given in the order in which they were asked for, no more at a time than there are", () =>
    Effect.gen(function*() {
      const { state, use } = yield* open(2)
      const gate = yield* Latch.make(false)
      const begun: Array<number> = []
      const work = (n: number) =>
        use(Effect.suspend(() => {
          begun.push(n)
          return gate.await
        }))
      const fibers = yield* Effect.forEach(Arr.range(1, 6), (n) => start(work(n)))
      assert.deepStrictEqual([begun, state.inUse, state.waiting], [[1, 2], 2, 4])
      yield* Fiber.interrupt(fibers[0]!)
      assert.deepStrictEqual(begun, [1, 2, 3])
      yield* gate.open
      yield* Fiber.joinAll(fibers.slice(1))
      assert.deepStrictEqual([begun, state.inUse, state.waiting], [[1, 2, 3, 4, 5, 6], 0, 0])
    }))

  it.effect("are not waited for longer than the limit, each from when it was asked for", () =>
    Effect.gen(function*() {
      const { state, take, use } = yield* open(1)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* take
        const first = yield* start(Effect.flip(use(Effect.void)))
        yield* TestClock.adjust("3 seconds")
        const second = yield* start(Effect.flip(use(Effect.void)))
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* Fiber.join(first), "late")
        assert.deepStrictEqual([second.pollUnsafe(), state.waiting], [undefined, 1])
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual(yield* Fiber.join(second), "late")
        assert.deepStrictEqual([state.inUse, state.waiting], [1, 0])
      }))
      assert.strictEqual(state.inUse, 0)
      yield* use(Effect.void)
    }))

  it.effect("pass on from whoever is interrupted, whether waiting or just let go", () =>
    Effect.gen(function*() {
      const { state, take, use } = yield* open(1)
      const holder = yield* start(Effect.scoped(Effect.andThen(take, Effect.never)))
      const waiting = yield* Effect.forEach(Arr.range(1, 50), () => start(use(Effect.yieldNow)))
      yield* Effect.forEach(waiting.filter((_, n) => n % 2 === 0), (fiber) => start(Fiber.interrupt(fiber)))
      yield* Fiber.interrupt(holder)
      yield* Effect.forEach(waiting.filter((_, n) => n % 3 === 0), (fiber) => Fiber.interrupt(fiber))
      yield* Effect.forEach(waiting, Fiber.await)
      assert.deepStrictEqual([state.inUse, state.waiting], [0, 0])
      yield* use(Effect.void)
    }))

  it.effect("come and go by the thousands without a stack that grows", () =>
    Effect.gen(function*() {
      const { state, use } = yield* open(1)
      const gate = yield* Latch.make(false)
      const first = yield* start(use(gate.await))
      const rest = yield* Effect.forEach(Arr.range(1, 20_000), () => start(Effect.flip(use(Effect.fail("refused")))))
      yield* gate.open
      yield* Fiber.join(first)
      const answers = yield* Effect.forEach(rest, Fiber.join)
      assert.isTrue(answers.every((answer) => answer === "refused"))
      assert.deepStrictEqual([state.inUse, state.waiting], [0, 0])
    }))

  it.effect(
    "are all back, and nobody is left waiting, wherever fibers yield and are interrupted",
    () =>
      SeededScheduler.forEachSeed(10_000, (seed) =>
        Effect.gen(function*() {
          const next = SeededScheduler.random(seed)
          const { state, take, use } = yield* open(2)
          const step = Effect.suspend(() => next() < 0.3 ? Effect.fail("failed") : Effect.yieldNow)
          const work = Effect.andThen(step, step)
          const fibers = yield* Effect.forEach(
            Arr.range(1, 7),
            () => Effect.forkChild(next() < 0.5 ? use(work) : Effect.scoped(Effect.andThen(take, work)))
          )
          for (const fiber of fibers) {
            if (next() < 0.3) yield* Fiber.interrupt(fiber)
          }
          // Nobody moves the clock: who is not woken waits for ever.
          yield* Effect.forEach(fibers, Fiber.await)
          assert.deepStrictEqual([state.inUse, state.waiting], [0, 0])
        }).pipe(Effect.scoped)),
    30_000
  )
})
