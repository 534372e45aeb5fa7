/**
 * The database as the rest of Strata sees it: a pooled client, transactions that are retried when that is safe,
 * and wake-ups.
 *
 * @since 0.1.0
 */
import type * as PgClient from "@effect/sql-pg/PgClient"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { TransactionError } from "./TransactionError.ts"

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

  /** The PostgreSQL schema that holds the tables, first in the search path. */
  readonly schema: string

  /**
   * Runs `body` in one transaction; inside another one, in a savepoint of it.
   *
   * **Details**
   *
   * The whole body runs again after a serialization failure, a deadlock, a lock timeout or a connection lost before
   * `COMMIT` was sent, so it must have no effect outside the database. A nested call is not retried by itself: its
   * failure reaches the outermost call, which is. Failures of the body pass unchanged.
   */
  readonly transact: <A, E, R>(
    body: Effect.Effect<A, E, R>,
    options?: TransactOptions
  ) => Effect.Effect<A, E | TransactionError, R>

  /** True inside `transact`. */
  readonly inTransaction: Effect.Effect<boolean>

  /**
   * Registers work for the end of the outermost transaction. It runs as the last statements before `COMMIT`, in the
   * order registered. Its failure rolls the transaction back, and `transact` fails with the reason `CommitRefused`.
   * Work registered in a savepoint that is rolled back is dropped. Dies outside `transact`.
   */
  readonly beforeCommit: <E>(work: Effect.Effect<void, E>) => Effect.Effect<void>

  /**
   * Wake-ups on a channel: one at once on each (re)connection, and one for each notification or burst of them.
   * Only a hint: read again after each. Never fails, and reconnects for ever. Channel names have at most 63 bytes.
   */
  readonly wakeups: (channel: string) => Stream.Stream<void>

  /**
   * Sends a wake-up outside any transaction. Best effort: it never fails and never waits for the database, and calls
   * within a few milliseconds become one notification.
   */
  readonly wake: (channel: string) => Effect.Effect<void>
}>()("@strata/postgres/Postgres") {}
