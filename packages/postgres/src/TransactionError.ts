/**
 * Why a transaction did not commit, or why nobody can tell whether it did.
 *
 * **When to use**
 *
 * Use to handle what `Postgres.transact` adds to the failures of its body. Every reason but `OutcomeUnknown`
 * guarantees that nothing was committed.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as SqlError from "effect/sql/SqlError"

/**
 * No connection could be had: the server cannot be reached or the pool stayed exhausted. Nothing was done.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unavailable extends Schema.TaggedError<Unavailable>("@strata/postgres/TransactionError/Unavailable")(
  "Unavailable",
  { cause: SqlError.SqlError }
) {
  override get message(): string {
    return `No connection to the database: ${this.cause.message}`
  }
}

/**
 * The connection was lost before `COMMIT` was sent, on every attempt. Nothing was committed.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionLost
  extends Schema.TaggedError<ConnectionLost>("@strata/postgres/TransactionError/ConnectionLost")(
    "ConnectionLost",
    { cause: SqlError.SqlError }
  )
{
  override get message(): string {
    return `The connection was lost before the commit, nothing was committed: ${this.cause.message}`
  }
}

/**
 * The connection was lost while `COMMIT` was on its way: the transaction is wholly committed or not at all.
 * Read again, or repeat under an idempotency key.
 *
 * @category errors
 * @since 0.1.0
 */
export class OutcomeUnknown
  extends Schema.TaggedError<OutcomeUnknown>("@strata/postgres/TransactionError/OutcomeUnknown")(
    "OutcomeUnknown",
    { cause: SqlError.SqlError }
  )
{
  override get message(): string {
    return `The connection was lost during the commit, whether it took effect is unknown: ${this.cause.message}`
  }
}

/**
 * Work registered with `Postgres.beforeCommit` failed, so the transaction was rolled back. `cause` is its failure,
 * the very same value.
 *
 * @category errors
 * @since 0.1.0
 */
export class CommitRefused extends Schema.TaggedError<CommitRefused>("@strata/postgres/TransactionError/CommitRefused")(
  "CommitRefused",
  { cause: Schema.Unknown }
) {
  override get message(): string {
    return `Work before the commit refused it: ${String(this.cause)}`
  }
}

/**
 * The failure that `Postgres.transact` adds to those of its body.
 *
 * **Details**
 *
 * A `SqlError` as the reason is the database's own refusal of `BEGIN`, `COMMIT` or a savepoint, for instance a
 * deferred constraint; nothing was committed.
 *
 * @category errors
 * @since 0.1.0
 */
export class TransactionError extends Schema.TaggedError<TransactionError>("@strata/postgres/TransactionError")(
  "TransactionError",
  { reason: Schema.Union([Unavailable, ConnectionLost, OutcomeUnknown, CommitRefused, SqlError.SqlError]) }
) {
  override get message(): string {
    return this.reason.message
  }
}

/**
 * There is no outcome of work that was registered with `Postgres.atCommit`: its transaction is still open, and is the one
 * that waits for it; it was rolled back, at least to a savepoint before the work, and nothing was written; or nobody knows
 * whether it was committed.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotCommitted extends Schema.TaggedError<NotCommitted>("@strata/postgres/TransactionError/NotCommitted")(
  "NotCommitted",
  { state: Schema.Literals(["open", "rolled_back", "unknown"]) }
) {
  override get message(): string {
    switch (this.state) {
      case "open":
        return "The transaction is not committed yet: ask for the outcome after it, not within it"
      case "rolled_back":
        return "The transaction was rolled back, nothing was written"
      case "unknown":
        return "The connection was lost during the commit, whether it took effect is unknown"
    }
  }
}
