/**
 * The pace of work that nobody waits for: look at a table every so often, sample a metric, leave a database alone for a
 * while.
 *
 * **When to use**
 *
 * Use `every` for a loop without end and `after` for one pause. What is done again because it failed has a `RetryPolicy`,
 * and what may not take longer a `Deadline`.
 *
 * **Gotchas**
 *
 * `every` ends with the first failure: say what becomes of one where it is no reason to stop.
 *
 * **Example** (Sampling how far behind something is)
 *
 * ```ts
 * import * as Pace from "@strata/resilience/retry/Pace"
 * import * as Effect from "effect/Effect"
 *
 * const sampling = measureLag.pipe(Effect.ignore, Pace.every("5 seconds"))
 * ```
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/**
 * Runs an effect now, and again this long after each of its ends, until it fails or is interrupted.
 *
 * @category combinators
 * @since 0.1.0
 */
export const every = (rest: Duration.Input) => <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<never, E, R> =>
  Effect.forever(Effect.andThen(self, Effect.sleep(rest)))

/**
 * Runs an effect this long from now.
 *
 * @category combinators
 * @since 0.1.0
 */
export const after = (pause: Duration.Input) => <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.delay(self, pause)
