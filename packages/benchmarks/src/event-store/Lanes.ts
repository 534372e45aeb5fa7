/**
 * Works that any event store can be asked to do, as lanes.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Callers from "../Callers.ts"
import { BenchmarkError, type Lane, type Sample, type Watch } from "../Suite.ts"
import type { PlainSystem } from "./PlainSystem.ts"
import type { System } from "./System.ts"
import * as Workload from "./Workload.ts"

/** Every run writes streams of its own. */
let runs = 0

/** Appends that a stream gets before a caller goes on to its next one. */
const appendsPerStream = 10

/**
 * Appends of so many facts by so many callers, each on streams of its own, at the version it knows.
 *
 * @category constructors
 * @since 0.1.0
 */
export const append = (system: Pick<System, "name" | "append" | "head" | "audit">, options: {
  readonly work: string
  readonly callers: number
  readonly facts: number
  /** Untimed, before each run. */
  readonly before?: Effect.Effect<void, BenchmarkError> | undefined
  /** Also give the percentiles of the latency. */
  readonly latency?: boolean | undefined
}): Lane => ({
  system: system.name,
  run: audited(system, options, (prefix, seconds) =>
    Callers.run({
      callers: options.callers,
      seconds,
      call: (caller, turn) => {
        const stream = Workload.streamName(prefix, caller + Math.floor(turn / appendsPerStream) * options.callers)
        const data = Array.from({ length: options.facts }, (_, index) => Workload.data(turn + index))
        return system.append(stream, turn % appendsPerStream * options.facts, data)
      }
    }))
})

/**
 * Single-row inserts by so many callers: no stream row and no version check.
 *
 * @category constructors
 * @since 0.1.0
 */
export const plainInserts = (plain: PlainSystem, options: {
  readonly work: string
  readonly callers: number
  /** Untimed, before each run. */
  readonly before?: Effect.Effect<void, BenchmarkError> | undefined
  /** Also give the percentiles of the latency. */
  readonly latency?: boolean | undefined
}): Lane =>
  append({
    ...plain,
    name: "plain SQL, single inserts",
    append: (stream, version, facts) => plain.insertOne(stream, version === "any" ? 0 : version, facts[0]!)
  }, { ...options, facts: 1 })

/**
 * What a group append does, by hand: one connection writes batch after batch of the one-fact appends of so many callers.
 *
 * @category constructors
 * @since 0.1.0
 */
export const plainBatches = (
  plain: PlainSystem,
  options: { readonly work: string; readonly callers: number }
): Lane => ({
  system: "plain SQL, batched",
  run: audited(plain, { work: options.work, facts: options.callers }, (prefix, seconds) =>
    Callers.run({
      callers: 1,
      seconds,
      call: (_, turn) =>
        plain.appendMany(Array.from({ length: options.callers }, (_, caller) => ({
          stream: Workload.streamName(prefix, caller + Math.floor(turn / appendsPerStream) * options.callers),
          version: turn % appendsPerStream,
          facts: [Workload.data(turn)]
        })))
    }))
})

/**
 * Appends of one fact by so many callers to one stream, at any version.
 *
 * @category constructors
 * @since 0.1.0
 */
export const hot = (system: System, options: { readonly work: string; readonly callers: number }): Lane => ({
  system: system.name,
  run: audited(system, { ...options, facts: 1 }, (prefix, seconds) => {
    const stream = Workload.streamName(prefix, 1)
    return Callers.run({
      callers: options.callers,
      seconds,
      call: (_, turn) => system.append(stream, "any", [Workload.data(turn)])
    })
  })
})

/**
 * Runs callers whose every call writes `facts` facts, and fails unless exactly those were written, in order.
 *
 * @category constructors
 * @since 0.1.0
 */
export const audited = (
  system: Pick<System, "name" | "head" | "audit">,
  options: {
    readonly work: string
    readonly facts: number
    readonly before?: Effect.Effect<void, BenchmarkError> | undefined
    readonly latency?: boolean | undefined
  },
  callers: (prefix: string, seconds: number) => Effect.Effect<Callers.Timing, BenchmarkError>
): Lane["run"] =>
  Effect.fnUntraced(function*(seconds: number, watch: Watch) {
    if (options.before !== undefined) yield* options.before
    const head = yield* system.head
    const timing = yield* watch(callers(`run${++runs}`, seconds))
    const written = timing.calls * options.facts
    const audit = yield* system.audit(head)
    if (audit.facts !== written || audit.misplaced > 0) {
      return yield* new BenchmarkError({
        message: `${system.name} holds ${audit.facts} of ${written} facts, ${audit.misplaced} of them out of order`
      })
    }
    const samples: Array<Sample> = [{ work: options.work, unit: "ops/s", value: written / timing.seconds }]
    if (options.latency === true) {
      for (const share of [50, 99]) {
        samples.push({
          work: `${options.work} p${share}`,
          unit: "ms",
          value: Callers.percentile(timing, share / 100)
        })
      }
    }
    return samples
  })

/** Streams that are read, and their length. */
const readable = { streams: 300, length: 100 }

/**
 * Writes the streams that `read` reads.
 *
 * @category constructors
 * @since 0.1.0
 */
export const prepareReads = (system: System): Effect.Effect<void, BenchmarkError> =>
  Effect.forEach(
    Array.from({ length: readable.streams }, (_, index) => Workload.streamName("read", index)),
    (stream) => system.append(stream, 0, Array.from({ length: readable.length }, (_, index) => Workload.data(index))),
    { discard: true }
  )

/**
 * Reads of whole streams of 100 facts, decoded.
 *
 * @category constructors
 * @since 0.1.0
 */
export const read = (system: System, options: { readonly work: string; readonly callers: number }): Lane => ({
  system: system.name,
  run: Effect.fnUntraced(function*(seconds, watch) {
    const timing = yield* watch(Callers.run({
      callers: options.callers,
      seconds,
      call: (caller, turn) =>
        system.readStream(Workload.streamName("read", (caller * 97 + turn) % readable.streams), readable.length)
    }))
    return [{ work: options.work, unit: "ops/s", value: timing.calls * readable.length / timing.seconds }]
  })
})

/**
 * So many facts delivered to a subscriber, which checks that they are all there.
 *
 * @category constructors
 * @since 0.1.0
 */
export const catchUp = (system: string, options: {
  readonly work: string
  readonly facts: number
  readonly run: Effect.Effect<void, BenchmarkError>
}): Lane => ({
  system,
  run: Effect.fnUntraced(function*(_, watch) {
    const [elapsed] = yield* watch(Effect.timed(options.run))
    return [{ work: options.work, unit: "ops/s", value: options.facts / Duration.toSeconds(elapsed) }]
  })
})
