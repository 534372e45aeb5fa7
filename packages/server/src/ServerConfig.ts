/**
 * What the server reads from its environment.
 *
 * **Details**
 *
 * Every variable has a default that works on one machine. Those of the database beyond `DATABASE_URL` are in
 * `@strata/postgres/PostgresConfig`, those of OpenTelemetry are OpenTelemetry's own (`OTEL_…`).
 *
 * @since 0.1.0
 */
import * as ByteSize from "effect/ByteSize"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as AdmissionConfig from "./AdmissionConfig.ts"

/**
 * The server's settings.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settings {
  /** `PORT`: where it listens, 0 for any free port. Default: 8080. */
  readonly port: number
  /** `HOST`: the interface it listens on. Default: 127.0.0.1. */
  readonly host: string
  /** `DATABASE_URL`: the database to use. Default: an embedded PostgreSQL in the data directory. */
  readonly databaseUrl: Option.Option<Redacted.Redacted>
  /** `STRATA_DATA_DIR`: where the embedded database and the generated API key are kept. Default: `.strata`. */
  readonly dataDirectory: string
  /** `STRATA_API_KEY`: the first admin key, at least 16 characters. Default: one is generated and kept. */
  readonly apiKey: Option.Option<Redacted.Redacted>
  /** `STRATA_LOG_FORMAT`: `json` or `pretty`. Default: `pretty` on a terminal, `json` elsewhere and in production. */
  readonly logFormat: Option.Option<"json" | "pretty">
  /** `NODE_ENV`: `production` is logged as JSON also on a terminal. */
  readonly production: boolean
  /** `STRATA_SHUTDOWN_TIMEOUT`: how long accepted requests may take to finish after SIGTERM. Default: 20 seconds. */
  readonly shutdownTimeout: Duration.Duration
  /** `STRATA_MAX_BODY_SIZE`: the largest request body. Default: 1 MiB. */
  readonly maxBodySize: ByteSize.ByteSize
  /** `STRATA_MIN_POSITION_TIMEOUT`: how long a read waits for the position it asks for. Default: 5 seconds. */
  readonly minPositionTimeout: Duration.Duration
  /** `STRATA_HEARTBEAT_INTERVAL`: how long a stream of events is quiet before it gives a sign of life. Default: 15 seconds. */
  readonly heartbeatInterval: Duration.Duration
  /** Who is let in, and when. See `AdmissionConfig`. */
  readonly admission: AdmissionConfig.AdmissionSettings
  /** `OTEL_EXPORTER_OTLP_ENDPOINT`: where telemetry is sent. Default: nowhere. */
  readonly telemetry: boolean
}

/**
 * The server does not start with what it was given. The message says which variable and what to do.
 *
 * @category errors
 * @since 0.1.0
 */
export class StartRefused extends Schema.TaggedError<StartRefused>()("StartRefused", { message: Schema.String }) {}

const duration = (name: string, fallback: Duration.Input) =>
  Config.Duration(name).pipe(
    Config.withDefault(Duration.fromInputUnsafe(fallback))
  )

const apiKey = Config.schema(
  Schema.Redacted(
    Schema.String.check(Schema.isMinLength(16, { message: "Expected at least 16 characters" }))
  ),
  "STRATA_API_KEY"
)

/**
 * Reads the settings.
 *
 * @category config
 * @since 0.1.0
 */
export const config: Config.Config<Settings> = Config.all({
  port: Config.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65535 })), "PORT").pipe(
    Config.withDefault(8080)
  ),
  host: Config.NonEmptyString("HOST").pipe(Config.withDefault("127.0.0.1")),
  databaseUrl: Config.option(Config.Redacted("DATABASE_URL")),
  dataDirectory: Config.NonEmptyString("STRATA_DATA_DIR").pipe(Config.withDefault(".strata")),
  apiKey: Config.option(apiKey),
  logFormat: Config.option(Config.Literals(["json", "pretty"], "STRATA_LOG_FORMAT")),
  production: Config.String("NODE_ENV").pipe(Config.withDefault(""), Config.map((value) => value === "production")),
  shutdownTimeout: duration("STRATA_SHUTDOWN_TIMEOUT", "20 seconds"),
  maxBodySize: Config.ByteSize("STRATA_MAX_BODY_SIZE").pipe(Config.withDefault(ByteSize.fromInputUnsafe("1 MiB"))),
  minPositionTimeout: duration("STRATA_MIN_POSITION_TIMEOUT", "5 seconds"),
  heartbeatInterval: duration("STRATA_HEARTBEAT_INTERVAL", "15 seconds"),
  admission: AdmissionConfig.config,
  telemetry: Config.option(Config.NonEmptyString("OTEL_EXPORTER_OTLP_ENDPOINT")).pipe(Config.map(Option.isSome))
})

/**
 * The settings of the running server.
 *
 * @category services
 * @since 0.1.0
 */
export class ServerConfig extends Context.Service<ServerConfig, Settings>()("@strata/server/ServerConfig") {
  static readonly layer: Layer.Layer<ServerConfig, StartRefused> = Layer.effect(
    ServerConfig,
    Effect.mapError(config, explain)
  )
}

const formatIssue = SchemaIssue.makeFormatterStandardSchemaV1()

/**
 * Names the variables that cannot be read, in one line.
 *
 * @category formatting
 * @since 0.1.0
 */
export function explain(error: Config.ConfigError): StartRefused {
  const { cause } = error
  const lines = cause._tag === "SchemaError"
    ? formatIssue(cause.issue).issues.map(({ message, path }) =>
      `${
        (path ?? []).map((segment) => String(typeof segment === "object" ? segment.key : segment)).join(".")
      }: ${message}`
    )
    : [error.message]
  return new StartRefused({ message: `Cannot start: ${lines.join("; ").replaceAll(/\s+/g, " ")}` })
}

/**
 * True for an interface that only this machine reaches.
 *
 * @category guards
 * @since 0.1.0
 */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host)
