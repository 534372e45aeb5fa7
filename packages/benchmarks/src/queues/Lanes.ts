/**
 * What any queue can be asked to do, as lanes.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Callers from "../Callers.ts"
import { BenchmarkError, type Lane } from "../Suite.ts"
import * as Loading from "./Loading.ts"
import { payloads, type QueueSystem } from "./QueueSystem.ts"

/**
 * Sends by so many callers, `batch` messages by each call. All that was sent must be there.
 *
 * @category constructors
 * @since 0.1.0
 */
export const enqueue = (system: QueueSystem, options: {
  readonly work: string
  readonly callers: number
  readonly batch: number
  /** Untimed, before each run. */
  readonly before: Effect.Effect<void, BenchmarkError>
}): Lane => ({
  system: system.name,
  run: Effect.fnUntraced(function*(seconds, watch) {
    yield* system.empty
    yield* options.before
    const timing = yield* watch(Callers.run({
      callers: options.callers,
      seconds,
      call: (_, turn) => system.send(payloads(turn * options.batch, options.batch))
    }))
    const sent = timing.calls * options.batch
    const left = yield* system.left
    yield* system.empty
    if (left !== sent) {
      return yield* new BenchmarkError({ message: `${system.name} holds ${left} of ${sent} messages` })
    }
    return [{ work: options.work, unit: "ops/s", value: sent / timing.seconds }]
  })
})

/**
 * Handles messages that do nothing, each told to be done, from the start of the worker until none is left.
 *
 * @category constructors
 * @since 0.1.0
 */
export const drain = (system: QueueSystem, options: {
  readonly work: string
  /** What it does in a second, by and large: a run has as many messages as take about its time. */
  readonly rate: number
  /** Untimed, before each run. */
  readonly before: Effect.Effect<void, BenchmarkError>
}): Lane => ({
  system: system.name,
  run: Effect.fnUntraced(function*(seconds, watch) {
    const count = Math.max(1, Math.round(options.rate * seconds / 500)) * 500
    yield* system.empty
    yield* Loading.load(system, { from: 0, count })
    yield* system.analyze
    yield* options.before
    const millis = yield* watch(Loading.drain(system, count))
    yield* system.empty
    return [{ work: options.work, unit: "ops/s", value: count / millis * 1000 }]
  })
})
