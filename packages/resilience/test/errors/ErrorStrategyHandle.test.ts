import { assert, describe, it } from "@effect/vitest"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Alerts from "@strata/resilience/alerts/Alerts"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as CircuitBreaker from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
import * as DeadLetters from "@strata/resilience/errors/DeadLetters"
import * as ErrorAction from "@strata/resilience/errors/ErrorAction"
import * as ErrorStrategy from "@strata/resilience/errors/ErrorStrategy"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as TestClock from "effect/testing/TestClock"

const { alert, andThen, circuitBreaker, deadLetter, ignore, retry } = ErrorAction

type Failure = FailureClass.FailureClass

/** Failures that say themselves what they are. */
const itself = (failure: Failure): Failure => failure

const options = { handler: "billing", id: "42", payload: { amount: 3 }, classify: itself }

const policy = RetryPolicy.make({ attempts: 3, base: "1 second", total: "1 minute", jitter: "none" })

const strategy = Result.getOrThrow(ErrorStrategy.make({
  ...ErrorStrategy.standard,
  transient: pipe(retry(policy), andThen(deadLetter()), andThen(alert("warning"))),
  conflict: ignore
}))

const services = Layer.mergeAll(
  Alerts.layerMemory,
  DeadLetters.layerMemory(),
  CircuitBreaker.layer({
    policy: CircuitPolicy.make({
      minimumCalls: 3,
      failureRate: 1,
      timeoutRate: 1,
      slowCallRate: 1,
      openDuration: "5 seconds"
    })
  }).pipe(Layer.provide(CircuitStore.layerMemory()))
)

/** A handler that fails as told, by the number of the call, and when each call began. */
const makeHandler = (failureOf: (call: number) => Failure | undefined) => {
  const at: Array<number> = []
  const handler: Effect.Effect<string, Failure> = Effect.gen(function*() {
    const failure = failureOf(at.push(yield* Clock.currentTimeMillis))
    return failure === undefined ? "done" : yield* Effect.fail(failure)
  })
  return { at, handler }
}

const after = Effect.fnUntraced(function*<A, E, R>(time: Duration.Input, effect: Effect.Effect<A, E, R>) {
  const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
  yield* TestClock.adjust(time)
  return yield* Fiber.join(fiber)
})

const letters = Effect.flatMap(DeadLetters.Memory, ({ letters }) => letters)
const active = Effect.flatMap(Alerts.Alerts, ({ active }) => active)

describe("a handler", () => {
  it.effect("that succeeds gives its value, and nothing else happens", () =>
    Effect.gen(function*() {
      const value = yield* ErrorStrategy.handle(Effect.succeed("done"), strategy, options)
      assert.deepStrictEqual(value, Option.some("done"))
      assert.deepStrictEqual(yield* active, [])
    }).pipe(Effect.provide(services)))

  it.effect("is tried again until it succeeds, and nobody is told", () =>
    Effect.gen(function*() {
      const { at, handler } = makeHandler((call) => call < 3 ? FailureClass.transient : undefined)
      const exit = yield* after("1 minute", ErrorStrategy.handle(handler, strategy, options))
      assert.deepStrictEqual(exit, Exit.succeed(Option.some("done")))
      assert.deepStrictEqual(at, [0, 1000, 3000])
      assert.deepStrictEqual([yield* letters, yield* active], [[], []])
    }).pipe(Effect.provide(services)))

  it.effect("that fails each time goes to the dead letters once, with all that is known, and somebody is told", () =>
    Effect.gen(function*() {
      const { at, handler } = makeHandler(() => FailureClass.transient)
      const exit = yield* after("1 minute", ErrorStrategy.handle(handler, strategy, options))
      assert.deepStrictEqual(exit, Exit.succeed(Option.none()))
      assert.strictEqual(at.length, 3)
      const [letter, ...others] = yield* letters
      assert.deepStrictEqual(others, [])
      const { error, fingerprint, ...rest } = letter!
      assert.include(error, "Transient")
      assert.strictEqual(fingerprint, "Transient")
      assert.deepStrictEqual(rest, {
        handler: "billing",
        id: "42",
        payload: { amount: 3 },
        failureClass: "Transient",
        reason: "transient, after 3 tries",
        attempts: 3,
        firstAt: Timestamp.fromMillis(0),
        failedAt: Timestamp.fromMillis(3000)
      })
      const [told] = yield* active
      assert.deepInclude(told, { name: "handler_failed", severity: "warning", count: 1 })
      assert.strictEqual(told?.summary, "Handler \"billing\" put work aside after a transient failure: Transient")
    }).pipe(Effect.provide(services)))

  it.effect("that fails for good is not tried again", () =>
    Effect.gen(function*() {
      const { at, handler } = makeHandler(() => FailureClass.permanent)
      const value = yield* ErrorStrategy.handle(handler, strategy, options)
      assert.deepStrictEqual([value, at.length, (yield* letters).length], [Option.none(), 1, 1])
    }).pipe(Effect.provide(services)))

  it.effect("whose failures are ignored goes on, and needs no service for it", () =>
    Effect.gen(function*() {
      const quiet = Result.getOrThrow(ErrorStrategy.make({
        transient: ignore,
        throttled: ignore,
        conflict: ignore,
        unknownOutcome: ignore,
        permanent: ignore,
        fatal: ignore
      }))
      const { handler } = makeHandler(() => FailureClass.conflict)
      // No service is provided here, so this would not compile if one were needed.
      assert.deepStrictEqual(yield* ErrorStrategy.handle(handler, quiet, options), Option.none())
    }))

  it.effect("that dies stops, its defect is given back, and the alert is critical", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(ErrorStrategy.handle(Effect.die(new Error("bug")), strategy, options))
      assert.isTrue(Exit.hasDies(exit))
      assert.deepStrictEqual((yield* active).map(({ severity }) => severity), ["critical"])
      assert.deepStrictEqual(yield* letters, [])
    }).pipe(Effect.provide(services)))

  it.effect("that is interrupted has not failed", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(ErrorStrategy.handle(Effect.never, strategy, options), {
        startImmediately: true
      })
      yield* Fiber.interrupt(fiber)
      const inside = yield* Effect.exit(ErrorStrategy.handle(Effect.interrupt, strategy, options))
      assert.isTrue(Exit.hasInterrupts(inside))
      assert.deepStrictEqual([yield* letters, yield* active], [[], []])
    }).pipe(Effect.provide(services)))

  it.effect("that is interrupted while it waits for its next try is neither tried nor put aside", () =>
    Effect.gen(function*() {
      const { at, handler } = makeHandler(() => FailureClass.transient)
      const fiber = yield* Effect.forkChild(ErrorStrategy.handle(handler, strategy, options), {
        startImmediately: true
      })
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual([at.length, (yield* letters).length], [1, 0])
    }).pipe(Effect.provide(services)))

  it.effect("begins no try that its deadline does not leave time for", () =>
    Effect.gen(function*() {
      const { at, handler } = makeHandler(() => FailureClass.transient)
      const value = yield* ErrorStrategy.handle(handler, strategy, options).pipe(Deadline.within("900 millis"))
      assert.deepStrictEqual([value, at.length], [Option.none(), 1])
    }).pipe(Effect.provide(services)))

  it.effect("is not done when its letter is not kept, though somebody was told", () =>
    Effect.gen(function*() {
      const { handler } = makeHandler(() => FailureClass.permanent)
      const error = yield* Effect.flip(ErrorStrategy.handle(handler, strategy, options))
      assert.include(String(error), "The work is not done: give it to the handler again")
      assert.strictEqual((yield* active).length, 1)
    }).pipe(Effect.provide([Alerts.layerMemory, DeadLetters.layerMemory({ capacity: 0 })])))

  it.effect("has what fails the same way a hundred times in one alert", () =>
    Effect.gen(function*() {
      yield* Effect.forEach(
        Array.from({ length: 100 }, (_, id) => String(id)),
        (id) => ErrorStrategy.handle(Effect.fail(`no order ${id}`), ErrorStrategy.standard, { handler: "billing", id })
      )
      assert.deepStrictEqual((yield* active).map(({ count }) => count), [100])
      assert.strictEqual((yield* letters).length, 100)
      yield* TestClock.adjust("2 hours")
      assert.deepStrictEqual(yield* active, [])
    }).pipe(Effect.provide(services)))

  it.effect("counts what was decided", () =>
    Effect.gen(function*() {
      const { handler } = makeHandler(() => FailureClass.permanent)
      yield* ErrorStrategy.handle(handler, strategy, { ...options, handler: "counted" })
      const series = (yield* Metric.snapshot).find(({ attributes, id }) =>
        id === "strata_error_decisions_total" && attributes?.["handler"] === "counted"
      )
      assert.deepInclude(series?.attributes, { class: "Permanent", decision: "DeadLetter" })
    }).pipe(Effect.provide(services)))
})

describe("of several layers that retry", () => {
  it.effect("only the outermost does, when a handler retries inside", () =>
    Effect.gen(function*() {
      const { at, handler } = makeHandler(() => FailureClass.transient)
      const inner = RetryPolicy.retry(handler, { policy, classify: itself })
      yield* after("1 hour", ErrorStrategy.handle(inner, strategy, options))
      assert.strictEqual(at.length, 3)
    }).pipe(Effect.provide(services)))

  it.effect("only the outermost does, when a layer above retries: it gets the failure back, and nothing is put aside", () =>
    Effect.gen(function*() {
      const retriedAbove = Effect.fnUntraced(function*(failureOf: (call: number) => Failure | undefined) {
        const { at, handler } = makeHandler(failureOf)
        const outer = RetryPolicy.retry(ErrorStrategy.handle(handler, strategy, options), {
          policy,
          classify: (error) => error._tag === "Transient" ? FailureClass.transient : FailureClass.permanent
        })
        const exit = yield* after("1 hour", outer)
        return { calls: at.length, exit }
      })
      const passing = yield* retriedAbove((call) => call < 3 ? FailureClass.transient : undefined)
      assert.deepStrictEqual(passing, { calls: 3, exit: Exit.succeed(Option.some("done")) })
      const failing = yield* retriedAbove(() => FailureClass.transient)
      assert.strictEqual(failing.calls, 3)
      assert.isTrue(Exit.isFailure(failing.exit))
      assert.deepStrictEqual(yield* letters, [])
    }).pipe(Effect.provide(services)))

  it.effect("a retry inside works when the strategy has none", () =>
    Effect.gen(function*() {
      const { at, handler } = makeHandler(() => FailureClass.transient)
      const stopping = Result.getOrThrow(ErrorStrategy.make({
        ...strategy,
        transient: deadLetter(),
        throttled: deadLetter(),
        unknownOutcome: deadLetter()
      }))
      yield* after(
        "1 hour",
        ErrorStrategy.handle(RetryPolicy.retry(handler, { policy, classify: itself }), stopping, options)
      )
      assert.strictEqual(at.length, 3)
    }).pipe(Effect.provide(services)))
})

describe("a circuit of a strategy", () => {
  const guarded = Result.getOrThrow(ErrorStrategy.make({
    ...strategy,
    transient: pipe(circuitBreaker("bank"), andThen(deadLetter())),
    permanent: deadLetter()
  }))
  const fail = (failure: Failure) => ErrorStrategy.handle(Effect.fail(failure), guarded, options)

  it.effect("opens by the failures of its class, after which the handler is not begun and nothing is put aside", () =>
    Effect.gen(function*() {
      yield* Effect.replicateEffect(fail(FailureClass.transient), 3)
      assert.strictEqual((yield* letters).length, 3)
      const { at, handler } = makeHandler(() => undefined)
      const error = yield* Effect.flip(ErrorStrategy.handle(handler, guarded, options))
      assert.strictEqual(error._tag, "CircuitBreakerError")
      assert.deepStrictEqual([at.length, (yield* letters).length], [0, 3])
      const failure = FailureClass.classify(error)
      const now = Timestamp.fromMillis(0)
      const decision = ErrorStrategy.decide(guarded, {
        failure,
        attempt: 1,
        random: 0,
        firstAt: now,
        now,
        begun: false
      })
      assert.deepInclude(decision, { _tag: "Postpone", at: Timestamp.fromMillis(5000) })
    }).pipe(Effect.provide(services)))

  it.effect("ignores the failures of other classes", () =>
    Effect.gen(function*() {
      yield* Effect.replicateEffect(fail(FailureClass.permanent), 10)
      assert.deepStrictEqual(
        yield* ErrorStrategy.handle(Effect.succeed(1), guarded, options),
        Option.some(1)
      )
    }).pipe(Effect.provide(services)))

  it.effect("counts all tries of one call as one failure", () =>
    Effect.gen(function*() {
      const retried = Result.getOrThrow(ErrorStrategy.make({
        ...strategy,
        transient: pipe(retry(policy), andThen(circuitBreaker("bank")), andThen(deadLetter()))
      }))
      const { at, handler } = makeHandler(() => FailureClass.transient)
      yield* after("1 minute", ErrorStrategy.handle(handler, retried, options))
      const breaker = yield* CircuitBreaker.CircuitBreaker
      assert.deepStrictEqual([at.length, (yield* breaker.status("bank")).state], [3, "Closed"])
    }).pipe(Effect.provide(services)))

  it.effect("guards a handler whose attempts are stored, too", () =>
    Effect.gen(function*() {
      const attempt = ErrorStrategy.throughCircuits(Effect.fail<Failure>(FailureClass.transient), guarded, {
        classify: itself
      })
      yield* Effect.replicateEffect(Effect.exit(attempt), 3)
      assert.strictEqual((yield* Effect.flip(attempt))._tag, "CircuitBreakerError")
    }).pipe(Effect.provide(services)))
})
