/**
 * When to look again: when somebody says so, and in any case after a while.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pace from "@strata/resilience/retry/Pace"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

/**
 * One at once, one for each wake-up on a channel, and one after each `poll`; for who is slow, one for all that came meanwhile.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { wakeups }: Pick<Postgres["Service"], "wakeups">,
  channel: string,
  poll: Duration.Duration
): Stream.Stream<void> =>
  ticking(poll, (tick) => Effect.asVoid(Effect.forkScoped(Stream.runForEach(wakeups(channel), () => tick))))

/**
 * One at once, and one after each `poll`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const every = (poll: Duration.Duration): Stream.Stream<void> => ticking(poll, () => Effect.void)

const ticking = <R>(poll: Duration.Duration, also: (tick: Effect.Effect<boolean>) => Effect.Effect<void, never, R>) =>
  Stream.unwrap(Effect.gen(function*() {
    const ticks = yield* Queue.sliding<void>(1)
    const tick = Queue.offer(ticks, undefined)
    yield* Effect.forkScoped(Pace.every(poll)(tick))
    yield* also(tick)
    return Stream.fromQueue(ticks)
  }))
