/** Retrying that is heard: what is waited for stands in the log before the wait is over. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Schedule from "effect/Schedule"
import * as Retrying from "../Retrying.ts"

export interface RetryOptions<E> {
  readonly while: (error: E) => boolean
  readonly schedule: Schedule.Schedule<unknown, E>
  /** How long failures are no news. */
  readonly quietFor: Duration.Duration
  /** Time between two warnings. */
  readonly betweenWarnings: Duration.Duration
  readonly warning: (error: E, waited: Duration.Duration) => string
}

/** As `Retrying.retry`, with a warning for a failed attempt now and then. */
export const withWarnings = <A, E, R>(attempt: Effect.Effect<A, E, R>, options: RetryOptions<E>) =>
  Effect.flatMap(Clock.currentTimeMillis, (start) => {
    let next = start + Duration.toMillis(options.quietFor)
    const warn = Effect.fnUntraced(function*(error: E) {
      const now = yield* Clock.currentTimeMillis
      if (!options.while(error) || now < next) return
      next = now + Duration.toMillis(options.betweenWarnings)
      yield* Effect.logWarning(options.warning(error, Duration.seconds(Math.round((now - start) / 1_000))))
    })
    return Retrying.retry(Effect.tapError(attempt, warn), { schedule: options.schedule, while: options.while })
  })
