/**
 * What a circuit remembers of the calls that ended: counts over a moving window of time, and the latency that is normal.
 *
 * **Details**
 *
 * Pure. Times are milliseconds of one clock that does not go back, whatever its origin.
 *
 * The window moves in twentieths of its length, also while no call ends: whatever is older is gone before the next outcome is
 * counted. The bucket in use is apart from those that are done, so counting an outcome copies a few numbers only.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

// --------------------------------------------------------------------------------------------------------- counts

/**
 * Outcomes, counted. A time-out is a failure too; a call may be slow whatever its outcome.
 *
 * @category models
 * @since 0.1.0
 */
export const Counts = Schema.Struct({
  calls: Schema.Finite,
  failures: Schema.Finite,
  timeouts: Schema.Finite,
  slow: Schema.Finite
})
export type Counts = typeof Counts.Type

/**
 * No outcome.
 *
 * @category constants
 * @since 0.1.0
 */
export const none: Counts = { calls: 0, failures: 0, timeouts: 0, slow: 0 }

/**
 * One more outcome.
 *
 * @category combinators
 * @since 0.1.0
 */
export const count = (
  counts: Counts,
  outcome: { readonly failed: boolean; readonly timedOut: boolean; readonly slow: boolean }
): Counts => ({
  calls: counts.calls + 1,
  failures: counts.failures + (outcome.failed ? 1 : 0),
  timeouts: counts.timeouts + (outcome.timedOut ? 1 : 0),
  slow: counts.slow + (outcome.slow ? 1 : 0)
})

/**
 * The counts of both.
 *
 * @category combinators
 * @since 0.1.0
 */
export const add = (left: Counts, right: Counts): Counts => ({
  calls: left.calls + right.calls,
  failures: left.failures + right.failures,
  timeouts: left.timeouts + right.timeouts,
  slow: left.slow + right.slow
})

// --------------------------------------------------------------------------------------------------------- window

/** Into how many parts a window is divided. */
const buckets = 20

/**
 * The counts of the last while. `total` is the sum of `past`, without `current`.
 *
 * @category models
 * @since 0.1.0
 */
export const Window = Schema.Struct({
  bucket: Schema.Finite,
  current: Counts,
  past: Schema.Array(Schema.Struct({ bucket: Schema.Finite, counts: Counts })),
  total: Counts
})
export type Window = typeof Window.Type

/**
 * A window in which nothing has happened.
 *
 * @category constructors
 * @since 0.1.0
 */
export const empty: Window = { bucket: 0, current: none, past: [], total: none }

/**
 * When the current part of a window ends, in milliseconds.
 *
 * @category getters
 * @since 0.1.0
 */
export const endOf = ({ bucket }: Window, length: number): number => (bucket + 1) * (length / buckets)

/**
 * Moves a window to `now`. Gives the same value while its bucket lasts.
 *
 * @category combinators
 * @since 0.1.0
 */
export const roll = (window: Window, length: number, now: number): Window => {
  const bucket = Math.floor(now / (length / buckets))
  if (bucket <= window.bucket) return window
  const done = window.current.calls === 0
    ? window.past
    : [...window.past, { bucket: window.bucket, counts: window.current }]
  const past = done.filter((each) => each.bucket > bucket - buckets)
  return { bucket, current: none, past, total: past.reduce((sum, { counts }) => add(sum, counts), none) }
}

/**
 * All that is in a window. Move it first.
 *
 * @category getters
 * @since 0.1.0
 */
export const counts = (window: Window): Counts => add(window.total, window.current)

// -------------------------------------------------------------------------------------------------------- latency

/**
 * The latency of successful calls: the one that is normal, once it is known, and the sum of those not yet part of it.
 *
 * @category models
 * @since 0.1.0
 */
export const Latency = Schema.Struct({
  normal: Schema.optionalKey(Schema.Finite),
  /** When calls last became part of it. */
  at: Schema.Finite,
  sum: Schema.Finite,
  calls: Schema.Finite
})
export type Latency = typeof Latency.Type

/**
 * A latency of which nothing is known.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unknown: Latency = { at: 0, sum: 0, calls: 0 }

/** After so long, half of what is normal is what was measured since. */
const halfLife = 300_000

/**
 * One more successful call. Calls over `limit` count as if they had taken that long, so an outbreak moves the normal late.
 *
 * @category combinators
 * @since 0.1.0
 */
export const measure = (latency: Latency, duration: number, limit: number): Latency => ({
  ...latency,
  sum: latency.sum + Math.min(duration, limit),
  calls: latency.calls + 1
})

/**
 * Makes what was measured part of the normal, once there are enough calls: an average in which older calls weigh less with
 * time, not with the number of calls, so that a busy circuit does not get used to a slow callee within a window.
 *
 * @category combinators
 * @since 0.1.0
 */
export const learn = (latency: Latency, minimumCalls: number, now: number): Latency => {
  if (latency.calls < minimumCalls) return latency
  const mean = latency.sum / latency.calls
  const weight = Math.min(0.5, 1 - 0.5 ** ((now - latency.at) / halfLife))
  const normal = latency.normal === undefined ? mean : latency.normal + weight * (mean - latency.normal)
  return { normal, at: now, sum: 0, calls: 0 }
}
