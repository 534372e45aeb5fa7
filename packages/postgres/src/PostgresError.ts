/**
 * Why the database cannot be used at all. These end the start of a process; what happens later is a `SqlError` or a
 * `TransactionError`.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as SqlError from "effect/sql/SqlError"

/**
 * An option, or the environment variable behind it, has a value that cannot be used.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOption extends Schema.TaggedError<InvalidOption>("@strata/postgres/PostgresError/InvalidOption")(
  "InvalidOption",
  { option: Schema.String, problem: Schema.String }
) {
  override get message(): string {
    return `${this.option}: ${this.problem}`
  }
}

/**
 * The server did not accept a connection in time, or refuses this user, database or certificate.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotReachable extends Schema.TaggedError<NotReachable>("@strata/postgres/PostgresError/NotReachable")(
  "NotReachable",
  { server: Schema.String, cause: SqlError.SqlError }
) {
  override get message(): string {
    const reason = this.cause.reason
    const detail = reason.cause instanceof Error ? `: ${reason.cause.message}` : ""
    return `No connection to PostgreSQL at ${this.server}: ${this.cause.message}${detail}`
  }
}

/**
 * The server is older than what the tables need.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnsupportedServer
  extends Schema.TaggedError<UnsupportedServer>("@strata/postgres/PostgresError/UnsupportedServer")(
    "UnsupportedServer",
    { server: Schema.String, version: Schema.String, required: Schema.String }
  )
{
  override get message(): string {
    return `PostgreSQL at ${this.server} is version ${this.version}; ${this.required} or newer is required`
  }
}

/**
 * The server or this session acknowledges a commit before it is safe: a crash could lose or tear what was confirmed.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnsafeDurability
  extends Schema.TaggedError<UnsafeDurability>("@strata/postgres/PostgresError/UnsafeDurability")(
    "UnsafeDurability",
    { server: Schema.String, settings: Schema.Array(Schema.String) }
  )
{
  override get message(): string {
    const settings = this.settings.map((name) => `${name} = off`).join(", ")
    return `PostgreSQL at ${this.server} runs with ${settings}, so a crash can lose what was committed. ` +
      `Turn ${this.settings.length === 1 ? "it" : "them"} on, or accept the loss with allowDataLossOnCrash ` +
      "(STRATA_ALLOW_DATA_LOSS_ON_CRASH=true)"
  }
}

/**
 * The failure of `Postgres.layer`.
 *
 * @category errors
 * @since 0.1.0
 */
export class PostgresError extends Schema.TaggedError<PostgresError>("@strata/postgres/PostgresError")(
  "PostgresError",
  { reason: Schema.Union([InvalidOption, NotReachable, UnsupportedServer, UnsafeDurability]) }
) {
  override get message(): string {
    return this.reason.message
  }
}
