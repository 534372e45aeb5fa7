import { NodeServices } from "@effect/platform-node"
import { EmbeddedPostgres, Migrations, Postgres } from "@strata/postgres"
import { DeadLetters, Queues, QueuesMigrations, Schedules } from "@strata/queues"
import { Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"

const Server = EmbeddedPostgres.layer({ directory: ".strata-example" }).pipe(Layer.provideMerge(NodeServices.layer))
const Database = Layer.unwrap(Effect.map(EmbeddedPostgres.url, (url) => Postgres.layer({ url }))).pipe(
  Layer.provide(Server)
)
const Tables = Migrations.layer([QueuesMigrations.migrations]).pipe(Layer.provide(NodeServices.layer))

/** Queues in a database in the directory `.strata-example`. */
export const Everything = Layer.mergeAll(DeadLetters.layer, Schedules.layer).pipe(
  Layer.provideMerge(Queues.layer),
  Layer.provide(Tables),
  Layer.provideMerge(Database),
  Layer.provideMerge(SecureRandom.layerWebCrypto)
)
