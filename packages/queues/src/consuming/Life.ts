/**
 * Starts a consumer, and stops it.
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import type { QueueError } from "../QueueError.ts"
import * as QueueMetrics from "../QueueMetrics.ts"
import { QueuePolicies } from "../QueuePolicies.ts"
import { channelOf, Queues } from "../Queues.ts"
import type { QueueSettings } from "../QueueSettings.ts"
import * as Claiming from "./Claiming.ts"
import * as Claims from "./Claims.ts"
import { Consumer, type Setting } from "./Consumer.ts"
import * as HeaderFilter from "./HeaderFilter.ts"
import { patiently } from "./Patience.ts"
import * as Settling from "./Settling.ts"

/**
 * What somebody wants to consume, and how.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Pick<Setting, "name" | "size" | "capacity" | "prefetch"> {
  readonly queue: { readonly name: string; readonly settings: QueueSettings }
  readonly filter: HeaderFilter.HeaderFilter | undefined
}

/**
 * A consumer that claims and tells as long as the scope is open, and how to stop it before that.
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.fnUntraced(function*({ filter, queue, ...options }: Options) {
  const postgres = yield* Postgres
  const queues = yield* Queues
  const policies = yield* QueuePolicies
  const clock = yield* Clock.Clock
  const stored = yield* queues.declare(queue)
  const metrics = QueueMetrics.of(yield* Effect.context<never>(), queue.name)
  const consumer = new Consumer({
    ...options,
    stored,
    filter: filter === undefined ? undefined : HeaderFilter.toJsonPath(filter),
    claims: Claims.make(postgres),
    payloads: queues.payloads,
    wake: postgres.wake(channelOf(stored.id)),
    policies,
    metrics,
    now: () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  })
  const { extending, flushing, settleAll, settling } = Settling.make(consumer)
  const refreshing = Effect.map(patiently(policies)(queues.find(queue)), (found) => {
    consumer.stored = found
  }).pipe(Pace.every(policies.refresh))
  const hinting = Stream.runForEach(postgres.wakeups(channelOf(stored.id)), () => Effect.sync(consumer.hinted.set))

  metrics.working.add(consumer)
  yield* Effect.addFinalizer(() => Effect.sync(() => metrics.working.delete(consumer)))
  const claimer = yield* Claiming.run(consumer).pipe(
    Effect.tapError((error) =>
      Effect.andThen(
        Effect.logError(`Queue ${queue.name}: the worker stops, it cannot claim`, error),
        Effect.sync(() => consumer.close(error))
      )
    ),
    inBackground
  )
  const works: ReadonlyArray<Effect.Effect<void, SqlError | QueueError>> = [
    settling,
    flushing,
    extending,
    refreshing,
    hinting
  ]
  for (const work of works) yield* inBackground(work)

  /** Waits for what it does, but not for ever. */
  const inTime = <A>(effect: Effect.Effect<A>) => Effect.option(Deadline.within(policies.stop)(effect))

  /** Gives back what has not begun, waits for what has, which `running` does, and tells what became of all of it. */
  const stop = Effect.fnUntraced(function*(running: ReadonlyArray<Fiber.Fiber<void>>) {
    consumer.isOpen = false
    consumer.hungry.set()
    consumer.hinted.set()
    // What it is just claiming is given back too.
    yield* inTime(Fiber.await(claimer))
    consumer.close()
    yield* inTime(Fiber.awaitAll(running))
    yield* Fiber.interruptAll(running)
    // Not for ever where the database is not there: then the leases run out.
    yield* inTime(settleAll)
  })
  return { consumer, stop }
})

/** What is asked of the database again and again is nobody's trace. */
const inBackground = <A, E, R>(work: Effect.Effect<A, E, R>) => Effect.forkScoped(Effect.withTracerEnabled(work, false))
