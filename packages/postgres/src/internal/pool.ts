/** The pooled client: `@effect/sql-pg`'s, with a bounded wait for a connection, and measured. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { Clock } from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Semaphore from "effect/Semaphore"
import * as SqlClient from "effect/sql/SqlClient"
import type * as SqlConnection from "effect/sql/SqlConnection"
import { ConnectionError, SqlError, UnknownError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import type { PostgresMetrics } from "../PostgresMetrics.ts"

export interface PoolOptions {
  readonly client: PgClient.PgPoolConfig
  readonly acquireTimeout: Duration.Duration
  readonly metrics: PostgresMetrics
}

/**
 * Builds the client.
 *
 * The driver's pool makes callers wait for ever, so permits, one for each connection, are taken before it is asked:
 * who holds a permit never waits in the pool, only for a connection that is being made, which has its own limit.
 */
export const make = Effect.fnUntraced(function*(options: PoolOptions) {
  const inner = yield* PgClient.make(options.client)
  const permit = makePermits(options)
  const acquirer = Effect.map(
    measureAcquire(Effect.andThen(permit, inner.reserve), options.metrics),
    (connection) => new MeasuredConnection(connection, options.metrics)
  )
  const client = yield* SqlClient.make({
    acquirer,
    borrower: (use) => Effect.scoped(Effect.flatMap(acquirer, use)),
    transactionAcquirer: acquirer,
    compiler: PgClient.makeCompiler(),
    prepareTransactionControls: true,
    commit,
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    driver: "pg",
    spanAttributes: [
      ["db.system.name", "postgresql"],
      ["db.namespace", options.client.database],
      ["server.address", options.client.path ?? options.client.host],
      ["server.port", options.client.port]
    ]
  })
  return Object.assign(client, {
    [PgClient.TypeId]: PgClient.TypeId,
    config: options.client,
    json: inner.json,
    listen: (channel: string) => Effect.andThen(permit, inner.listen(channel)),
    notify: (channel: string, payload: string) => Effect.scoped(Effect.andThen(permit, inner.notify(channel, payload)))
  })
})

/** Takes a permit until the scope closes; fails when none is free within the acquire timeout. */
const makePermits = (options: PoolOptions) => {
  const { pool } = options.metrics
  const semaphore = Semaphore.makeUnsafe(pool.max)
  const count = Effect.acquireRelease(
    Effect.sync(() => pool.inUse++),
    () => Effect.sync(() => pool.inUse--)
  )
  const take = Effect.andThen(semaphore.takeScoped(1), count)
  const waiting = Effect.acquireUseRelease(
    Effect.sync(() => pool.waiting++),
    () =>
      Effect.timeoutOrElse(take, {
        duration: options.acquireTimeout,
        orElse: () => Effect.fail(exhausted(pool.max, options.acquireTimeout))
      }),
    () => Effect.sync(() => pool.waiting--)
  )
  // Only who has to wait pays for a timer.
  return Effect.suspend(() => pool.inUse + pool.waiting < pool.max ? take : waiting)
}

const exhausted = (max: number, waited: Duration.Duration): SqlError => {
  const message = `No connection was free within ${Duration.format(waited)}: all ${max} of the pool are in use. ` +
    "Shorten what holds them, or raise maxConnections"
  return new SqlError({
    reason: new ConnectionError({ cause: new Error(message), message, operation: "acquire" })
  })
}

const measureAcquire = <A, R>(
  acquire: Effect.Effect<A, SqlError, R>,
  metrics: PostgresMetrics
): Effect.Effect<A, SqlError, R> => measured(acquire, metrics.acquired, metrics)

/** Records how long `self` took, and the class of its failure. */
const measured = <A, R>(
  self: Effect.Effect<A, SqlError, R>,
  record: (nanos: bigint, context: Context.Context<never>) => void,
  metrics: PostgresMetrics
): Effect.Effect<A, SqlError, R> =>
  Effect.withFiber((fiber) => {
    const clock = fiber.getRef(Clock)
    const start = clock.monotonicTimeNanosUnsafe()
    return Effect.onExitPrimitive(self, (exit) => {
      record(clock.monotonicTimeNanosUnsafe() - start, fiber.context)
      if (exit._tag === "Failure") {
        for (const reason of exit.cause.reasons) {
          if (reason._tag === "Fail") metrics.failed(reason.error, fiber.context)
        }
      }
      return undefined
    })
  })

class MeasuredConnection implements SqlConnection.Connection {
  readonly connection: SqlConnection.Connection
  readonly metrics: PostgresMetrics

  constructor(connection: SqlConnection.Connection, metrics: PostgresMetrics) {
    this.connection = connection
    this.metrics = metrics
  }

  private measure<A>(query: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return measured(query, this.metrics.queried, this.metrics)
  }

  execute(...query: Parameters<SqlConnection.Connection["execute"]>) {
    return this.measure(this.connection.execute(...query))
  }
  executeRaw(...query: Parameters<SqlConnection.Connection["executeRaw"]>) {
    return this.measure(this.connection.executeRaw(...query))
  }
  executeValues(...query: Parameters<SqlConnection.Connection["executeValues"]>) {
    return this.measure(this.connection.executeValues(...query))
  }
  executeValuesUnprepared(...query: Parameters<SqlConnection.Connection["executeValuesUnprepared"]>) {
    return this.measure(this.connection.executeValuesUnprepared(...query))
  }
  executeUnprepared(...query: Parameters<SqlConnection.Connection["executeUnprepared"]>) {
    return this.measure(this.connection.executeUnprepared(...query))
  }
  executeStream(...query: Parameters<SqlConnection.Connection["executeStream"]>) {
    return Stream.tapError(this.connection.executeStream(...query), (error) =>
      Effect.withFiber((fiber) => {
        this.metrics.failed(error, fiber.context)
        return Effect.void
      }))
  }
}

/** PostgreSQL answers `COMMIT` with `ROLLBACK` when a statement failed and the failure was swallowed. */
const commit = (connection: SqlConnection.Connection): Effect.Effect<void, SqlError> =>
  Effect.flatMap(connection.executeRaw("COMMIT", []), (result) => {
    if (!Predicate.hasProperty(result, "command") || result.command !== "ROLLBACK") return Effect.void
    const message = "The database rolled the transaction back: one of its statements had failed and the failure was " +
      "caught. Put a statement that may fail in a nested transact"
    return Effect.fail(
      new SqlError({ reason: new UnknownError({ cause: new Error(message), message, operation: "commit" }) })
    )
  })
