import { assert, describe, it } from "@effect/vitest"
import * as ConcurrencyLimit from "@strata/resilience/shedding/ConcurrencyLimit"
import * as LimitAlgorithm from "@strata/resilience/shedding/LimitAlgorithm"
import * as Arr from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"

/** The limit after each sample, the whole part as it counts. */
const limits = <S extends LimitAlgorithm.Estimate>(
  { initial, update }: LimitAlgorithm.LimitAlgorithm<S>,
  samples: ReadonlyArray<Partial<LimitAlgorithm.Sample>>
): ReadonlyArray<number> => {
  let state = initial
  return samples.map((sample) => {
    state = update(state, { rtt: 10, inFlight: 1000, dropped: false, ...sample })
    return Math.floor(state.limit)
  })
}

describe("a Vegas limit", () => {
  const vegas = LimitAlgorithm.vegas({ initial: 10, alpha: 3, beta: 6, max: 20 })

  it("grows by beta when nothing queues, shrinks when more than beta do, and stays in between", () => {
    assert.deepStrictEqual(limits(vegas, [{ rtt: 10 }, { rtt: 10 }]), [10, 16])
    assert.deepStrictEqual(limits(vegas, [{ rtt: 10 }, { rtt: 50 }]), [10, 9])
    assert.deepStrictEqual(limits(vegas, [{ rtt: 10 }, { rtt: 14 }]), [10, 10])
    assert.deepStrictEqual(limits(vegas, [{ rtt: 10 }, { rtt: 12 }]), [10, 11])
  })

  it("shrinks on a drop, does not grow unused, and stays within its bounds", () => {
    assert.deepStrictEqual(limits(vegas, [{}, { dropped: true, inFlight: 1 }]), [10, 9])
    assert.deepStrictEqual(limits(vegas, [{}, { inFlight: 4 }, { inFlight: 5 }]), [10, 10, 16])
    assert.deepStrictEqual(limits(vegas, [{}, {}, {}, {}]), [10, 16, 20, 20])
    assert.strictEqual(limits(vegas, Arr.makeBy(30, () => ({ dropped: true }))).at(-1), 1)
  })

  it("measures anew what a call takes without a queue, and refuses nothing for it", () => {
    const slower = limits(LimitAlgorithm.vegas({ initial: 10 }), [
      { rtt: 10 },
      ...Arr.makeBy(2000, () => ({ rtt: 100 }))
    ])
    assert.isBelow(Math.min(...slower), 10)
    assert.isAbove(slower.at(-1) ?? 0, 100)
  })
})

describe("an AIMD limit", () => {
  const aimd = (initial: number, max = 200) => LimitAlgorithm.aimd({ initial, max })

  it("grows by one when half of it is used, and loses a tenth on a drop", () => {
    assert.deepStrictEqual(limits(aimd(20), [{ inFlight: 10 }]), [21])
    assert.deepStrictEqual(limits(aimd(20), [{ inFlight: 9 }]), [20])
    assert.deepStrictEqual(limits(aimd(30), [{ dropped: true }]), [27])
    assert.deepStrictEqual(limits(aimd(30), [{ rtt: 5001, inFlight: 1 }]), [27])
  })

  it("stays within its bounds", () => {
    assert.deepStrictEqual(limits(aimd(20, 21), [{}, {}, {}]), [21, 21, 21])
    assert.deepStrictEqual(limits(aimd(2), [{ dropped: true }, { dropped: true }]), [1, 1])
  })
})

describe("a gradient limit", () => {
  const gradient = LimitAlgorithm.gradient2({ initial: 50 })

  it("grows by a fifth of its queue while the time stays, also when it is half as much again", () => {
    assert.deepStrictEqual(limits(gradient, Arr.makeBy(4, () => ({}))), [50, 51, 52, 53])
    const settled = Arr.makeBy(600, () => ({ inFlight: 1 }))
    assert.strictEqual(limits(gradient, [...settled, { rtt: 14.9 }]).at(-1), 50)
    assert.isAbove(limits(gradient, [...settled, { rtt: 14.9 }, { rtt: 14.9 }]).at(-1) ?? 0, 50)
  })

  it("shrinks when calls take longer than they did, by a half at most, and recovers", () => {
    const settled = Arr.makeBy(600, () => ({ inFlight: 1 }))
    // 50 × 0.75 + 4 and 50 × 0.5 + 4, a fifth of the way.
    assert.strictEqual(limits(gradient, [...settled, { rtt: 20 }]).at(-1), 48)
    assert.strictEqual(limits(gradient, [...settled, { rtt: 1000 }]).at(-1), 45)
    const overload = Arr.makeBy(300, () => ({ rtt: 100 }))
    const after = limits(gradient, [...settled, ...overload, ...Arr.makeBy(300, () => ({}))])
    assert.strictEqual(Math.min(...after), 20)
    assert.isAbove(after.at(-1) ?? 0, 150)
  })

  it("does not grow while less than half of it is used, and stays within its bounds", () => {
    assert.deepStrictEqual(limits(gradient, Arr.makeBy(3, () => ({ inFlight: 24 }))), [50, 50, 50])
    assert.strictEqual(limits(gradient, Arr.makeBy(1000, () => ({}))).at(-1), 200)
  })

  it("takes one slow call among many for what it is when it sees windows", () => {
    const calls = Arr.makeBy(6000, (n) => ({ rtt: n % 10 === 0 ? 100 : 10 }))
    const windowed = limits(LimitAlgorithm.windowed(gradient, 10), calls)
    assert.strictEqual(windowed.at(-1), 200)
    assert.isBelow(limits(gradient, calls).at(-1) ?? 0, 100)
    assert.deepStrictEqual(limits(LimitAlgorithm.windowed(gradient, 3), Arr.makeBy(6, () => ({}))), [
      ...[50, 50, 50],
      ...[50, 50, 51]
    ])
  })
})

const open = Effect.fnUntraced(function*(partitions?: Record<string, number>) {
  const limit = yield* ConcurrencyLimit.make({ name: "test", algorithm: LimitAlgorithm.fixed(10), partitions })
  return {
    ...limit,
    /** Begins calls that do not end, and says how many were let in. */
    begin: Effect.fnUntraced(function*(partition: string | undefined, times: number) {
      const fibers = yield* Effect.forEach(
        Arr.range(1, times),
        () => Effect.forkChild(Effect.result(limit.run(Effect.never, partition)), { startImmediately: true })
      )
      return fibers.filter((fiber) => fiber.pollUnsafe() === undefined)
    })
  }
})

describe("a concurrency limit", () => {
  it.effect("lends what is free, and keeps for each partition what is its own", () =>
    Effect.gen(function*() {
      const limit = yield* open({ batch: 0.3, live: 0.7 })
      assert.strictEqual((yield* limit.begin("batch", 12)).length, 10)
      assert.strictEqual((yield* limit.begin("live", 8)).length, 7)
      assert.strictEqual((yield* limit.begin("batch", 1)).length, 0)
      const error = yield* Effect.flip(limit.run(Effect.void, "live"))
      assert.match(error.message, /^test has no room for live: 17 calls are running, the limit is 10\. Try again in/)
    }))

  it.effect("gives room back when a call ends, however it ends", () =>
    Effect.gen(function*() {
      const limit = yield* open({ batch: 0.3, live: 0.7 })
      const calls = yield* limit.begin("batch", 10)
      yield* Fiber.interrupt(calls[0]!)
      assert.strictEqual((yield* limit.begin("batch", 2)).length, 1)
      yield* Effect.flip(limit.run(Effect.fail("broken"), "live"))
      yield* Effect.exit(limit.run(Effect.die("broken"), "live"))
      const { inFlight, partitions } = yield* limit.state
      assert.deepStrictEqual([inFlight, partitions.get("live")?.inFlight], [10, 0])
    }))

  it.effect("divides itself anew when it changes", () =>
    Effect.gen(function*() {
      const limit = yield* open({ batch: 0.3, live: 0.7 })
      const partition = (name: string) => Effect.map(limit.state, ({ partitions }) => partitions.get(name)?.limit)
      assert.deepStrictEqual([yield* partition("batch"), yield* partition("live")], [3, 7])
      yield* limit.begin("batch", 1)
      yield* limit.adopt(LimitAlgorithm.fixed(20))
      assert.deepStrictEqual([yield* partition("batch"), yield* partition("live")], [6, 14])
      assert.strictEqual((yield* limit.state).partitions.get("batch")?.inFlight, 1)
    }))

  it.effect("gives its partitions no more than there is, and one at least to each", () =>
    Effect.gen(function*() {
      const shares = { a: 0.15, b: 0.15, c: 0.35, d: 0.35 }
      const limit = yield* open(shares)
      for (const total of [7, 10, 13, 99, 100]) {
        yield* limit.adopt(LimitAlgorithm.fixed(total))
        const parts = Array.from((yield* limit.state).partitions.values(), (partition) => partition.limit)
        assert.strictEqual(parts.reduce((sum, part) => sum + part, 0), total)
      }
      yield* limit.adopt(LimitAlgorithm.fixed(1))
      const parts = Array.from((yield* limit.state).partitions.values(), (partition) => partition.limit)
      assert.deepStrictEqual(parts, [1, 1, 1, 1])
    }))

  it.effect("refuses shares that cannot be given, by name", () =>
    Effect.gen(function*() {
      const tooMuch = yield* Effect.flip(open({ batch: 0.5, live: 0.7 }))
      assert.match(tooMuch.message, /^The partitions of test cannot be used: their shares add up to 1.2/)
      const nonsense = yield* Effect.flip(open({ batch: NaN }))
      assert.include(nonsense.message, "the share of batch is NaN")
    }))

  it.effect("lets a call that is in no partition in only while the whole is not used up", () =>
    Effect.gen(function*() {
      const limit = yield* open({ batch: 0.3, live: 0.7 })
      assert.strictEqual((yield* limit.begin(undefined, 12)).length, 10)
      assert.strictEqual((yield* limit.begin("stranger", 1)).length, 0)
      assert.strictEqual((yield* limit.begin("batch", 4)).length, 3)
    }))

  it.effect("learns from calls that succeed and that time out, not from those that fail or are interrupted", () =>
    Effect.gen(function*() {
      const limit = yield* ConcurrencyLimit.make({ name: "aimd", algorithm: LimitAlgorithm.aimd({ initial: 1 }) })
      const now = Effect.map(limit.state, (state) => state.limit)
      yield* limit.run(Effect.void)
      assert.strictEqual(yield* now, 2)
      yield* Effect.flip(limit.run(Effect.fail("broken")))
      yield* Effect.exit(limit.run(Effect.die("broken")))
      const call = yield* Effect.forkChild(limit.run(Effect.never), { startImmediately: true })
      yield* Fiber.interrupt(call)
      assert.strictEqual(yield* now, 2)
      const late = yield* Effect.forkChild(Effect.flip(limit.run(Effect.timeout(Effect.never, "1 second"))), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(late)
      assert.strictEqual(yield* now, 1)
    }))

  it.effect("measures how long a call takes by the clock", () =>
    Effect.gen(function*() {
      const limit = yield* ConcurrencyLimit.make({
        name: "vegas",
        algorithm: LimitAlgorithm.vegas({ initial: 1, alpha: 3, beta: 6 })
      })
      const after = Effect.fnUntraced(function*(millis: number) {
        const call = yield* Effect.forkChild(limit.run(Effect.sleep(millis)), { startImmediately: true })
        yield* TestClock.adjust(millis)
        yield* Fiber.join(call)
        return (yield* limit.state).limit
      })
      assert.deepStrictEqual([yield* after(10), yield* after(10)], [1, 7])
      const together = yield* Effect.forEach(Arr.range(1, 7), () =>
        Effect.forkChild(limit.run(Effect.sleep(1000)), { startImmediately: true }))
      yield* TestClock.adjust(1000)
      yield* Fiber.joinAll(together)
      assert.isBelow((yield* limit.state).limit, 7)
    }))

  it.effect("tells those it refuses to come back at different times, and runs nothing of theirs", () =>
    Effect.gen(function*() {
      const limit = yield* open()
      const gate = yield* Deferred.make<void>()
      yield* Effect.forEach(
        Arr.range(1, 10),
        () => Effect.forkChild(limit.run(Deferred.await(gate)), { startImmediately: true })
      )
      let ran = 0
      const errors = yield* Effect.forEach(Arr.range(1, 20), () => Effect.flip(limit.run(Effect.sync(() => ran++))))
      assert.strictEqual(ran, 0)
      assert.isAbove(new Set(errors.map(({ retryAfter }) => retryAfter.toString())).size, 10)
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.yieldNow
      assert.strictEqual((yield* limit.state).inFlight, 0)
    }).pipe(Random.withSeed("come back")))
})
