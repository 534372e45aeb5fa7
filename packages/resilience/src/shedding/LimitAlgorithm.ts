/**
 * How many calls at a time are good, learned from how long they take.
 *
 * **When to use**
 *
 * | algorithm | learns from | for |
 * | --- | --- | --- |
 * | `gradient2` | the average time growing against its own long average | servers, whose calls differ |
 * | `vegas` | the time against the least that was ever seen | calls that are alike |
 * | `aimd` | calls that were dropped, or took too long | clients of what refuses by itself |
 * | `fixed` | nothing | a known limit |
 *
 * **Details**
 *
 * An algorithm is a state and a pure function that takes the next sample. None grows while less than half of the limit
 * is used: then the limit is not what holds the calls back, and says nothing of what more of them would do.
 *
 * Algorithms and constants are those of Netflix's concurrency-limits; Vegas is Brakmo and Peterson's, "TCP Vegas: End to
 * End Congestion Avoidance on a Global Internet" (1995); AIMD is Chiu and Jain's (1989).
 *
 * **Example** (Growing while nothing queues)
 *
 * ```ts import.meta.vitest
 * import * as LimitAlgorithm from "@strata/resilience/shedding/LimitAlgorithm"
 *
 * const { initial, update } = LimitAlgorithm.aimd({ initial: 20 })
 * update(initial, { rtt: 10, inFlight: 10, dropped: false }).limit // => 21
 * ```
 *
 * @since 0.1.0
 */

/**
 * One call that ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sample {
  /** How long it took, in milliseconds. More than 0. */
  readonly rtt: number
  /** How many calls, with this one, were running when it began. */
  readonly inFlight: number
  /** It was refused for overload, or took too long. */
  readonly dropped: boolean
}

/**
 * What every algorithm knows. The whole part of the limit counts.
 *
 * @category models
 * @since 0.1.0
 */
export interface Estimate {
  readonly limit: number
}

/**
 * Where an algorithm begins, and how it goes on.
 *
 * @category models
 * @since 0.1.0
 */
export interface LimitAlgorithm<S extends Estimate = Estimate> {
  readonly name: string
  readonly initial: S
  readonly update: (state: S, sample: Sample) => S
}

/**
 * A limit that stays.
 *
 * @category algorithms
 * @since 0.1.0
 */
export const fixed = (limit: number): LimitAlgorithm => ({
  name: "fixed",
  initial: { limit: Math.max(1, limit) },
  update: (state) => state
})

// ----------------------------------------------------------------------------------------------------------- AIMD

/**
 * One more for each call that goes well, a tenth less for each that is dropped.
 *
 * @category algorithms
 * @since 0.1.0
 */
export const aimd = (options: {
  /** Default: 10. */
  readonly initial?: number | undefined
  /** Default: 1. */
  readonly min?: number | undefined
  /** Default: 200. */
  readonly max?: number | undefined
  /** What is left of the limit after a drop, at least 0.5 and less than 1. Default: 0.9. */
  readonly backoff?: number | undefined
  /** A call of more milliseconds counts as dropped. Default: 5000. */
  readonly timeout?: number | undefined
} = {}): LimitAlgorithm => {
  const { backoff = 0.9, initial = 10, max = 200, min = 1, timeout = 5000 } = options
  return {
    name: "aimd",
    initial: { limit: between(min, initial, max) },
    update: (state, { dropped, inFlight, rtt }) => {
      const { limit } = state
      if (dropped || rtt > timeout) {
        return { limit: between(min, Math.min(limit - 1, Math.floor(limit * backoff)), max) }
      }
      return inFlight * 2 < limit ? state : { limit: between(min, limit + 1, max) }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------- Vegas

/**
 * What Vegas knows.
 *
 * @category models
 * @since 0.1.0
 */
export interface VegasEstimate extends Estimate {
  /** The least time seen, which is that of a call that did not queue. */
  readonly rttWithoutQueue: number | undefined
  /** Samples since that was measured anew. */
  readonly samples: number
}

/**
 * Estimates how many of the calls queue, and keeps that between `alpha` and `beta`.
 *
 * **Details**
 *
 * The least time is forgotten after 30 samples for each call of the limit, and the next sample stands for it: what was
 * fast once may not be so any more. Nothing is refused to measure it.
 *
 * @category algorithms
 * @since 0.1.0
 */
export const vegas = (options: {
  /** Default: 20. */
  readonly initial?: number | undefined
  /** Default: 1000. */
  readonly max?: number | undefined
  /** Fewer in the queue, and the limit grows. Default: 3 × log10 of the limit. */
  readonly alpha?: number | undefined
  /** More in the queue, and it shrinks. Default: 6 × log10 of the limit. */
  readonly beta?: number | undefined
} = {}): LimitAlgorithm<VegasEstimate> => {
  const { initial = 20, max = 1000 } = options
  return {
    name: "vegas",
    initial: { limit: between(1, initial, max), rttWithoutQueue: undefined, samples: 0 },
    update: (state, { dropped, inFlight, rtt }) => {
      const { limit, rttWithoutQueue } = state
      const samples = state.samples + 1
      if (samples > 30 * limit) return { limit, rttWithoutQueue: rtt, samples: 0 }
      if (rttWithoutQueue === undefined || rtt < rttWithoutQueue) return { limit, rttWithoutQueue: rtt, samples }
      const step = Math.max(1, Math.floor(Math.log10(limit)))
      const { alpha = 3 * step, beta = 6 * step } = options
      const queue = Math.ceil(limit * (1 - rttWithoutQueue / rtt))
      const move = (by: number) => ({ limit: between(1, limit + by, max), rttWithoutQueue, samples })
      if (dropped) return move(-step)
      if (inFlight * 2 < limit) return move(0)
      if (queue <= step) return move(beta)
      if (queue < alpha) return move(step)
      return move(queue > beta ? -step : 0)
    }
  }
}

// ------------------------------------------------------------------------------------------------------ Gradient2

/**
 * What Gradient2 knows.
 *
 * @category models
 * @since 0.1.0
 */
export interface Gradient2Estimate extends Estimate {
  /** The average time of the last few hundred samples, in milliseconds. */
  readonly longRtt: number
  /** Samples in it, until there are ten. */
  readonly samples: number
}

/**
 * Follows the ratio of the long average of the time to the time now: as long as calls take what they always took, the
 * limit grows by a small queue, and when they take more than half as much again it shrinks. It shrinks most when a call
 * was dropped.
 *
 * @category algorithms
 * @since 0.1.0
 */
export const gradient2 = (options: {
  /** Default: 20. */
  readonly initial?: number | undefined
  /** Default: 20. */
  readonly min?: number | undefined
  /** Default: 200. */
  readonly max?: number | undefined
  /** How many may queue while the time stays as it is. Default: 4. */
  readonly queue?: number | undefined
  /** How much of what is estimated is taken over at once, more than 0, at most 1. Default: 0.2. */
  readonly smoothing?: number | undefined
  /** How much longer than on the long average a call may take before the limit shrinks. Default: 1.5 times. */
  readonly tolerance?: number | undefined
  /** Samples of the long average. Default: 600. */
  readonly longWindow?: number | undefined
} = {}): LimitAlgorithm<Gradient2Estimate> => {
  const { initial = 20, longWindow = 600, max = 200, min = 20, queue = 4, smoothing = 0.2, tolerance = 1.5 } = options
  return {
    name: "gradient2",
    initial: { limit: between(min, initial, max), longRtt: 0, samples: 0 },
    update: (state, { dropped, inFlight, rtt }) => {
      const samples = Math.min(state.samples + 1, warmUp)
      const weight = state.samples < warmUp ? 1 / samples : 2 / (longWindow + 1)
      const average = state.longRtt + weight * (rtt - state.longRtt)
      // After a long overload the average is too long, and would take too long to notice.
      const longRtt = average / rtt > 2 ? average * 0.95 : average
      const { limit } = state
      if (!dropped && inFlight < limit / 2) return { limit, longRtt, samples }
      const gradient = dropped ? leastGradient : between(leastGradient, (tolerance * average) / rtt, 1)
      const estimated = limit * gradient + (dropped ? 0 : queue)
      return { limit: between(min, limit + smoothing * (estimated - limit), max), longRtt, samples }
    }
  }
}

/** Samples whose plain average is the first long one. */
const warmUp = 10

/** One sample halves the limit at most. */
const leastGradient = 0.5

// -------------------------------------------------------------------------------------------------------- windows

/**
 * What is gathered for an algorithm.
 *
 * @category models
 * @since 0.1.0
 */
export interface WindowedEstimate<S extends Estimate> extends Estimate {
  readonly inner: S
  readonly samples: number
  readonly rttSum: number
  readonly inFlight: number
  readonly dropped: boolean
}

/**
 * Gives an algorithm the average of several samples at a time. One slow call among them then says little, which is
 * right where calls differ. If one was dropped, all of them tell of it.
 *
 * @category combinators
 * @since 0.1.0
 */
export const windowed = <S extends Estimate>(
  algorithm: LimitAlgorithm<S>,
  size: number
): LimitAlgorithm<WindowedEstimate<S>> => {
  const empty = (inner: S): WindowedEstimate<S> => (
    { limit: inner.limit, inner, samples: 0, rttSum: 0, inFlight: 0, dropped: false }
  )
  return {
    name: `${algorithm.name} over ${size}`,
    initial: empty(algorithm.initial),
    update: (state, sample) => {
      const samples = state.samples + 1
      const rttSum = state.rttSum + sample.rtt
      const inFlight = Math.max(state.inFlight, sample.inFlight)
      const dropped = state.dropped || sample.dropped
      if (samples < size) return { ...state, samples, rttSum, inFlight, dropped }
      return empty(algorithm.update(state.inner, { rtt: rttSum / samples, inFlight, dropped }))
    }
  }
}

const between = (min: number, value: number, max: number): number => Math.max(min, Math.min(max, value))
