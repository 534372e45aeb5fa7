import { assert, describe, it } from "@effect/vitest"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Fallback from "@strata/resilience/bounds/Fallback"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as Policy from "@strata/resilience/Policy"
import * as Resilience from "@strata/resilience/Resilience"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryBudget from "@strata/resilience/retry/RetryBudget"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"

const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const breaker = { policy: CircuitPolicy.make({ minimumCalls: 5, slowCallDuration: "1 minute" }) }

class Down {
  readonly _tag = "Down"
}
const classify: FailureClass.Classifier = (error) =>
  error instanceof Down ? FailureClass.transient : FailureClass.classify(error)
const retry = {
  policy: RetryPolicy.make({ attempts: 3, base: "10 millis", total: "1 second", jitter: "none" }),
  classify
}

/** A callee that fails as long as it is told to. */
const makeCallee = () => {
  const callee = { calls: 0, failing: true }
  const call = Effect.suspend(() => {
    callee.calls++
    return callee.failing ? Effect.fail(new Down()) : Effect.succeed("fine")
  })
  return { callee, call }
}

describe("a protected call", () => {
  it.effect("is tried again, and its breaker sees one outcome", () =>
    Effect.gen(function*() {
      const policy = Policy.make({ name: "tried-again", breaker, retry })
      const { call, callee } = makeCallee()
      const fiber = yield* start(Effect.exit(Resilience.protect(call, policy)))
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(fiber)))
      assert.strictEqual(callee.calls, 3)
      const [state] = yield* (yield* Resilience.Resilience).state
      assert.deepStrictEqual(state?.circuits.map(({ calls, key }) => [key, calls]), [["tried-again", 1]])
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("that is cut off by its deadline is a time-out for its breaker, and opens it", () =>
    Effect.gen(function*() {
      const policy = Policy.make({ name: "hanging", deadline: "1 second", breaker })
      for (let call = 0; call < 5; call++) {
        const fiber = yield* start(Effect.flip(Resilience.protect(Effect.never, policy)))
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "DeadlineExceeded")
      }
      const refused = yield* Effect.flip(Resilience.protect(Effect.succeed("fine"), policy))
      assert.strictEqual(refused._tag, "CircuitBreakerError")
      assert.isTrue(Resilience.isRefusal(refused))
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("that is interrupted by a deadline somebody else set says nothing of what was called", () =>
    Effect.gen(function*() {
      const policy = Policy.make({ name: "interrupted", deadline: "10 seconds", breaker })
      for (let call = 0; call < 5; call++) {
        const fiber = yield* start(
          Resilience.protect(Effect.never, policy).pipe(Deadline.within("1 millis"), Effect.flip)
        )
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(fiber)
      }
      assert.strictEqual(yield* Resilience.protect(Effect.succeed("fine"), policy), "fine")
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("does not wait for a retry that its deadline leaves no time for", () =>
    Effect.gen(function*() {
      const policy = Policy.make({
        name: "short",
        deadline: "1 second",
        retry: {
          ...retry,
          policy: RetryPolicy.make({ attempts: 3, base: "2 seconds", total: "1 minute", jitter: "none" })
        }
      })
      const { call, callee } = makeCallee()
      const failed = yield* Effect.flip(Resilience.protect(call, policy))
      assert.deepStrictEqual([failed._tag, callee.calls], ["Down", 1])
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("asks its limits first, so that one they refuse takes no place and starts nothing", () =>
    Effect.gen(function*() {
      const limit = RateLimit.make({ name: "two", rate: 1, burst: 2, keyOf: "user" })
      const policy = Policy.make({ name: "limited", limits: [limit], bulkhead: { limit: 1, queue: 0 } })
      const ask = (user: string) => Resilience.protect(Effect.never, policy, { limitKeys: { two: user } })
      yield* start(ask("ada"))
      const refused = yield* Effect.flip(ask("ada"))
      assert.strictEqual(refused._tag, "BulkheadFull")
      const limited = yield* Effect.flip(ask("ada"))
      assert.strictEqual(limited._tag, "RateLimitError")
      assert.strictEqual((yield* Effect.flip(ask("bob")))._tag, "BulkheadFull")
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("is not counted as a failure of what was called when its bulkhead is full", () =>
    Effect.gen(function*() {
      const policy = Policy.make({ name: "full", bulkhead: { limit: 1, queue: 0 }, breaker })
      const running = yield* start(Resilience.protect(Effect.never, policy))
      for (let call = 0; call < 20; call++) {
        assert.strictEqual((yield* Effect.flip(Resilience.protect(Effect.void, policy)))._tag, "BulkheadFull")
      }
      yield* Fiber.interrupt(running)
      yield* Resilience.protect(Effect.void, policy)
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("has a circuit and a retry budget for each key", () =>
    Effect.gen(function*() {
      const policy = Policy.make({
        name: "hosts",
        breaker,
        retry: { ...retry, budget: RetryBudget.allowance({ max: 2 }) }
      })
      const { call, callee } = makeCallee()
      const fiber = yield* start(
        Effect.forEach(Array.from({ length: 5 }), () => Effect.exit(Resilience.protect(call, policy, { key: "a" })))
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      // The first failure leaves half of the budget, which allows no more: two calls, then one each.
      assert.isBelow(callee.calls, 8)
      callee.failing = false
      const refused = yield* Effect.flip(Resilience.protect(call, policy, { key: "a" }))
      assert.strictEqual(refused._tag, "CircuitBreakerError")
      assert.strictEqual(yield* Resilience.protect(call, policy, { key: "b" }), "fine")
      const [state] = yield* (yield* Resilience.Resilience).state
      assert.deepStrictEqual([...(state?.budgets.keys() ?? [])], ["hosts/a", "hosts/b"])
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("falls back for what its policy refused, and leaves the callee's own failures alone", () =>
    Effect.gen(function*() {
      const policy = Policy.make({ name: "prices", deadline: "1 second", fallback: { answer: Fallback.value("old") } })
      const fiber = yield* start(Resilience.protect(Effect.never, policy))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), "old")
      const failed = yield* Effect.flip(Resilience.protect(makeCallee().call, policy))
      assert.instanceOf(failed, Down)
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("below another one that retries is tried once", () =>
    Effect.gen(function*() {
      const outer = Policy.make({ name: "outer", retry })
      const inner = Policy.make({ name: "inner", retry })
      const { call, callee } = makeCallee()
      const fiber = yield* start(Effect.exit(Resilience.protect(Resilience.protect(call, inner), outer)))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      assert.strictEqual(callee.calls, 3)
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("writes on its span what refused it", () =>
    Effect.gen(function*() {
      const policy = Policy.make({ name: "seen", deadline: "1 second" })
      const events: Array<unknown> = []
      const span = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          const event = span.event.bind(span)
          span.event = (name, time, attributes) => {
            events.push([name, attributes?.["policy"], attributes?.["part"]])
            event(name, time, attributes)
          }
          return span
        }
      })
      const fiber = yield* start(
        Effect.exit(Resilience.protect(Effect.never, policy)).pipe(Effect.withSpan("request"), Effect.withTracer(span))
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(events, [["refused", "seen", "deadline"]])
    }).pipe(Effect.provide(Resilience.layerMemory)))
})

describe("policies in force", () => {
  it.effect("take other numbers while calls run, and keep circuits and places", () =>
    Effect.gen(function*() {
      const resilience = yield* Resilience.Resilience
      const policy = Policy.make({ name: "live", bulkhead: { limit: 2, queue: 0 }, breaker })
      const running = yield* Effect.forEach([1, 2], () => start(Resilience.protect(Effect.never, policy)))
      yield* resilience.adopt(Policy.make({ name: "live", bulkhead: { limit: 1, queue: 0 }, breaker }))
      assert.strictEqual((yield* Effect.flip(Resilience.protect(Effect.void, policy)))._tag, "BulkheadFull")
      yield* Fiber.interrupt(running[0]!)
      assert.strictEqual((yield* Effect.flip(Resilience.protect(Effect.void, policy)))._tag, "BulkheadFull")
      yield* Fiber.interrupt(running[1]!)
      yield* Resilience.protect(Effect.void, policy)

      const found = yield* resilience.breaker(policy)
      yield* found!.forceOpen("live", { actor: "ada" })
      yield* resilience.adopt(Policy.make({ name: "live", breaker }))
      assert.strictEqual((yield* Effect.flip(Resilience.protect(Effect.void, policy)))._tag, "CircuitBreakerError")
      const [state] = yield* resilience.state
      assert.deepStrictEqual([state?.bulkhead, state?.circuits.map(({ actor }) => actor)], [undefined, ["ada"]])
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("may be adopted before the first call, as from the environment", () =>
    Effect.gen(function*() {
      const resilience = yield* Resilience.Resilience
      yield* resilience.adopt(Policy.make({ name: "early", deadline: "1 second" }))
      const policy = Policy.make({ name: "early", deadline: "1 hour" })
      const fiber = yield* start(Effect.flip(Resilience.protect(Effect.never, policy)))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "DeadlineExceeded")
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("do not share a name", () =>
    Effect.gen(function*() {
      yield* Resilience.protect(Effect.void, Policy.make({ name: "same", deadline: "1 second" }))
      const exit = yield* Effect.exit(
        Resilience.protect(Effect.void, Policy.make({ name: "same", deadline: "2 seconds" }))
      )
      assert.isTrue(Exit.hasDies(exit))
    }).pipe(Effect.provide(Resilience.layerMemory)))

  it.effect("are installed once, by however many calls that come first", () =>
    Effect.gen(function*() {
      const policy = Policy.make({ name: "rush", bulkhead: { limit: 3, queue: 0 } })
      const exits = yield* Effect.forEach(
        Array.from({ length: 10 }),
        () =>
          Effect.timeoutOption(Resilience.protect(Effect.never, policy), "1 second").pipe(Effect.exit, Effect.forkChild)
      )
      yield* TestClock.adjust("2 seconds")
      const ended = yield* Effect.forEach(exits, Fiber.join)
      assert.strictEqual(ended.filter(Exit.isFailure).length, 7)
    }).pipe(Effect.provide(Resilience.layerMemory)))
})

describe("a wrapped service", () => {
  class Payments extends Context.Service<Payments, {
    readonly charge: (cents: number) => Effect.Effect<string, Resilience.Refusal>
  }>()("Payments") {}

  it.effect("is called as before, and is protected", () =>
    Effect.gen(function*() {
      const policy = Policy.make({ name: "payments", deadline: "2 seconds" })
      const live = Layer.succeed(Payments, {
        charge: (cents) => cents > 0 ? Effect.succeed(`charged ${cents}`) : Effect.never
      })
      const layer = Resilience.wrap(live, Payments, (payments, protect) => ({
        charge: (cents) => protect(payments.charge(cents), policy)
      }))
      yield* Effect.gen(function*() {
        const payments = yield* Payments
        assert.strictEqual(yield* payments.charge(5), "charged 5")
        const fiber = yield* start(Effect.flip(payments.charge(0)))
        yield* TestClock.adjust(Duration.seconds(2))
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "DeadlineExceeded")
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.provide(Resilience.layerMemory)))
})
