/**
 * Runs projections: fills their tables from the log, rebuilds them beside the ones in use, tells how far each one is.
 *
 * **Details**
 *
 * - Each generation of a projection is a durable subscription whose batches commit with its checkpoint: see
 *   `DurableSubscription`. So keys are shared among processes, nothing is applied twice, and what dies is taken over.
 * - Corrections and retractions need no code: see `Projection`.
 * - A fact that cannot be applied is tried again, and put aside then with its error, together with later facts of its key; all other keys
 *   go on. `retry` and `skip` let the key go on.
 * - A projection whose version has no tables yet is built beside the one in use, in partitions, from the first fact. Readers are
 *   switched when it has caught up, in one transaction and without a failed read; until `drop`, `rollback` leads back.
 *
 * - An inline projection is applied in the transactions that write facts, by whoever writes them; as long as it has not caught up, and
 *   where somebody writes who does not have this layer, as any other. See `InlineRun`.
 *
 * **Example** (Reading one's own write)
 *
 * ```ts
 * import * as Projections from "@strata/projections/Projections"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const projections = yield* Projections.Projections
 *   const appended = yield* placeOrder
 *   yield* projections.waitFor({ position: appended.position, timeout: "2 seconds" })
 *   return yield* readOrders
 * })
 *
 * const ProjectionsLayer = Projections.layer([Orders, Invoices])
 * ```
 *
 * @since 0.1.0
 */
import * as BatchPermits from "@strata/event-store/BatchPermits"
import * as Checkpoints from "@strata/event-store/DurableSubscriptionCheckpoints"
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import { Position } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as SqlState from "@strata/postgres/SqlState"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import * as Generation from "./Generation.ts"
import * as GenerationWatch from "./GenerationWatch.ts"
import * as InlineRun from "./InlineRun.ts"
import * as Operations from "./Operations.ts"
import * as ParkedKeys from "./ParkedKeys.ts"
import type { Projection } from "./Projection.ts"
import * as ProjectionMetrics from "./ProjectionMetrics.ts"
import * as ProjectionProgress from "./ProjectionProgress.ts"
import * as ProjectionStatus from "./ProjectionStatus.ts"

export type { GenerationStatus, Status } from "./ProjectionStatus.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * How projections are run.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Facts in a batch at most, 1 to 1,000. Default: 1,000. */
  readonly batchSize?: number | undefined
  /**
   * Parts into which the keys of a new generation are divided, 1 to 256: so many of its batches can be applied at a time, by so many
   * processes. Default: 2.
   */
  readonly partitions?: number | undefined
  /** Batches that this process applies at a time; each takes a connection. Default: 4. */
  readonly concurrency?: number | undefined
  /** `manual` leaves it to `switch` when readers see a new version. Default: `automatic`. */
  readonly switch?: "automatic" | "manual" | undefined
  /**
   * How often waiting callers look at the checkpoints that other processes move. Default: 250 milliseconds, and 25 in a
   * process that runs none itself.
   */
  readonly pollInterval?: Duration.Input | undefined
  /** `false` in a process that only writes, waits, asks and operates. Inline projections are applied all the same. Default: `true`. */
  readonly run?: boolean | undefined
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * Read models did not reach a position in time, or one of them has failed before it. Nothing is lost: ask again later.
 *
 * @category errors
 * @since 0.1.0
 */
export class ProjectionBehind extends Schema.TaggedError<ProjectionBehind>()("ProjectionBehind", {
  /** The position waited for. */
  position: Position,
  /** Those that have not reached it. */
  behind: Schema.Array(Schema.Struct({
    name: Schema.String,
    position: Position,
    state: Schema.Literals(["new", "running", "parked", "paused", "failed"])
  }))
}) {
  override get message() {
    const where = this.behind.map(({ name, position, state }) => `${name} (${state}) is at ${position}`).join(", ")
    return `Read models have not reached position ${this.position}: ${where}`
  }
}

/**
 * The checkpoints could not be read.
 *
 * @category errors
 * @since 0.1.0
 */
export type StatusError = EventStoreError | SqlError

// -------------------------------------------------------------------------------------------------------- service

/**
 * The projections of one store.
 *
 * @category services
 * @since 0.1.0
 */
export class Projections extends Context.Service<Projections, {
  /** Every projection, in the order given to the layer: what readers see of it, and its generations. */
  readonly status: Effect.Effect<ReadonlyArray<ProjectionStatus.Status>, StatusError>
  /**
   * Waits until the read models have reached a position. Costs nothing when they have. Fails at once when one of them has
   * failed before it, and after `timeout` (default 5 seconds) when they are still behind. Keys that are parked are not waited for.
   */
  readonly waitFor: (options: {
    readonly position: Position
    /** Names. Default: all. A name that is not a projection is a defect. */
    readonly projections?: ReadonlyArray<string> | undefined
    readonly timeout?: Duration.Input | undefined
  }) => Effect.Effect<void, ProjectionBehind | StatusError>
  /** Waits until all have reached the head that the log has at the call. `timeout` defaults to one minute. */
  readonly catchUp: (options?: {
    readonly timeout?: Duration.Input | undefined
  }) => Effect.Effect<void, ProjectionBehind | StatusError>
  /** What a person does with them. A name that is not a projection is a defect. */
  readonly operate: Operations.Operations
}>()("@strata/projections/Projections") {}

// ---------------------------------------------------------------------------------------------------------- layer

/**
 * Runs projections over the store in scope, in the database in scope, until the layer's scope is closed. Two
 * projections of one name are a defect.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  projections: ReadonlyArray<Projection>,
  options: Options = {}
): Layer.Layer<Projections, never, EventStore | Postgres> => Layer.effect(Projections, make(projections, options))

const make = Effect.fnUntraced(function*(projections: ReadonlyArray<Projection>, options: Options) {
  const names = projections.map(({ name }) => name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) return yield* Effect.die(new RangeError(`There are two projections named ${twice}`))

  const { batchSize = 1000, concurrency = 4, partitions = 2, run = true } = options
  const build = { partitions, manual: options.switch === "manual", rate: undefined }
  const store = yield* EventStore
  const postgres = yield* Postgres
  const { sql } = postgres
  const generations = Generation.make(postgres, store.name)
  const progress = ProjectionProgress.make()
  const channel = `strata_projections_${postgres.schema}_${store.name}`.slice(0, 63)

  const look = Effect.gen(function*() {
    const all = (yield* generations.all).filter(({ name }) => names.includes(name))
    yield* progress.read(all, yield* Checkpoints.read(sql, store.name, all.map(Generation.subscriptionOf)))
    return all
  })
  const parked = (generation: Generation.Generation) => ParkedKeys.make(postgres, store.name, generation).all
  const status = ProjectionStatus.make({ projections, store, look, progress, parked })

  /** All who wait look together, but those in a transaction: nobody else may wait for its connection. */
  const sharedLook = Effect.cachedWithTTL(look, "20 millis").pipe(
    Effect.map((shared) => Effect.flatMap(postgres.holdsConnection, (isOwn) => isOwn ? look : shared))
  )

  /** Reads what other processes have done, again and again; ends only when the database refuses for good. */
  const poll = (yield* sharedLook).pipe(
    Effect.catchIf(
      (error) => SqlState.classify(error) !== "permanent",
      () => Effect.void.pipe(Pace.after("250 millis"))
    ),
    Pace.every(options.pollInterval ?? (run ? "250 millis" : "25 millis")),
    Effect.withTracerEnabled(false)
  )

  const waitFor: Projections["Service"]["waitFor"] = Effect.fn("Projections.waitFor")(
    function*({ position, projections: wanted = names, timeout = "5 seconds" }) {
      const unknown = wanted.find((name) => !names.includes(name))
      if (unknown !== undefined) return yield* Effect.die(new RangeError(`There is no projection named ${unknown}`))
      if (progress.behind(wanted, position).length === 0) return
      const look = progress.isTold(wanted) ? poll.pipe(Pace.after(grace)) : poll
      yield* Effect.raceFirst(progress.settled(wanted, position), look).pipe(
        Deadline.within(timeout),
        Effect.catchTag("DeadlineExceeded", () => Effect.void)
      )
      const behind = progress.behind(wanted, position)
      if (behind.length > 0) return yield* new ProjectionBehind({ position, behind })
    }
  )

  const catchUp: Projections["Service"]["catchUp"] = Effect.fn("Projections.catchUp")(
    function*({ timeout = "1 minute" } = {}) {
      yield* waitFor({ position: yield* store.head, timeout })
    }
  )

  const hint = postgres.wake(channel)
  const inline = InlineRun.make({ projections, store, postgres, generations, progress, hint })
  if (projections.some((projection) => projection.inline)) yield* store.beforeCommit(inline.work)
  if (run) {
    const permits = BatchPermits.make(concurrency)
    yield* GenerationWatch.run({
      projections,
      generations,
      progress,
      look,
      parked,
      channel,
      build,
      inline,
      run: { batchSize, permits }
    })
    yield* Effect.forkScoped(measureLag(status))
  }
  const context = yield* Effect.context<never>()
  const operate = Operations.make({ projections, store, postgres, generations, build, hint, context })
  return Projections.of({ status, waitFor, catchUp, operate })
})

/** How long this process may take to apply what it is told of, before anybody looks whether another one has. */
const grace = "50 millis"

/** Samples how far behind projections are; a sample that cannot be taken is left out. */
const measureLag = (status: Projections["Service"]["status"]) =>
  status.pipe(
    Effect.flatMap(Effect.forEach(({ lag, lagSeconds, name, parked, position }) => {
      const metrics = ProjectionMetrics.of(name)
      return Effect.all([
        Metric.update(metrics.position, Number(position)),
        Metric.update(metrics.lag, Number(lag)),
        Metric.update(metrics.lagSeconds, lagSeconds),
        Metric.update(metrics.parked, parked)
      ])
    }, { discard: true })),
    Effect.ignore,
    Pace.every("5 seconds"),
    Effect.withTracerEnabled(false)
  )
