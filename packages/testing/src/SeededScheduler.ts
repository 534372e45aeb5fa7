/**
 * A scheduler that runs what is ready in an order, and with interruptions, that depend on a seed alone: an effect that
 * waits for nothing outside runs the same way whenever its seed is the same, and another way with another.
 *
 * **Gotchas**
 *
 * A fiber yields before a fifth of its steps. Before half of them it would not come to an end: a yield is made of steps.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"

/**
 * Numbers from 0 up to 1 (mulberry32).
 *
 * @category constructors
 * @since 0.1.0
 */
export const random = (seed: number): () => number => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/**
 * The scheduler of a seed.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (seed: number): Scheduler.Scheduler => {
  const next = random(seed)
  const ready: Array<() => void> = []
  let isAsked = false
  const drain = () => {
    isAsked = false
    while (ready.length > 0) {
      const at = Math.floor(next() * ready.length)
      const task = ready[at]!
      ready[at] = ready.at(-1)!
      ready.pop()
      task()
    }
  }
  const dispatcher: Scheduler.SchedulerDispatcher = {
    scheduleTask: (task) => {
      ready.push(task)
      if (isAsked) return
      isAsked = true
      queueMicrotask(drain)
    },
    flush: drain
  }
  return { executionMode: "async", shouldYield: () => next() < 0.2, makeDispatcher: () => dispatcher }
}

/**
 * Runs an effect once for each seed; what fails is logged with its seed.
 *
 * @category combinators
 * @since 0.1.0
 */
export const forEachSeed = <E, R>(
  seeds: number,
  simulation: (seed: number) => Effect.Effect<void, E, R>
): Effect.Effect<void, E, R> =>
  Effect.forEach(
    Array.from({ length: seeds }, (_, seed) => seed),
    (seed) =>
      simulation(seed).pipe(
        Effect.provideService(Scheduler.Scheduler, make(seed)),
        Effect.tapCause(() => Effect.logError(`seed ${seed}`))
      ),
    { discard: true }
  )
