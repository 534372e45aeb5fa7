import { NodeRuntime } from "@effect/platform-node"
import { Projection, Projections } from "@strata/projections"
import { Console, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { events, openShop, Store, Takings, takingsOf } from "./bakery.ts"

/** The next version also knows the best sale. */
const Better = Projection.make({
  name: "takings",
  version: 2,
  events,
  categories: ["shop"],
  tables: `create table takings (
    tenant text, stream text, sales integer not null, cents integer not null, best integer not null,
    primary key (tenant, stream)
  )`,
  apply: Effect.fnUntraced(function*(batch) {
    const sql = yield* SqlClient.SqlClient
    for (const { event: { cents }, fact: { stream, tenant } } of batch) {
      yield* sql`
        insert into takings as t values (${tenant}, ${stream}, 1, ${cents}, ${cents})
        on conflict (tenant, stream) do update
        set sales = t.sales + 1, cents = t.cents + excluded.cents, best = greatest(t.best, excluded.best)`
    }
  })
})

const version = (projection: Projection.Projection) =>
  Projections.layer([projection], { switch: "manual" }).pipe(Layer.provideMerge(Store))

const yesterday = Effect.gen(function*() {
  const projections = yield* Projections.Projections
  const { position, stream } = yield* openShop
  yield* projections.waitFor({ position })
  yield* Console.log("version 1", yield* takingsOf(stream))
  return stream
})

const today = Effect.fnUntraced(function*(stream: string) {
  const { operate, status } = yield* Projections.Projections
  const building = Effect.map(status, ([takings]) => takings?.generations.find(({ state }) => state === "building"))
  yield* Effect.repeat(building, { until: (generation) => generation?.lag === 0n })
  const { equal, tables } = yield* operate.verify("takings")
  yield* Console.log(`compared in what both have: ${equal ? "equal" : "different"}, ${tables.length} table`)
  const { number } = yield* operate.switchTo("takings")
  const sql = yield* SqlClient.SqlClient
  yield* Console.log("version 2", yield* sql`select sales, cents, best from takings where stream = ${stream}`)

  yield* operate.rollback("takings")
  yield* Console.log("and back ", yield* takingsOf(stream))
  yield* operate.drop("takings", number)
})

yesterday.pipe(
  Effect.provide(version(Takings), { local: true }),
  Effect.flatMap((stream) => Effect.provide(today(stream), version(Better), { local: true })),
  NodeRuntime.runMain
)
