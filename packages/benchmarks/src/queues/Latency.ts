/**
 * `latency`: from the sending of a message to the beginning of its handler, when there is little to do.
 *
 * **Details**
 *
 * Twenty messages a second, by a process of its own, one after the other. The worker waits for each of them.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Callers from "../Callers.ts"
import { BenchmarkError, type Lane } from "../Suite.ts"
import * as Loading from "./Loading.ts"
import * as Producer from "./Producer.ts"
import type { QueueSystem } from "./QueueSystem.ts"

/** Messages a second. */
const rate = 20

/** The first messages find everything cold, and do not count. */
const cold = 20

/**
 * Strata's messages are sent by Strata, and so on: `sends` says by whom.
 *
 * @category constructors
 * @since 0.1.0
 */
export const lane = (
  system: QueueSystem,
  sends: Producer.Order["system"]
): Effect.Effect<Lane, never, ChildProcessSpawner> =>
  Effect.contextWith((services) =>
    Effect.succeed<Lane>({
      system: system.name,
      run: (seconds, watch) =>
        Effect.scoped(Effect.gen(function*() {
          const count = cold + Math.round(rate * seconds * 10)
          const now = yield* Loading.stopwatch
          const latencies: Array<number> = []
          let handled = 0
          yield* system.empty
          yield* system.work(({ at, n }) => {
            handled++
            if (n >= cold) latencies.push(now() - at)
          })
          const order = { system: sends, rate, batch: 1, count, senders: 1, jitter: 10, mix: Producer.unmixed }
          yield* watch(Effect.provideContext(Producer.produceApart(system.url, order), services))
          yield* Loading.patiently(
            Loading.settled(system),
            () => `${system.name} handled ${handled} of ${count} messages`
          )
          if (handled !== count) {
            return yield* new BenchmarkError({ message: `${system.name} handled ${handled} of ${count} messages` })
          }
          const timing = { calls: handled, seconds, latencies: Float64Array.from(latencies).sort() }
          return [50, 99].map((share) => ({
            work: `latency p${share}`,
            unit: "ms" as const,
            value: Callers.percentile(timing, share / 100)
          }))
        }))
    })
  )
