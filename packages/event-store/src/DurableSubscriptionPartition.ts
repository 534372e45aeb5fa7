/**
 * Handles the facts of one partition, in order, for as long as this process owns it.
 *
 * **Details**
 *
 * A batch that fails is tried again from its first fact, one fact at a time until that goes well, then in batches that
 * double again. So what stands before a fact that cannot be handled is handled, and that fact is the one named: the
 * partition stops there, or puts it aside and goes on.
 *
 * @since 0.1.0
 */
import type * as Outage from "@strata/postgres/Outage"
import * as Retrying from "@strata/postgres/Retrying"
import * as SqlState from "@strata/postgres/SqlState"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Predicate from "effect/Predicate"
import type * as Schedule from "effect/Schedule"
import type * as Semaphore from "effect/Semaphore"
import type { SqlError } from "effect/sql/SqlError"
import type { BatchPermits } from "./BatchPermits.ts"
import type { Claim, Move } from "./DurableSubscriptionCheckpoints.ts"
import { PartitionFenced } from "./DurableSubscriptionError.ts"
import * as DurableSubscriptionMetrics from "./DurableSubscriptionMetrics.ts"
import type { Pages } from "./DurableSubscriptionPages.ts"
import * as DurableSubscriptionTracing from "./DurableSubscriptionTracing.ts"
import { EventStoreError } from "./EventStore.ts"
import type { Fact, Position } from "./Fact.ts"

/**
 * How far a partition is: every fact up to `cursor` is handled or not wanted; `saved` is the checkpoint.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  cursor: Position
  saved: Position
}

/**
 * What the handling of a partition needs.
 *
 * @category options
 * @since 0.1.0
 */
export interface PartitionOptions<E, R> {
  readonly name: string
  readonly claim: Claim
  readonly progress: Progress
  /** Held while a batch is handled: who takes it finds no batch half done. */
  readonly gate: Semaphore.Semaphore
  readonly read: Pages
  readonly changed: (after: Position) => Effect.Effect<void>
  /** Handles a batch and moves the checkpoint. */
  readonly handle: (
    batch: Arr.NonEmptyReadonlyArray<Fact>,
    claim: Claim,
    move: Move
  ) => Effect.Effect<void, E | PartitionFenced, R>
  readonly move: (claim: Claim, move: Move) => Effect.Effect<void, PartitionFenced | SqlError>
  /** Puts a fact aside that cannot be handled, and moves the checkpoint over it. Without it the partition stops there. */
  readonly park:
    | ((failed: FailedFact, claim: Claim, move: Move) => Effect.Effect<void, E | PartitionFenced, R>)
    | undefined
  /** Runs before anything is read. */
  readonly taken: (partition: number) => Effect.Effect<void>
  /** Told of every step of the cursor. */
  readonly reached: (partition: number, position: Position) => Effect.Effect<void>
  /** Runs after each batch, while nothing is held. */
  readonly rest: (facts: number) => Effect.Effect<void>
  /** Shared with other partitions: as many batches at a time as there are. */
  readonly permits: BatchPermits | undefined
  readonly fail: (claim: Claim, error: string) => Effect.Effect<void, PartitionFenced | SqlError>
  readonly batchSize: number
  readonly linger: Duration.Duration
  /** Waits before a batch is handled again that failed for a reason of its own. */
  readonly retry: Schedule.Schedule<unknown>
  /** Waits for a database or a store that is out of reach; without end. */
  readonly outages: Schedule.Schedule<unknown>
  /** Told of failures that may pass. */
  readonly outage: Outage.Outage
  readonly checkpointInterval: Duration.Duration
}

/**
 * A fact that has failed until its schedule ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface FailedFact {
  readonly fact: Fact
  /** What its last attempt failed with. */
  readonly error: string
  readonly attempts: number
}

/** Why a batch was not handled. */
class BatchFailed extends Data.TaggedError("BatchFailed")<{
  readonly cause: Cause.Cause<unknown>
  readonly size: number
}> {}

/**
 * Runs until it is interrupted or the epoch is over. A fact that cannot be handled ends the handling, not the effect.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = <E, R>(options: PartitionOptions<E, R>): Effect.Effect<never, PartitionFenced, R> => {
  const { claim, gate, name, progress } = options
  const metrics = DurableSubscriptionMetrics.ofPartition(name, claim.partition)
  const patiently = patience(options)
  const alone = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    gate.withPermit(
      options.permits === undefined ? effect : options.permits.withPermit({ after: progress.cursor, isLast })(effect)
    )
  let size = options.batchSize
  let savedAt = 0n
  let failures = 0
  let isLast = false

  const reached = Effect.fnUntraced(function*(to: Position) {
    progress.cursor = to
    yield* Metric.update(metrics.position, Number(to))
    yield* options.reached(claim.partition, to)
  })

  const saved = Effect.fnUntraced(function*(to: Position) {
    progress.saved = to
    savedAt = yield* Clock.currentTimeNanos
    yield* reached(to)
  })

  const handle = Effect.fnUntraced(function*(batch: Arr.NonEmptyReadonlyArray<Fact>, to: Position) {
    const [duration] = yield* options.handle(batch, claim, { from: progress.saved, to }).pipe(
      DurableSubscriptionTracing.withSpans(name, claim.partition, batch),
      Effect.timed
    )
    yield* saved(to)
    yield* Metric.update(metrics.facts, batch.length)
    yield* Metric.update(metrics.batchSize, batch.length)
    yield* Metric.update(metrics.handleSeconds, Duration.toSeconds(duration))
  })

  /** Waits out what passes by itself, and says of everything else which batch it was. */
  const attended = <A, E, R>(
    work: Effect.Effect<A, E, R>,
    size: number
  ): Effect.Effect<A, BatchFailed | PartitionFenced, R> =>
    work.pipe(
      // Here and in `next`: each failure is retried by one of the two.
      Retrying.marked,
      Effect.sandbox,
      Effect.mapError((cause) => fenceOf(cause) ?? new BatchFailed({ cause, size })),
      Effect.tapErrorTag("BatchFailed", ({ cause }) =>
        Effect.andThen(
          Metric.update(metrics.failures, 1),
          mayPass(cause)
            ? options.outage.failed("A batch of a subscription waits for the database", cause)
            : Effect.logWarning("A batch of a subscription failed", cause)
        )),
      Retrying.retry({
        schedule: options.outages,
        while: (error) => error._tag === "BatchFailed" && mayPass(error.cause)
      })
    )

  /** Handles the first of these facts, as many as the size of a batch allows, and tells how many. */
  const attempt = (
    facts: Arr.NonEmptyReadonlyArray<Fact>,
    end: Position
  ): Effect.Effect<number, BatchFailed | PartitionFenced, R> =>
    Effect.suspend(() => {
      const batch: Arr.NonEmptyReadonlyArray<Fact> = [facts[0], ...facts.slice(1, size)]
      const to = batch.length === facts.length ? end : Arr.lastNonEmpty(batch).position
      return attended(alone(handle(batch, to)), batch.length).pipe(
        Effect.tapError(() =>
          Effect.sync(() => {
            failures = size === 1 ? failures + 1 : 1
            size = 1
          })
        ),
        Effect.tap(() => options.rest(batch.length)),
        Effect.map(() => {
          failures = 0
          size = Math.min(size * 2, options.batchSize)
          return batch.length
        })
      )
    })

  const stop = Effect.fnUntraced(function*(place: string, cause: Cause.Cause<unknown>) {
    yield* Effect.logError(`A partition has stopped. ${place}`, cause)
    yield* patiently(options.fail(claim, `${place}: ${messageOf(cause)}`))
    return yield* Effect.never
  })

  const next = (facts: Arr.NonEmptyReadonlyArray<Fact>, end: Position) =>
    attempt(facts, end).pipe(
      Retrying.retry({ schedule: options.retry, while: (error) => error._tag === "BatchFailed" }),
      // Whatever the schedule says, the fact that is named has been tried alone.
      Effect.catchTag("BatchFailed", (failed) => failed.size > 1 ? attempt(facts, end) : Effect.fail(failed)),
      Effect.catchTag("BatchFailed", ({ cause }) => putAside(facts, end, cause))
    )

  /** The first of these facts, for good. */
  const putAside = (facts: Arr.NonEmptyReadonlyArray<Fact>, end: Position, cause: Cause.Cause<unknown>) => {
    const [fact] = facts
    const { park } = options
    const stopHere = (cause: Cause.Cause<unknown>) => stop(`Fact ${fact.position}`, cause)
    if (park === undefined) return stopHere(cause)
    const to = facts.length === 1 ? end : fact.position
    return Effect.suspend(() =>
      park({ fact, error: messageOf(cause), attempts: failures }, claim, { from: progress.saved, to })
    ).pipe(
      Effect.andThen(saved(to)),
      alone,
      (parked) => attended(parked, 1),
      Effect.tap(() => Effect.logError(`Fact ${fact.position} is put aside`, cause)),
      Effect.as(1),
      Effect.catchTag("BatchFailed", ({ cause }) => stopHere(cause))
    )
  }

  /** Writes down now and then how far it is in a log where nothing is wanted. */
  const passOver = Effect.fnUntraced(function*() {
    const { cursor, saved: from } = progress
    if (cursor === from) return
    const since = Duration.nanos((yield* Clock.currentTimeNanos) - savedAt)
    if (cursor - from < passedOver && Duration.isLessThan(since, options.checkpointInterval)) return
    yield* gate.withPermit(Effect.andThen(patiently(options.move(claim, { from, to: cursor })), saved(cursor)))
  })

  /** Waits for more, and no longer than the checkpoint may be behind. */
  const idle = Effect.fnUntraced(function*() {
    const more = options.changed(progress.cursor)
    if (progress.cursor === progress.saved) return yield* more
    const since = Duration.nanos((yield* Clock.currentTimeNanos) - savedAt)
    yield* Effect.timeoutOption(more, Duration.subtract(options.checkpointInterval, since))
  })

  /**
   * What is wanted after the cursor, and where that ends: a page has a part of a batch for each partition, so as many pages as there are
   * partitions, until they fill a batch.
   */
  const readBatch = Effect.fnUntraced(function*() {
    const read = (after: Position) => patiently(untraced(options.read(after)))
    isLast = false
    let page = yield* read(progress.cursor)
    const facts: Array<Fact> = []
    let { end } = page
    for (let pages = 1; page.end !== null; pages++) {
      end = page.end
      facts.push(...page.partitions[claim.partition] ?? [])
      isLast = isPart(page.partitions)
      if (isLast || facts.length >= options.batchSize || pages >= page.partitions.length) break
      page = yield* read(end)
    }
    return { end, facts }
  })

  /** At the end of the log: fewer facts than there could have been. */
  const isPart = (partitions: ReadonlyArray<ReadonlyArray<Fact>>): boolean =>
    partitions.reduce((count, facts) => count + facts.length, 0) < options.batchSize

  /** Lets facts come that are handled together, where the last ones came so short a while ago that more will. */
  const gather = Effect.fnUntraced(function*(begun: bigint) {
    const since = Duration.nanos((yield* Clock.currentTimeNanos) - begun)
    if (Duration.isLessThan(since, options.linger)) yield* Effect.sleep(Duration.subtract(options.linger, since))
  })

  return Effect.gen(function*() {
    savedAt = yield* Clock.currentTimeNanos
    yield* options.taken(claim.partition)
    while (true) {
      const begun = yield* Clock.currentTimeNanos
      const { end, facts } = yield* readBatch()
      if (end === null) {
        yield* untraced(passOver())
        yield* untraced(idle())
        continue
      }
      let rest: ReadonlyArray<Fact> = facts
      while (Arr.isReadonlyArrayNonEmpty(rest)) rest = rest.slice(yield* next(rest, end))
      yield* reached(end)
      yield* untraced(passOver())
      if (isLast) yield* gather(begun)
    }
  }).pipe(
    // A bug in a key, or a database that refuses for good: it is seen in the status too.
    Effect.catchCauseIf(
      (cause) => cause.reasons.some(Cause.isDieReason),
      (cause) => stop(`After fact ${progress.cursor}`, cause)
    ),
    Effect.tapError(() => Metric.update(metrics.fenced, 1)),
    Effect.annotateLogs({ subscription: name, partition: claim.partition }),
    Retrying.outermost
  )
}

/** So many facts may be passed over before the checkpoint moves over them. */
const passedOver = 10_000n

const untraced = Effect.withTracerEnabled(false)

/** Waits for a database or a store that is out of reach; another failure of them is a defect. */
const patience =
  ({ outage, outages }: Pick<PartitionOptions<never, never>, "outage" | "outages">) =>
  <A, E>(effect: Effect.Effect<A, E>) =>
    effect.pipe(
      Retrying.marked,
      Effect.sandbox,
      Effect.tapError((cause) =>
        mayPass(cause) ? outage.failed("A subscription waits for the database", cause) : Effect.void
      ),
      Retrying.retry({ schedule: outages, while: mayPass }),
      Effect.catch((cause): Effect.Effect<never, PartitionFenced> => {
        const fenced = fenceOf(cause)
        return fenced === undefined ? Effect.die(Cause.squash(cause)) : Effect.fail(fenced)
      })
    )

/** True for what time may mend: a store or database out of reach, a deadlock, a lock timeout, a full disk. */
const mayPass = <E>(cause: Cause.Cause<E>): boolean => {
  const errors = errorsOf(cause)
  return errors.length > 0 &&
    errors.every((error) =>
      error instanceof EventStoreError && error.reason._tag === "StoreUnavailable" ||
      passing.has(SqlState.classify(error))
    )
}

const passing: ReadonlySet<SqlState.ErrorClass> = new Set(["retryable", "unknown-outcome", "disk-full"])

const fenceOf = <E>(cause: Cause.Cause<E>): PartitionFenced | undefined =>
  errorsOf(cause).find((error) => error instanceof PartitionFenced)

const errorsOf = <E>(cause: Cause.Cause<E>): ReadonlyArray<unknown> =>
  cause.reasons.flatMap((reason): ReadonlyArray<unknown> =>
    Cause.isFailReason(reason) ? [reason.error] : Cause.isDieReason(reason) ? [reason.defect] : []
  )

/** The database's own words say more than its client's. */
const messageOf = (cause: Cause.Cause<unknown>): string => {
  const errors = errorsOf(cause)
  if (errors.length === 0) return "the handler interrupted itself"
  return errors.map((error) => {
    const said = SqlState.sqlErrorOf(error)?.reason.cause ?? error
    return Predicate.hasProperty(said, "message") ? String(said.message) : String(said)
  }).join("; ")
}
