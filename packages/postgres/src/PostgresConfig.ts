/**
 * How to reach a database and how to treat it: the options of `Postgres.layer`, with their environment variables.
 *
 * **Details**
 *
 * A URL is that of libpq (`postgresql://user:password@host:port/database?sslmode=…`); `sslmode`, `sslrootcert`,
 * `sslcert`, `sslkey`, `application_name`, `connect_timeout`, `options`, `host`, `port`, `user`, `password` and `dbname`
 * are honoured as parameters. An explicit option wins over the URL.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"

/**
 * How the connection is encrypted, as libpq's `sslmode`.
 *
 * - `disable`: not at all.
 * - `prefer`: when the server offers it, without checking who answers. Decided once, when the layer is built.
 * - `require`: always, without checking who answers; with a `tlsCa` like `verify-ca`, as libpq does.
 * - `verify-ca`: always, and the server's certificate must be signed by a trusted authority.
 * - `verify-full`: as before, and it must be for the host name.
 *
 * @category models
 * @since 0.1.0
 */
export type TlsMode = "disable" | "prefer" | "require" | "verify-ca" | "verify-full"

/**
 * The modes of TLS.
 *
 * @category constants
 * @since 0.1.0
 */
export const tlsModes = ["disable", "prefer", "require", "verify-ca", "verify-full"] as const

/**
 * The options of `Postgres.layer`. All have a default.
 *
 * @category options
 * @since 0.1.0
 */
export interface PostgresOptions {
  /** Where the database is, as a URL. `DATABASE_URL`. */
  readonly url?: Redacted.Redacted | undefined
  /** Host name, address, or a directory of Unix sockets. Default `localhost`. `STRATA_DATABASE_HOST`. */
  readonly host?: string | undefined
  /** TCP port. Default 5432. `STRATA_DATABASE_PORT`. */
  readonly port?: number | undefined
  /** Path of a Unix socket; wins over host and port, and is never encrypted. `STRATA_DATABASE_SOCKET`. */
  readonly path?: string | undefined
  /** Name of the database. Default: that of the user. `STRATA_DATABASE_NAME`. */
  readonly database?: string | undefined
  /** Role to log in as. Default `postgres`. `STRATA_DATABASE_USER`. */
  readonly username?: string | undefined
  /** Its password, or an effect that is run for each connection. `STRATA_DATABASE_PASSWORD`. */
  readonly password?: Redacted.Redacted | Effect.Effect<Redacted.Redacted> | undefined

  /** How the connection is encrypted. Default `prefer`. `STRATA_DATABASE_TLS`. */
  readonly tls?: TlsMode | undefined
  /** Trusted authorities: PEM text or the path of a file. Default: those of Node. `STRATA_DATABASE_TLS_CA`. */
  readonly tlsCa?: string | undefined
  /** The client's certificate: PEM text or the path of a file. `STRATA_DATABASE_TLS_CERT`. */
  readonly tlsCert?: string | undefined
  /** The key of the client's certificate: PEM text or the path of a file. `STRATA_DATABASE_TLS_KEY`. */
  readonly tlsKey?: Redacted.Redacted | undefined
  /** Name expected in the server's certificate. Default: the host. `STRATA_DATABASE_TLS_SERVER_NAME`. */
  readonly tlsServerName?: string | undefined

  /** PostgreSQL schema that holds the tables, first in the search path. Default `strata`. `STRATA_DATABASE_SCHEMA`. */
  readonly schema?: string | undefined
  /**
   * Role that sessions take on after the login and that `Migrations` grants what it needs; see `ApplicationRole`.
   * Default: none, sessions are the user's. `STRATA_DATABASE_ROLE`.
   */
  readonly role?: string | undefined
  /** Shown in `pg_stat_activity`, and the label `pool` of the metrics. Default `strata`. `STRATA_DATABASE_APPLICATION_NAME`. */
  readonly applicationName?: string | undefined

  /**
   * Most connections of the pool; one more is used for wake-ups, and one aside of transactions when it is needed.
   * Default 10. `STRATA_DATABASE_POOL`.
   */
  readonly maxConnections?: number | undefined
  /** Connections kept open. Default 0. `STRATA_DATABASE_POOL_MIN`. */
  readonly minConnections?: number | undefined
  /** Longest wait for a free connection; then the statement fails. Default 5 seconds. `STRATA_DATABASE_ACQUIRE_TIMEOUT`. */
  readonly acquireTimeout?: Duration.Input | undefined
  /** Longest time to connect and log in. Default 3 seconds. `STRATA_DATABASE_CONNECT_TIMEOUT`. */
  readonly connectTimeout?: Duration.Input | undefined
  /** A connection older than this is replaced. Default 15 minutes. `STRATA_DATABASE_CONNECTION_TTL`. */
  readonly connectionTTL?: Duration.Input | undefined

  /** Longest time of a statement on the server; 0 is no limit. Default 15 seconds. `STRATA_DATABASE_STATEMENT_TIMEOUT`. */
  readonly statementTimeout?: Duration.Input | undefined
  /** Longest wait for a lock on the server; 0 is no limit. Default 3 seconds. `STRATA_DATABASE_LOCK_TIMEOUT`. */
  readonly lockTimeout?: Duration.Input | undefined
  /** Longest silence inside a transaction; 0 is no limit. Default 15 seconds. `STRATA_DATABASE_IDLE_IN_TRANSACTION_TIMEOUT`. */
  readonly idleInTransactionTimeout?: Duration.Input | undefined
  /**
   * A connection silent for this long is cut, so that a peer that vanished is noticed; 0 is never. Longer than the
   * statement timeout. Default: 5 seconds more than that, or 0 when it has no limit. `STRATA_DATABASE_SOCKET_TIMEOUT`.
   */
  readonly socketTimeout?: Duration.Input | undefined

  /** How often `transact` runs a body at most. Default 8. `STRATA_DATABASE_TRANSACTION_ATTEMPTS`. */
  readonly transactionAttempts?: number | undefined
  /** Longest wait for the server when the layer is built. Default 30 seconds. `STRATA_DATABASE_STARTUP_TIMEOUT`. */
  readonly startupTimeout?: Duration.Input | undefined
  /** Start although a crash of the server can lose committed data. Default false. `STRATA_ALLOW_DATA_LOSS_ON_CRASH`. */
  readonly allowDataLossOnCrash?: boolean | undefined
}

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> =>
  config.pipe(Config.map((value): A | undefined => value), Config.withDefault(undefined))

/**
 * The options from the environment.
 *
 * @category config
 * @since 0.1.0
 */
export const config: Config.Config<PostgresOptions> = Config.all({
  url: optional(Config.Redacted("DATABASE_URL")),
  host: optional(Config.NonEmptyString("STRATA_DATABASE_HOST")),
  port: optional(Config.Port("STRATA_DATABASE_PORT")),
  path: optional(Config.NonEmptyString("STRATA_DATABASE_SOCKET")),
  database: optional(Config.NonEmptyString("STRATA_DATABASE_NAME")),
  username: optional(Config.NonEmptyString("STRATA_DATABASE_USER")),
  password: optional(Config.Redacted("STRATA_DATABASE_PASSWORD")),
  tls: optional(Config.Literals(tlsModes, "STRATA_DATABASE_TLS")),
  tlsCa: optional(Config.NonEmptyString("STRATA_DATABASE_TLS_CA")),
  tlsCert: optional(Config.NonEmptyString("STRATA_DATABASE_TLS_CERT")),
  tlsKey: optional(Config.Redacted("STRATA_DATABASE_TLS_KEY")),
  tlsServerName: optional(Config.NonEmptyString("STRATA_DATABASE_TLS_SERVER_NAME")),
  schema: optional(Config.NonEmptyString("STRATA_DATABASE_SCHEMA")),
  role: optional(Config.NonEmptyString("STRATA_DATABASE_ROLE")),
  applicationName: optional(Config.NonEmptyString("STRATA_DATABASE_APPLICATION_NAME")),
  maxConnections: optional(Config.Int("STRATA_DATABASE_POOL")),
  minConnections: optional(Config.Int("STRATA_DATABASE_POOL_MIN")),
  acquireTimeout: optional(Config.Duration("STRATA_DATABASE_ACQUIRE_TIMEOUT")),
  connectTimeout: optional(Config.Duration("STRATA_DATABASE_CONNECT_TIMEOUT")),
  connectionTTL: optional(Config.Duration("STRATA_DATABASE_CONNECTION_TTL")),
  statementTimeout: optional(Config.Duration("STRATA_DATABASE_STATEMENT_TIMEOUT")),
  lockTimeout: optional(Config.Duration("STRATA_DATABASE_LOCK_TIMEOUT")),
  idleInTransactionTimeout: optional(Config.Duration("STRATA_DATABASE_IDLE_IN_TRANSACTION_TIMEOUT")),
  socketTimeout: optional(Config.Duration("STRATA_DATABASE_SOCKET_TIMEOUT")),
  transactionAttempts: optional(Config.Int("STRATA_DATABASE_TRANSACTION_ATTEMPTS")),
  startupTimeout: optional(Config.Duration("STRATA_DATABASE_STARTUP_TIMEOUT")),
  allowDataLossOnCrash: optional(Config.Boolean("STRATA_ALLOW_DATA_LOSS_ON_CRASH"))
})
