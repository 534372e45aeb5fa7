import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeServices from "@effect/platform-node/NodeServices"
import type * as Principal from "@strata/http-api/Principal"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import { Postgres } from "@strata/postgres/Postgres"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as ShedLadder from "@strata/resilience/shedding/ShedLadder"
import * as Authenticator from "@strata/server/Authenticator"
import * as HttpListener from "@strata/server/HttpListener"
import * as Server from "@strata/server/Server"
import { ServerConfig, type Settings } from "@strata/server/ServerConfig"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as ByteSize from "effect/ByteSize"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpMethod from "effect/http/HttpMethod"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"

/** Keys of the test server by what their owner may do; `other` and `otherCorrector` are of another tenant. */
export const keys = {
  admin: "admin-key-0123456789",
  operator: "operator-key-0123456789",
  corrector: "corrector-key-0123456789",
  viewer: "viewer-key-0123456789",
  other: "other-key-0123456789",
  otherCorrector: "other-corrector-key-0123456789"
} as const

const principals: Record<keyof typeof keys, Principal.Principal> = {
  admin: { subject: "admin", tenant: "default", roles: ["admin"] },
  operator: { subject: "olga", tenant: "default", roles: ["operator"] },
  corrector: { subject: "cora", tenant: "default", roles: ["corrector"] },
  viewer: { subject: "vera", tenant: "default", roles: ["viewer"] },
  other: { subject: "otto", tenant: "elsewhere", roles: ["operator"] },
  otherCorrector: { subject: "oona", tenant: "elsewhere", roles: ["corrector"] }
}

/** Tests keep both cores busy and ask in bursts: nothing is refused for that unless a test says so. */
const unlimited = RateLimit.make({ name: "unlimited", rate: 1_000_000, burst: 1_000_000 })

export const admission: Settings["admission"] = {
  global: { ...unlimited, name: "global" },
  perUser: { ...unlimited, name: "per-user" },
  perIp: { ...unlimited, name: "per-ip" },
  strangers: { ...unlimited, name: "strangers" },
  requestTimeout: Duration.seconds(30),
  trustedProxies: [],
  requests: { name: "requests", slots: 256 },
  quota: {},
  shedding: { enabled: false, ladder: ShedLadder.standard, retryAfter: Duration.seconds(5), floor: 2 }
}

export const settings: Settings = {
  port: 0,
  host: "127.0.0.1",
  databaseUrl: Option.none(),
  dataDirectory: "/nonexistent",
  apiKey: Option.none(),
  logFormat: Option.some("json"),
  production: false,
  shutdownTimeout: Duration.seconds(5),
  maxBodySize: ByteSize.fromInputUnsafe("1 MiB"),
  minPositionTimeout: Duration.seconds(2),
  heartbeatInterval: Duration.seconds(15),
  admission,
  telemetry: false
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly text: string
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into answers of any shape
  readonly json: any
}

export interface Asked {
  readonly key?: string | null | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Sent as it is when it is text or bytes, else as JSON. */
  readonly body?: unknown
}

const parseJson = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Unknown))

/** Sends a request by hand, so that it may be one the typed client would never send. */
export const send = (url: string) =>
  Effect.fnUntraced(function*(method: HttpMethod.HttpMethod, path: string, asked: Asked = {}): Effect.fn.Return<
    Answer,
    HttpClientError.HttpClientError | Schema.SchemaError,
    HttpClient.HttpClient
  > {
    const { body, key = keys.admin } = asked
    const bare = HttpClientRequest.make(method)(`${url}${path}`)
    const request = body === undefined
      ? bare
      : typeof body === "string"
      ? HttpClientRequest.bodyText(bare, body, "application/json")
      : body instanceof Uint8Array
      ? HttpClientRequest.bodyUint8Array(bare, body, "application/json")
      : HttpClientRequest.bodyJsonUnsafe(bare, body)
    const response = yield* HttpClient.execute(request.pipe(
      HttpClientRequest.setHeaders(key === null ? {} : { "x-api-key": key }),
      HttpClientRequest.setHeaders(asked.headers ?? {})
    ))
    const text = yield* response.text
    const isJson = response.headers["content-type"]?.includes("json") === true
    return {
      status: response.status,
      headers: response.headers,
      text,
      json: isJson ? yield* parseJson(text) : undefined
    }
  }, Effect.provideService(HttpClient.TracerPropagationEnabled, false))

export class TestServer extends Context.Service<TestServer, {
  readonly url: string
  readonly send: ReturnType<typeof send>
}>()("@strata/server/test/TestServer") {}

export const testServer = Layer.effect(
  TestServer,
  Effect.map(HttpServer.HttpServer, ({ address }) => {
    const url = HttpServer.formatAddress(address)
    return TestServer.of({ url, send: send(url) })
  })
)

const authenticator = Authenticator.Authenticator.layer(
  Object.entries(keys).map(([name, key]) => ({
    key: Redacted.make(key),
    principal: principals[name as keyof typeof keys]
  }))
)

/** The server on a database in scope. */
export const onDatabase = (changes?: Partial<Settings>) =>
  testServer.pipe(
    Layer.provideMerge(Server.serve),
    Layer.provideMerge(Server.domain),
    Layer.provideMerge(HttpListener.layer),
    Layer.provide([authenticator, Layer.succeed(ServerConfig, { ...settings, ...changes })]),
    Layer.provideMerge([NodeServices.layer, NodeHttpClient.layerUndici]),
    Layer.provideMerge(Logger.layer([]))
  )

/** The server on a fresh database. */
export const layerServer = (changes?: Partial<Settings>) =>
  onDatabase(changes).pipe(
    Layer.provideMerge(PostgresTest.layer({ migrations: Server.migrations, options: { role: applicationRole } }))
  )

/** A conversation of a customer `ada` and a provider `bob`. */
export const conversation = (conversationId: string) => ({
  conversationId,
  participants: [{ userId: "ada", role: "CUSTOMER" }, { userId: "bob", role: "SERVICE_PROVIDER" }]
})

/** Polls for at most ten seconds. */
export const soon = Schedule.max([Schedule.spaced("20 millis"), Schedule.recurs(500)])

/** Ends when a session of the database waits for a lock. Within a transaction the first look at the sessions is kept. */
export const someoneWaits = Effect.gen(function*() {
  const { sql } = yield* Postgres
  const look = Effect.andThen(
    sql`select pg_stat_clear_snapshot()`,
    sql<{ n: number }>`
      select count(*)::int as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  )
  yield* Effect.repeat(look, { until: ([row]) => row!.n > 0, schedule: soon })
})
