/**
 * `sustained` and `mixed`: messages that come at a rate while they are handled.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Callers from "../Callers.ts"
import { BenchmarkError, type Lane, type Sample, type Watch } from "../Suite.ts"
import { sustainedRate } from "./Goals.ts"
import * as Loading from "./Loading.ts"
import * as Producer from "./Producer.ts"
import type { Payload, QueueSystem } from "./QueueSystem.ts"

/**
 * Where the messages come from: the process that handles them, or another one.
 *
 * @category models
 * @since 0.1.0
 */
export type Producing = "together" | "apart"

/** A queue, by whom its messages are sent, and from where. */
interface Source {
  readonly system: QueueSystem
  readonly sends: Producer.Order["system"]
  readonly producing: Producing
}

const nameOf = ({ producing, system }: Source): string =>
  producing === "apart" ? `${system.name}, producer apart` : system.name

/** Calls that are on their way at once. */
const senders = 8

const produce = ({ producing, system }: Source, order: Producer.Order) =>
  Effect.contextWith((services: Context.Context<ChildProcessSpawner>) =>
    Effect.succeed(
      producing === "apart"
        ? Effect.provideContext(Producer.produceApart(system.url, order), services)
        : Producer.produce(system, order)
    )
  )

// ------------------------------------------------------------------------------------------------------ sustained

/** What is offered is a little above the goal, or the goal could not be met. */
const offered = sustainedRate * 1.02

/**
 * Messages in batches of 500 at the rate of the goal, handled at once: what comes out, and how long it was in there. The first second does not
 * count for the latter. It takes `length` times the time of a lane.
 *
 * @category constructors
 * @since 0.1.0
 */
export const sustained = (source: Source, length: number) =>
  laneOf(
    source,
    Effect.fnUntraced(function*(seconds: number, watch: Watch) {
      const { sends, system } = source
      const batch = 500
      const count = Math.round(offered * length * seconds / batch) * batch
      const now = yield* Loading.stopwatch
      let handled = 0
      let first = Infinity
      let last = 0
      let counted = 0
      let total = 0
      yield* system.empty
      yield* system.work(({ at, n }) => {
        handled++
        last = now()
        if (at < first) first = at
        if (n < offered) return
        counted++
        total += last - at
      })
      const order = { system: sends, rate: offered, batch, count, senders, jitter: 0, mix: Producer.unmixed }
      const produced = yield* produce(source, order)
      yield* watch(Effect.andThen(produced, waitFor(source, count, () => handled)))
      yield* Loading.settled(system)
      return [
        { work: "sustained", unit: "ops/s", value: count / (last - first) * 1000 },
        { work: "sustained, time in the queue", unit: "ms", value: total / counted }
      ]
    })
  )

// ---------------------------------------------------------------------------------------------------------- mixed

/** Of the messages that come. What is least urgent comes behind the backlog. */
const mix = [
  { name: "P0", priority: 10, share: 2 },
  { name: "P1", priority: 7, share: 18 },
  { name: "P2", priority: 5, share: 50 },
  { name: "P3", priority: 1, share: 30 }
] as const

const leastUrgent = mix[3]

/** Messages that come in a second. */
const mixedRate = sustainedRate / 2

/**
 * Half of the sustained load, of four priorities, while a backlog of the least urgent is worked off: how long the others take from
 * sending to handling. Counts as long as there is a backlog; the first second does not.
 *
 * @category constructors
 * @since 0.1.0
 */
export const mixed = (source: Source, options: {
  readonly length: number
  readonly backlog: number
  readonly before: Effect.Effect<void, BenchmarkError>
}) =>
  laneOf(
    source,
    Effect.fnUntraced(function*(seconds: number, watch: Watch) {
      const { sends, system } = source
      const { backlog } = options
      const batch = 500
      const count = Math.round(mixedRate * options.length * seconds / batch) * batch
      const urgent = count - count / 100 * leastUrgent.share
      const tally = makeTally(backlog, yield* Loading.stopwatch)
      yield* system.empty
      yield* Loading.load(system, { from: -backlog, count: backlog, perCall: 4000, priority: leastUrgent.priority })
      yield* system.analyze
      yield* options.before
      const order = { system: sends, rate: mixedRate, batch, count, senders, jitter: 0, mix }
      yield* Effect.scoped(Effect.gen(function*() {
        yield* system.work(tally.handle)
        const produced = yield* produce(source, order)
        yield* watch(Effect.andThen(produced, waitFor(source, urgent, tally.urgent)))
      }))
      const left = yield* system.left
      yield* system.empty
      if (left + tally.handled() !== count + backlog) {
        return yield* new BenchmarkError({
          message: `${system.name} handled ${tally.handled()} and holds ${left} of ${count + backlog} messages`
        })
      }
      return yield* samplesOf(tally.latencies)
    })
  )

type Latencies = Readonly<Record<"P0" | "P1" | "P2", Array<number>>>

/** What was handled, and how long the urgent messages took while there was a backlog. */
const makeTally = (backlog: number, now: () => number) => {
  const latencies: Latencies = { P0: [], P1: [], P2: [] }
  const ofPriority = new Map([[10, latencies.P0], [7, latencies.P1], [5, latencies.P2]])
  let urgent = 0
  let least = 0
  return {
    latencies,
    urgent: () => urgent,
    handled: () => urgent + least,
    handle: ({ at, n, priority }: Payload): void => {
      if (priority === leastUrgent.priority) {
        least++
        return
      }
      urgent++
      if (n >= mixedRate && least < backlog) ofPriority.get(priority)?.push(now() - at)
    }
  }
}

const samplesOf = (latencies: Latencies) => {
  const sample = (name: keyof Latencies, share: number): Sample => ({
    work: `mixed, ${name} p${share}`,
    unit: "ms",
    value: Callers.percentile(
      { calls: 0, seconds: 0, latencies: Float64Array.from(latencies[name]).sort() },
      share / 100
    )
  })
  return latencies.P0.length < 500
    ? Effect.fail(new BenchmarkError({ message: `The backlog was gone after ${latencies.P0.length} messages of P0` }))
    : Effect.succeed([sample("P0", 95), sample("P0", 99), sample("P1", 95), sample("P2", 95)])
}

// ------------------------------------------------------------------------------------------------- implementation

const waitFor = ({ system }: Source, count: number, handled: () => number) =>
  Loading.patiently(
    Effect.asVoid(
      Effect.repeat(Effect.sync(handled), { until: (now) => now >= count, schedule: Schedule.spaced(5) })
    ),
    () => `${system.name} handled ${handled()} of ${count} messages, and then no more`
  ).pipe(Effect.andThen(
    Effect.suspend(() =>
      handled() === count
        ? Effect.void
        : Effect.fail(new BenchmarkError({ message: `${system.name} handled ${count} messages ${handled()} times` }))
    )
  ))

/** A lane whose run has a scope of its own, and what processes need. */
const laneOf = (
  source: Source,
  run: (
    seconds: number,
    watch: Watch
  ) => Effect.Effect<ReadonlyArray<Sample>, BenchmarkError, ChildProcessSpawner | Scope.Scope>
): Effect.Effect<Lane, never, ChildProcessSpawner> =>
  Effect.map(Effect.context<ChildProcessSpawner>(), (services) => ({
    system: nameOf(source),
    run: (seconds, watch) => Effect.provideContext(Effect.scoped(run(seconds, watch)), services)
  }))
