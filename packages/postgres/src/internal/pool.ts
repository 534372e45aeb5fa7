/** The pooled client: `@effect/sql-pg`'s, with a bounded wait for a connection, and measured. */
import * as PgClient from "@effect/sql-pg/PgClient"
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import * as PgPool from "@effect/sql-pg/PgPool"
import { Clock } from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Predicate from "effect/Predicate"
import * as SqlClient from "effect/sql/SqlClient"
import type * as SqlConnection from "effect/sql/SqlConnection"
import { ConnectionError, isSqlError, SqlError, UnknownError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { PostgresMetrics } from "../PostgresMetrics.ts"
import * as Retrying from "../Retrying.ts"
import * as Turns from "./turns.ts"

export interface PoolOptions {
  readonly client: PgClient.PgPoolConfig
  readonly acquireTimeout: Duration.Duration
  readonly metrics: PostgresMetrics
  /** What to do when all connections stay in use. */
  readonly advice: string
}

/**
 * Builds the client.
 *
 * The driver's pool makes callers wait for ever, so it is asked only by as many as it has connections for: then nobody waits
 * in it but for a connection that is being made, which has its own limit. All others wait for their turn, with a limit.
 */
export const make = Effect.fnUntraced(function*(options: PoolOptions) {
  const { connectionTTL, ...settings } = options.client
  const driver = yield* PgPool.make(settings)
  const { metrics } = options
  const { pool } = metrics
  const connections = new WeakMap<PgConnection.PgConnection, PooledConnection>()
  const fork = yield* FiberSet.makeRuntime()

  /** The first time it is lent, its time to live begins. One in use is let go of when it is given back. */
  const lend = (session: PgConnection.PgConnection): PooledConnection => {
    const known = connections.get(session)
    if (known !== undefined) return known
    if (connectionTTL !== undefined) fork(Effect.delay(driver.invalidate(session), connectionTTL))
    const connection = new PooledConnection(session, metrics)
    connections.set(session, connection)
    return connection
  }

  const turns = yield* Turns.make({
    state: pool,
    timeout: options.acquireTimeout,
    timedOut: () => exhausted(pool.max, options)
  })

  const acquirer = Effect.map(measured(Effect.andThen(turns.take, driver.get), metrics.acquired, metrics), lend)
  const reserved = Effect.flatMap(
    acquirer,
    ({ session }) => Effect.map(session.pin, (pinned) => new PooledConnection(pinned, metrics))
  )

  // The same for one statement, which needs no scope: every statement outside transactions comes along here.
  const borrower: SqlConnection.Borrower = (use) =>
    Effect.withFiber((fiber) => {
      const clock = fiber.getRef(Clock)
      const start = clock.monotonicTimeNanosUnsafe()
      let lent = false
      const session = driver.use((session) => {
        metrics.acquired(clock.monotonicTimeNanosUnsafe() - start, fiber.context)
        lent = true
        return use(lend(session))
      })
      return Effect.onExitPrimitive(turns.use(session), (exit) => {
        if (!lent) failed(exit, metrics, fiber.context)
        return undefined
      })
    })

  const client = yield* SqlClient.make({
    acquirer,
    borrower,
    transactionAcquirer: reserved,
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
  const rows = (text: string, parameters: ReadonlyArray<unknown>) =>
    Effect.withFiber((fiber) => {
      if (isLookedAt(fiber)) return client.unsafe(text, parameters).values
      const run = (connection: SqlConnection.Connection) => connection.executeValues(text, parameters)
      const transaction = Context.getOrUndefined(fiber.context, client.transactionService)
      return transaction === undefined ? borrower(run) : run(transaction[0])
    })

  const { afterCommit } = client
  const sql = Object.assign(client, {
    [PgClient.TypeId]: PgClient.TypeId,
    config: options.client,
    json: (value: unknown) => Statement.fragment([PgJson(value)]),
    // Nobody above does it again: what is above has succeeded.
    afterCommit: <R>(effect: Effect.Effect<void, never, R>) => afterCommit(Retrying.outermost(effect)),
    listen: (channel: string) => Effect.flatMap(reserved, ({ session }) => session.listen(channel)),
    notify: (channel: string, payload: string) =>
      Effect.asVoid(borrower((connection) => connection.executeRaw("select pg_notify($1, $2)", [channel, payload])))
  })
  return { sql, rows, longestWait: turns.longestWait }
})

/** True when somebody keeps the spans of statements, or changes their text. */
const isLookedAt = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  fiber.getRef(Tracer.Tracer) !== Tracer.nativeTracer || fiber.getRef(Statement.CurrentTransformer) !== undefined

/** What `PgClient` compiles to a parameter of type `jsonb`. */
const PgJson = Statement.custom<Statement.Custom<"PgJson", unknown>>("PgJson")

const exhausted = (max: number, { acquireTimeout: waited, advice }: PoolOptions): SqlError => {
  const message = `No connection was free within ${
    Duration.format(waited)
  }: all ${max} of the pool are in use. ${advice}`
  return new SqlError({
    reason: new ConnectionError({ cause: new Error(message), message, operation: "acquire" })
  })
}

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
      failed(exit, metrics, fiber.context)
      return undefined
    })
  })

const failed = <A, E>(exit: Exit.Exit<A, E | SqlError>, metrics: PostgresMetrics, context: Context.Context<never>) => {
  if (exit._tag === "Success") return
  for (const reason of exit.cause.reasons) {
    if (reason._tag === "Fail" && isSqlError(reason.error)) metrics.failed(reason.error, context)
  }
}

/** A connection of the pool, with its statements measured. */
class PooledConnection implements SqlConnection.Connection {
  readonly session: PgConnection.PgConnection
  readonly metrics: PostgresMetrics

  constructor(session: PgConnection.PgConnection, metrics: PostgresMetrics) {
    this.session = session
    this.metrics = metrics
  }

  private measure<A>(query: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> {
    return measured(query, this.metrics.queried, this.metrics)
  }

  // The client has no transforms, so none is handed over.
  execute(sql: string, params: ReadonlyArray<unknown>) {
    return Effect.map(this.measure(this.session.query(sql, params)), ({ rows }) => rows)
  }
  executeRaw(sql: string, params: ReadonlyArray<unknown>) {
    return this.measure(this.session.query(sql, params))
  }
  executeValues(sql: string, params: ReadonlyArray<unknown>) {
    return this.measure(this.session.queryValues(sql, params))
  }
  executeValuesUnprepared(sql: string, params: ReadonlyArray<unknown>) {
    return this.measure(this.session.queryValues(sql, params, false))
  }
  executeUnprepared(sql: string, params: ReadonlyArray<unknown>) {
    return Effect.map(this.measure(this.session.query(sql, params, false)), ({ rows }) => rows)
  }
  executeStream(sql: string, params: ReadonlyArray<unknown>) {
    return Stream.tapError(this.session.stream(sql, params), (error) =>
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
