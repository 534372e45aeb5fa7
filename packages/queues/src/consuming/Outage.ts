/**
 * Says that the database is away, now and then while it is, and once when it is back.
 *
 * @since 0.1.0
 */
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Policies } from "../QueuePolicies.ts"

/**
 * Watches statements that are repeated until they succeed. What is over sooner than `quietFor` is no news. `now` tells the time in
 * milliseconds.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (queue: string, now: () => number, { betweenWarnings, quietFor }: Policies) => {
  let since: number | undefined
  let warnedAt: number | undefined
  const away = () => Duration.format(Duration.seconds(Math.max(1, Math.round((now() - (since ?? now())) / 1000))))

  const failed = (error: unknown): Effect.Effect<void> => {
    // What is not tried again is told by whoever gets it.
    if (FailureClass.classify(error)._tag === "Permanent") return Effect.void
    const at = now()
    since ??= at
    const next = warnedAt === undefined
      ? since + Duration.toMillis(quietFor)
      : warnedAt + Duration.toMillis(betweenWarnings)
    if (at < next) return Effect.void
    warnedAt = at
    return Effect.logWarning(
      `Queue ${queue}: nothing could be claimed for ${away()}, the database does not answer. Trying on`,
      error
    )
  }

  const succeeded: Effect.Effect<void> = Effect.suspend(() => {
    if (since === undefined) return Effect.void
    const said = warnedAt === undefined ? Effect.void : Effect.logInfo(
      `Queue ${queue}: messages are claimed again, after ${away()}`
    )
    since = undefined
    warnedAt = undefined
    return said
  })

  return <A, E>(statement: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.tap(Effect.tapError(statement, failed), succeeded)
}
