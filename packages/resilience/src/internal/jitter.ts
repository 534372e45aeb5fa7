/** Delays that differ, so that those who were turned away together do not come back together. */
import * as Duration from "effect/Duration"
import type * as Random from "effect/Random"

/** From half to one and a half of a delay. */
export const around = (delay: Duration.Duration, random: Random.Random): Duration.Duration =>
  Duration.millis(Math.round(Duration.toMillis(delay) * (0.5 + random.nextDoubleUnsafe())))
