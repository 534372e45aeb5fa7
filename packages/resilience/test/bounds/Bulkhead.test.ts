import { assert, describe, it } from "@effect/vitest"
import * as Bulkhead from "@strata/resilience/bounds/Bulkhead"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as TestClock from "effect/testing/TestClock"

const range = (count: number) => Array.from({ length: count }, (_, n) => n)

const start = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

const counts = (bulkhead: Bulkhead.Bulkhead) =>
  Effect.map(bulkhead.state, ({ refused, running, waiting }) => ({ refused, running, waiting }))

describe("a bulkhead", () => {
  it.effect("of ten with a queue of five refuses the sixteenth at once, and says when to come back", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 10, queue: 5 })
      yield* Effect.forEach(range(15), () => start(bulkhead.run(Effect.never)))
      const error = yield* Effect.flip(bulkhead.run(Effect.void))
      assert.strictEqual(error._tag, "BulkheadFull")
      assert.deepStrictEqual([error.bulkhead, error.limit, error.waiting], ["search", 10, 5])
      assert.deepStrictEqual([Duration.toMillis(error.waited), Duration.toMillis(error.retryAfter)], [0, 100])
      assert.deepStrictEqual(yield* counts(bulkhead), { refused: 1, running: 10, waiting: 5 })
    }))

  it.effect("says to come back when a slot is likely, by how long the last ones were in use", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 2, queue: 0 })
      yield* Effect.forEach(range(200), () =>
        Effect.gen(function*() {
          const fiber = yield* start(bulkhead.run(Effect.sleep("4 seconds")))
          yield* TestClock.adjust("4 seconds")
          yield* Fiber.join(fiber)
        }))
      yield* Effect.forEach(range(2), () => start(bulkhead.run(Effect.never)))
      const error = yield* Effect.flip(bulkhead.run(Effect.void))
      assert.closeTo(Duration.toMillis(error.retryAfter), 2000, 5)
    }))

  it.effect("serves those who wait in the order they came, before anyone who comes later", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 1, queue: 100 })
      const begun: Array<number> = []
      const work = (n: number) => bulkhead.run(Effect.andThen(Effect.sync(() => begun.push(n)), Effect.yieldNow))
      const gate = yield* Latch.make(false)
      const first = yield* start(bulkhead.run(gate.await))
      const waiting = yield* Effect.forEach(range(5), (n) => start(work(n)))
      const barging = yield* Effect.forEach(range(30), (n) => Effect.forkChild(work(5 + n)))
      yield* gate.open
      yield* Fiber.joinAll([first, ...waiting, ...barging])
      assert.deepStrictEqual(begun, range(35))
    }))

  it.effect("never runs what was interrupted while it waited, and counts exactly", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 1, queue: 5 })
      const gate = yield* Latch.make(false)
      const first = yield* start(bulkhead.run(gate.await))
      let ran = false
      const waiting = yield* start(bulkhead.run(Effect.sync(() => {
        ran = true
      })))
      assert.deepStrictEqual(yield* counts(bulkhead), { refused: 0, running: 1, waiting: 1 })
      yield* Fiber.interrupt(waiting)
      assert.deepStrictEqual(yield* counts(bulkhead), { refused: 0, running: 1, waiting: 0 })
      yield* gate.open
      yield* Fiber.join(first)
      assert.deepStrictEqual([ran, yield* counts(bulkhead)], [false, { refused: 0, running: 0, waiting: 0 }])
    }))

  it.effect(
    "has all slots back after ten thousand failures, defects, interruptions and time-outs of each kind",
    () =>
      Effect.gen(function*() {
        const bulkhead = yield* Bulkhead.make({ name: "search", limit: 3, queue: 5 })
        yield* Effect.forEach(range(10_000), () =>
          Effect.all([
            Effect.exit(bulkhead.run(Effect.fail("refused"))),
            Effect.exit(bulkhead.run(Effect.die("broken"))),
            Effect.exit(bulkhead.run(Effect.interrupt))
          ]))
        yield* Effect.forEach(range(10_000), () =>
          Effect.gen(function*() {
            const fiber = yield* start(Effect.timeoutOption(bulkhead.run(Effect.never), "1 second"))
            const interrupted = yield* start(bulkhead.run(Effect.never))
            yield* Fiber.interrupt(interrupted)
            yield* Fiber.interrupt(fiber)
          }))
        const timed = yield* Effect.forEach(
          range(3),
          () => start(Effect.timeoutOption(bulkhead.run(Effect.never), "1 second"))
        )
        yield* TestClock.adjust("1 second")
        yield* Fiber.joinAll(timed)
        assert.deepStrictEqual(yield* counts(bulkhead), { refused: 0, running: 0, waiting: 0 })
      }),
    60_000
  )

  it.effect("whose limit is lowered admits the next once enough have ended", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 10, queue: 5, maxWait: "1 hour" })
      const gates = yield* Effect.forEach(range(10), () => Latch.make(false))
      const fibers = yield* Effect.forEach(gates, (gate) => start(bulkhead.run(gate.await)))
      yield* bulkhead.adopt({ limit: 3 })
      let isAdmitted = false
      yield* start(bulkhead.run(Effect.andThen(Effect.sync(() => (isAdmitted = true)), Effect.never)))
      const end = (n: number) => Effect.andThen(gates[n]!.open, Fiber.join(fibers[n]!))
      yield* Effect.forEach(range(7), end)
      assert.deepStrictEqual([isAdmitted, (yield* counts(bulkhead)).running], [false, 3])
      yield* end(7)
      assert.deepStrictEqual([isAdmitted, (yield* counts(bulkhead)).running], [true, 3])
    }))

  it.effect("whose limit is raised admits those who wait at once", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 1, queue: 5 })
      yield* Effect.forEach(range(4), () => start(bulkhead.run(Effect.never)))
      yield* bulkhead.adopt({ limit: 3 })
      assert.deepStrictEqual(yield* counts(bulkhead), { refused: 0, running: 3, waiting: 1 })
    }))

  it.effect("keeps a tenant's slots for it, whatever another one sends", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 5, queue: 100, reserved: { quiet: 2 } })
      const loud = yield* Effect.forEach(range(1000), () => start(Effect.exit(bulkhead.runFor("loud")(Effect.never))))
      assert.deepStrictEqual(yield* counts(bulkhead), { refused: 897, running: 3, waiting: 100 })
      const quiet = yield* Effect.forEach(range(2), () => start(bulkhead.runFor("quiet")(Effect.never)))
      assert.deepStrictEqual((yield* counts(bulkhead)).running, 5)
      yield* Fiber.interruptAll(quiet)
      assert.deepStrictEqual((yield* counts(bulkhead)).running, 3)
      yield* Effect.forEach(range(2), () => bulkhead.runFor("quiet")(Effect.void))
      yield* Fiber.interruptAll(loud)
      assert.deepStrictEqual(yield* counts(bulkhead), { refused: 897, running: 0, waiting: 0 })
    }))

  it.effect("lets a tenant use what nobody has, after its own", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 5, queue: 10, reserved: { quiet: 2 } })
      yield* Effect.forEach(range(6), () => start(bulkhead.runFor("quiet")(Effect.never)))
      assert.deepStrictEqual(yield* counts(bulkhead), { refused: 0, running: 5, waiting: 1 })
    }))

  it.effect("lets nobody wait for longer than it says, each from when it came", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 1, queue: 5, maxWait: "2 seconds" })
      yield* start(bulkhead.run(Effect.never))
      const one = yield* start(Effect.flip(bulkhead.run(Effect.void)))
      yield* TestClock.adjust("1 second")
      const two = yield* start(Effect.flip(bulkhead.run(Effect.void)))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(Duration.toMillis((yield* Fiber.join(one)).waited), 2000)
      assert.deepStrictEqual([two.pollUnsafe(), (yield* counts(bulkhead)).waiting], [undefined, 1])
      yield* TestClock.adjust("1 second")
      const error = yield* Fiber.join(two)
      assert.strictEqual(error.message, "search: 1 run and 0 wait, not one was free in 2s: try again in 100ms")
    }))

  it.effect("has a slot in use until the work has ended, also when its time was up before", () =>
    Effect.gen(function*() {
      const bulkhead = yield* Bulkhead.make({ name: "search", limit: 1, queue: 0 })
      const gate = yield* Latch.make(false)
      const fiber = yield* start(Effect.timeoutOption(bulkhead.run(Effect.uninterruptible(gate.await)), "1 second"))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* counts(bulkhead)).running, 1)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(bulkhead.run(Effect.void))))
      yield* gate.open
      yield* Fiber.join(fiber)
      assert.strictEqual((yield* counts(bulkhead)).running, 0)
    }))

  it.effect("refuses numbers that make no sense when it is made", () =>
    Effect.gen(function*() {
      const isRefused = (options: Bulkhead.Options) => Effect.map(Effect.exit(Bulkhead.make(options)), Exit.isFailure)
      assert.isTrue(yield* isRefused({ name: "none", limit: 0 }))
      assert.isTrue(yield* isRefused({ name: "half", limit: 2.5 }))
      assert.isTrue(yield* isRefused({ name: "reserved", limit: 3, reserved: { a: 2, b: 2 } }))
    }))

  it.effect(
    "in whatever order fibers run runs no more than its limit, and ends with every slot free",
    () =>
      SeededScheduler.forEachSeed(10_000, (seed) =>
        Effect.scoped(Effect.gen(function*() {
          const next = SeededScheduler.random(seed)
          const bulkhead = yield* Bulkhead.make({ name: "search", limit: 2, queue: 3, reserved: { a: 1 } })
          let running = 0
          const step = Effect.suspend(() => next() < 0.3 ? Effect.fail("failed") : Effect.yieldNow)
          const work = Effect.acquireUseRelease(
            Effect.sync(() => assert.isAtMost(++running, 2)),
            () => Effect.andThen(step, step),
            () => Effect.sync(() => running--)
          )
          const fibers = yield* Effect.forEach(
            ["a", "b", "c", "a", "b", "c", "d"],
            (key) => Effect.forkChild(bulkhead.runFor(key)(work))
          )
          for (const fiber of fibers) if (next() < 0.3) yield* Fiber.interrupt(fiber)
          yield* Effect.forEach(fibers, Fiber.await)
          const { running: left, waiting } = yield* bulkhead.state
          assert.deepStrictEqual([left, waiting, running], [0, 0, 0])
        }))),
    60_000
  )
})
