import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"

/** True for an effect that has succeeded already: whoever asks need not run it. */
export const hasSucceeded = <A, E>(effect: Effect.Effect<A, E>): effect is Exit.Success<A, E> =>
  Exit.isExit(effect) && Exit.isSuccess(effect)
