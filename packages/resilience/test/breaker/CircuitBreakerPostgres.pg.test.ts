import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as CircuitBreaker from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitBreakerError from "@strata/resilience/breaker/CircuitBreakerError"
import * as CircuitBreakerPostgres from "@strata/resilience/breaker/CircuitBreakerPostgres"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
import * as ResilienceMigrations from "@strata/resilience/ResilienceMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"

const policy = CircuitPolicy.make({
  minimumCalls: 6,
  openDuration: "1 minute",
  maxOpenDuration: "1 minute",
  timeoutRate: 1,
  slowCallDuration: "1 minute"
})
const shortly = CircuitPolicy.make({
  minimumCalls: 6,
  openDuration: "50 millis",
  maxOpenDuration: "50 millis",
  timeoutRate: 1,
  slowCallDuration: "1 minute",
  halfOpenShare: 0.9,
  halfOpenCalls: 3,
  halfOpenMinimumCalls: 3
})

/** As another process would have it: with a store and views of its own. */
const startProcess = Effect.fnUntraced(function*(
  policy: CircuitPolicy.CircuitPolicy,
  options?: CircuitBreakerPostgres.Options
) {
  const context = yield* Layer.build(Layer.fresh(CircuitBreakerPostgres.layer(options)))
  return yield* Effect.provideService(
    CircuitBreaker.make({ policy }),
    CircuitStore.CircuitStore,
    Context.get(context, CircuitStore.CircuitStore)
  )
})

type Process = CircuitBreaker.CircuitBreaker["Service"]

const fail = (process: Process, key: string, times: number) =>
  Effect.forEach(
    Array.from({ length: times }),
    () => Effect.flip(Effect.fail("down").pipe(process.execute({ key }))),
    { discard: true }
  )

const call = (process: Process, key: string) => Effect.succeed("fine").pipe(process.execute({ key }))

const stateOf = (process: Process, key: string) => Effect.map(process.status(key), ({ state }) => state)

/** Asks again until it is so. */
const until = <A, E, R>(effect: Effect.Effect<A, E, R>, so: (a: A) => boolean) =>
  Effect.repeat(Effect.map(effect, so), {
    until: (is) => is,
    schedule: Schedule.spaced("10 millis"),
    times: 500
  }).pipe(Effect.map((is) => assert.isTrue(is)))

const Database = Layer.mergeAll(
  PostgresTest.layer({ migrations: [ResilienceMigrations.migrations] }),
  Layer.succeed(References.MinimumLogLevel, "Error")
)

layer(Database, { excludeTestServices: true })("circuits in PostgreSQL", (it) => {
  it.effect("add up what all processes see, and a process stops by what others have seen", () =>
    Effect.gen(function*() {
      const one = yield* startProcess(policy, { interval: "20 millis" })
      const two = yield* startProcess(policy, { interval: "20 millis" })
      yield* fail(one, "sum", 3)
      yield* fail(two, "sum", 3)
      // Nobody asks: outcomes and states move by themselves.
      yield* until(
        Effect.exit(Effect.all([call(one, "sum"), call(two, "sum")], { mode: "result" })),
        (exit) => exit._tag === "Success" && exit.value.every(({ _tag }) => _tag === "Failure")
      )
      assert.strictEqual(yield* stateOf(one, "sum"), "Open")
      assert.strictEqual(yield* stateOf(two, "sum"), "Open")
    }))

  it.effect("stop at once in the process that sees enough failures", () =>
    Effect.gen(function*() {
      const one = yield* startProcess(policy, { interval: "1 minute" })
      yield* fail(one, "own", 6)
      const error = yield* Effect.flip(call(one, "own"))
      assert.strictEqual(error.reason._tag, "CircuitOpen")
    }))

  it.effect("stay open over a restart for as long as was left", () =>
    Effect.gen(function*() {
      const before = yield* startProcess(policy)
      yield* fail(before, "restart", 6)
      const left = (yield* before.status("restart")).retryAfter
      const after = yield* startProcess(policy)
      const error = yield* Effect.flip(call(after, "restart"))
      const wait = CircuitBreakerError.retryAfter(error)
      assert.isDefined(left)
      assert.isDefined(wait)
      assert.isAtMost(Duration.toMillis(wait), Duration.toMillis(left) + 50)
      assert.isAtLeast(Duration.toMillis(wait), Duration.toMillis(left) - 10_000)
    }))

  it.effect("have one first probe for all processes, and close for all by its like", () =>
    Effect.gen(function*() {
      const processes = yield* Effect.forEach([1, 2, 3], () => startProcess(shortly, { interval: "10 millis" }))
      const [one] = processes
      assert.isDefined(one)
      yield* fail(one, "probe", 6)
      yield* Effect.forEach(processes, (each) => until(stateOf(each, "probe"), (state) => state === "Open"), {
        discard: true
      })
      yield* until(one.status("probe"), ({ retryAfter }) => retryAfter !== undefined && Duration.isZero(retryAfter))

      const end = yield* Deferred.make<string>()
      let ran = 0
      const fibers = yield* Effect.forEach(
        processes.flatMap((each) => Array.from({ length: 20 }, () => each)),
        (each) =>
          Effect.suspend(() => {
            ran++
            return Deferred.await(end)
          }).pipe(each.execute({ key: "probe" }), Effect.exit, Effect.forkScoped({ startImmediately: true }))
      )
      yield* until(one.status("probe"), ({ probes, rejected }) => probes === 1 && rejected >= 50)
      assert.strictEqual(ran, 1)
      yield* Deferred.succeed(end, "fine")
      yield* Effect.forEach(fibers, Fiber.await, { discard: true })
      yield* until(
        Effect.andThen(
          Effect.forEach(processes, (each) => Effect.exit(call(each, "probe")), { discard: true }),
          stateOf(one, "probe")
        ),
        (state) => state === "Closed"
      )
      yield* Effect.forEach(processes, (each) => until(stateOf(each, "probe"), (state) => state === "Closed"), {
        discard: true
      })
    }))

  it.effect("are told what to do for all processes", () =>
    Effect.gen(function*() {
      const one = yield* startProcess(policy, { interval: "10 millis" })
      const two = yield* startProcess(policy, { interval: "10 millis" })
      assert.strictEqual(yield* call(two, "told"), "fine")
      yield* one.forceOpen("told", { actor: "ada" })
      const error = yield* Effect.flip(until(call(two, "told"), () => false))
      assert.isTrue(error.reason instanceof CircuitBreakerError.CircuitForcedOpen)
      yield* two.reset("told", { actor: "bob" })
      yield* until(Effect.exit(call(one, "told")), ({ _tag }) => _tag === "Success")
    }))

  it.effect("lose no outcome when many processes write at once", () =>
    Effect.gen(function*() {
      const calm = CircuitPolicy.make({ minimumCalls: 100_000, window: "1 hour" })
      const processes = yield* Effect.forEach([1, 2, 3, 4], () => startProcess(calm, { interval: "5 millis" }))
      yield* Effect.forEach(processes, (each) =>
        Effect.forEach(Array.from({ length: 20 }), () =>
          Effect.andThen(fail(each, "many", 10), Effect.yieldNow), { discard: true }), {
        concurrency: "unbounded",
        discard: true
      })
      yield* Effect.forEach(processes, (each) =>
        each.status("many"), { discard: true })
      const [one] = processes
      assert.isDefined(one)
      assert.strictEqual((yield* one.status("many")).calls, 800)
    }))

  it.effect("go on by what a process sees itself while the database fails, and write it when it is back", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const one = yield* startProcess(policy, { interval: "10 millis", timeout: "200 millis" })
      assert.strictEqual(yield* call(one, "alone"), "fine")
      yield* one.status("alone")
      yield* sql`alter table circuit rename to circuit_gone`
      yield* fail(one, "alone", 6)
      const error = yield* Effect.flip(call(one, "alone"))
      assert.strictEqual(error.reason._tag, "CircuitOpen")
      yield* sql`alter table circuit_gone rename to circuit`
      const two = yield* startProcess(policy, { interval: "10 millis" })
      yield* until(stateOf(two, "alone"), (state) => state === "Open")
    }))
})
