/**
 * From the options of `Postgres.layer` to one checked value of each, with nothing left to decide.
 *
 * **When to use**
 *
 * Use to check options without connecting, or to tell what a URL means.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { type PostgresOptions, type TlsMode, tlsModes } from "./PostgresConfig.ts"
import { InvalidOption, PostgresError } from "./PostgresError.ts"
import { PostgresPolicies, type SessionPolicies } from "./PostgresPolicies.ts"

/**
 * How to encrypt. Authorities, certificate and key are PEM text, or the path of a file that holds it.
 *
 * @category models
 * @since 0.1.0
 */
export interface TlsTarget {
  readonly mode: TlsMode
  readonly ca: string | undefined
  readonly cert: string | undefined
  readonly key: Redacted.Redacted | undefined
  readonly serverName: string | undefined
}

/**
 * A database and how to treat it. See `PostgresOptions` for each of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Target {
  /** For messages: never holds a secret. */
  readonly server: string
  readonly host: string
  readonly port: number
  readonly path: string | undefined
  readonly database: string
  readonly username: string
  readonly password: PostgresOptions["password"]
  readonly startupOptions: string | undefined
  readonly tls: TlsTarget
  readonly schema: string
  readonly role: string | undefined
  readonly applicationName: string
  readonly maxConnections: number
  readonly minConnections: number
  readonly acquireTimeout: Duration.Duration
  readonly connectTimeout: Duration.Duration
  readonly connectionTTL: Duration.Duration
  readonly statementTimeout: Duration.Duration
  readonly lockTimeout: Duration.Duration
  readonly idleInTransactionTimeout: Duration.Duration
  readonly socketTimeout: Duration.Duration
  readonly transactionAttempts: number
  readonly startupTimeout: Duration.Duration
  readonly allowDataLossOnCrash: boolean
}

const invalid = (option: string, problem: string) =>
  Effect.fail(new PostgresError({ reason: new InvalidOption({ option, problem }) }))

/**
 * Checks the options and fills in the defaults. Fails with the name of the first option that cannot be used.
 *
 * @category constructors
 * @since 0.1.0
 */
export const resolve = Effect.fnUntraced(function*(
  options: PostgresOptions
): Effect.fn.Return<Target, PostgresError> {
  const { sessions, transactions } = yield* PostgresPolicies
  const url = options.url === undefined ? emptyUrl : yield* parseUrl(options.url)
  const host = options.host ?? url.host ?? "localhost"
  const port = yield* integer("port (STRATA_DATABASE_PORT)", options.port ?? url.port ?? 5432, 1, 65_535)
  const path = options.path ?? (host.startsWith("/") ? `${host}/.s.PGSQL.${port}` : undefined)
  const username = options.username ?? url.username ?? "postgres"
  return {
    server: path ?? `${host}:${port}`,
    host,
    port,
    path,
    database: options.database ?? url.database ?? username,
    username,
    password: options.password ?? url.password,
    startupOptions: url.options,
    tls: yield* resolveTls(options, url, path),
    schema: yield* identifier("schema (STRATA_DATABASE_SCHEMA)", options.schema ?? "strata"),
    role: options.role === undefined ? undefined : yield* identifier("role (STRATA_DATABASE_ROLE)", options.role),
    applicationName: options.applicationName ?? url.applicationName ?? "strata",
    ...(yield* resolvePool(options, url, sessions)),
    ...(yield* resolveSession(options, sessions)),
    transactionAttempts: yield* integer(
      "transactionAttempts (STRATA_DATABASE_TRANSACTION_ATTEMPTS)",
      options.transactionAttempts ?? transactions.attempts,
      1,
      100
    ),
    startupTimeout: yield* duration(
      "startupTimeout (STRATA_DATABASE_STARTUP_TIMEOUT)",
      options.startupTimeout ?? sessions.startupTimeout
    ),
    allowDataLossOnCrash: options.allowDataLossOnCrash ?? false
  }
})

const resolvePool = Effect.fnUntraced(function*(options: PostgresOptions, url: Url, policies: SessionPolicies) {
  const maxConnections = yield* integer(
    "maxConnections (STRATA_DATABASE_POOL)",
    options.maxConnections ?? 10,
    1,
    10_000
  )
  return {
    maxConnections,
    minConnections: yield* integer(
      "minConnections (STRATA_DATABASE_POOL_MIN)",
      options.minConnections ?? 0,
      0,
      maxConnections
    ),
    acquireTimeout: yield* duration(
      "acquireTimeout (STRATA_DATABASE_ACQUIRE_TIMEOUT)",
      options.acquireTimeout ?? policies.acquireTimeout
    ),
    connectTimeout: yield* duration(
      "connectTimeout (STRATA_DATABASE_CONNECT_TIMEOUT)",
      options.connectTimeout ?? url.connectTimeout ?? policies.connectTimeout
    ),
    connectionTTL: yield* duration(
      "connectionTTL (STRATA_DATABASE_CONNECTION_TTL)",
      options.connectionTTL ?? policies.connectionTTL
    )
  }
})

const resolveSession = Effect.fnUntraced(function*(options: PostgresOptions, policies: SessionPolicies) {
  const statementTimeout = yield* duration(
    "statementTimeout (STRATA_DATABASE_STATEMENT_TIMEOUT)",
    options.statementTimeout ?? policies.statementTimeout
  )
  const socketTimeout = yield* duration(
    "socketTimeout (STRATA_DATABASE_SOCKET_TIMEOUT)",
    options.socketTimeout ??
      (Duration.isZero(statementTimeout) ? Duration.zero : Duration.sum(statementTimeout, policies.socketMargin))
  )
  if (!Duration.isZero(socketTimeout) && Duration.isLessThanOrEqualTo(socketTimeout, statementTimeout)) {
    return yield* invalid(
      "socketTimeout (STRATA_DATABASE_SOCKET_TIMEOUT)",
      `must be longer than the statement timeout of ${Duration.format(statementTimeout)}, or it cuts healthy statements`
    )
  }
  return {
    statementTimeout,
    socketTimeout,
    lockTimeout: yield* duration(
      "lockTimeout (STRATA_DATABASE_LOCK_TIMEOUT)",
      options.lockTimeout ?? policies.lockTimeout
    ),
    idleInTransactionTimeout: yield* duration(
      "idleInTransactionTimeout (STRATA_DATABASE_IDLE_IN_TRANSACTION_TIMEOUT)",
      options.idleInTransactionTimeout ?? policies.idleInTransactionTimeout
    )
  }
})

const resolveTls = Effect.fnUntraced(function*(options: PostgresOptions, url: Url, path: string | undefined) {
  const asked = options.tls ?? url.tls ?? "prefer"
  const ca = options.tlsCa ?? url.tlsCa
  const cert = options.tlsCert ?? url.tlsCert
  const key = options.tlsKey ?? url.tlsKey
  if ((cert === undefined) !== (key === undefined)) {
    return yield* invalid(
      "tlsCert and tlsKey (STRATA_DATABASE_TLS_CERT, STRATA_DATABASE_TLS_KEY)",
      "a client certificate needs both"
    )
  }
  const mode: TlsMode = path !== undefined
    ? "disable"
    : asked === "require" && ca !== undefined
    ? "verify-ca"
    : asked
  const tls: TlsTarget = { mode, ca, cert, key, serverName: options.tlsServerName }
  return tls
})

const integer = (option: string, value: number, min: number, max: number) =>
  Number.isInteger(value) && value >= min && value <= max
    ? Effect.succeed(value)
    : invalid(option, `expected a whole number from ${min} to ${max}, got ${value}`)

const duration = (option: string, input: Duration.Input) =>
  Option.match(Duration.fromInput(input), {
    onNone: () => invalid(option, `expected a duration such as "5 seconds", got ${String(input)}`),
    onSome: (value) =>
      Duration.isFinite(value) && Duration.toMillis(value) <= 2_147_483_647
        ? Effect.succeed(value)
        : invalid(option, "expected at most 24 days")
  })

/** PostgreSQL cuts longer names silently, which would make two schemas one. */
const identifier = (option: string, value: string) =>
  value.length > 0 && new TextEncoder().encode(value).length <= 63 && !value.includes("\0")
    ? Effect.succeed(value)
    : invalid(option, "expected a name of 1 to 63 bytes")

interface Url {
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly database?: string | undefined
  readonly username?: string | undefined
  readonly password?: Redacted.Redacted | undefined
  readonly applicationName?: string | undefined
  readonly options?: string | undefined
  readonly connectTimeout?: Duration.Duration | undefined
  readonly tls?: TlsMode | undefined
  readonly tlsCa?: string | undefined
  readonly tlsCert?: string | undefined
  readonly tlsKey?: Redacted.Redacted | undefined
}

const emptyUrl: Url = {}

const urlOption = "url (DATABASE_URL)"

/** Messages never repeat the URL: it may hold a password. */
const parseUrl = Effect.fnUntraced(function*(raw: Redacted.Redacted) {
  const url = URL.parse(Redacted.value(raw))
  if (url === null || (url.protocol !== "postgres:" && url.protocol !== "postgresql:")) {
    return yield* invalid(urlOption, "expected postgresql://user:password@host:port/database")
  }
  const parameter = (name: string) => url.searchParams.get(name) ?? undefined
  const port = parameter("port") ?? url.port
  const seconds = parameter("connect_timeout")
  const password = parameter("password") ?? (yield* component(url.password, "password"))
  const key = parameter("sslkey")
  const authority = parameter("sslrootcert")
  const parsed: Url = {
    host: parameter("host") ?? (yield* component(url.hostname.replace(/^\[(.*)\]$/, "$1"), "host")),
    port: port === "" ? undefined : yield* integer(`${urlOption}, port`, Number(port), 1, 65_535),
    database: parameter("dbname") ?? (yield* component(url.pathname.replace(/^\//, ""), "database")),
    username: parameter("user") ?? (yield* component(url.username, "user")),
    password: password === undefined ? undefined : Redacted.make(password),
    applicationName: parameter("application_name"),
    options: parameter("options"),
    // Zero is libpq's "wait for ever", which nothing here does.
    connectTimeout: seconds === undefined || seconds === "0" ? undefined : Duration.seconds(
      yield* integer(`${urlOption}, connect_timeout`, Number(seconds), 1, 3600)
    ),
    tls: yield* sslmode(parameter("sslmode")),
    tlsCa: authority === "system" ? undefined : authority,
    tlsCert: parameter("sslcert"),
    tlsKey: key === undefined ? undefined : Redacted.make(key)
  }
  return parsed
})

const component = (text: string, what: string) =>
  text === ""
    ? Effect.undefined
    : Result.match(Result.try(() => decodeURIComponent(text)), {
      onSuccess: (value) => Effect.succeed(value),
      onFailure: () => invalid(urlOption, `the ${what} has an invalid percent sequence`)
    })

const sslmode = (value: string | undefined) => {
  if (value === undefined) return Effect.undefined
  // `allow` prefers plaintext; encrypting whenever possible is within what it permits.
  const mode = value === "allow" ? "prefer" : tlsModes.find((each) => each === value)
  return mode === undefined
    ? invalid(`${urlOption}, sslmode`, `expected one of ${tlsModes.join(", ")}, got ${value}`)
    : Effect.succeed(mode)
}
