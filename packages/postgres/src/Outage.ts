/**
 * Says once that something is out of reach, however many try again meanwhile.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/**
 * What several that need the same thing tell of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Outage {
  /** Warns of the first failure since it went well. Of the others it tells at the level of debugging. */
  readonly failed: (message: string, cause: Cause.Cause<unknown>) => Effect.Effect<void>
  /** It goes well. */
  readonly passed: Effect.Effect<void>
}

/**
 * One that goes well so far.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (): Outage => {
  let isOn = false
  return {
    failed: (message, cause) =>
      Effect.suspend(() => {
        const log = isOn ? Effect.logDebug : Effect.logWarning
        isOn = true
        return log(message, cause)
      }),
    passed: Effect.sync(() => {
      isOn = false
    })
  }
}
