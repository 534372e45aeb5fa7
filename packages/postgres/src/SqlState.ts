/**
 * What a database error means for the caller: try again, somebody else won, nobody knows, or no.
 *
 * **When to use**
 *
 * Use instead of `SqlError.isRetryable`, which is false for a server that shuts down, a standby, an exhausted server
 * and a stale plan. `Postgres.transact` already retries what is retryable.
 *
 * **Details**
 *
 * A class is told by the SQLSTATE (PostgreSQL, Appendix A: *PostgreSQL Error Codes*). An error without one comes from
 * the client: the connection could not be made (safe to repeat) or broke under a statement (nobody knows).
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Predicate from "effect/Predicate"
import * as SqlError from "effect/sql/SqlError"

/**
 * The classes of database errors.
 *
 * - `retryable`: nothing was done and the same may succeed when repeated.
 * - `conflict`: a unique or exclusion constraint; another row is there already.
 * - `unknown-outcome`: the connection broke under a statement, which may have taken effect. In a transaction whose
 *   `COMMIT` was not sent it had none.
 * - `disk-full`: the server has no space left; repeating does not help until somebody makes some.
 * - `permanent`: repeating gives the same.
 *
 * @category models
 * @since 0.1.0
 */
export type ErrorClass = "retryable" | "conflict" | "unknown-outcome" | "disk-full" | "permanent"

const classes = new Map<string, ErrorClass>([
  ["40001", "retryable"], // serialization_failure
  ["40P01", "retryable"], // deadlock_detected
  ["55P03", "retryable"], // lock_not_available, lock_timeout
  ["57P01", "retryable"], // admin_shutdown, pg_terminate_backend
  ["57P02", "retryable"], // crash_shutdown
  ["57P03", "retryable"], // cannot_connect_now: starting up, shutting down
  ["57P05", "retryable"], // idle_session_timeout
  ["25P03", "retryable"], // idle_in_transaction_session_timeout
  ["25006", "retryable"], // read_only_sql_transaction: a standby, until the pool has left it
  ["26000", "retryable"], // invalid_sql_statement_name: a prepared statement that is gone
  ["53100", "disk-full"],
  ["23505", "conflict"], // unique_violation
  ["23P01", "conflict"], // exclusion_violation
  ["40002", "conflict"], // transaction_integrity_constraint_violation
  ["40003", "unknown-outcome"], // statement_completion_unknown
  ["08000", "unknown-outcome"], // connection_exception
  ["08003", "unknown-outcome"], // connection_does_not_exist
  ["08006", "unknown-outcome"], // connection_failure
  ["08007", "unknown-outcome"], // transaction_resolution_unknown
  ["08001", "retryable"], // sqlclient_unable_to_establish_sqlconnection
  ["08004", "retryable"], // sqlserver_rejected_establishment_of_sqlconnection
  ["08P01", "permanent"] // protocol_violation
])

/**
 * The class of a SQLSTATE. `message` tells a stale plan, and a standby that is asked for a table without a log, from a feature that does not
 * exist: all are `0A000`.
 *
 * @category getters
 * @since 0.1.0
 */
export const classOfCode = (code: string, message = ""): ErrorClass => {
  const known = classes.get(code)
  if (known !== undefined) return known
  if (code.startsWith("53")) return "retryable"
  if (code === "0A000" && /cached plan|during recovery/.test(message)) return "retryable"
  return "permanent"
}

/**
 * The SQLSTATE of a database error, `undefined` when the error did not come from the server.
 *
 * @category getters
 * @since 0.1.0
 */
export const codeOf = (error: unknown): string | undefined => {
  const server = sqlErrorOf(error)?.reason.cause
  return Predicate.hasProperty(server, "code") && Predicate.isString(server.code) && sqlState.test(server.code)
    ? server.code
    : undefined
}

/** Node's own codes, such as `ECONNRESET` and `EPIPE`, are no SQLSTATE. */
const sqlState = /^(?!E[A-Z]{4}$)[0-9A-Z]{5}$/

/**
 * The class of an error. Anything that carries no database error is `permanent`.
 *
 * @category getters
 * @since 0.1.0
 */
export const classify = (error: unknown): ErrorClass => {
  const sqlError = sqlErrorOf(error)
  if (sqlError === undefined) return "permanent"
  const code = codeOf(sqlError)
  if (code !== undefined) return classOfCode(code, messageOf(sqlError.reason.cause))
  if (sqlError.reason._tag !== "ConnectionError") return "permanent"
  return neverSent.has(sqlError.reason.operation ?? "") ? "retryable" : "unknown-outcome"
}

/** Operations that end before a statement is sent: making a connection, waiting for a free one. */
const neverSent = new Set(["connect", "acquire"])

const messageOf = (u: unknown): string => Predicate.hasProperty(u, "message") ? String(u.message) : ""

/**
 * True when repeating the whole transaction is safe and may help, provided `COMMIT` was not sent. Defects count: a
 * connection lost in a transaction shows up as one.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isTransient = <E>(cause: Cause.Cause<E>): boolean => {
  const found = errorsOf(cause).map(classify)
  return found.length > 0 && found.every((each) => each === "retryable" || each === "unknown-outcome")
}

const errorsOf = <E>(cause: Cause.Cause<E>): ReadonlyArray<unknown> =>
  cause.reasons.flatMap((reason): ReadonlyArray<unknown> =>
    Cause.isFailReason(reason) ? [reason.error] : Cause.isDieReason(reason) ? [reason.defect] : []
  )

/**
 * The database error in `error`: itself, or the one it wraps as its `reason` or `cause`.
 *
 * @category getters
 * @since 0.1.0
 */
export const sqlErrorOf = (error: unknown): SqlError.SqlError | undefined => {
  let current = error
  for (let depth = 0; depth < maxDepth; depth++) {
    if (SqlError.isSqlError(current)) return current
    if (Predicate.hasProperty(current, "reason") && Predicate.isObject(current.reason)) current = current.reason
    else if (Predicate.hasProperty(current, "cause")) current = current.cause
    else return undefined
  }
  return undefined
}

/** Wrappers of wrappers exist; cycles may. */
const maxDepth = 8
