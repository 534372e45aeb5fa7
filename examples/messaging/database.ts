import { NodeServices } from "@effect/platform-node"
import { Outbox, OutboxMigrations } from "@strata/outbox"
import { EmbeddedPostgres, Migrations, Postgres } from "@strata/postgres"
import { DeadLetters, OutboxRelay, Queues, QueuesMigrations, Topics, TopicsMigrations } from "@strata/queues"
import { Effect, Layer } from "effect"

const Server = EmbeddedPostgres.layer({ directory: ".strata-example" }).pipe(Layer.provideMerge(NodeServices.layer))
const Database = Layer.unwrap(Effect.map(EmbeddedPostgres.url, (url) => Postgres.layer({ url }))).pipe(
  Layer.provide(Server)
)
const Tables = Migrations.layer([
  OutboxMigrations.migrations,
  QueuesMigrations.migrations,
  TopicsMigrations.migrations
]).pipe(Layer.provide(NodeServices.layer))

/** Outbox, relay, topics and queues in a database in the directory `.strata-example`. */
export const Everything = Layer.mergeAll(Outbox.layer, OutboxRelay.layer, Topics.layer, DeadLetters.layer).pipe(
  Layer.provideMerge(Queues.layer),
  Layer.provide(Tables),
  Layer.provideMerge(Database)
)
