import { NodeRuntime, NodeServices } from "@effect/platform-node"
import * as Events from "@strata/event-store"
import { EmbeddedPostgres, Migrations, Postgres, Timestamp } from "@strata/postgres"
import { Console, Effect, Layer, Option, Schema, Stream } from "effect"

const PriceSet = Events.EventDefinition.make("PriceSet", { fields: { cents: Schema.Int } })
const events = Events.EventDefinition.set([PriceSet])
const evolve = (_: number, { cents }: typeof PriceSet.schema.Type) => cents
const Price = { category: "price", events, initial: 0, evolve }
const on = (day: string) => Option.getOrThrow(Timestamp.parse(`2026-${day}T00:00:00Z`))

const story = Effect.gen(function*() {
  const store = yield* Events.EventStore.EventStore
  const before = yield* store.head
  const rye = `rye ${before}` // A loaf of its own in each run.
  const stream = Events.Fact.streamId("price", rye)
  const set = (cents: number, validFrom: Timestamp.Timestamp, validTo?: Timestamp.Timestamp) =>
    store.append({ facts: [events.encode(PriceSet.make({ cents }), { stream, validFrom, validTo })] })

  const january = yield* set(400, on("01-01"))
  const february = yield* set(450, on("02-01"))
  const typo = { revises: february.facts[0]!.eventId, reason: "450 was a typing error", actor: "ada" }
  const correction = yield* store.revise(events.encodeCorrection(PriceSet.make({ cents: 420 }), typo))
  const sale = yield* set(390, on("02-10"), on("02-20"))
  const mistake = { revises: sale.facts[0]!.eventId, reason: "the sale was of another loaf", actor: "ada" }
  const retraction = yield* store.revise({ _tag: "Retraction", ...mistake })

  const learned = [january, february, correction, sale, retraction]
  const at = (day: string, n: number) => ({ validAt: on(day), knownAt: { time: learned[n - 1]!.recordedAt } })
  yield* Console.log("valid on    15 Jan   5 Feb  15 Feb")
  for (const n of [1, 2, 3, 4, 5]) {
    const days = ["01-15", "02-05", "02-15"]
    const prices = yield* Effect.forEach(days, (day) => Events.PlaneState.at(Price, rye, at(day, n)))
    yield* Console.log(`known at ${n}${prices.map((price) => String(price).padStart(8)).join("")}`)
  }

  const compare = Effect.fnUntraced(function*(title: string, a: Events.FactQuery.Point, b: Events.FactQuery.Point) {
    for (const { weLearned, worldMoved } of yield* Events.PlaneDiff.diff({ stream }, a, b)) {
      yield* Console.log(`${title}: the world moved ${worldMoved}, we learned ${weLearned}`)
    }
  })
  yield* compare("from 5 Feb at 4 to 15 Feb at 4", at("02-05", 4), at("02-15", 4))
  yield* compare("from 15 Feb at 3 to 15 Feb at 4", at("02-15", 3), at("02-15", 4))
  yield* compare("from 5 Feb at 3 to 15 Feb at 4", at("02-05", 3), at("02-15", 4))

  const refusal = yield* Effect.flip(store.read({ stream, knownAt: { time: Timestamp.infinity } }))
  yield* Console.log(`known at the end of time: ${refusal.message}`)

  const heard = Option.getOrThrow(yield* Stream.runHead(store.subscribe({ after: before })))
  for (const { reason, retracted, revision, version } of heard) {
    const kind = revision === 0 ? "is new" : `${retracted ? "retracts" : "corrects"}: ${reason}`
    yield* Console.log(`fact ${version} ${kind}`)
  }
})

const Server = EmbeddedPostgres.layer({ directory: ".strata-example" }).pipe(Layer.provideMerge(NodeServices.layer))
const Database = Layer.unwrap(Effect.map(EmbeddedPostgres.url, (url) => Postgres.layer({ url })))
const Migrated = Migrations.layer([Events.EventStoreMigrations.migrations])
const Store = Events.EventStorePostgres.layer().pipe(Layer.provide(Migrated), Layer.provide(Database))
story.pipe(Effect.provide(Store.pipe(Layer.provide(Server))), NodeRuntime.runMain)
