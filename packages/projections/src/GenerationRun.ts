/**
 * Runs a generation: a durable subscription whose batches are applied to the generation's tables.
 *
 * **Details**
 *
 * Ownership of keys, epochs, checkpoints, hand-over and resuming are the subscription's: see `DurableSubscription`. A fact that
 * cannot be applied is tried again by `policy`, unless trying again cannot help, and is put aside then together with
 * its key. What time may mend is waited for without end.
 *
 * @since 0.1.0
 */
import type { BatchPermits } from "@strata/event-store/BatchPermits"
import * as DurableSubscription from "@strata/event-store/DurableSubscription"
import type { SubscriptionError } from "@strata/event-store/DurableSubscriptionError"
import { EventDecodeError } from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import type { Fact, Position } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Pace from "@strata/resilience/retry/Pace"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Erasures from "./Erasures.ts"
import * as Folding from "./Folding.ts"
import { type Generation, sharing, subscriptionOf } from "./Generation.ts"
import type { TooManyParked } from "./ParkedKeys.ts"
import { FactRefused, type Projection } from "./Projection.ts"
import * as ProjectionMetrics from "./ProjectionMetrics.ts"

/**
 * How generations are run.
 *
 * @category options
 * @since 0.1.0
 */
export interface RunOptions {
  readonly batchSize: number
  /** Batches that this process applies at a time. */
  readonly permits: BatchPermits
  /** Facts a second that the generation may take now; null is as fast as it goes. */
  readonly rate: (generation: Generation) => number | null
  readonly reached: (generation: Generation, partition: number, position: Position) => Effect.Effect<void>
}

/**
 * How a fact is tried again that cannot be applied.
 *
 * @category constants
 * @since 0.1.0
 */
export const policy: RetryPolicy.RetryPolicy = RetryPolicy.make({ attempts: 3, base: "100 millis", total: "5 seconds" })

/** How long checkpoints may be behind facts that were passed over: who waits in another process looks at them. */
const checkpointInterval = Duration.millis(50)

/**
 * Under a steady stream of facts, a batch costs as much for ten of them as for one. So long nobody notices, and a single fact after
 * a silence does not wait for it.
 */
const linger = Duration.millis(30)

/**
 * Runs until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*(
  projection: Projection,
  generation: Generation,
  options: RunOptions
): Effect.fn.Return<DurableSubscription.DurableSubscription, SubscriptionError, EventStore | Postgres | Scope.Scope> {
  const folding = Folding.make(projection, generation, { postgres: yield* Postgres, store: yield* EventStore })
  return yield* DurableSubscription.run<Folding.FoldError | TooManyParked, never>({
    name: subscriptionOf(generation),
    ...sharing(projection),
    startFrom: "beginning",
    partitions: generation.partitions,
    batchSize: options.batchSize,
    checkpointInterval,
    linger,
    retry: RetryPolicy.schedule(policy, { classify, idempotent: true }),
    permits: options.permits,
    reached: (partition, position) => options.reached(generation, partition, position),
    rest: (facts) => restOf(facts * generation.partitions, options.rate(generation)),
    taken: () => Erasures.refreshKeys,
    park: folding.park,
    handler: handler(projection, generation, folding)
  })
})

/**
 * Applies batches, traced and measured.
 *
 * @category constructors
 * @since 0.1.0
 */
export const handler = (projection: Projection, generation: Generation, { apply }: Folding.Folding) => {
  const metrics = ProjectionMetrics.of(projection.name)
  return (batch: NonEmptyReadonlyArray<Fact>, partition: Folding.Part) =>
    apply(batch, partition).pipe(
      Effect.withSpan("Projection.apply", {
        attributes: {
          "projection.name": projection.name,
          "projection.version": projection.version,
          "projection.generation": generation.number,
          "projection.facts": batch.length
        }
      }),
      Effect.timed,
      Effect.tap(([duration]) =>
        Effect.all([
          Metric.update(metrics.facts, batch.length),
          Metric.update(metrics.batchSize, batch.length),
          Metric.update(metrics.applySeconds, Duration.toSeconds(duration))
        ])
      ),
      Effect.tapError(() => Metric.update(metrics.failures, 1)),
      Effect.asVoid
    )
}

/** A pause that keeps all partitions together at the rate. */
const restOf = (facts: number, rate: number | null): Effect.Effect<void> =>
  rate === null ? Effect.void : Effect.void.pipe(Pace.after(Duration.seconds(facts / rate)))

/**
 * What the projection itself refuses, and what does not decode, does so again.
 *
 * @category getters
 * @since 0.1.0
 */
export const classify = (failed: unknown): FailureClass.FailureClass => {
  const cause = Predicate.hasProperty(failed, "cause") ? failed.cause : undefined
  const isFinal = Cause.isCause(cause) &&
    cause.reasons.some((reason) =>
      Cause.isFailReason(reason) && (isRefused(reason.error) || isUndecodable(reason.error))
    )
  return isFinal ? FailureClass.permanent : FailureClass.transient
}

const isRefused = Schema.is(FactRefused)
const isUndecodable = Schema.is(EventDecodeError)
