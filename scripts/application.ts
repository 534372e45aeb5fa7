/**
 * The application without its listener, for programs a person runs: database, tables, event store, projections,
 * conversations. The database is the one of `DATABASE_URL`, or the embedded one of `STRATA_DATA_DIR`, also while a server
 * uses it.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Server from "@strata/server/Server"
import { ServerConfig } from "@strata/server/ServerConfig"
import * as Layer from "effect/Layer"

export const application = Server.domain.pipe(
  Layer.provideMerge(Server.database),
  Layer.provide(ServerConfig.layer),
  Layer.provideMerge(NodeServices.layer)
)
