/**
 * The works that take a moment: sending, working, and how soon a message is begun.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import type { BenchmarkError, Work } from "../Suite.ts"
import { batches } from "./Goals.ts"
import * as Lanes from "./Lanes.ts"
import * as Latency from "./Latency.ts"
import type { QueueSystem } from "./QueueSystem.ts"
import type { Systems } from "./Systems.ts"

/**
 * The works. `before` runs before each run, untimed.
 *
 * @category works
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(systems: Systems, before: Effect.Effect<void, BenchmarkError>) {
  const services = yield* Effect.context<ChildProcessSpawner>()
  return [
    enqueueOne(systems, 10, before),
    enqueueOne(systems, 256, before),
    enqueueBatch(systems, before),
    drain(systems, before),
    {
      name: "latency",
      lanes: Effect.provideContext(latencies(systems), services)
    }
  ] satisfies ReadonlyArray<Work>
})

const enqueueOne = (systems: Systems, callers: number, before: Effect.Effect<void, BenchmarkError>): Work => {
  const work = `enqueue-1@${callers}`
  return {
    name: work,
    lanes: Effect.map(
      senders(systems),
      ({ effect, plain, senders }) =>
        [...senders, effect, { ...plain, name: "plain SQL, single inserts" }].map((system) =>
          Lanes.enqueue(system, { work, callers, batch: 1, before })
        )
    )
  }
}

const enqueueBatch = (systems: Systems, before: Effect.Effect<void, BenchmarkError>): Work => ({
  name: "enqueue-batch",
  lanes: Effect.map(
    senders(systems),
    ({ plain, senders }) =>
      batches.flatMap((batch) =>
        [...senders, { ...plain, name: "plain SQL, unnest" }].map((system) =>
          Lanes.enqueue(system, { work: `enqueue-batch@${batch}`, callers: 1, batch, before })
        )
      )
  )
})

const senders = Effect.fnUntraced(function*(systems: Systems) {
  const strata = yield* systems.strata
  return {
    senders: [
      strata.system,
      strata.bounded,
      (yield* systems.graphileWorker).system,
      (yield* systems.pgBoss).system,
      yield* systems.pgmq,
      yield* systems.pgq
    ],
    effect: yield* systems.effect,
    plain: (yield* systems.plain).system
  }
})

/** What goes a job at a time gets fewer of them. */
const drain = (systems: Systems, before: Effect.Effect<void, BenchmarkError>): Work => ({
  name: "drain",
  lanes: Effect.gen(function*() {
    const graphileWorker = yield* systems.graphileWorker
    const plain = yield* systems.plain
    const lane = (rate: number) => (system: QueueSystem) => Lanes.drain(system, { work: "drain", rate, before })
    return [
      ...[
        (yield* systems.strata).system,
        graphileWorker.batching,
        (yield* systems.pgBoss).system,
        yield* systems.pgmq,
        yield* systems.pgq,
        plain.system,
        plain.deleting
      ].map(lane(50_000)),
      lane(4000)(graphileWorker.system),
      lane(1000)(yield* systems.effect)
    ]
  })
})

const latencies = Effect.fnUntraced(function*(systems: Systems) {
  const graphileWorker = yield* systems.graphileWorker
  return yield* Effect.all([
    Latency.lane((yield* systems.strata).system, "Strata"),
    Latency.lane(graphileWorker.system, "graphile-worker"),
    Latency.lane(graphileWorker.batching, "graphile-worker"),
    Latency.lane((yield* systems.pgBoss).notifying, "pg-boss")
  ])
})
