/**
 * Putting messages into a queue and getting all of them out again, checked.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { BenchmarkError } from "../Suite.ts"
import { payloads, type QueueSystem } from "./QueueSystem.ts"

/** Messages of a call that only fills a queue. A multiple of what the PgQ-style queue makes a batch of. */
const perCall = 1000

/** Nothing that is measured takes so long. */
const patience = "3 minutes"

/**
 * The machine's monotonic clock in milliseconds, which all processes share.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stopwatch: Effect.Effect<() => number> = Effect.map(
  Clock.Clock,
  (clock) => () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
)

/**
 * Sends so many messages, call after call.
 *
 * @category constructors
 * @since 0.1.0
 */
export const load = (
  system: Pick<QueueSystem, "send">,
  options: { readonly from: number; readonly count: number; readonly perCall?: number; readonly priority?: number }
): Effect.Effect<void, BenchmarkError> => {
  const { count, from, perCall: size = perCall, priority } = options
  return Effect.forEach(
    Array.from({ length: Math.ceil(count / size) }, (_, call) => call * size),
    (begin) => system.send(payloads(from + begin, Math.min(size, count - begin), 0, priority)),
    { discard: true }
  )
}

/**
 * Waits until the tables have no message left that is neither done nor given up.
 *
 * @category constructors
 * @since 0.1.0
 */
export const settled = (system: QueueSystem): Effect.Effect<void, BenchmarkError> =>
  Effect.asVoid(Effect.repeat(system.left, { until: (left) => left === 0, schedule: Schedule.spaced(2) }))

/**
 * Waits for `effect`, but not for ever. `said` tells how far it got.
 *
 * @category combinators
 * @since 0.1.0
 */
export const patiently = <A>(
  effect: Effect.Effect<A, BenchmarkError>,
  said: () => string
): Effect.Effect<A, BenchmarkError> =>
  Effect.timeoutOrElse(effect, {
    duration: patience,
    orElse: () => Effect.fail(new BenchmarkError({ message: said() }))
  })

/**
 * Starts a worker, and lets it handle the messages 0 to `count`, which are all there are, each once. Gives the milliseconds until the
 * tables showed none that was not done.
 *
 * @category constructors
 * @since 0.1.0
 */
export const drain = Effect.fnUntraced(function*(system: QueueSystem, count: number) {
  const now = yield* stopwatch
  const all = yield* Deferred.make<void>()
  const seen = new Uint8Array(count)
  const again: Array<number> = []
  let handled = 0
  const drained = Effect.gen(function*() {
    const begun = now()
    yield* system.work(({ n }) => {
      if (seen[n] !== 0) {
        again.push(n)
        return
      }
      seen[n] = 1
      if (++handled === count) Deferred.doneUnsafe(all, Effect.void)
    })
    yield* Deferred.await(all)
    yield* settled(system)
    return now() - begun
  })
  const millis = yield* patiently(
    Effect.scoped(drained),
    () => `${system.name} handled ${handled} of ${count} messages, and then no more`
  )
  if (again.length === 0) return millis
  return yield* new BenchmarkError({
    message: `${system.name} handled ${again.length} of ${count} messages again: ${again.slice(0, 10).join(", ")}`
  })
})
