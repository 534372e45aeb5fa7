import { assert, describe, it } from "@effect/vitest"
import * as CircuitBreaker from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitBreakerError from "@strata/resilience/breaker/CircuitBreakerError"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as EffectBreaker from "effect/persistence/CircuitBreaker"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"

// ------------------------------------------------------------------------------------------------------- policies

/** All calls are probes, four of them, judged when all are in. */
const plain = CircuitPolicy.make({
  window: "20 seconds",
  minimumCalls: 5,
  failureRate: 0.5,
  timeoutRate: 1,
  slowCallDuration: "4 seconds",
  slowCallRate: 0.5,
  openDuration: "5 seconds",
  openFactor: 1,
  maxRetryAfter: "1 hour",
  halfOpenShare: 1,
  halfOpenCalls: 4,
  halfOpenMinimumCalls: 4,
  halfOpenInFlight: 4,
  halfOpenSuccessRate: 0.51,
  earlyReopen: false
})

/** A tenth of the calls are probes, twenty of them, and three failures are enough to open again. */
const sampled = CircuitPolicy.make({
  window: "20 seconds",
  minimumCalls: 5,
  timeoutRate: 1,
  openDuration: "5 seconds"
})

// ---------------------------------------------------------------------------------------------------------- steps

/** How a call ends: failed, succeeded, timed out, interrupted, died. */
type End = "F" | "S" | "T" | "I" | "D"

/** What calls fail with. */
type Failed = string | object

const ends: Readonly<Record<End, Effect.Effect<string, Failed>>> = {
  F: Effect.fail("down"),
  S: Effect.succeed("fine"),
  T: Effect.fail(new Cause.TimeoutError()),
  I: Effect.interrupt,
  D: Effect.die("broken")
}

const isEnd = (text: string): text is End => text in ends

interface Call {
  readonly fiber: Fiber.Fiber<Exit.Exit<string, Failed>>
  readonly go: (end: End) => Effect.Effect<void>
}

/** One breaker, and the calls that run through its circuit `"callee"`. */
interface World {
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  readonly transitions: Array<CircuitBreaker.Transition>
  readonly exceeded: Array<CircuitBreaker.ThresholdExceeded>
  readonly running: Map<string, Call>
  /** How many calls ran. */
  ran: number
}

type Step = (world: World) => Effect.Effect<void, CircuitBreakerError.CircuitBreakerError, Scope.Scope>

const makeWorld = Effect.fnUntraced(function*(options: CircuitBreaker.Options) {
  const breaker = yield* CircuitBreaker.make(options)
  const world: World = { breaker, transitions: [], exceeded: [], running: new Map(), ran: 0 }
  yield* breaker.transitions.pipe(
    Stream.runForEach((transition) => Effect.sync(() => world.transitions.push(transition))),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* breaker.thresholdsExceeded.pipe(
    Stream.runForEach((exceeded) => Effect.sync(() => world.exceeded.push(exceeded))),
    Effect.forkScoped({ startImmediately: true })
  )
  return world
})

const through = (world: World, effect: Effect.Effect<string, Failed>) =>
  Effect.suspend(() => {
    world.ran++
    return effect
  }).pipe(world.breaker.execute({ key: "callee" }), Effect.exit)

const refusal = (exit: Exit.Exit<string, Failed>): CircuitBreakerError.CircuitBreakerError | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const error = Cause.squash(exit.cause)
  return error instanceof EffectBreaker.CircuitBreakerError ? error : undefined
}

/** Calls that run and end at once, one after the other. */
const calls = (text: string): Step => (world) =>
  Effect.forEach(
    [...text].filter(isEnd),
    (end) => Effect.map(through(world, ends[end]), (exit) => assert.isUndefined(refusal(exit), "a call was refused")),
    { discard: true }
  )

/** A call that takes some time. */
const lasting = (duration: Duration.Input, end: End): Step =>
  Effect.fnUntraced(function*(world) {
    const fiber = yield* Effect.forkChild(through(world, Effect.andThen(Effect.sleep(duration), ends[end])), {
      startImmediately: true
    })
    yield* TestClock.adjust(duration)
    yield* Fiber.join(fiber)
  })

/** A call that goes on until `finish`; made again until it is let through, at most 20 times. */
const begin = (name: string): Step =>
  Effect.fnUntraced(function*(world) {
    for (let attempt = 0; attempt < 20; attempt++) {
      const before = world.ran
      const latch = yield* Latch.make()
      let end: Effect.Effect<string, Failed> = ends.S
      const fiber = yield* Effect.forkScoped(
        through(world, Effect.andThen(latch.await, Effect.suspend(() => end))),
        { startImmediately: true }
      )
      if (world.ran === before) continue
      world.running.set(name, {
        fiber,
        go: (as) =>
          Effect.gen(function*() {
            if (as === "I") return yield* Fiber.interrupt(fiber)
            end = ends[as]
            yield* latch.open
            yield* Fiber.await(fiber)
          })
      })
      return
    }
    assert.fail("no call was let through")
  })

const finish = (name: string, end: End): Step => (world) =>
  Effect.suspend(() => {
    const call = world.running.get(name)
    return call === undefined ? Effect.die(`no call ${name}`) : call.go(end)
  })

/** Probes one after the other, each as soon as a call is let through. */
const probes = (text: string): Step => (world) =>
  Effect.forEach(
    [...text].filter(isEnd),
    (end, index) => Effect.andThen(begin(`probe ${index}`)(world), finish(`probe ${index}`, end)(world)),
    { discard: true }
  )

/** A call that is refused, and told how long to wait. */
const refused = (seconds?: number): Step =>
  Effect.fnUntraced(function*(world) {
    const before = world.ran
    const error = refusal(yield* through(world, ends.S))
    assert.isDefined(error, "a call ran")
    assert.strictEqual(world.ran, before)
    const wait = CircuitBreakerError.retryAfter(error)
    assert.isDefined(wait)
    if (seconds !== undefined) assert.closeTo(Duration.toSeconds(wait), seconds, 1e-6)
  })

const pass = (duration: Duration.Input): Step => () => TestClock.adjust(duration)

const is = (expected: Partial<CircuitBreaker.Status>): Step => (world) =>
  Effect.map(world.breaker.status("callee"), (status) => assert.deepInclude(status, expected))

const moved = (...expected: ReadonlyArray<Partial<CircuitBreaker.Transition>>): Step =>
  Effect.fnUntraced(function*(world) {
    yield* TestClock.adjust(0)
    assert.strictEqual(world.transitions.length, expected.length)
    expected.forEach((each, index) => assert.deepInclude(world.transitions[index], each))
  })

const exceeded = (...reasons: ReadonlyArray<string>): Step =>
  Effect.fnUntraced(function*(world) {
    yield* TestClock.adjust(0)
    assert.deepStrictEqual(world.exceeded.map(({ reason }) => reason), reasons)
  })

const tell = (command: "forceOpen" | "disable" | "metricsOnly" | "reset", actor = "ada"): Step => ({ breaker }) =>
  breaker[command]("callee", { actor })

/** Opened at the beginning, and half-open since. The first probe has not been let through. */
const openAtFirst: ReadonlyArray<Step> = [calls("FFFFF"), is({ state: "Open" })]
const dueAtFirst: ReadonlyArray<Step> = [...openAtFirst, pass("5 seconds")]

type Case = readonly [name: string, policy: CircuitPolicy.CircuitPolicy, steps: ReadonlyArray<Step>]

const table = (cases: ReadonlyArray<Case>) => {
  for (const [name, policy, steps] of cases) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const world = yield* makeWorld({ policy })
        for (const step of steps) yield* step(world)
      }).pipe(Effect.provide(CircuitStore.layerMemory())))
  }
}

// ---------------------------------------------------------------------------------------------------------- tables

describe("a closed circuit", () => {
  table([
    ["has no rate before the minimum of calls, then opens on the call that shows one, even a success", plain, [
      calls("FFFS"),
      is({ state: "Closed", calls: 4, failureRate: undefined }),
      exceeded(),
      calls("S"),
      exceeded("failureRate"),
      moved({
        from: "Closed",
        to: "Open",
        reason: "failureRate",
        counts: { calls: 5, failures: 3, timeouts: 0, slow: 0 }
      }),
      refused(),
      is({ state: "Open", rejected: 1 })
    ]],
    ["stays closed below the rate and opens when it is reached", plain, [
      calls("S"),
      pass("1 second"),
      calls("S"),
      pass("1 second"),
      calls("S"),
      pass("1 second"),
      calls("F"),
      pass("1 second"),
      calls("F"),
      is({ state: "Closed", failureRate: 0.4 }),
      pass("1 second"),
      calls("F"),
      is({ state: "Open" }),
      moved({ counts: { calls: 6, failures: 3, timeouts: 0, slow: 0 } })
    ]],
    ["does not open before the minimum of calls, whatever they say", CircuitPolicy.make({ minimumCalls: 10 }), [
      calls("FFFFFFFFF"),
      is({ state: "Closed", calls: 9 }),
      calls("F"),
      is({ state: "Open" })
    ]],
    ["opens when half of the calls are slow, failed ones too", plain, [
      lasting("5 seconds", "F"),
      lasting("5 seconds", "S"),
      lasting("100 millis", "F"),
      lasting("100 millis", "S"),
      is({ state: "Closed" }),
      lasting("5 seconds", "S"),
      is({ state: "Open" }),
      moved({ reason: "slowCallRate", counts: { calls: 5, failures: 2, timeouts: 0, slow: 3 } })
    ]],
    ["calls slow what took longer than the limit, not what took as long", plain, [
      lasting("4 seconds", "S"),
      lasting("4 seconds", "S"),
      lasting("4001 millis", "S"),
      lasting("1 millis", "S"),
      lasting("1 millis", "S"),
      is({ state: "Closed", slowCallRate: 0.2 })
    ]],
    ["forgets what is older than the window", plain, [
      calls("FFFF"),
      pass("21 seconds"),
      calls("F"),
      is({ state: "Closed", calls: 1 })
    ]],
    ["forgets it also after an idle hour", plain, [
      calls("FFFF"),
      pass("1 hour"),
      is({ calls: 0 }),
      calls("F"),
      is({ state: "Closed", calls: 1 })
    ]],
    ["opens at a tenth of time-outs", CircuitPolicy.make({}), [
      calls("SSSSSSSSSSSSSSSSSST"),
      is({ state: "Closed", calls: 19 }),
      calls("T"),
      is({ state: "Open" }),
      moved({ reason: "timeoutRate", openFor: Duration.seconds(30) })
    ]],
    ["counts a defect as a failure and an interruption as nothing", plain, [
      calls("IIIIIIDDDS"),
      is({ state: "Closed", calls: 4 }),
      calls("S"),
      moved({ counts: { calls: 5, failures: 3, timeouts: 0, slow: 0 } })
    ]],
    [
      "learns the normal latency, and calls slow what takes more than twice as long",
      CircuitPolicy.make({ window: "20 seconds", minimumCalls: 5 }),
      [
        lasting("100 millis", "S"),
        lasting("100 millis", "S"),
        lasting("100 millis", "S"),
        lasting("100 millis", "S"),
        lasting("100 millis", "S"),
        is({ normalLatency: undefined, slowCallRate: 0 }),
        pass("2 seconds"),
        calls("S"),
        is({ normalLatency: Duration.millis(100) }),
        pass("21 seconds"),
        lasting("200 millis", "S"),
        lasting("200 millis", "S"),
        lasting("201 millis", "S"),
        lasting("201 millis", "S"),
        is({ state: "Closed", calls: 4 }),
        lasting("1 second", "S"),
        is({ state: "Open" }),
        moved({ reason: "slowCallRate", counts: { calls: 5, failures: 0, timeouts: 0, slow: 3 } })
      ]
    ],
    ["opens once when several calls fail at once, and still becomes half-open", plain, [
      begin("a"),
      begin("b"),
      begin("c"),
      begin("d"),
      begin("e"),
      begin("f"),
      ...["a", "b", "c", "d", "e", "f"].map((name) => finish(name, "F")),
      moved({ to: "Open" }),
      is({ late: 1 }),
      pass("5 seconds"),
      begin("probe"),
      is({ state: "HalfOpen" })
    ]]
  ])
})

describe("an open circuit", () => {
  table([
    ["refuses until its time is over, then lets the first call through with empty counters", plain, [
      ...openAtFirst,
      pass("3 seconds"),
      refused(2),
      pass("1999 millis"),
      refused(0.001),
      pass("1 millis"),
      begin("probe"),
      is({ state: "HalfOpen", calls: 0, probes: 1 })
    ]],
    ["stays open while nobody calls", plain, [
      ...openAtFirst,
      pass("60 seconds"),
      is({ state: "Open", retryAfter: Duration.zero }),
      moved({ to: "Open" })
    ]],
    [
      "opens for longer each time up to a limit, and for the first time again once it has closed",
      CircuitPolicy.make({
        minimumCalls: 5,
        openDuration: "5 seconds",
        maxOpenDuration: "60 seconds",
        halfOpenShare: 1,
        halfOpenCalls: 1,
        halfOpenMinimumCalls: 1
      }),
      [
        calls("FFFFF"),
        ...[5000, 10_000, 20_000, 40_000].flatMap((millis) => [
          pass(millis - 1),
          refused(0.001),
          pass("1 millis"),
          calls("F")
        ]),
        pass("60 seconds"),
        calls("S"),
        is({ state: "Closed", openings: 0 }),
        calls("FFFFF"),
        pass("5 seconds"),
        calls("F"),
        pass("10 seconds"),
        calls("F"),
        (world) =>
          Effect.sync(() => {
            const openings = world.transitions.filter(({ to }) => to === "Open")
            assert.deepStrictEqual(openings.map(({ attempt }) => attempt), [0, 1, 2, 3, 4, 0, 1, 2])
            assert.deepStrictEqual(
              openings.map(({ openFor }) => openFor === undefined ? undefined : Duration.toSeconds(openFor)),
              [5, 10, 20, 40, 60, 5, 10, 20]
            )
          })
      ]
    ],
    ["stays open as long as the callee asked for", plain, [
      calls("FFFF"),
      (world) => through(world, Effect.fail({ status: 503, retryAfter: Duration.seconds(120) })),
      is({ state: "Open", retryAfter: Duration.seconds(120) }),
      pass("119 seconds"),
      refused(1)
    ]],
    ["stays open no longer than the limit when the callee asks for more", plain, [
      calls("FFFF"),
      (world) => through(world, Effect.fail({ status: 503, retryAfter: Duration.days(3) })),
      is({ state: "Open", retryAfter: Duration.hours(1) })
    ]],
    ["does not wait longer when the wall clock is put back an hour", plain, [
      ...openAtFirst,
      () => TestClock.setTime(-3_600_000),
      pass("4999 millis"),
      refused(0.001),
      pass("1 millis"),
      begin("probe"),
      is({ state: "HalfOpen" })
    ]]
  ])
})

describe("a half-open circuit", () => {
  table([
    ["lets its probes through and no other call, and gives back the turn of one that says nothing", plain, [
      ...dueAtFirst,
      begin("a"),
      begin("b"),
      begin("c"),
      begin("d"),
      refused(1),
      refused(1),
      finish("a", "I"),
      begin("e"),
      refused()
    ]],
    ["opens again when most of its probes failed", plain, [
      ...dueAtFirst,
      calls("FFSF"),
      is({ state: "Open" }),
      moved({ to: "Open" }, { to: "HalfOpen" }, {
        from: "HalfOpen",
        to: "Open",
        reason: "probesFailed",
        counts: { calls: 4, failures: 3, timeouts: 0, slow: 0 }
      })
    ]],
    ["closes with empty counters when most of its probes succeeded", plain, [
      ...dueAtFirst,
      calls("FSSS"),
      is({ state: "Closed", calls: 0, failureRate: undefined }),
      moved({ to: "Open" }, { to: "HalfOpen" }, { to: "Closed", reason: "probesSucceeded" })
    ]],
    ["opens again when its probes succeeded too slowly", plain, [
      ...dueAtFirst,
      lasting("5 seconds", "S"),
      lasting("5 seconds", "S"),
      lasting("5 seconds", "S"),
      calls("S"),
      is({ state: "Open" }),
      moved({ to: "Open" }, { to: "HalfOpen" }, {
        to: "Open",
        reason: "probesSlow",
        counts: { calls: 4, failures: 0, timeouts: 0, slow: 3 }
      })
    ]],
    ["closes after as many successes, whatever number of probes said nothing", plain, [
      ...dueAtFirst,
      calls("IIIISSS"),
      is({ state: "HalfOpen" }),
      calls("S"),
      is({ state: "Closed" })
    ]],
    ["lets the first call through and then each tenth, and tells the others when to come back", sampled, [
      ...dueAtFirst,
      Effect.fnUntraced(function*(world) {
        const admitted: Array<number> = []
        for (let index = 1; index <= 100; index++) {
          const error = refusal(yield* through(world, ends.S))
          if (error === undefined) admitted.push(index)
          else assert.isDefined(CircuitBreakerError.retryAfter(error))
        }
        assert.deepStrictEqual(admitted, [1, 11, 21, 31, 41, 51, 61, 71, 81, 91])
      }),
      is({ state: "HalfOpen", calls: 10, rejected: 90 })
    ]],
    ["closes at 18 of 20", sampled, [
      ...dueAtFirst,
      probes("FSSSSSSSSFSSSSSSSSS"),
      is({ state: "HalfOpen", calls: 19 }),
      probes("S"),
      is({ state: "Closed" })
    ]],
    ["opens again on the third failure of 20, and what the other probes say is late", sampled, [
      ...dueAtFirst,
      probes("S"),
      begin("a"),
      begin("b"),
      begin("c"),
      begin("d"),
      begin("e"),
      is({ probes: 5 }),
      finish("a", "F"),
      finish("b", "F"),
      is({ state: "HalfOpen" }),
      finish("c", "F"),
      is({ state: "Open", late: 0 }),
      finish("d", "S"),
      finish("e", "F"),
      is({ state: "Open", late: 2, openings: 2 })
    ]],
    ["has at most five probes at a time", sampled, [
      ...dueAtFirst,
      probes("S"),
      begin("a"),
      begin("b"),
      begin("c"),
      begin("d"),
      begin("e"),
      ...Array.from({ length: 30 }, () => refused()),
      finish("a", "S"),
      begin("f"),
      is({ probes: 5 })
    ]],
    ["counts a probe that hangs as failed when its lease is over", sampled, [
      ...dueAtFirst,
      begin("hangs"),
      ...Array.from({ length: 30 }, () => refused()),
      pass("9999 millis"),
      is({ state: "HalfOpen", probes: 1, calls: 0 }),
      pass("1 millis"),
      is({ state: "HalfOpen", probes: 0, calls: 1, failureRate: 1, timeoutRate: 1 }),
      begin("next"),
      finish("hangs", "S"),
      is({ state: "HalfOpen", probes: 1, calls: 1, late: 1 })
    ]],
    ["opens again after a minute without enough probes, though nobody calls", sampled, [
      ...dueAtFirst,
      probes("SSSS"),
      pass("60 seconds"),
      moved({ to: "Open" }, { to: "HalfOpen" }, { to: "Open", reason: "tooFewProbes", openFor: Duration.seconds(10) })
    ]],
    ["closes after a minute by the probes it had, when they are enough", sampled, [
      ...dueAtFirst,
      probes("SSSSS"),
      pass("60 seconds"),
      moved({ to: "Open" }, { to: "HalfOpen" }, { to: "Closed", reason: "probesSucceeded" })
    ]],
    ["is the same as of its deadlines, however late somebody looks", sampled, [
      ...dueAtFirst,
      begin("hangs"),
      pass("1 hour"),
      is({ state: "Open", retryAfter: Duration.zero }),
      moved({ to: "Open" }, { to: "HalfOpen" }, { to: "Open", reason: "tooFewProbes" })
    ]],
    ["gives the turn of an interrupted probe to the next call", sampled, [
      ...dueAtFirst,
      begin("a"),
      refused(),
      finish("a", "I"),
      is({ state: "HalfOpen", probes: 0, calls: 0 }),
      calls("S"),
      is({ calls: 1 })
    ]],
    ["has one first probe when a thousand calls come at once", sampled, [
      ...dueAtFirst,
      Effect.fnUntraced(function*(world) {
        const before = world.ran
        yield* Effect.forEach(
          Array.from({ length: 1000 }),
          () => Effect.forkScoped(through(world, Effect.never), { startImmediately: true }),
          { discard: true }
        )
        assert.strictEqual(world.ran - before, 1)
      }),
      is({ state: "HalfOpen", probes: 1 }),
      moved({ to: "Open" }, { to: "HalfOpen" })
    ]],
    ["does not hear of a failure from before it opened", sampled, [
      begin("old"),
      ...dueAtFirst,
      begin("probe"),
      finish("old", "F"),
      is({ state: "HalfOpen", probes: 1, calls: 0, late: 1 })
    ]],
    ["does not hear of a success from before it opened", sampled, [
      begin("old"),
      ...dueAtFirst,
      begin("probe"),
      finish("old", "S"),
      is({ state: "HalfOpen", probes: 1, calls: 0, late: 1 })
    ]],
    ["does not hear of it when it has closed again", plain, [
      begin("old"),
      ...dueAtFirst,
      calls("SSSS"),
      is({ state: "Closed" }),
      finish("old", "F"),
      is({ state: "Closed", calls: 0, late: 1 })
    ]]
  ])
})

describe("a circuit that is told what to do", () => {
  table([
    ["stays open whatever the time, until it is reset", plain, [
      tell("forceOpen", "ada"),
      refused(5),
      pass("1 day"),
      refused(5),
      is({ state: "ForcedOpen", actor: "ada", rejected: 2 }),
      tell("reset", "bob"),
      is({ state: "Closed", calls: 0, rejected: 0, late: 0, openings: 0, actor: undefined }),
      calls("S"),
      moved({ from: "Closed", to: "ForcedOpen", reason: "command", actor: "ada" }, {
        from: "ForcedOpen",
        to: "Closed",
        reason: "command",
        actor: "bob"
      })
    ]],
    ["is closed by a reset when it is closed, with one event", plain, [
      calls("FFFF"),
      tell("reset"),
      is({ state: "Closed", calls: 0 }),
      moved({
        from: "Closed",
        to: "Closed",
        reason: "command",
        counts: { calls: 4, failures: 4, timeouts: 0, slow: 0 }
      })
    ]],
    ["is closed by a reset when it is open", plain, [
      ...openAtFirst,
      refused(),
      tell("reset"),
      is({ state: "Closed", calls: 0, rejected: 0, openings: 0 }),
      moved({ to: "Open" }, { from: "Open", to: "Closed" })
    ]],
    ["is closed by a reset when it is half-open, and what its probes say is late", plain, [
      ...dueAtFirst,
      begin("probe"),
      tell("reset"),
      finish("probe", "F"),
      is({ state: "Closed", calls: 0, late: 1 }),
      moved({ to: "Open" }, { to: "HalfOpen" }, { from: "HalfOpen", to: "Closed" })
    ]],
    ["lets all calls run and counts nothing when it is disabled", plain, [
      ...openAtFirst,
      tell("disable"),
      calls("FFFFFFFFFF"),
      is({ state: "Disabled", calls: 0, late: 0 })
    ]],
    ["lets all calls run and tells once a window when it only measures", plain, [
      tell("metricsOnly"),
      calls("FFFFFFFF"),
      is({ state: "MetricsOnly", failureRate: 1 }),
      exceeded("failureRate"),
      pass("20 seconds"),
      calls("FFFFFFFF"),
      exceeded("failureRate", "failureRate"),
      moved({ to: "MetricsOnly" })
    ]]
  ])

  it.effect("says who opened it", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld({ policy: plain })
      yield* tell("forceOpen", "ada")(world)
      const reason = refusal(yield* through(world, ends.S))?.reason
      assert.isDefined(reason)
      assert.isTrue(reason instanceof CircuitBreakerError.CircuitForcedOpen)
      assert.strictEqual(reason.message, "Circuit \"callee\" was opened by ada")
      assert.strictEqual(reason._tag, "CircuitOpen")
    }).pipe(Effect.provide(CircuitStore.layerMemory())))
})

class Full extends Schema.TaggedError<Full>("@strata/resilience/test/Full")("Full", {}) {}

describe("what a call says", () => {
  const nothing: ReadonlyArray<readonly [name: string, error: Failed]> = [
    [
      "a refusal of another breaker",
      new EffectBreaker.CircuitBreakerError({ reason: new EffectBreaker.CircuitHalfOpen({ key: "other" }) })
    ],
    [
      "a refusal of a rate limiter",
      new RateLimiter.RateLimiterError({
        reason: new RateLimiter.RateLimitExceeded({
          key: "other",
          limit: 1,
          remaining: 0,
          retryAfter: Duration.seconds(1)
        })
      })
    ],
    ["a refusal of a bulkhead", new Full({})],
    [
      "a value that fits no schema",
      Option.getOrThrow(Exit.findErrorOption(Schema.decodeUnknownExit(Schema.Int)("one")))
    ],
    ["a request that was wrong", { _tag: "HttpClientError", reason: { response: { status: 422 } } }]
  ]
  for (const [name, error] of nothing) {
    it.effect(`${name} says nothing`, () =>
      Effect.gen(function*() {
        const world = yield* makeWorld({ policy: plain })
        for (let index = 0; index < 10; index++) yield* through(world, Effect.fail(error))
        yield* is({ state: "Closed", calls: 0 })(world)
      }).pipe(Effect.provide(CircuitStore.layerMemory())))
  }

  it.effect("a classifier decides, as a value or as an effect", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ policy: plain })
      for (let index = 0; index < 5; index++) {
        yield* Effect.succeed(500).pipe(breaker.execute({
          key: "callee",
          classify: (exit) =>
            Exit.isSuccess(exit) && exit.value === 500
              ? Effect.succeed(EffectBreaker.failure())
              : EffectBreaker.success
        }))
      }
      assert.strictEqual((yield* breaker.status("callee")).state, "Open")
    }).pipe(Effect.provide(CircuitStore.layerMemory())))

  it.effect("a classifier that dies fails the call and says nothing", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ policy: plain })
      const exit = yield* Effect.succeed(1).pipe(
        breaker.execute({ key: "callee", classify: () => Effect.die("wrong") }),
        Effect.exit
      )
      assert.isTrue(Exit.hasDies(exit))
      const status = yield* breaker.status("callee")
      assert.deepInclude(status, { state: "Closed", calls: 0 })
    }).pipe(Effect.provide(CircuitStore.layerMemory())))
})

describe("a breaker", () => {
  it.effect("has a circuit for each key", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ policy: plain })
      for (let index = 0; index < 5; index++) {
        yield* Effect.exit(Effect.fail("down").pipe(breaker.execute({ key: "one" })))
      }
      assert.strictEqual((yield* breaker.status("one")).state, "Open")
      assert.strictEqual(yield* Effect.succeed("fine").pipe(breaker.execute({ key: "two" })), "fine")
    }).pipe(Effect.provide(CircuitStore.layerMemory())))

  it.effect("keeps no more circuits than it may, and forgets closed ones first", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ policy: plain })
      for (let index = 0; index < 5; index++) {
        yield* Effect.exit(Effect.fail("down").pipe(breaker.execute({ key: "down" })))
      }
      for (let index = 0; index < 100; index++) {
        yield* Effect.exit(Effect.fail("down").pipe(breaker.execute({ key: `key ${index}` })))
      }
      assert.strictEqual((yield* breaker.status("down")).state, "Open")
      assert.strictEqual((yield* breaker.status("key 99")).calls, 1)
      assert.strictEqual((yield* breaker.status("key 0")).calls, 0)
    }).pipe(Effect.provide(CircuitStore.layerMemory({ capacity: 10 }))))

  const failing = new EffectBreaker.CircuitBreakerError({
    reason: new EffectBreaker.CircuitBreakerStoreError({ message: "gone" })
  })
  const brokenStore = CircuitStore.CircuitStore.of({
    open: () =>
      Effect.succeed({
        admit: () => Effect.fail(failing),
        end: () => Effect.succeed("Counted"),
        command: () => Effect.fail(failing),
        read: () => Effect.fail(failing)
      })
  })

  it.effect("lets calls run when its store fails", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make()
      assert.strictEqual(yield* Effect.succeed("fine").pipe(breaker.execute({ key: "callee" })), "fine")
    }).pipe(Effect.provideService(CircuitStore.CircuitStore, brokenStore)))

  it.effect("refuses calls when its store fails, if it shall", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ onStoreError: "fail" })
      const error = yield* Effect.flip(Effect.succeed("fine").pipe(breaker.execute({ key: "callee" })))
      assert.strictEqual(error.reason._tag, "CircuitBreakerStoreError")
    }).pipe(Effect.provideService(CircuitStore.CircuitStore, brokenStore)))

  it.effect("measures calls, transitions and circuits by state", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld({ name: "measured", policy: plain })
      yield* calls("FFFFF")(world)
      yield* refused()(world)
      const series = (yield* Metric.snapshot)
        .filter(({ attributes }) => attributes?.["breaker"] === "measured")
        .map(({ attributes, id, state }) => ({
          id,
          is: attributes?.["outcome"] ?? attributes?.["state"] ?? attributes?.["reason"],
          value: "value" in state ? state.value : "count" in state ? state.count : undefined
        }))
      assert.deepInclude(series, { id: "strata_circuit_calls_total", is: "failure", value: 5 })
      assert.deepInclude(series, { id: "strata_circuit_transitions_total", is: "failureRate", value: 1 })
      assert.deepInclude(series, { id: "strata_circuit_circuits", is: "Open", value: 1 })
    }).pipe(Effect.provide(CircuitStore.layerMemory())))

  it.effect("serves as effect's own", () =>
    Effect.gen(function*() {
      const ours = yield* CircuitBreaker.make({ policy: plain })
      const breaker = CircuitBreaker.toEffect(ours)
      for (let index = 0; index < 5; index++) {
        yield* Effect.exit(Effect.fail("down").pipe(breaker.execute({ key: "callee" })))
      }
      assert.deepStrictEqual(yield* breaker.state("callee"), {
        _tag: "Open",
        key: "callee",
        retryAfter: Duration.seconds(5),
        consecutiveOpenings: 1
      })
    }).pipe(Effect.provide(CircuitStore.layerMemory())))
})

describe("a policy", () => {
  it("is one line to read", () => {
    assert.strictEqual(
      CircuitPolicy.format(CircuitPolicy.standard),
      "opens at 50 % failures, 10 % time-outs or 50 % over 2 × normal, of 20 calls or more in 1m; for 30s × 2 up to 10m; " +
        "half-open 10 % of calls; closes at 90 % of 20"
    )
  })

  const nonsense: ReadonlyArray<readonly [name: string, options: CircuitPolicy.Options]> = [
    ["a rate above 1", { failureRate: 1.5 }],
    ["a rate of nothing", { timeoutRate: 0 }],
    ["half a call", { minimumCalls: 0.5 }],
    ["a window without length", { window: "0 seconds" }],
    ["what is no duration", { openDuration: "soon" }],
    ["an opening longer than the longest", { openDuration: "1 hour" }],
    ["a lease longer than the half-open phase", { probeLease: "2 minutes" }],
    ["a judgement by more probes than there are", { halfOpenCalls: 4 }]
  ]
  for (const [name, options] of nonsense) {
    it(`is not made from ${name}`, () => {
      assert.throws(() => CircuitPolicy.make(options))
    })
  }
})
