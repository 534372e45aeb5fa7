import { assert, it } from "@effect/vitest"
import * as CircuitBreaker from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
import * as Cause from "effect/Cause"
import { Clock } from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"

// Short phases and few probes, so that a schedule of a few dozen steps goes through all of them several times.
const policy = CircuitPolicy.make({
  window: "10 seconds",
  minimumCalls: 3,
  failureRate: 0.5,
  timeoutRate: 0.4,
  slowCallDuration: "3 seconds",
  openDuration: "4 seconds",
  maxOpenDuration: "10 seconds",
  halfOpenShare: 0.5,
  halfOpenInFlight: 2,
  halfOpenCalls: 4,
  halfOpenMinimumCalls: 2,
  halfOpenSuccessRate: 0.75,
  maxHalfOpen: "12 seconds",
  probeLease: "5 seconds"
})

type Failed = string | Cause.TimeoutError

const ends: Readonly<Record<"failed" | "succeeded" | "timedOut" | "interrupted" | "died", Exit.Exit<string, Failed>>> =
  {
    failed: Exit.fail("down"),
    succeeded: Exit.succeed("fine"),
    timedOut: Exit.fail(new Cause.TimeoutError()),
    interrupted: Exit.interrupt(),
    died: Exit.die("broken")
  }

type End = keyof typeof ends
const endings: ReadonlyArray<End> = [
  "failed",
  "failed",
  "failed",
  "succeeded",
  "succeeded",
  "succeeded",
  "timedOut",
  "interrupted",
  "died"
]
const commands = ["forceOpen", "disable", "metricsOnly", "reset"] as const

type Step =
  | { readonly _tag: "Begin"; readonly times: number }
  | { readonly _tag: "End"; readonly which: number; readonly as: End }
  | { readonly _tag: "Pass"; readonly millis: number }
  | { readonly _tag: "Tell"; readonly command: (typeof commands)[number] }

/** The numbers of a seed: xorshift32 (Marsaglia, 2003). */
const draws = (seed: number) => {
  let state = (seed + 1) * 2_654_435_761 >>> 0
  return (below: number): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

/** The schedule of a seed. Most are left alone by commands, since little happens of itself after most of them. */
const scheduleOf = (seed: number): ReadonlyArray<Step> => {
  const draw = draws(seed)
  return Array.from({ length: 30 }, (): Step => {
    const kind = draw(100)
    if (kind < 35) return { _tag: "Begin", times: 1 + draw(4) }
    if (kind < 80) return { _tag: "End", which: draw(100), as: endings[draw(endings.length)] ?? "failed" }
    if (kind < 99) return { _tag: "Pass", millis: draw(5000) }
    return { _tag: "Tell", command: commands[draw(commands.length)] ?? "reset" }
  })
}

/** Time that moves only when told to, and in which nothing wakes: what is due is done when somebody looks. */
const makeClock = () => {
  let nanos = 0n
  const clock = Clock.of({
    currentTimeMillisUnsafe: () => 0,
    currentTimeMillis: Effect.succeed(0),
    currentTimeNanosUnsafe: () => 0n,
    currentTimeNanos: Effect.succeed(0n),
    monotonicTimeNanosUnsafe: () => nanos,
    monotonicTimeNanos: Effect.sync(() => nanos),
    sleep: () => Effect.never
  })
  return {
    clock,
    pass: (millis: number) => {
      nanos += BigInt(millis) * 1_000_000n
    },
    now: () => Number(nanos) / 1e6
  }
}

interface Call {
  readonly generation: number
  readonly end: Deferred.Deferred<string, Failed>
  readonly fiber: Fiber.Fiber<unknown>
}

const seen = new Map<string, number>()

/** What is not true of two looks at a circuit, one after the other, and is of every circuit. */
const wrongOf = (before: CircuitBreaker.Status, after: CircuitBreaker.Status, halfOpenFor: number) => {
  if (after.generation < before.generation) return "the generation went back"
  if (after.generation === before.generation && after.state !== before.state) return "a state without a generation"
  switch (after.state) {
    case "HalfOpen":
      if (after.probes < 0 || after.probes > policy.halfOpenInFlight) return "more probes than there may be at a time"
      if (after.probes + after.calls > policy.halfOpenCalls) return "more probes than there may be"
      return halfOpenFor < Duration.toMillis(policy.maxHalfOpen) ? undefined : "half-open for too long"
    case "Open":
      if (after.retryAfter === undefined) return "open for an unknown time"
      return Duration.isGreaterThan(after.retryAfter, policy.maxOpenDuration) ? "open for too long" : undefined
    default:
      return after.probes === 0 ? undefined : "probes of a circuit that is not half-open"
  }
}

/** Whether a call may run in a state. Undefined when it depends on whose turn it is. */
const mayRun = ({ retryAfter, state }: CircuitBreaker.Status): boolean | undefined => {
  switch (state) {
    case "Closed":
    case "Disabled":
    case "MetricsOnly":
      return true
    case "ForcedOpen":
      return false
    case "Open":
      return retryAfter !== undefined && Duration.isZero(retryAfter)
    case "HalfOpen":
      return undefined
  }
}

const run = (seed: number) => {
  const { clock, now, pass } = makeClock()
  return Effect.gen(function*() {
    const breaker = yield* CircuitBreaker.make({ policy })
    const look = breaker.status("callee")
    const running: Array<Call> = []
    let ran = 0
    let status = yield* look
    let halfOpenSince = 0

    const observe = Effect.gen(function*() {
      const next = yield* look
      seen.set(next.state, (seen.get(next.state) ?? 0) + 1)
      if (next.state === "HalfOpen" && next.generation !== status.generation) halfOpenSince = now()
      const wrong = wrongOf(status, next, now() - halfOpenSince)
      if (wrong !== undefined) assert.fail(wrong)
      status = next
    })

    const begin = Effect.gen(function*() {
      const before = status
      const ranBefore = ran
      const end = yield* Deferred.make<string, Failed>()
      const fiber = yield* Effect.suspend(() => {
        ran++
        return Deferred.await(end)
      }).pipe(
        breaker.execute({ key: "callee" }),
        Effect.exit,
        Effect.forkScoped({ startImmediately: true })
      )
      yield* observe
      const runs = fiber.pollUnsafe() === undefined
      if (ran - ranBefore !== (runs ? 1 : 0)) assert.fail("a call that was refused ran")
      if (runs !== (mayRun(before) ?? status.probes === before.probes + 1)) {
        assert.fail(`${before.state}, runs: ${runs}`)
      }
      if (runs) running.push({ generation: status.generation, end, fiber })
    })

    const end = Effect.fnUntraced(function*(call: Call, as: End) {
      const before = status
      yield* Deferred.done(call.end, ends[as])
      yield* Fiber.await(call.fiber)
      yield* observe
      if (call.generation !== before.generation) {
        assert.deepStrictEqual(status, { ...before, late: before.late + 1 }, "a late word changed something")
      }
    })

    for (const step of scheduleOf(seed)) {
      switch (step._tag) {
        case "Begin":
          for (let time = 0; time < step.times; time++) yield* begin
          break
        case "End": {
          const [call] = running.splice(step.which % Math.max(1, running.length), 1)
          if (call !== undefined) yield* end(call, step.as)
          break
        }
        case "Pass":
          pass(step.millis)
          yield* observe
          break
        case "Tell":
          yield* breaker[step.command]("callee", { actor: "ada" })
          yield* observe
      }
    }
  }).pipe(
    Effect.scoped,
    Effect.provide(CircuitStore.layerMemory()),
    Effect.provideService(Clock, clock),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.catchCause((cause) => Effect.die(new Error(`seed ${seed}`, { cause: Cause.squash(cause) })))
  )
}

it.effect(
  "whatever happens: one state, no more probes than there may be, no refused call that runs, no half-open for ever, no late word",
  () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < 10_000; seed++) yield* run(seed)
      // The schedules went through every state, and often.
      for (const state of ["Closed", "Open", "HalfOpen", "ForcedOpen", "Disabled", "MetricsOnly"]) {
        assert.isAbove(seen.get(state) ?? 0, 1000, state)
      }
    }),
  240_000
)
