/**
 * What programs need that a person runs: the application without its listener, or the event store alone. The database is the one of `DATABASE_URL`, or the embedded one of `STRATA_DATA_DIR`, also while a server
 * uses it.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { ConversationProjections } from "@strata/conversations/read/ConversationProjections"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Migrations from "@strata/postgres/Migrations"
import * as Projections from "@strata/projections/Projections"
import * as Server from "@strata/server/Server"
import { ServerConfig } from "@strata/server/ServerConfig"
import * as Layer from "effect/Layer"

const database = Server.database.pipe(Layer.provide(ServerConfig.layer), Layer.provideMerge(NodeServices.layer))

/** Database, tables, event store, projections, conversations. */
export const application = Server.domain.pipe(Layer.provide(ServerConfig.layer), Layer.provideMerge(database))

/** Database, the event store's tables, event store. It leaves all other work to the servers. */
export const eventStore = EventStorePostgres.layer({ summarize: false }).pipe(
  Layer.provideMerge(Migrations.layer([EventStoreMigrations.migrations])),
  Layer.provideMerge(database)
)

/** Database, all tables, event store, and the projections, which run in this process too or are only looked at. */
export const projections = (run: boolean) =>
  Projections.layer(ConversationProjections, { run }).pipe(
    Layer.provideMerge(EventStorePostgres.layer({ summarize: false })),
    Layer.provideMerge(Migrations.layer(Server.migrations)),
    Layer.provideMerge(database)
  )
