/**
 * What inline projections cost those who append: appends a second with none, with one and with three, by one caller and by 64, each of one
 * fact to one of a hundred streams. Rounds take turns; medians, least and most of seven.
 *
 * `node --conditions=strata:source packages/projections/test/programs/inlineCost.ts`
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { streamId } from "@strata/event-store/Fact"
import * as EmbeddedPostgres from "@strata/postgres/EmbeddedPostgres"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as KeyedProjection from "@strata/projections/KeyedProjection"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import * as Arr from "effect/Array"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Order from "effect/Order"
import * as Schema from "effect/Schema"

const Deposited = EventDefinition.make("Deposited", { fields: { cents: Schema.Int } })
const events = EventDefinition.set([Deposited])

const balances = (name: string) =>
  KeyedProjection.make({
    name,
    events,
    inline: true,
    table: name,
    state: Schema.Struct({ cents: Schema.Int }),
    initial: { cents: 0 },
    evolve: (state, { cents }) => ({ cents: state.cents + cents })
  })

/** A store of its own, with so many inline projections. */
const opened = Effect.fnUntraced(function*(inline: number) {
  const name = `with_${inline}`
  const projections = Arr.range(1, 3).slice(0, inline).map((number) => balances(`${name}_${number}`))
  const store = EventStorePostgres.layer({ name })
  const context = yield* Layer.build(
    Layer.fresh(inline === 0 ? store : Projections.layer(projections).pipe(Layer.provideMerge(store)))
  )
  return { inline, store: Context.get(context, EventStore) }
})

const round = Effect.fnUntraced(function*(store: EventStore["Service"], callers: number, appends: number) {
  const [duration] = yield* Effect.timed(Effect.forEach(
    Arr.range(1, appends),
    (index) =>
      store.append({
        facts: [events.encode(Deposited.make({ cents: 1 }), { stream: streamId("account", String(index % 100)) })]
      }),
    { concurrency: callers, discard: true }
  ))
  return appends / Duration.toSeconds(duration)
})

const rounds = 7
const program = Effect.gen(function*() {
  const stores = yield* Effect.forEach([0, 1, 3], opened)
  for (const [callers, appends] of [[1, 400], [64, 4000]] as const) {
    const measured = new Map(stores.map(({ inline }) => [inline, Arr.empty<number>()]))
    for (let turn = 0; turn <= rounds; turn++) {
      for (const { inline, store } of stores) {
        const rate = yield* round(store, callers, appends)
        // The first warms up.
        if (turn > 0) measured.get(inline)?.push(rate)
      }
    }
    for (const [inline, rates] of measured) {
      const sorted = Arr.sort(rates, Order.Number).map(Math.round)
      yield* Console.log(
        `${callers} callers, ${inline} inline: ${sorted[Math.floor(rounds / 2)]} appends/s (${sorted[0]} to ${
          sorted.at(-1)
        })`
      )
    }
  }
}).pipe(Effect.scoped)

const Server = Layer.unwrap(Effect.gen(function*() {
  const directory = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()
  return EmbeddedPostgres.layer({ directory })
}))
const Database = Layer.unwrap(Effect.map(EmbeddedPostgres.url, (url) => Postgres.layer({ url }))).pipe(
  Layer.provide(Server)
)
const Tables = Migrations.layer([EventStoreMigrations.migrations, ProjectionsMigrations.migrations])

program.pipe(
  Effect.provide(Tables.pipe(Layer.provideMerge(Database), Layer.provideMerge(NodeServices.layer))),
  NodeRuntime.runMain
)
