/**
 * Runs one projection: reads after its checkpoint, decodes, applies, again.
 *
 * **Details**
 *
 * The size of a batch follows the work: it doubles while the log gives full batches, and halves when one is slow or fails.
 * So transactions stay short, and a fact that cannot be applied ends up alone in its batch: everything before it is
 * applied, and it is the one named.
 *
 * @since 0.1.0
 */
import type { EventDecodeError } from "@strata/event-store/EventDefinition"
import { type EventStore, EventStoreError } from "@strata/event-store/EventStore"
import { beginning, type Fact, type Position } from "@strata/event-store/Fact"
import * as SqlState from "@strata/postgres/SqlState"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { type Checkpoint, type Checkpoints, Superseded } from "./Checkpoint.ts"
import type { ApplyError, Projection } from "./Projection.ts"
import * as ProjectionMetrics from "./ProjectionMetrics.ts"
import * as ProjectionTracing from "./ProjectionTracing.ts"

/**
 * What a runner needs.
 *
 * @category options
 * @since 0.1.0
 */
export interface RunnerOptions {
  readonly store: EventStore["Service"]
  readonly checkpoints: Checkpoints
  readonly batchSize: number
  readonly maxBatchSize: number
  /** Told after each move of the checkpoint, and when the projection fails. */
  readonly moved: (checkpoint: Checkpoint) => Effect.Effect<void>
}

type StepError = ApplyError | TransactionError | EventDecodeError | EventStoreError | Superseded

/** Where a runner is, and how many facts it reads next. */
interface Cursor {
  readonly position: Position
  readonly limit: number
}

/**
 * Runs a projection until it is interrupted, fails for good, or another version takes over.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = (projection: Projection, options: RunnerOptions): Effect.Effect<void> => {
  const { batchSize, checkpoints, maxBatchSize, moved, store } = options
  const metrics = ProjectionMetrics.of(projection.name)
  const limitAfter = (limit: number, read: number, took: Duration.Duration) => {
    if (read < limit) return batchSize
    return Duration.isLessThan(took, slow) ? Math.min(limit * 2, maxBatchSize) : Math.max(Math.floor(limit / 2), 1)
  }

  const checkpointAt = (position: Position): Checkpoint => ({
    name: projection.name,
    version: projection.version,
    position,
    state: "running",
    error: null
  })
  const report = (position: Position) =>
    Effect.andThen(Metric.update(metrics.position, Number(position)), moved(checkpointAt(position)))

  const apply = Effect.fnUntraced(function*(
    facts: Arr.NonEmptyReadonlyArray<Fact>,
    { limit, position: after }: Cursor
  ) {
    const prepared = yield* Effect.fromResult(projection.prepare(facts))
    const advance = checkpoints.advance(projection, { prepared, after, last: Arr.lastNonEmpty(facts).position })
    const [duration, result] = yield* Effect.timed(
      prepared.size === 0 ? untraced(advance) : ProjectionTracing.withSpans(projection.name, facts)(advance)
    )
    if (result.applied) {
      yield* Metric.update(metrics.facts, facts.length)
      yield* Metric.update(metrics.batchSize, facts.length)
      yield* Metric.update(metrics.applySeconds, Duration.toSeconds(duration))
    }
    return { position: result.position, limit: limitAfter(limit, facts.length, duration) }
  })

  /** One batch, or the wait for one. */
  const step = Effect.fnUntraced(function*(cursor: Cursor): Effect.fn.Return<Cursor, StepError> {
    const facts = yield* untraced(store.readLog({ after: cursor.position, limit: cursor.limit }))
    if (!Arr.isReadonlyArrayNonEmpty(facts)) {
      yield* untraced(store.changed(cursor.position))
      return { position: cursor.position, limit: batchSize }
    }
    const applied = yield* Effect.exit(apply(facts, cursor))
    if (applied._tag === "Success") {
      yield* report(applied.value.position)
      return applied.value
    }
    yield* Metric.update(metrics.failures, 1)
    if (facts.length === 1 || !mayBeSize(applied.cause)) return yield* Effect.failCause(applied.cause)
    yield* Effect.logDebug("A batch failed, trying a smaller one", applied.cause)
    return { position: cursor.position, limit: Math.floor(facts.length / 2) }
  })

  const patiently = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    effect.pipe(
      Effect.sandbox,
      Effect.tapError((cause) =>
        mayPass(cause) ? Effect.logWarning("A projection waits for the database", cause) : Effect.void
      ),
      RetryPolicy.retry({ policy: RetryPolicy.endless, classify: classOf, idempotent: true }),
      Effect.catch((cause) => Effect.failCause(cause))
    )

  const loop = Effect.gen(function*() {
    let cursor: Cursor = { position: yield* patiently(checkpoints.open(projection)), limit: batchSize }
    yield* report(cursor.position)
    while (true) {
      const at = cursor.position
      cursor = yield* patiently(step(cursor)).pipe(
        Effect.catchCauseIf((cause) => !isEnd(cause), (cause) => stop(at, cause))
      )
    }
  })

  /** Stays stopped, unless another process got past this point: then goes on from there. */
  const stop = Effect.fnUntraced(function*(at: Position, cause: Cause.Cause<StepError>) {
    const position = yield* patiently(checkpoints.fail(projection, at, messageOf(cause)))
    if (position !== at) return { position, limit: batchSize }
    yield* Effect.logError("A projection has failed", cause)
    yield* moved({ ...checkpointAt(at), state: "failed", error: messageOf(cause) })
    return yield* Effect.never
  })

  return loop.pipe(
    Effect.catchTag("Superseded", ({ version }) =>
      Effect.logWarning(
        `Stopping: another process runs version ${version ?? "none"} of it, this one has ${projection.version}`
      )),
    Effect.catchCause((cause) =>
      Effect.andThen(
        Effect.logError("A projection could not be started", cause),
        moved({ ...checkpointAt(beginning), state: "failed", error: messageOf(cause) })
      )
    ),
    Effect.annotateLogs({ projection: projection.name }),
    // Whoever started it may be in a hurry, or try again; it goes on.
    Deadline.without,
    RetryPolicy.outermost
  )
}

/** A batch that takes longer is too large: it holds locks, and memory for its facts. */
const slow = Duration.seconds(2)

const untraced = Effect.withTracerEnabled(false)

/** True for what time may mend: a store or database out of reach, a deadlock, a lock or statement timeout, a full disk. */
const mayPass = <E>(cause: Cause.Cause<E>): boolean =>
  !Cause.hasInterrupts(cause) &&
  errorsOf(cause).every((error) =>
    isStoreError(error) && error.reason._tag === "StoreUnavailable" || passing.has(SqlState.classify(error)) ||
    SqlState.codeOf(error) === statementTimeout
  )

/** A batch that was applied is known by its checkpoint, so it does no harm to try again where nobody knows whether it was. */
const classOf = (cause: Cause.Cause<unknown>): FailureClass.FailureClass =>
  mayPass(cause) ? FailureClass.transient : FailureClass.permanent

/** True when fewer facts may do: what does not pass by itself, and what took too long. */
const mayBeSize = (cause: Cause.Cause<StepError>): boolean =>
  !isEnd(cause) &&
  (!mayPass(cause) || errorsOf(cause).some((error) => SqlState.codeOf(error) === statementTimeout))

/** Interrupted, or another process took over. */
const isEnd = <E>(cause: Cause.Cause<E>): boolean =>
  Cause.hasInterrupts(cause) || errorsOf(cause).some((error) => error instanceof Superseded)

const errorsOf = <E>(cause: Cause.Cause<E>): ReadonlyArray<unknown> =>
  cause.reasons.flatMap((reason): ReadonlyArray<unknown> =>
    Cause.isFailReason(reason) ? [reason.error] : Cause.isDieReason(reason) ? [reason.defect] : []
  )

const isStoreError = Schema.is(EventStoreError)
const passing: ReadonlySet<SqlState.ErrorClass> = new Set(["retryable", "unknown-outcome", "disk-full"])
const statementTimeout = "57014"

/** The database's own words say more than its client's. */
const messageOf = <E>(cause: Cause.Cause<E>): string =>
  errorsOf(cause).map((error) => {
    const server = SqlState.sqlErrorOf(error)?.reason.cause ?? error
    return Predicate.hasProperty(server, "message") ? String(server.message) : String(server)
  }).join("; ")
