/**
 * `size` and `depth`: how a queue bears what has gone through it, and what waits in it.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { BenchmarkError, type Lane } from "../Suite.ts"
import * as Loading from "./Loading.ts"
import type { QueueSystem } from "./QueueSystem.ts"

/** Messages after which the tables are looked at, and which are there at most. */
const step = 100_000

/** After so many seconds without a message what was deleted is cleaned up. */
const rest = "1 second"

/**
 * The space of the tables when the first 100,000 messages are through and when the last of `messages` are, with nothing left in
 * them. At the end the largest of three looks counts, for the space goes up and down.
 *
 * @category constructors
 * @since 0.1.0
 */
export const size = (system: QueueSystem, messages: number): Lane => ({
  system: system.name,
  run: (_, watch) =>
    Effect.scoped(Effect.gen(function*() {
      let handled = 0
      yield* system.empty
      yield* system.work(() => {
        handled++
      })
      const sizes: Array<number> = []
      const through = Effect.fnUntraced(function*(from: number) {
        // A worker that is not ahead of the sender would let the queue grow: what waits is looked at by `depth`.
        for (let part = 0; part < 10; part++) {
          const begin = from + part * step / 10
          yield* Loading.load(system, { from: begin, count: step / 10 })
          yield* Loading.patiently(
            Effect.asVoid(
              Effect.repeat(Effect.sync(() => handled), {
                until: (now) => now >= begin + step / 10,
                schedule: Schedule.spaced(2)
              })
            ),
            () => `${system.name} handled ${handled} messages, and then no more`
          )
        }
        yield* Loading.settled(system)
      })
      for (let from = 0; from < messages; from += step) {
        yield* watch(through(from))
        if (from > 0 && from < messages - 3 * step) continue
        yield* Effect.sleep(rest)
        sizes.push(yield* system.size)
      }
      if (handled !== messages) {
        return yield* new BenchmarkError({ message: `${system.name} handled ${handled} of ${messages} messages` })
      }
      return [
        { work: "size, at the beginning", unit: "bytes" as const, value: sizes[0]! },
        { work: "size, at the end", unit: "bytes" as const, value: Math.max(...sizes.slice(-3)) }
      ]
    }))
})

/** Messages of a claim. */
const limit = 500

/**
 * Claims while `depth` messages wait. What was claimed is made up for, so it stays that deep; what counts is the claims.
 *
 * @category constructors
 * @since 0.1.0
 */
export const depth = (
  system: QueueSystem & { readonly claim: (limit: number) => Effect.Effect<number, BenchmarkError> },
  work: string
): Lane => ({
  system: system.name,
  run: Effect.fnUntraced(function*(seconds, watch) {
    const now = yield* Loading.stopwatch
    const end = now() + seconds * 1000
    let claimed = 0
    let millis = 0
    const turn = Effect.gen(function*() {
      const begun = now()
      const found = yield* system.claim(limit)
      millis += now() - begun
      claimed += found
      yield* Loading.load(system, { from: claimed, count: found })
      if (found < limit) {
        return yield* new BenchmarkError({ message: `${system.name} claimed ${found} of ${limit} messages` })
      }
    })
    yield* watch(Effect.asVoid(Effect.repeat(turn, { until: () => now() >= end })))
    return [{ work, unit: "ops/s", value: claimed / millis * 1000 }]
  })
})
