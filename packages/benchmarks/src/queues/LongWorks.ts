/**
 * The works that need time to show anything: a load that goes on, a transaction that stays open, tables that grow.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import type { BenchmarkError, Work } from "../Suite.ts"
import * as Flow from "./Flow.ts"
import * as Growth from "./Growth.ts"
import * as Held from "./Held.ts"
import * as Loading from "./Loading.ts"
import type { QueueSystem } from "./QueueSystem.ts"
import type { Systems } from "./Systems.ts"

/**
 * How much there is, and how long it takes.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Messages that go through the queue whose size is looked at, a multiple of 100,000. */
  readonly through: number
  /** Messages that wait in a deep queue. */
  readonly deep: number
  /** Messages that wait when the mixed load begins. */
  readonly backlog: number
  /** How long a load goes on, and a transaction is open, in times of what a lane runs. */
  readonly length: number
  /** Runs before each run, untimed. */
  readonly before: Effect.Effect<void, BenchmarkError>
}

/**
 * The works. One round of a minute says more than five of ten seconds would.
 *
 * @category works
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(systems: Systems, options: Options) {
  const services = yield* Effect.context<ChildProcessSpawner>()
  return [
    { name: "sustained", rounds: 1, lanes: Effect.provideContext(sustained(systems, options), services) },
    { name: "mixed", rounds: 1, lanes: Effect.provideContext(mixed(systems, options), services) },
    held(systems, options),
    {
      name: "size",
      rounds: 1,
      lanes: Effect.map(systems.strata, ({ system }) => [Growth.size(system, options.through)])
    },
    depth(systems, options)
  ] satisfies ReadonlyArray<Work>
})

const sustained = Effect.fnUntraced(function*(systems: Systems, { length }: Options) {
  const { system } = yield* systems.strata
  const { batching } = yield* systems.graphileWorker
  return yield* Effect.all([
    Flow.sustained({ system, sends: "Strata", producing: "apart" }, length),
    Flow.sustained({ system, sends: "Strata", producing: "together" }, length),
    Flow.sustained({ system: batching, sends: "graphile-worker", producing: "apart" }, length)
  ])
})

const mixed = Effect.fnUntraced(function*(systems: Systems, options: Options) {
  const { system } = yield* systems.strata
  return yield* Effect.all([
    Flow.mixed({ system, sends: "Strata", producing: "apart" }, options),
    Flow.mixed({ system, sends: "Strata", producing: "together" }, options)
  ])
})

const held = (systems: Systems, { before, length }: Options): Work => ({
  name: "held",
  rounds: 3,
  lanes: Effect.gen(function*() {
    const count = 50_000
    // Nothing builds up without the transaction, so it takes a third of the time to see that.
    return [(yield* systems.strata).system, (yield* systems.graphileWorker).batching].flatMap((system) => [
      Held.lane(system, { held: false, count, length: length / 3, before }),
      Held.lane(system, { held: true, count, length, before })
    ])
  })
})

const depth = (systems: Systems, options: Options): Work => ({
  name: "depth",
  lanes: Effect.gen(function*() {
    const { claim, system } = yield* systems.strata
    const deep = yield* systems.deep
    yield* fill(system, 1000)
    yield* deep.upkeep
    yield* fill(deep.system, options.deep)
    yield* options.before
    return [
      Growth.depth({ ...system, claim }, "depth, shallow"),
      Growth.depth({ ...deep.system, claim: deep.claim }, "depth, deep")
    ]
  })
})

const fill = (system: QueueSystem, count: number) =>
  Effect.andThen(system.empty, Effect.andThen(Loading.load(system, { from: 0, count }), system.analyze))
