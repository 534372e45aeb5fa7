/**
 * One caller in a closed loop, who does nothing but call: how often that goes in a second.
 *
 * **Details**
 *
 * An effect is called in a fiber that runs all the time, a promise in a loop of callbacks, which costs no more than `await`. Both let
 * the event loop turn after every thousand calls, so that timers fire as they do in a program.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { BenchmarkError, failure, type Lane } from "../Suite.ts"

/**
 * What is called, as an effect or as a promise. It is made anew for every call, as a caller with other arguments would.
 *
 * @category models
 * @since 0.1.0
 */
export type Call =
  | { readonly _tag: "Effect"; readonly make: () => Effect.Effect<unknown, Error> }
  | { readonly _tag: "Promise"; readonly make: () => Promise<unknown> }

/**
 * An effect to call.
 *
 * @category constructors
 * @since 0.1.0
 */
export const effect = (make: () => Effect.Effect<unknown, Error>): Call => ({ _tag: "Effect", make })

/**
 * A promise to call.
 *
 * @category constructors
 * @since 0.1.0
 */
export const promise = (make: () => Promise<unknown>): Call => ({ _tag: "Promise", make })

/**
 * An effect that is called from outside: each call is a fiber of its own, and a promise.
 *
 * @category constructors
 * @since 0.1.0
 */
export const effectFromOutside = (make: () => Effect.Effect<unknown, Error>): Call =>
  promise(() => Effect.runPromise(make()))

/**
 * Calls again and again.
 *
 * @category constructors
 * @since 0.1.0
 */
export const lane = (options: {
  readonly system: string
  readonly work: string
  readonly call: Call
  /** How many calls were really made so far, or decided. Each round is checked against it. */
  readonly done: () => number
}): Lane => ({
  system: options.system,
  run: Effect.fnUntraced(function*(seconds, watch) {
    const before = options.done()
    const timing = yield* watch(run(options.call, seconds)).pipe(
      Effect.mapError(failure(`${options.work} by ${options.system}`))
    )
    const done = options.done() - before
    if (done !== timing.calls) {
      return yield* new BenchmarkError({
        message: `${options.work} by ${options.system}: ${done} of ${timing.calls} calls were made`
      })
    }
    return [{ work: options.work, unit: "ops/s", value: timing.calls / timing.seconds }]
  })
})

/** Calls between two looks at the clock. */
const batch = 1000

/**
 * How often it was called, and for how long.
 *
 * @category models
 * @since 0.1.0
 */
export const Timing = Schema.Struct({ calls: Schema.Int, seconds: Schema.Finite })
export type Timing = typeof Timing.Type

/**
 * Calls for so many seconds.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = (call: Call, seconds: number): Effect.Effect<Timing, BenchmarkError> =>
  call._tag === "Effect" ? runEffects(call.make, seconds) : runPromises(call.make, seconds)

const runEffects = Effect.fnUntraced(function*(make: () => Effect.Effect<unknown, Error>, seconds: number) {
  const watch = yield* stopwatch
  let calls = 0
  while (watch() < seconds) {
    for (let n = 0; n < batch; n++) yield* make()
    calls += batch
    yield* Effect.yieldNow
  }
  return { calls, seconds: watch() }
}, Effect.mapError(failure("A call")))

const runPromises = (make: () => Promise<unknown>, seconds: number): Effect.Effect<Timing, BenchmarkError> =>
  Effect.flatMap(stopwatch, (watch) =>
    Effect.callback<Timing, BenchmarkError>((resume) => {
      let calls = 0
      const fail = (error: unknown) => resume(Effect.fail(failure("A call")(error)))
      const turn = () => {
        if (watch() < seconds) next()
        else resume(Effect.succeed({ calls, seconds: watch() }))
      }
      const next = (): void => {
        make().then(++calls % batch === 0 ? () => void setImmediate(turn) : next, fail)
      }
      next()
    }))

/** Seconds since now. */
const stopwatch = Effect.map(Clock.Clock, (clock) => {
  const start = clock.monotonicTimeNanosUnsafe()
  return () => Number(clock.monotonicTimeNanosUnsafe() - start) / 1e9
})
