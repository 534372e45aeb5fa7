/**
 * A second try of a read that takes longer than usual, whoever answers first.
 *
 * **When to use**
 *
 * For reads that may be made twice and whose slowest few are much slower than the rest, with a delay that 95 of 100
 * answers stay below (Dean and Barroso, The Tail at Scale, 2013). A hedge is not a retry: a read that fails before its
 * delay fails.
 *
 * **Details**
 *
 * - The loser is interrupted, and waited for, so nothing of it goes on in the caller's scope.
 * - When both fail, the failure is that of the first to have failed.
 * - Every read adds a share of a hedge to the budget, and every hedge takes one: when everything is slow, hedging would
 *   only make it slower, and the budget ends it.
 *
 * **Gotchas**
 *
 * Never for what writes: both may have happened.
 *
 * **Example** (A read that is made again after 30 milliseconds)
 *
 * ```ts import.meta.vitest
 * import * as Hedge from "@strata/resilience/bounds/Hedge"
 * import * as Effect from "effect/Effect"
 *
 * let tries = 0
 * const read = Effect.suspend(() => ++tries === 1 ? Effect.never : Effect.succeed("answer"))
 * const program = Effect.gen(function*() {
 *   const hedge = yield* Hedge.make({ delay: "30 millis" })
 *   return yield* hedge.run(read)
 * })
 *
 * await Effect.runPromise(program) // => "answer"
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/**
 * When to try a second time, and how often at most.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** How long the first try has before there is a second. */
  readonly delay: Duration.Input
  /** Second tries for each read, in the long run: 0 to 1. Default: 0.05. */
  readonly share?: number | undefined
  /** Second tries that may come at once. Default: 10. */
  readonly burst?: number | undefined
}

/**
 * What a hedge did since it was made.
 *
 * @category models
 * @since 0.1.0
 */
export interface HedgeState {
  readonly reads: number
  /** Second tries. */
  readonly hedges: number
  /** Second tries that answered first. */
  readonly won: number
  /** Second tries the budget did not allow. */
  readonly denied: number
  /** Second tries that may come now. */
  readonly budget: number
}

/**
 * A hedge, with the budget of all that runs through it. See `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Hedge {
  readonly run: <A, E, R>(read: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly state: Effect.Effect<HedgeState>
}

/**
 * A hedge.
 *
 * **Details**
 *
 * Dies with a `RangeError` when the share is not from 0 to 1 or the burst is below 0.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<Hedge> {
  const { burst = 10, delay, share = 0.05 } = options
  if (!(share >= 0 && share <= 1 && burst >= 0)) {
    return yield* Effect.die(
      new RangeError(`Hedge: share must be 0 to 1 and burst not below 0, got ${share}, ${burst}`)
    )
  }
  const state = { reads: 0, hedges: 0, won: 0, denied: 0, budget: burst }
  const mayHedge = (): boolean => {
    if (state.budget < 1) {
      state.denied++
      return false
    }
    state.budget--
    state.hedges++
    return true
  }
  return {
    run: (read) =>
      Effect.suspend(() => {
        state.reads++
        state.budget = Math.min(burst, state.budget + share)
        return both(read, delay, mayHedge, () => {
          state.won++
        })
      }),
    state: Effect.sync(() => ({ ...state }))
  }
})

const both = <A, E, R>(
  read: Effect.Effect<A, E, R>,
  delay: Duration.Input,
  mayHedge: () => boolean,
  onSecond: () => void
): Effect.Effect<A, E, R> => {
  let running = 1
  let failed: Cause.Cause<E> | undefined
  // The last to fail, fails with what failed first.
  const tried = Effect.catchCause(read, (cause): Effect.Effect<never, E> => {
    failed ??= cause
    return --running > 0 ? Effect.never : Effect.failCause(failed)
  })
  const second = Effect.suspend(() => {
    if (!mayHedge()) return Effect.never
    running++
    return Effect.tap(tried, () => Effect.sync(onSecond))
  })
  return Effect.raceFirst(tried, Effect.delay(second, delay))
}
