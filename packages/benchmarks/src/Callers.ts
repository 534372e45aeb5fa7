/**
 * Callers in a closed loop: each makes its next call when the last one is answered.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/**
 * What the callers saw.
 *
 * @category models
 * @since 0.1.0
 */
export interface Timing {
  readonly calls: number
  /** From the first call to the last answer. */
  readonly seconds: number
  /** Of each call, in milliseconds, ascending. */
  readonly latencies: Float64Array
}

/**
 * Lets `callers` call for about `seconds`: none begins a call after that, and all are waited for.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*<E>(options: {
  readonly callers: number
  readonly seconds: number
  readonly call: (caller: number, turn: number) => Effect.Effect<void, E>
}): Effect.fn.Return<Timing, E> {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const latencies: Array<number> = []
  const start = now()
  const end = start + options.seconds * 1000
  const caller = Effect.fnUntraced(function*(number: number) {
    let before = start
    for (let turn = 0; before < end; turn++) {
      yield* options.call(number, turn)
      const after = now()
      latencies.push(after - before)
      before = after
    }
  })
  yield* Effect.forEach(Array.from({ length: options.callers }, (_, index) => index), caller, {
    concurrency: "unbounded",
    discard: true
  })
  const seconds = (now() - start) / 1000
  return { calls: latencies.length, seconds, latencies: Float64Array.from(latencies).sort() }
})

/**
 * The latency that this share of the calls did not exceed, in milliseconds.
 *
 * @category getters
 * @since 0.1.0
 */
export const percentile = (timing: Timing, share: number): number =>
  timing.latencies[Math.max(0, Math.ceil(timing.latencies.length * share) - 1)] ?? 0
