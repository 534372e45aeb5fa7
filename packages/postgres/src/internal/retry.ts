/** Retrying that is heard: what is waited for stands in the log before the wait is over. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

export interface RetryOptions<E> {
  readonly while: (error: E) => boolean
  readonly schedule: Schedule.Schedule<unknown, E>
  /** How long failures are no news. */
  readonly quietFor: Duration.Input
  readonly warning: (error: E, waited: Duration.Duration) => string
}

const betweenWarnings = 5_000

/** As `Effect.retry`, with a warning for a failed attempt every five seconds. */
export const withWarnings = <A, E, R>(attempt: Effect.Effect<A, E, R>, options: RetryOptions<E>) =>
  Effect.flatMap(Clock.currentTimeMillis, (start) => {
    let next = start + Duration.toMillis(options.quietFor)
    const warn = Effect.fnUntraced(function*(error: E) {
      const now = yield* Clock.currentTimeMillis
      if (!options.while(error) || now < next) return
      next = now + betweenWarnings
      yield* Effect.logWarning(options.warning(error, Duration.seconds(Math.round((now - start) / 1_000))))
    })
    return Effect.retry(
      Effect.tapError(attempt, warn),
      Schedule.while(options.schedule, ({ input }) => options.while(input))
    )
  })
