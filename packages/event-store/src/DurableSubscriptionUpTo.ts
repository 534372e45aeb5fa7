/**
 * Brings the partitions of a paused subscription to positions that somebody else names, one after the other.
 *
 * @since 0.1.0
 */
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Checkpoints } from "./DurableSubscriptionCheckpoints.ts"
import type { PartitionFenced, SubscriptionError } from "./DurableSubscriptionError.ts"
import { type Filter, partitionOf } from "./DurableSubscriptionFilter.ts"
import type { EventStore } from "./EventStore.ts"
import type { Fact, Position } from "./Fact.ts"

/**
 * Where a partition is to go.
 *
 * @category models
 * @since 0.1.0
 */
export interface Target {
  readonly partition: number
  readonly position: Position
}

/**
 * The options of the subscription that decide what is handled: the same as those it is run with.
 *
 * @category options
 * @since 0.1.0
 */
export interface UpToOptions<E, R> {
  readonly filter?: Filter | undefined
  readonly key: (fact: Fact) => string
  readonly toAll?: ((fact: Fact) => boolean) | undefined
  readonly handler: (batch: Arr.NonEmptyReadonlyArray<Fact>, partition: number) => Effect.Effect<unknown, E, R>
}

/**
 * Each page of the log is one batch, which commits with the checkpoint. The first failure ends it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ checkpoints, known, partitions, store }: {
  readonly store: EventStore["Service"]
  readonly checkpoints: Checkpoints
  readonly partitions: number
  readonly known: <A, E>(operation: string, effect: Effect.Effect<A, E>) => Effect.Effect<A, SubscriptionError>
}) =>
  Effect.fnUntraced(function*<E, R>(
    targets: ReadonlyArray<Target>,
    { filter, handler, key, toAll = () => false }: UpToOptions<E, R>
  ): Effect.fn.Return<void, E | PartitionFenced | SubscriptionError | SqlError | TransactionError, R> {
    for (const claim of yield* known("status", checkpoints.all)) {
      const goal = targets.find(({ partition }) => partition === claim.partition)?.position ?? claim.position
      let from = claim.position
      while (from < goal) {
        const { end, facts } = yield* known(
          "readLog",
          store.readLogPage({ after: from, limit: 1000, filter, upTo: goal })
        )
        const batch = facts.filter((fact) => toAll(fact) || partitionOf(key(fact), partitions) === claim.partition)
        const to = facts.length === 0 ? goal : end
        yield* Arr.isReadonlyArrayNonEmpty(batch)
          ? checkpoints.moveWith(Effect.suspend(() => handler(batch, claim.partition)), claim, { from, to })
          : checkpoints.move(claim, { from, to })
        from = to
      }
    }
  })
