/**
 * Runs projections: reads the log, applies it batch by batch, keeps checkpoints, tells how far each one is.
 *
 * **Details**
 *
 * Each projection has one runner. A batch takes effect in one transaction with the projection's checkpoint, whose row is
 * locked first: when several processes run the same projection, no fact is applied twice, and the one that comes late
 * goes on from where the other got to. A projection that is behind works in larger batches.
 *
 * Failures that may pass (a lost connection, a deadlock, a lock timeout, a store out of reach) are retried without end: see
 * `RetryPolicy.endless`. A fact that cannot be decoded, or whose application fails for good, stops its own
 * projection with the state `failed` and the error in its status; no fact is ever passed over silently, and the
 * other projections go on. A failed projection tries again when the process starts again.
 *
 * A projection whose version differs from its checkpoint's is emptied and starts from the first fact.
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
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import { beginning, Position } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as SqlState from "@strata/postgres/SqlState"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import * as Checkpoint from "./Checkpoint.ts"
import type { Projection } from "./Projection.ts"
import * as ProjectionMetrics from "./ProjectionMetrics.ts"
import * as ProjectionProgress from "./ProjectionProgress.ts"
import * as ProjectionRunner from "./ProjectionRunner.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What a projection is doing: `new` before its runner has started anywhere, `running`, or `failed`: stopped at a fact it
 * cannot take.
 *
 * @category models
 * @since 0.1.0
 */
export const State = Schema.Literals(["new", "running", "failed"])
export type State = typeof State.Type

/**
 * How far a projection is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  readonly name: string
  readonly version: number
  /** The last fact applied. */
  readonly position: Position
  /** The last fact of the log. */
  readonly head: Position
  /** Facts between the two. */
  readonly lag: bigint
  /** Age in seconds of the oldest fact that is not applied, `0` when there is none. */
  readonly lagSeconds: number
  readonly state: State
  /** Why it failed. */
  readonly error: string | null
}

/**
 * How projections are run.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Facts in a batch while a projection keeps up. Default: 500. */
  readonly batchSize?: number | undefined
  /** Facts in a batch while a projection is behind. Default: 2,000. */
  readonly maxBatchSize?: number | undefined
  /**
   * How often waiting callers look at the checkpoints that other processes move. Default: 250 milliseconds, and 25 in a
   * process that runs none itself.
   */
  readonly pollInterval?: Duration.Input | undefined
  /** `false` in a process that only waits and asks for the status. Default: `true`. */
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
  behind: Schema.Array(Schema.Struct({ name: Schema.String, position: Position, state: State }))
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
  /** Every projection, in the order given to the layer. */
  readonly status: Effect.Effect<ReadonlyArray<Status>, StatusError>
  /**
   * Waits until the read models have reached a position. Costs nothing when they have. Fails at once when one of them has
   * failed before it, and after `timeout` (default 5 seconds) when they are still behind.
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

  const { batchSize = 500, maxBatchSize = 2000, run = true } = options
  const store = yield* EventStore
  const checkpoints = Checkpoint.make(yield* Postgres, store.name)
  const progress = yield* ProjectionProgress.make({ runsHere: run })
  const readCheckpoints = Effect.tap(checkpoints.all, progress.read)

  const status = Effect.gen(function*() {
    const rows = new Map((yield* readCheckpoints).map((row) => [row.name, row]))
    const head = yield* store.head
    const since = oldestAfter(store)
    return yield* Effect.forEach(
      projections,
      ({ name, version }) => statusOf({ name, version, head, since, row: rows.get(name), here: progress.get(name) })
    )
  })

  /** Reads what other processes have done, again and again; ends only when the database refuses for good. */
  const poll = readCheckpoints.pipe(
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
      yield* Effect.raceFirst(progress.settled(wanted, position), poll).pipe(
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

  if (run) {
    const runner = { store, checkpoints, batchSize, maxBatchSize, moved: progress.told }
    for (const projection of projections) yield* Effect.forkScoped(ProjectionRunner.run(projection, runner))
    yield* Effect.forkScoped(measureLag(status))
  }
  return Projections.of({ status, waitFor, catchUp })
})

// --------------------------------------------------------------------------------------------------------- status

/** A failure of this process's own runner goes before the row, which it may not have been able to write. */
const statusOf = Effect.fnUntraced(function*({ head, here, name, row, since, version }: {
  readonly name: string
  readonly version: number
  readonly head: Position
  readonly since: ReturnType<typeof oldestAfter>
  readonly row: Checkpoint.CheckpointNow | undefined
  readonly here: Checkpoint.Checkpoint | undefined
}): Effect.fn.Return<Status, EventStoreError> {
  const { error = null, state = "new" } = (here?.state === "failed" ? here : row) ?? {}
  const position = row?.position ?? beginning
  const lag = head > position ? head - position : 0n
  const oldest = lag === 0n ? undefined : yield* since(position)
  return {
    name,
    version: row?.version ?? version,
    position,
    head,
    lag,
    lagSeconds: row === undefined || oldest === undefined || oldest > row.now ? 0 : Number(row.now - oldest) / 1e6,
    state,
    error
  }
})

/** When the fact after a position was recorded; asked once for projections at the same one. */
const oldestAfter = (store: EventStore["Service"]) => {
  const known = new Map<Position, Timestamp.Timestamp | undefined>()
  return Effect.fnUntraced(function*(position: Position) {
    if (!known.has(position)) {
      const recordedAt = yield* store.readLog({ after: position, limit: 1 }).pipe(
        Effect.map(([fact]) => fact?.recordedAt),
        Effect.catchReason("EventStoreError", "FactUnreadable", ({ recordedAt }) => Effect.succeed(recordedAt))
      )
      known.set(position, recordedAt)
    }
    return known.get(position)
  })
}

/** Samples how far behind projections are; a sample that cannot be taken is left out. */
const measureLag = (status: Effect.Effect<ReadonlyArray<Status>, StatusError>) =>
  status.pipe(
    Effect.flatMap(Effect.forEach(({ lag, lagSeconds, name }) => {
      const metrics = ProjectionMetrics.of(name)
      return Effect.andThen(Metric.update(metrics.lag, Number(lag)), Metric.update(metrics.lagSeconds, lagSeconds))
    }, { discard: true })),
    Effect.ignore,
    Pace.every("5 seconds"),
    Effect.withTracerEnabled(false)
  )
