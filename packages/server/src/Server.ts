/**
 * The server: the contract's handlers over the event store, the projections and the database, behind one listener.
 *
 * **Details**
 *
 * Layers are built in this order, and released in the reverse one: the listener (which answers 503 from then on), the
 * database, its migrations, the event store, the projections, the application. So on shutdown the application finishes
 * what it accepted while everything it needs is still there, and the database goes last.
 *
 * @since 0.1.0
 */
import * as NodeCrypto from "@effect/platform-node/NodeCrypto"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Analytics from "@strata/conversations/analytics/Analytics"
import * as ConversationsMigrations from "@strata/conversations/ConversationsMigrations"
import * as ConversationDecider from "@strata/conversations/domain/ConversationDecider"
import { ConversationState } from "@strata/conversations/domain/ConversationState"
import * as NotificationChannel from "@strata/conversations/notifications/NotificationChannel"
import * as Notifications from "@strata/conversations/notifications/Notifications"
import { ConversationProjections } from "@strata/conversations/read/ConversationProjections"
import * as ConversationQueries from "@strata/conversations/read/ConversationQueries"
import * as Conversations from "@strata/conversations/write/Conversations"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { Api } from "@strata/http-api/Api"
import * as OutboxMigrations from "@strata/outbox/OutboxMigrations"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as PostgresConfig from "@strata/postgres/PostgresConfig"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as Queues from "@strata/queues/Queues"
import * as QueuesMigrations from "@strata/queues/QueuesMigrations"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import * as Topics from "@strata/queues/topics/Topics"
import * as TopicsMigrations from "@strata/queues/topics/TopicsMigrations"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as HttpIncomingMessage from "effect/http/HttpIncomingMessage"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Admission from "./Admission.ts"
import * as AnalyticsHandlers from "./AnalyticsHandlers.ts"
import * as ApiReference from "./ApiReference.ts"
import * as Authenticator from "./Authenticator.ts"
import * as ConversationsHandlers from "./ConversationsHandlers.ts"
import * as EventStoreHandlers from "./EventStoreHandlers.ts"
import * as FirstApiKey from "./FirstApiKey.ts"
import * as Health from "./Health.ts"
import * as HttpListener from "./HttpListener.ts"
import * as KnownCallers from "./KnownCallers.ts"
import * as Problems from "./Problems.ts"
import * as ProjectionsHandlers from "./ProjectionsHandlers.ts"
import * as RequestLog from "./RequestLog.ts"
import * as ServerAlerts from "./ServerAlerts.ts"
import { ServerConfig } from "./ServerConfig.ts"
import { Shutdown } from "./Shutdown.ts"
import * as StreamsHandlers from "./StreamsHandlers.ts"
import { folded, StreamStates } from "./StreamStates.ts"
import * as SystemHandlers from "./SystemHandlers.ts"
import { version } from "./Version.ts"

/**
 * The tables of everything the server runs, in the order of their dependencies.
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations: ReadonlyArray<Migrations.Migrations> = [
  EventStoreMigrations.migrations,
  OutboxMigrations.migrations,
  ProjectionsMigrations.migrations,
  // Before those of queues: of conversations, an old file makes a table that has the name of one of queues, until a newer one.
  ConversationsMigrations.migrations,
  QueuesMigrations.migrations,
  TopicsMigrations.migrations
]

/**
 * Every route: the contract, its document at `/openapi.json` and its reference at `/docs`.
 *
 * @category layers
 * @since 0.1.0
 */
export const routes = Layer.mergeAll(
  HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" }),
  ApiReference.layer,
  Problems.methodsLayer
).pipe(
  Layer.provide([
    SystemHandlers.layer,
    ConversationsHandlers.layer,
    AnalyticsHandlers.layer,
    EventStoreHandlers.layer,
    StreamsHandlers.layer,
    ProjectionsHandlers.layer
  ]),
  Layer.provide([
    Problems.requestsLayer,
    Authenticator.authorizationLayer,
    Admission.layer,
    Authenticator.roleCheckLayer,
    NodeCrypto.layerDigest
  ])
)

/** Longer than any id of the contract, each character written as three. */
const routerConfig = { maxParamLength: 4_096 }

/** Probes and scrapes come every few seconds and would fill a trace store. */
const untraced = /^\/(?:health|metrics|api\/v1\/health)/

/**
 * Serves the routes on the HTTP server in scope.
 *
 * @category layers
 * @since 0.1.0
 */
export const serve = Layer.merge(Shutdown.atRelease, ServerAlerts.layer).pipe(
  Layer.provideMerge(Layer.unwrap(Effect.gen(function*() {
    const app = yield* HttpRouter.toHttpEffect(routes)
    const { admission: { trustedProxies } } = yield* ServerConfig
    return HttpServer.serve(
      Problems.complete(app).pipe(HttpMiddleware.xForwardedHeaders({ trustedProxies })),
      RequestLog.middleware
    )
  }))),
  Layer.provide([
    Shutdown.layer,
    RateLimit.layerMemory(),
    Admission.sheddingLayer,
    KnownCallers.KnownCallers.layer,
    Layer.succeed(HttpRouter.RouterConfig, routerConfig),
    Layer.succeed(HttpMiddleware.TracerDisabledWhen, (request) => untraced.test(request.url)),
    Layer.unwrap(
      Effect.map(ServerConfig, ({ maxBodySize }) => Layer.succeed(HttpIncomingMessage.MaxBodySize, maxBodySize))
    )
  ])
)

/** An append is tried again for less time than a client waits: a repeated request does the same. */
const appendRetry = RetryPolicy.schedule(
  RetryPolicy.make({ attempts: 10, base: "50 millis", cap: "250 millis", total: "1 second" }),
  // The store repeats nothing that would do harm.
  { idempotent: true }
)

/** The deciders of the application. */
const states = StreamStates.layer([folded(ConversationDecider.make(), ConversationState)])

/**
 * Event store, projections, conversations and health on the database in scope, which is migrated first.
 *
 * @category layers
 * @since 0.1.0
 */
export const domain = Health.Health.layer().pipe(
  Layer.provideMerge([Conversations.layer({ announce: true }), ConversationQueries.layer, Analytics.layer, states]),
  Layer.provideMerge(Projections.layer(ConversationProjections)),
  Layer.provideMerge(EventStorePostgres.layer({ retry: appendRetry })),
  Layer.provideMerge(Migrations.layer(migrations))
)

/**
 * Queues, topics and dead letters on the database in scope, whose tables `domain` makes.
 *
 * @category layers
 * @since 0.1.0
 */
export const messaging = Layer.merge(Topics.layer, DeadLetters.layer).pipe(Layer.provideMerge(Queues.layer))

/**
 * Moves what is published out of the outbox, and notifies participants of messages as the environment says:
 * see `NotificationChannel.layerConfig`. In one process of several, or in each of them.
 *
 * @category layers
 * @since 0.1.0
 */
export const notifications = Layer.merge(OutboxRelay.layer, Notifications.layer).pipe(
  Layer.provide(NotificationChannel.layerConfig),
  Layer.provide(NodeHttpClient.layerUndici)
)

/**
 * The database of the configuration: the one that `DATABASE_URL`, `STRATA_DATABASE_HOST` or `STRATA_DATABASE_SOCKET` names,
 * or an embedded one in the data directory, in which the server works in the role `strata_app` unless another one is named.
 *
 * @category layers
 * @since 0.1.0
 */
export const database = Layer.unwrap(Effect.gen(function*() {
  const { databaseUrl, dataDirectory } = yield* ServerConfig
  const options = yield* PostgresConfig.config
  if (Option.isSome(databaseUrl)) return Postgres.layer({ ...options, url: databaseUrl.value })
  if (options.host !== undefined || options.path !== undefined) return Postgres.layer(options)
  return Layer.unwrap(
    Effect.map(
      EmbeddedPostgres.EmbeddedPostgres,
      ({ url }) => Postgres.layer({ ...options, role: options.role ?? applicationRole, url })
    )
  ).pipe(Layer.provide(EmbeddedPostgres.layer({ directory: dataDirectory })))
}))

/**
 * Accepts the first admin key.
 *
 * @category layers
 * @since 0.1.0
 */
export const authenticator = Layer.unwrap(
  Effect.map(
    Effect.flatMap(ServerConfig, FirstApiKey.resolve),
    (key) => Authenticator.Authenticator.layer([{ key, principal: Authenticator.admin }])
  )
)

const announce = Layer.effectDiscard(Effect.gen(function*() {
  const server = yield* HttpServer.HttpServer
  yield* Effect.logInfo(`Strata ${version} serves at ${HttpServer.formatAddress(server.address)}, reference at /docs`)
}))

/**
 * The whole server, from its configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = announce.pipe(
  Layer.provideMerge(serve),
  Layer.provideMerge(notifications),
  Layer.provideMerge(messaging),
  Layer.provideMerge(domain),
  Layer.provideMerge(database),
  Layer.provideMerge(HttpListener.layer),
  Layer.provide(authenticator),
  Layer.provide([NodeServices.layer, Metric.enableRuntimeMetricsLayer])
)
