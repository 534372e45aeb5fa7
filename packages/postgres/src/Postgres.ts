/**
 * The database as the rest of Strata sees it: a pooled client, transactions that are retried when that is safe,
 * and wake-ups.
 *
 * **When to use**
 *
 * Use as the one way to a PostgreSQL database. `sql` runs single statements; `transact` runs several as one.
 *
 * **Details**
 *
 * Every session has `search_path = <schema>, public`, time zone UTC, and the role and timeouts of the options. The layer checks
 * the server when it is built (see `Durability`) and waits, with warnings, for one that is starting; the schema itself is made by
 * `Migrations`. The types read exactly are those of `PostgresTypes`.
 *
 * **Gotchas**
 *
 * - Open transactions by `transact`: in a bare `sql.withTransaction` nothing is retried, and `beforeCommit` and `atCommit` die.
 * - Inside `transact`, `sql.notify` is not part of the transaction; ``sql`select pg_notify(…)` `` is.
 * - A statement that may fail inside `transact` and be survived belongs in a nested `transact`.
 * - `set` and session locks outlive the use of a pooled connection: use `set local` and transaction locks.
 * - A statement longer than the socket timeout is cut: build another layer with other timeouts for long work.
 *
 * **Example** (A transfer that is all or nothing)
 *
 * ```ts
 * import * as Postgres from "@strata/postgres/Postgres"
 * import * as Effect from "effect/Effect"
 *
 * const transfer = Effect.gen(function*() {
 *   const { sql, transact } = yield* Postgres.Postgres
 *   yield* transact(Effect.gen(function*() {
 *     yield* sql`update accounts set balance = balance - 10 where name = 'ada'`
 *     yield* sql`update accounts set balance = balance + 10 where name = 'bob'`
 *   }))
 * })
 *
 * transfer.pipe(Effect.provide(Postgres.layerConfig))
 * ```
 *
 * @since 0.1.0
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as SqlClient from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import type * as Stream from "effect/Stream"
import * as Durability from "./Durability.ts"
import * as Pool from "./internal/pool.ts"
import { withWarnings } from "./internal/retry.ts"
import * as Socket from "./internal/socket.ts"
import * as Transactions from "./internal/transactions.ts"
import * as WakeUps from "./internal/wakeUps.ts"
import * as PostgresConfig from "./PostgresConfig.ts"
import { NotReachable, PostgresError } from "./PostgresError.ts"
import * as PostgresMetrics from "./PostgresMetrics.ts"
import { PostgresPolicies, type SessionPolicies } from "./PostgresPolicies.ts"
import * as PostgresTarget from "./PostgresTarget.ts"
import * as PostgresTypes from "./PostgresTypes.ts"
import * as SqlState from "./SqlState.ts"
import type { NotCommitted, TransactionError } from "./TransactionError.ts"

/**
 * How a transaction is run.
 *
 * @category options
 * @since 0.1.0
 */
export interface TransactOptions {
  /** Also retry when the outcome of `COMMIT` is unknown: the body does the same when it runs twice. */
  readonly idempotent?: boolean | undefined
}

/**
 * One PostgreSQL database.
 *
 * @category services
 * @since 0.1.0
 */
export class Postgres extends Context.Service<Postgres, {
  /** The pooled client. */
  readonly sql: PgClient.PgClient

  /**
   * Runs a statement of fixed text with the parameters `$1`, `$2`, …, and gives each row as an array: `sql.unsafe(…).values` for
   * what is asked thousands of times a second, since no span is made where no tracer keeps it.
   */
  readonly rows: (
    text: string,
    parameters: ReadonlyArray<unknown>
  ) => Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, SqlError>

  /**
   * A client of one connection that is not of the pool, for a short statement that must be no part of the caller's
   * transaction. All who are in a transaction hold a connection of the pool: if each of them waited for a second one, none
   * would be given back. Connects when it is needed; callers wait for their turn as long as for the pool.
   */
  readonly aside: PgClient.PgClient

  /** How long the one who waits the longest for a connection has waited so far; zero when nobody does. */
  readonly longestWait: Effect.Effect<Duration.Duration>

  /** The PostgreSQL schema that holds the tables, first in the search path. */
  readonly schema: string

  /** The role that sessions have taken on; undefined when they are the user's. */
  readonly role: string | undefined

  /**
   * Runs `body` in one transaction; inside another one, in a savepoint of it.
   *
   * **Details**
   *
   * The whole body runs again after a serialization failure, a deadlock, a lock timeout or a connection lost before
   * `COMMIT` was sent, so it must have no effect outside the database. A nested call is not retried by itself: its
   * failure reaches the outermost call, which is. Failures of the body pass unchanged. Where a layer above retries, the
   * body runs once, and nothing within it retries by itself: see `Retrying`.
   */
  readonly transact: <A, E, R>(
    body: Effect.Effect<A, E, R>,
    options?: TransactOptions
  ) => Effect.Effect<A, E | TransactionError, R>

  /** True inside `transact`. */
  readonly inTransaction: Effect.Effect<boolean>

  /** True where statements go through a connection of the caller's own: inside `transact`, and inside `sql.withTransaction`. */
  readonly holdsConnection: Effect.Effect<boolean>

  /**
   * Registers work for the end of the outermost transaction. It runs as the last statements before `COMMIT`, in the
   * order registered. Its failure rolls the transaction back, and `transact` fails with the reason `CommitRefused`.
   * Work registered in a savepoint that is rolled back is dropped. Dies outside `transact`.
   */
  readonly beforeCommit: <E>(work: Effect.Effect<void, E>) => Effect.Effect<void>

  /**
   * As `beforeCommit`, and hands over what the work gives. The inner effect waits for the commit, and fails with
   * `NotCommitted` when there is none, and at once inside the transaction itself, which cannot end before.
   */
  readonly atCommit: <A, E>(work: Effect.Effect<A, E>) => Effect.Effect<Effect.Effect<A, NotCommitted>>

  /**
   * Wake-ups on a channel: one at once on each (re)connection, and one for each notification or burst of them, with the
   * text of the last; without text on a connection. Only a hint: read again after each. Never fails, and reconnects for
   * ever. Channel names have at most 63 bytes.
   *
   * With `here`, what this process says by `wake` or `wakeHere` is heard at once, and not again when it has gone through the server.
   */
  readonly wakeups: (channel: string, options?: { readonly here?: boolean }) => Stream.Stream<string>

  /**
   * Sends a wake-up outside any transaction. Best effort: it never fails and never waits for the database, and calls
   * within a few milliseconds become one notification, with the text of the last.
   */
  readonly wake: (channel: string, text?: string) => Effect.Effect<void>

  /**
   * True when a statement that commits by itself should notify these channels itself, which is a round trip sooner than `wake` and no
   * commit of its own. Seldom true while many are sent: commits that notify wait for each other. What `wake` has not sent to them yet is
   * left to that statement; when it fails, `wake` is to be called again.
   */
  readonly mayNotify: (...channels: ReadonlyArray<string>) => Effect.Effect<boolean>

  /**
   * The text of a notification that who listens `here` does not hear. Who sends one says the same by `wakeHere` when the statement has
   * committed: that is sooner than through the server.
   */
  readonly origin: Effect.Effect<string>
  readonly wakeHere: (channel: string) => Effect.Effect<void>
}>()("@strata/postgres/Postgres") {}

/**
 * Connects to a database, and waits for it while it is starting.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: PostgresConfig.PostgresOptions
): Layer.Layer<Postgres | PgClient.PgClient | SqlClient.SqlClient, PostgresError> =>
  Layer.effectContext(
    Effect.map(make(options), (postgres) =>
      Context.make(Postgres, postgres).pipe(
        Context.add(PgClient.PgClient, postgres.sql),
        Context.add(SqlClient.SqlClient, postgres.sql)
      ))
  ).pipe(Layer.provide([Reactivity.layer, NodeFileSystem.layer]))

/**
 * Connects to the database that the environment names: see `PostgresConfig.config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig: Layer.Layer<
  Postgres | PgClient.PgClient | SqlClient.SqlClient,
  PostgresError | Config.ConfigError
> = Layer.unwrap(Effect.map(PostgresConfig.config, layer))

const make = Effect.fnUntraced(function*(options: PostgresConfig.PostgresOptions) {
  const target = yield* PostgresTarget.resolve(options)
  const { sessions, transactions, wakeUps: wakeUpPolicies } = yield* PostgresPolicies
  const metrics = yield* PostgresMetrics.make({ pool: target.applicationName, max: target.maxConnections })
  const connection = yield* firstConnection(target, sessions)
  const pool = (minConnections: number, state: PostgresMetrics.PoolState, advice: string) =>
    Pool.make({
      client: {
        ...connection,
        stream: Socket.guarded(target, state),
        maxConnections: state.max,
        minConnections,
        connectionTTL: target.connectionTTL,
        // The pool says goodbye to an idle connection before its socket cuts it.
        idleTimeout: Duration.isZero(target.socketTimeout)
          ? sessions.idleTimeout
          : Duration.times(target.socketTimeout, 0.75)
      },
      acquireTimeout: target.acquireTimeout,
      metrics: { ...metrics, pool: state },
      advice
    }).pipe(Effect.mapError(notReachable(target)))
  const { longestWait, rows, sql } = yield* pool(
    target.minConnections,
    metrics.pool,
    "Shorten what holds them, or raise maxConnections"
  )
  const aside = yield* pool(
    0,
    { max: 1, open: 0, inUse: 0, waiting: 0 },
    "It is the one for statements aside of transactions: shorten what they wait for"
  )
  const wakeUps = yield* WakeUps.make({
    sql,
    // It is silent most of the time, so keepalive probes instead of a guard tell whether the server is there.
    connection: {
      ...connection,
      keepAlive: sessions.keepAlive,
      applicationName: `${target.applicationName} wake-ups`
    },
    policies: wakeUpPolicies
  })
  return Postgres.of({
    sql,
    rows,
    aside: aside.sql,
    longestWait,
    schema: target.schema,
    role: target.role,
    ...Transactions.make({ sql, attempts: target.transactionAttempts, backoff: transactions.backoff, metrics }),
    ...wakeUps
  })
})

/** Makes one connection, checks the server through it, and gives the settings that worked. */
const firstConnection = (target: PostgresTarget.Target, policies: SessionPolicies) => {
  const attempt = Effect.scoped(Effect.gen(function*() {
    const encrypt = target.tls.mode !== "disable" &&
      (target.tls.mode !== "prefer" || (yield* Socket.offersTls(target)))
    const settings = { ...connectionConfig(target), ssl: encrypt ? yield* Socket.tlsOptions(target) : false }
    yield* Effect.flatMap(PgConnection.make(settings), (session) => Durability.check(session, target))
    return settings
  }))
  return withWarnings(attempt, {
    while: (error) => isSqlError(error) && SqlState.classify(error) === "retryable",
    schedule: policies.starting(target.startupTimeout),
    quietFor: Duration.zero,
    betweenWarnings: policies.betweenWarnings,
    warning: (error, waited) =>
      `${isSqlError(error) ? notReachable(target)(error).message : error.message}. ` +
      `Waiting ${Duration.format(target.startupTimeout)} at most (STRATA_DATABASE_STARTUP_TIMEOUT)` +
      (Duration.isZero(waited) ? "" : `, ${Duration.format(waited)} so far`)
  }).pipe(Effect.catchIf(isSqlError, (error) => Effect.fail(notReachable(target)(error))))
}

const notReachable = (target: PostgresTarget.Target) => (cause: SqlError) =>
  new PostgresError({ reason: new NotReachable({ server: target.server, cause }) })

const connectionConfig = (target: PostgresTarget.Target): PgConnection.Config => ({
  host: target.host,
  port: target.port,
  path: target.path,
  database: target.database,
  username: target.username,
  password: target.password,
  startupOptions: target.startupOptions,
  applicationName: target.applicationName,
  connectTimeout: target.connectTimeout,
  types: PostgresTypes.makeRegistry(),
  startupParameters: {
    ...(target.role === undefined ? {} : { role: target.role }),
    search_path: `"${target.schema.replaceAll("\"", "\"\"")}", public`,
    timezone: "UTC",
    // What waits for a lock sees what was committed meanwhile. A transaction may still ask for more.
    default_transaction_isolation: "read committed",
    statement_timeout: String(Duration.toMillis(target.statementTimeout)),
    lock_timeout: String(Duration.toMillis(target.lockTimeout)),
    idle_in_transaction_session_timeout: String(Duration.toMillis(target.idleInTransactionTimeout))
  }
})
