/**
 * Durable subscriptions: named readers of the log that go on where they were, shared by several processes.
 *
 * **When to use**
 *
 * Use to let something happen because of a fact: send a message, call another system, fill a table. For a reader that
 * lives as long as its connection use `EventStore.subscribe`.
 *
 * **Details**
 *
 * - Every fact that fits the filter reaches the handler, in the order of its key (by default its stream). Corrections and
 *   retractions are facts too: their `revision` is above 0 and `revises` names what they revise.
 * - Keys are spread over a fixed number of partitions. A partition has a checkpoint, one owner at a time, and an epoch that
 *   begins when it is taken. Processes that run the same subscription share its partitions evenly; one that stops hands
 *   its own over at once, those of one that died are taken when its lease is over, by the database's clock.
 * - `transactional` (the default): the handler's statements and the move of the checkpoint commit together, so each fact
 *   takes effect once. `atLeastOnce`: the handler ends, then the checkpoint moves; a crash in between, or an owner that
 *   lost its lease without noticing, makes facts come again. In both, every move names the epoch: a late owner's batch
 *   fails with `PartitionFenced` and changes no checkpoint.
 * - A batch that fails is tried again by the schedule, from its first fact and one fact at a time. When the schedule ends, the
 *   partition stops there, with the error in its status, and the others go on; or `park` puts the fact aside. Nothing is
 *   passed over silently. Who takes a partition that has stopped tries again.
 *   An outage of the database is waited for without end, and does not count as a failure of the handler.
 * - Facts that do not fit are passed over; the checkpoint follows after 10,000 of them or `checkpointInterval`, at the end of
 *   the log too.
 * - The log is read by position. So nothing that is open elsewhere in the cluster holds a subscription up, and a lost
 *   notification costs one poll interval at most.
 *
 * **Gotchas**
 *
 * - In the transactional style the handler uses the `sql` of the same `Postgres`; anything it does elsewhere is done at
 *   least once. It may run again, so it keeps no state of its own.
 * - With another `key` or filter, facts before the checkpoint do not come again: `seek` to have them.
 *
 * **Example** (Counting orders, once each)
 *
 * ```ts
 * import * as DurableSubscription from "@strata/event-store/DurableSubscription"
 * import { Postgres } from "@strata/postgres/Postgres"
 * import * as Effect from "effect/Effect"
 *
 * const OrderCount = DurableSubscription.layer({
 *   name: "order-count",
 *   filter: { category: "order", types: ["order.placed"] },
 *   startFrom: "beginning",
 *   partitions: 8,
 *   handler: Effect.fnUntraced(function*(batch) {
 *     const { sql } = yield* Postgres
 *     yield* sql`update order_count set value = value + ${batch.length}`
 *   })
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Outage from "@strata/postgres/Outage"
import { Postgres } from "@strata/postgres/Postgres"
import * as Retrying from "@strata/postgres/Retrying"
import * as Timestamp from "@strata/postgres/Timestamp"
import type { TransactionError } from "@strata/postgres/TransactionError"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cache from "effect/Cache"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import * as AppendStatement from "./AppendStatement.ts"
import type { BatchPermits } from "./BatchPermits.ts"
import * as Checkpoints from "./DurableSubscriptionCheckpoints.ts"
import {
  CheckpointsUnavailable,
  InvalidSubscription,
  type PartitionFenced,
  PartitionsDiffer,
  SubscriptionError,
  UnknownSubscription
} from "./DurableSubscriptionError.ts"
import type { Filter } from "./DurableSubscriptionFilter.ts"
import * as Leases from "./DurableSubscriptionLeases.ts"
import * as Member from "./DurableSubscriptionMember.ts"
import * as DurableSubscriptionMetrics from "./DurableSubscriptionMetrics.ts"
import * as Pages from "./DurableSubscriptionPages.ts"
import * as Partition from "./DurableSubscriptionPartition.ts"
import type { FailedFact } from "./DurableSubscriptionPartition.ts"
import * as UpTo from "./DurableSubscriptionUpTo.ts"
import type { Target, UpToOptions } from "./DurableSubscriptionUpTo.ts"
import { EventStore, EventStoreError } from "./EventStore.ts"
import { EventStorePolicies, type SubscriptionPolicies } from "./EventStorePolicies.ts"
import { beginning, type Fact, type Position } from "./Fact.ts"
import { findFilterProblem, findMomentProblem, findShapeProblem, logFilterFields } from "./Fields.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * Where a subscription begins or goes on: before the first fact, after the last one, after the fact at a position, or with
 * the first fact recorded at or after a time that has passed.
 *
 * @category models
 * @since 0.1.0
 */
export type StartFrom =
  | "beginning"
  | "end"
  | { readonly position: Position }
  | { readonly time: Timestamp.Timestamp }

/**
 * How a subscription is run. Processes that share one give the same options.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<E, R> {
  /** Names the checkpoints in this store, 1 to 128 characters. */
  readonly name: string
  /** Default: every fact. */
  readonly filter?: Filter | undefined
  /** Where it begins when it is first made; from then on it goes on from its checkpoints. */
  readonly startFrom: StartFrom
  /** How many, 1 to 256; fixed once the subscription is made. Default: 1. */
  readonly partitions?: number | undefined
  /** Facts of one key are handled in order. Default: the stream. */
  readonly key?: ((fact: Fact) => string) | undefined
  /** True of facts that every partition is given, whatever their key. Default: none. */
  readonly toAll?: ((fact: Fact) => boolean) | undefined
  /** Facts in a batch at most, 1 to 1,000. Default: 500. */
  readonly batchSize?: number | undefined
  /** Whether the handler's effects and the checkpoint commit together. Default: `transactional`. */
  readonly delivery?: "transactional" | "atLeastOnce" | undefined
  /** Is told which partition the batch is of. */
  readonly handler: (batch: NonEmptyReadonlyArray<Fact>, partition: number) => Effect.Effect<unknown, E, R>
  /**
   * Puts a fact aside that has failed until the schedule of `retry` ended: the partition goes on after it. In the transaction
   * that moves the checkpoint over it, or before that with `atLeastOnce`. Default: the partition stops there.
   */
  readonly park?: ((failed: FailedFact, partition: number) => Effect.Effect<unknown, E, R>) | undefined
  /** Runs whenever this process has taken a partition, before it reads for it. */
  readonly taken?: ((partition: number) => Effect.Effect<void>) | undefined
  /** Told of each position that a partition of this process has reached: everything up to it is handled or not wanted. */
  readonly reached?: ((partition: number, position: Position) => Effect.Effect<void>) | undefined
  /** Runs after each batch of so many facts, for instance to go no faster than one may. */
  readonly rest?: ((facts: number) => Effect.Effect<void>) | undefined
  /**
   * At the end of the log, how long it is at least from the beginning of a batch to that of the next, so that facts which follow
   * each other closely are handled together. What comes after a longer silence does not wait. Default: none.
   */
  readonly linger?: Duration.Input | undefined
  /** One is held for each batch: subscriptions that share them handle as many at a time as there are. */
  readonly permits?: BatchPermits | undefined
  /** How a failure of the handler is tried again. Default: 10 times, from 100 ms to 10 s apart. */
  readonly retry?: Schedule.Schedule<unknown> | undefined
  /** How long partitions stay with a process that gives no sign of life, 500 ms at least. Default: 6 seconds. */
  readonly lease?: Duration.Input | undefined
  /** How long a process that stops waits for a batch that is being handled. Default: 5 seconds. */
  readonly stopTimeout?: Duration.Input | undefined
  /** How long a checkpoint may be behind facts that were passed over. Default: 5 seconds. */
  readonly checkpointInterval?: Duration.Input | undefined
  /** Names this process in the status. Default: a UUID. */
  readonly label?: string | undefined
}

/**
 * How far a partition is.
 *
 * @category models
 * @since 0.1.0
 */
export interface PartitionStatus {
  readonly partition: number
  /** The checkpoint: the last fact handled or passed over. */
  readonly position: Position
  /** The label of the process that owns it; null when none does. */
  readonly owner: string | null
  readonly epoch: bigint
  /** Facts of the log after the checkpoint, those that are not wanted included. */
  readonly lag: bigint
  /** Age in seconds of the oldest of them, `0` when there is none. */
  readonly lagSeconds: number
  /** Why it has stopped. */
  readonly error: string | null
}

/**
 * How far a subscription is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  readonly name: string
  readonly paused: boolean
  /** The last fact of the log. */
  readonly head: Position
  readonly partitions: ReadonlyArray<PartitionStatus>
}

/**
 * A subscription that exists, run by this process or by others.
 *
 * @category models
 * @since 0.1.0
 */
export interface DurableSubscription {
  readonly name: string
  readonly status: Effect.Effect<Status, SubscriptionError>
  /** Every owner ends the batch it is handling, and stops. */
  readonly pause: Effect.Effect<void, SubscriptionError>
  /** Goes on after `pause`; partitions that have stopped with an error try again. */
  readonly resume: Effect.Effect<void, SubscriptionError>
  /**
   * Sets checkpoints back or forth. What is being handled meanwhile is fenced. With a partition that has stopped, seeking to
   * the position of the fact that its error names leaves that fact out.
   */
  readonly seek: (
    to: StartFrom,
    options?: { readonly partition?: number | undefined }
  ) => Effect.Effect<void, SubscriptionError>
  /**
   * Handles the facts after each partition's checkpoint up to exactly a position, here and now. Only while it is paused: who
   * resumes it meanwhile fences this. A partition that is further already stays where it is.
   */
  readonly handleUpTo: <E, R>(
    targets: ReadonlyArray<Target>,
    options: UpToOptions<E, R>
  ) => Effect.Effect<void, E | PartitionFenced | SubscriptionError | SqlError | TransactionError, R>
  /** Ends it for ever: its checkpoints are gone, and those who run it have nothing more to do. */
  readonly remove: Effect.Effect<void, SubscriptionError>
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Runs a subscription, and makes it if there is none of that name, until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*<E, R>(
  options: Options<E, R>
): Effect.fn.Return<DurableSubscription, SubscriptionError, EventStore | Postgres | R | Scope.Scope> {
  const { batchSize = 500, handler, key = streamOf, name, park, partitions = 1 } = options
  const { store: { retry }, subscriptions: policies } = yield* EventStorePolicies
  const lease = Duration.fromInputUnsafe(options.lease ?? policies.lease)
  yield* check(options, lease)
  const store = yield* EventStore
  const postgres = yield* Postgres
  const row = yield* findOrCreate(store, postgres, { name, partitions, startFrom: options.startFrom })
  if (row.partitions !== partitions) {
    return yield* refuse(new PartitionsDiffer({ subscription: name, given: partitions, actual: row.partitions }))
  }
  const checkpoints = Checkpoints.make(postgres, row)
  const subscription = control(store, postgres, row, checkpoints, reading(retry))
  const id = yield* Effect.provide(Effect.flatMap(SecureRandom.SecureRandom, (random) => random.uuidV4()), randomness)
  const read = yield* Pages.make(store, { partitions, filter: options.filter, key, toAll: options.toAll })
  const outage = Outage.make()

  yield* Member.run({
    name,
    lease,
    leases: Leases.make(postgres, { subscription: row.id, member: id, label: options.label ?? id, lease }),
    stopTimeout: Duration.fromInputUnsafe(options.stopTimeout ?? policies.stopTimeout),
    policies,
    outage,
    hints: Stream.map(postgres.wakeups(channelOf(row)), () => undefined),
    hint: postgres.wake(channelOf(row)),
    handle: (claim, progress, gate) =>
      Partition.run({
        name,
        claim,
        progress,
        gate,
        read,
        changed: store.changed,
        handle: (batch, claim, move) =>
          options.delivery === "atLeastOnce"
            ? Effect.andThen(Effect.suspend(() => handler(batch, claim.partition)), checkpoints.move(claim, move))
            : checkpoints.moveWith(Effect.suspend(() => handler(batch, claim.partition)), claim, move),
        park: park === undefined ? undefined : (failed, claim, move) =>
          options.delivery === "atLeastOnce"
            ? Effect.andThen(Effect.suspend(() => park(failed, claim.partition)), checkpoints.move(claim, move))
            : checkpoints.moveWith(Effect.suspend(() => park(failed, claim.partition)), claim, move),
        taken: options.taken ?? (() => Effect.void),
        reached: options.reached ?? (() => Effect.void),
        rest: options.rest ?? (() => Effect.void),
        permits: options.permits,
        move: checkpoints.move,
        fail: checkpoints.fail,
        batchSize,
        linger: Duration.fromInputUnsafe(options.linger ?? 0),
        retry: options.retry ?? policies.retry,
        outages: policies.outages,
        outage,
        checkpointInterval: Duration.fromInputUnsafe(options.checkpointInterval ?? policies.checkpointInterval)
      })
  })
  yield* Effect.forkScoped(measureLag(subscription, policies))
  return subscription
})

/**
 * A subscription that is run elsewhere, or by an earlier call of `run`: to look at it and to control it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const open = Effect.fnUntraced(function*(
  name: string
): Effect.fn.Return<DurableSubscription, SubscriptionError, EventStore | Postgres> {
  const store = yield* EventStore
  const postgres = yield* Postgres
  const read = reading((yield* EventStorePolicies).store.retry)
  const row = yield* read("open", Checkpoints.find(postgres.sql, store.name, name))
  if (row === undefined) return yield* refuse(new UnknownSubscription({ subscription: name }))
  return control(store, postgres, row, Checkpoints.make(postgres, row), read)
})

/**
 * Runs a subscription for as long as the layer lives.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <E, R>(
  options: Options<E, R>
): Layer.Layer<never, SubscriptionError, EventStore | Postgres | Exclude<R, Scope.Scope>> =>
  Layer.effectDiscard(run(options))

const streamOf = (fact: Fact): string => fact.stream

const randomness = SecureRandom.layerWebCrypto

/** Wakes the processes that share a subscription. */
const channelOf = (row: Checkpoints.SubscriptionRow): string => `strata_subscription_${row.id}`

const optionFields: ReadonlySet<string> = new Set<keyof Options<never, never>>([
  "name",
  "filter",
  "startFrom",
  "partitions",
  "key",
  "toAll",
  "batchSize",
  "delivery",
  "handler",
  "park",
  "taken",
  "reached",
  "rest",
  "linger",
  "permits",
  "retry",
  "lease",
  "stopTimeout",
  "checkpointInterval",
  "label"
])

const check = <E, R>(options: Options<E, R>, lease: Duration.Duration) => {
  const { batchSize = 500, delivery = "transactional", filter, name, partitions = 1 } = options
  const invalid = (path: string, message: string) => refuse(new InvalidSubscription({ path, message }))
  const shape = findShapeProblem(options, optionFields, "options", "")
  if (shape !== undefined) return invalid(shape.path, shape.message)
  if (delivery !== "transactional" && delivery !== "atLeastOnce") {
    return invalid("delivery", "expected transactional or atLeastOnce")
  }
  if (typeof name !== "string" || name.length < 1 || name.length > 128 || name.includes("\0")) {
    return invalid("name", "expected 1 to 128 characters")
  }
  if (!isWithin(partitions, 1, 256)) return invalid("partitions", "expected 1 to 256")
  if (!isWithin(batchSize, 1, 1000)) return invalid("batchSize", "expected 1 to 1,000")
  const problem = (filter === undefined
    ? undefined
    : findShapeProblem(filter, logFilterFields, "filter") ?? findFilterProblem(filter, "filter.")) ??
    findStartProblem(options.startFrom, "startFrom")
  if (problem !== undefined) return invalid(problem.path, problem.message)
  if (Duration.toMillis(lease) < 500) return invalid("lease", "expected 500 milliseconds at least")
  return Effect.void
}

const isWithin = (n: number, from: number, to: number): boolean => Number.isInteger(n) && n >= from && n <= to

const refuse = (reason: SubscriptionError["reason"]) => Effect.fail(new SubscriptionError({ reason }))

const known = <A, E>(operation: string, effect: Effect.Effect<A, E>): Effect.Effect<A, SubscriptionError> =>
  Effect.mapError(effect, (cause) =>
    new SubscriptionError({
      reason: cause instanceof EventStoreError ? cause : new CheckpointsUnavailable({ operation, cause })
    }))

/** Sends what only reads again where a store's read would be: see `EventStorePostgres`. */
const reading =
  (schedule: Schedule.Schedule<unknown>) => <A>(operation: string, statement: Effect.Effect<A, SqlError>) =>
    known(
      operation,
      Retrying.retry(statement, {
        schedule,
        while: AppendStatement.isRepeatable,
        isUnknown: AppendStatement.isUnknown
      })
    )

const findOrCreate = Effect.fnUntraced(function*(
  store: EventStore["Service"],
  postgres: Postgres["Service"],
  options: { readonly name: string; readonly partitions: number; readonly startFrom: StartFrom }
) {
  const { name, partitions, startFrom } = options
  const find = known("open", Checkpoints.find(postgres.sql, store.name, name))
  const found = yield* find
  if (found !== undefined) return found
  const position = yield* placeOf(store, startFrom, "startFrom")
  yield* known("create", Checkpoints.create(postgres, { store: store.name, name, partitions, position }))
  return (yield* find) ?? (yield* refuse(new UnknownSubscription({ subscription: name })))
})

const findStartProblem = (from: StartFrom, path: string) =>
  from === "beginning" || from === "end" ? undefined : findMomentProblem(from, path)

/** The last position that is left out. */
const placeOf = (
  store: EventStore["Service"],
  from: StartFrom,
  path: string
): Effect.Effect<Position, SubscriptionError> => {
  const problem = findStartProblem(from, path)
  if (problem !== undefined) return refuse(new InvalidSubscription(problem))
  if (from === "beginning") return Effect.succeed(beginning)
  if (from === "end") return known("head", store.head)
  // Up to the microsecond before, so that what was recorded at the time itself is among the facts.
  return known(
    "positionAt",
    "time" in from
      ? store.positionAt({ time: Timestamp.fromMicros(from.time - 1n) })
      : store.positionAt(from)
  )
}

// ---------------------------------------------------------------------------------------------- status and control

const control = (
  store: EventStore["Service"],
  postgres: Postgres["Service"],
  row: Checkpoints.SubscriptionRow,
  checkpoints: Checkpoints.Checkpoints,
  read: ReturnType<typeof reading>
): DurableSubscription => {
  const { name } = row
  const hint = postgres.wake(channelOf(row))

  const status = Effect.gen(function*() {
    const now = yield* read("status", Checkpoints.find(postgres.sql, store.name, name))
    if (now === undefined) return yield* refuse(new UnknownSubscription({ subscription: name }))
    const rows = yield* read("status", checkpoints.all)
    const head = yield* known("head", store.head)
    const oldestAfter = yield* Cache.make({
      capacity: 256,
      lookup: (position: Position) =>
        store.readLog({ after: position, limit: 1 }).pipe(
          Effect.map(([fact]) => fact?.recordedAt),
          Effect.catchReason("EventStoreError", "FactUnreadable", ({ recordedAt }) => Effect.succeed(recordedAt))
        )
    })
    const partitions = yield* Effect.forEach(
      rows,
      ({ epoch, error, now, owner, partition, position }) =>
        Effect.gen(function*() {
          const lag = head > position ? head - position : 0n
          const oldest = lag === 0n ? undefined : yield* known("status", Cache.get(oldestAfter, position))
          const lagSeconds = oldest === undefined || oldest > now ? 0 : Number(now - oldest) / 1e6
          return { partition, position, owner, epoch, lag, lagSeconds, error }
        })
    )
    return { name, paused: now.paused, head, partitions }
  })

  const reset = (options: Parameters<typeof checkpoints.reset>[0]) => known("reset", checkpoints.reset(options))

  return {
    name,
    status,
    handleUpTo: UpTo.make({ store, checkpoints, partitions: row.partitions, known }),
    remove: Effect.andThen(known("remove", checkpoints.remove), hint),
    pause: Effect.andThen(known("pause", checkpoints.pause(true)), hint),
    resume: reset({ position: undefined, partition: undefined, failed: true }).pipe(
      Effect.andThen(known("resume", checkpoints.pause(false))),
      Effect.andThen(hint)
    ),
    seek: Effect.fnUntraced(function*(to, { partition } = {}) {
      if (partition !== undefined && !isWithin(partition, 0, row.partitions - 1)) {
        return yield* refuse(
          new InvalidSubscription({ path: "partition", message: `expected 0 to ${row.partitions - 1}` })
        )
      }
      yield* reset({ position: yield* placeOf(store, to, "to"), partition, failed: false })
      yield* hint
    })
  }
}

/** Samples how far behind the partitions are; a sample that cannot be taken is left out. */
const measureLag = ({ name, status }: DurableSubscription, policies: SubscriptionPolicies) =>
  status.pipe(
    Effect.flatMap(({ partitions }) =>
      Effect.forEach(partitions, ({ lag, lagSeconds, partition }) => {
        const metrics = DurableSubscriptionMetrics.ofPartition(name, partition)
        return Effect.andThen(Metric.update(metrics.lag, Number(lag)), Metric.update(metrics.lagSeconds, lagSeconds))
      }, { discard: true })
    ),
    Effect.ignore,
    Effect.repeat(policies.lagSampling),
    Effect.withTracerEnabled(false)
  )
