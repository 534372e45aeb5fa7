/**
 * Runs projections: reads the log, applies it batch by batch, keeps checkpoints, tells how far each one is.
 *
 * **Details**
 *
 * Each projection has one runner. A batch takes effect in one transaction with the projection's checkpoint, whose row is
 * locked first: when several processes run the same projection, no fact is applied twice, and the one that comes late
 * goes on from where the other got to. A projection that is behind works in larger batches.
 *
 * Failures that may pass (a lost connection, a deadlock, a lock timeout, a store out of reach) are retried without end, with
 * capped and jittered delays. A fact that cannot be decoded, or whose application fails for good, stops its own
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
import type { EventStoreError } from "@strata/event-store/EventStore"
import { Position } from "@strata/event-store/Fact"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"

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
  /** How often waiting callers look at the checkpoints of other processes. Default: 50 milliseconds. */
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
export type StatusError = EventStoreError | SqlError | TransactionError

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
