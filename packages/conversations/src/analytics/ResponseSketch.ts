/**
 * Percentiles of response times that are too many to be sorted: how many there are in each of 286 logarithmic buckets.
 *
 * **Details**
 *
 * Each bound is `gamma` times the one before, and a bucket stands for the value in its middle, so what is told of a response
 * time above a second is at most 2 % off; of one below a second, half a second. Counts of buckets are added where periods are put
 * together, and subtracted where one is taken away: unlike samples and digests, nothing is lost by either.
 *
 * Source: Masson, Rim, Lee, *DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees* (VLDB 2019).
 *
 * @since 0.1.0
 */
import * as Measure from "@strata/projections/Measure"
import * as Arr from "effect/Array"

/**
 * How far a percentile may be off, as a part of it.
 *
 * @category constants
 * @since 0.1.0
 */
export const relativeError = 0.02

const gamma = (1 + relativeError) / (1 - relativeError)
const second = 1 / 60
const day = 24 * 60

/**
 * The buckets, in minutes: the first one up to a second, the last one with 24 hours in it.
 *
 * @category constants
 * @since 0.1.0
 */
export const buckets: Measure.Histogram = Measure.histogram(
  Arr.makeBy(Math.ceil(Math.log(day / second) / Math.log(gamma)) + 1, (power) => second * gamma ** power)
)

/**
 * The ends of a bucket, in minutes.
 *
 * @category getters
 * @since 0.1.0
 */
export const endsOf = (bucket: number): { readonly from: number; readonly to: number } => ({
  from: bucket === 0 ? 0 : buckets.bounds[bucket - 1] ?? day,
  to: buckets.bounds[bucket] ?? day
})

const valueOf = (bucket: number): number => bucket === 0 ? second / 2 : 2 * endsOf(bucket).to / (gamma + 1)

/**
 * How many response times there are in each bucket; none may be below zero.
 *
 * @category models
 * @since 0.1.0
 */
export type Counts = ReadonlyMap<number, number>

/**
 * The continuous percentile at each of these fractions, as if each value stood in the middle of its bucket. Null of nothing.
 *
 * @category combinators
 * @since 0.1.0
 */
export const percentiles = (counts: Counts, fractions: ReadonlyArray<number>): ReadonlyArray<number | null> => {
  const sorted = [...counts].filter(([, count]) => count > 0).toSorted(([a], [b]) => a - b)
  const total = sorted.reduce((sum, [, count]) => sum + count, 0)
  const at = (rank: number): number => {
    let seen = 0
    for (const [bucket, count] of sorted) {
      seen += count
      if (rank < seen) return valueOf(bucket)
    }
    return 0
  }
  return fractions.map((fraction) => {
    if (total === 0) return null
    const rank = fraction * (total - 1)
    const below = at(Math.floor(rank))
    return below + (at(Math.ceil(rank)) - below) * (rank - Math.floor(rank))
  })
}
