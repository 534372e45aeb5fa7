import { NodeServices } from "@effect/platform-node"
import { EventDefinition, EventStore, EventStoreMigrations, EventStorePostgres, Fact } from "@strata/event-store"
import { EmbeddedPostgres, Migrations, Postgres, PostgresTypes as Pg } from "@strata/postgres"
import { Projection, ProjectionsMigrations } from "@strata/projections"
import { Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql"

export const Sold = EventDefinition.make("Sold", { fields: { loaf: Schema.String, cents: Schema.Int } })
export const events = EventDefinition.set([Sold])

/** What each shop has taken: a shop is a stream. */
export const Takings = Projection.make({
  name: "takings",
  version: 1,
  events,
  categories: ["shop"],
  tables: `create table takings (
    tenant text, stream text, sales integer not null, cents integer not null, primary key (tenant, stream)
  )`,
  apply: Effect.fnUntraced(function*(batch) {
    const sql = yield* SqlClient.SqlClient
    yield* sql`
      insert into takings as t (tenant, stream, sales, cents)
      select tenant, stream, count(*), sum(cents) from unnest(
        ${Pg.textArray(batch.map(({ fact }) => fact.tenant))},
        ${Pg.textArray(batch.map(({ fact }) => fact.stream))},
        ${Pg.intArray(batch.map(({ event }) => event.cents))}
      ) as s(tenant, stream, cents)
      group by tenant, stream
      on conflict (tenant, stream) do update set sales = t.sales + excluded.sales, cents = t.cents + excluded.cents`
  })
})

/** Opens a shop of its own in each run, and sells three loaves. */
export const openShop = Effect.gen(function*() {
  const store = yield* EventStore.EventStore
  const stream = Fact.streamId("shop", String(yield* store.head))
  const sold = (loaf: string, cents: number) => events.encode(Sold.make({ loaf, cents }), { stream })
  const { facts, position } = yield* store.append({ facts: [sold("rye", 400), sold("spelt", 450), sold("rye", 4000)] })
  return { stream, facts, position }
})

/** What the table says of a shop. */
export const takingsOf = (stream: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`select sales, cents from takings where stream = ${stream}`)

const Server = EmbeddedPostgres.layer({ directory: ".strata-example" }).pipe(Layer.provideMerge(NodeServices.layer))
const Database = Layer.unwrap(Effect.map(EmbeddedPostgres.url, (url) => Postgres.layer({ url }))).pipe(
  Layer.provide(Server)
)
const Tables = Migrations.layer([EventStoreMigrations.migrations, ProjectionsMigrations.migrations])

/** A store in a database in the directory `.strata-example`. */
export const Store = EventStorePostgres.layer().pipe(
  Layer.provide(Tables.pipe(Layer.provide(NodeServices.layer))),
  Layer.provideMerge(Database)
)
