/**
 * What the database layer measures, through `effect/Metric`.
 *
 * **Details**
 *
 * | name | kind | labels |
 * | --- | --- | --- |
 * | `strata_postgres_pool_connections_max` | gauge | |
 * | `strata_postgres_pool_connections_open` | gauge | |
 * | `strata_postgres_pool_connections_in_use` | gauge | |
 * | `strata_postgres_pool_waiting` | gauge: fibers that wait for a connection | |
 * | `strata_postgres_pool_acquire_seconds` | histogram | |
 * | `strata_postgres_query_seconds` | histogram | |
 * | `strata_postgres_query_errors_total` | counter | `class`: one of `SqlState.ErrorClass` |
 * | `strata_postgres_transactions_total` | counter | `outcome`: committed, rolled_back, retried, unknown |
 *
 * Every series also has `pool`, the application name of the pool. Idle connections are those open and not in use.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as SqlState from "./SqlState.ts"

/**
 * How a transaction, or one attempt at it, ended.
 *
 * @category models
 * @since 0.1.0
 */
export type TransactionOutcome = "committed" | "rolled_back" | "retried" | "unknown"

/**
 * The state of a pool, read when metrics are collected.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolState {
  readonly max: number
  open: number
  inUse: number
  waiting: number
}

/**
 * Where one pool records.
 *
 * @category models
 * @since 0.1.0
 */
export interface PostgresMetrics {
  readonly pool: PoolState
  readonly acquired: (nanos: bigint, context: Context.Context<never>) => void
  readonly queried: (nanos: bigint, context: Context.Context<never>) => void
  readonly failed: (error: unknown, context: Context.Context<never>) => void
  readonly transaction: (outcome: TransactionOutcome) => Effect.Effect<void>
}

/** From a tenth of a millisecond to 26 seconds. */
const boundaries = Metric.exponentialBoundaries({ start: 0.0001, factor: 4, count: 10 })

const seconds = (nanos: bigint): number => Number(nanos) / 1e9

/**
 * Registers the series of one pool, until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options: { readonly pool: string; readonly max: number }) {
  const attributes = { pool: options.pool }
  const pool: PoolState = { max: options.max, open: 0, inUse: 0, waiting: 0 }
  const gauge = (name: string, description: string, read: () => number) =>
    observed(Metric.gauge(name, { description, attributes }), read)
  yield* gauge("strata_postgres_pool_connections_max", "Connections the pool may open", () => pool.max)
  yield* gauge("strata_postgres_pool_connections_open", "Connections that are open", () => pool.open)
  yield* gauge("strata_postgres_pool_connections_in_use", "Connections lent out", () => pool.inUse)
  yield* gauge("strata_postgres_pool_waiting", "Fibers that wait for a connection", () => pool.waiting)

  const acquire = Metric.histogram("strata_postgres_pool_acquire_seconds", {
    description: "Time to get a connection",
    attributes,
    boundaries
  })
  const query = Metric.histogram("strata_postgres_query_seconds", {
    description: "Time of a statement, from sending it to its last row",
    attributes,
    boundaries
  })
  const errors = Metric.counter("strata_postgres_query_errors_total", {
    description: "Statements that failed",
    attributes,
    incremental: true
  })
  const transactions = Metric.counter("strata_postgres_transactions_total", {
    description: "Transactions, and attempts that are repeated",
    attributes,
    incremental: true
  })
  const errorsOf: Record<SqlState.ErrorClass, Metric.Counter<number>> = {
    "retryable": Metric.withAttributes(errors, { class: "retryable" }),
    "conflict": Metric.withAttributes(errors, { class: "conflict" }),
    "unknown-outcome": Metric.withAttributes(errors, { class: "unknown-outcome" }),
    "disk-full": Metric.withAttributes(errors, { class: "disk-full" }),
    "permanent": Metric.withAttributes(errors, { class: "permanent" })
  }
  const transactionsOf: Record<TransactionOutcome, Effect.Effect<void>> = {
    committed: Metric.update(Metric.withAttributes(transactions, { outcome: "committed" }), 1),
    rolled_back: Metric.update(Metric.withAttributes(transactions, { outcome: "rolled_back" }), 1),
    retried: Metric.update(Metric.withAttributes(transactions, { outcome: "retried" }), 1),
    unknown: Metric.update(Metric.withAttributes(transactions, { outcome: "unknown" }), 1)
  }
  const metrics: PostgresMetrics = {
    pool,
    acquired: (nanos, context) => acquire.updateUnsafe(seconds(nanos), context),
    queried: (nanos, context) => query.updateUnsafe(seconds(nanos), context),
    failed: (error, context) => errorsOf[SqlState.classify(error)].updateUnsafe(1, context),
    transaction: (outcome) => transactionsOf[outcome]
  }
  return metrics
})

/** A gauge that is read when it is collected, so keeping it current costs nothing. */
const observed = (gauge: Metric.Gauge<number>, read: () => number) =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.acquireRelease(
      Effect.sync(() =>
        Metric.registerUnsafe(gauge, context, { get: () => ({ value: read() }), update: () => {}, modify: () => {} })
      ),
      (registration) => Effect.sync(() => registration.remove())
    )
  )
