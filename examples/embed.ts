import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { CommandHandler, Decider, EventDefinition, EventStoreMigrations, EventStorePostgres } from "@strata/event-store"
import { EmbeddedPostgres, Migrations, Postgres } from "@strata/postgres"
import { Console, Effect, Layer, Result, Schema } from "effect"

const Deposited = EventDefinition.make("Deposited", { fields: { cents: Schema.Int } })
const Account = Decider.make({
  category: "account",
  events: EventDefinition.set([Deposited]),
  initial: 0,
  evolve: (balance, { cents }: typeof Deposited.schema.Type) => balance + cents,
  decide: (cents: number) => Result.succeed([Deposited.make({ cents })])
})
const Server = EmbeddedPostgres.layer({ directory: ".strata-example" }).pipe(Layer.provideMerge(NodeServices.layer))
const Database = Layer.unwrap(Effect.map(EmbeddedPostgres.url, (url) => Postgres.layer({ url })))
const Store = EventStorePostgres.layer().pipe(Layer.provide(Migrations.layer([EventStoreMigrations.migrations])))
Effect.gen(function*() {
  const { execute } = yield* CommandHandler.make(Account)
  const { state, version } = yield* execute("ada", [1000, 250])
  yield* Console.log(`The balance is ${state} at version ${version}`)
}).pipe(Effect.scoped, Effect.provide(Store.pipe(Layer.provide(Database), Layer.provide(Server))), NodeRuntime.runMain)
