/**
 * Something that one fiber waits for, and that others say.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"

/**
 * Is set any number of times, and wakes up whoever waits once.
 *
 * @category models
 * @since 0.1.0
 */
export interface Signal {
  readonly set: () => void
  /** What was said before counts no more. */
  readonly clear: () => void
  /** Until it is set; at once when it was, since the last one waited. One fiber at a time. */
  readonly wait: Effect.Effect<void>
}

/**
 * A signal that is not set.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (): Signal => {
  let isSet = false
  let resume: (() => void) | undefined
  return {
    set: () => {
      if (resume === undefined) {
        isSet = true
        return
      }
      const go = resume
      resume = undefined
      go()
    },
    clear: () => {
      isSet = false
    },
    wait: Effect.callback<void>((answer) => {
      if (isSet) {
        isSet = false
        return answer(Effect.void)
      }
      resume = () => answer(Effect.void)
      return Effect.sync(() => {
        resume = undefined
      })
    })
  }
}
