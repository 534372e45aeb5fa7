import { NodeRuntime } from "@effect/platform-node"
import { EventDefinition, EventStore } from "@strata/event-store"
import { KeyedProjection, Projections } from "@strata/projections"
import { Console, Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { events as sales, openShop, Sold, Store } from "./bakery.ts"

const Baked = EventDefinition.make("Baked", { fields: { loaves: Schema.Int } })
const events = EventDefinition.set([Baked, Sold])

/** What lies on the shelf of each shop: never less than nothing. */
const Shelves = KeyedProjection.make({
  name: "shelves",
  events,
  categories: ["shop"],
  inline: true,
  table: "shelf",
  state: Schema.Struct({ loaves: Schema.Int }),
  initial: { loaves: 5 },
  evolve: ({ loaves }, event) => ({ loaves: event._tag === "Baked" ? loaves + event.loaves : loaves - 1 }),
  columns: { loaves: { type: "integer", of: ({ loaves }) => loaves } },
  indexes: "alter table shelf add constraint shelf_loaves_check check (loaves >= 0)"
})

Effect.gen(function*() {
  const store = yield* EventStore.EventStore
  const sql = yield* SqlClient.SqlClient
  const { status } = yield* Projections.Projections
  // The log has facts already: it catches up on those, and joins the appends.
  yield* Effect.repeat(status, { until: ([shelves]) => shelves?.generations[0]?.applied === "inline" })
  const { stream } = yield* openShop
  const shelf = sql`select loaves from shelf where stream = ${stream}`
  yield* Console.log("on the shelf", yield* shelf)

  const rye = sales.encode(Sold.make({ loaf: "rye", cents: 400 }), { stream })
  const refused = yield* Effect.flip(store.append({ facts: [rye, rye, rye] }))
  yield* Console.log("refused:", refused.reason._tag)
  yield* Console.log("on the shelf", yield* shelf)
}).pipe(Effect.provide(Projections.layer([Shelves]).pipe(Layer.provideMerge(Store))), NodeRuntime.runMain)
