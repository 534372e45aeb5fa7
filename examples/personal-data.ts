import { NodeRuntime, NodeServices } from "@effect/platform-node"
import * as Events from "@strata/event-store"
import { EmbeddedPostgres, Migrations, Postgres } from "@strata/postgres"
import { Config, Console, Effect, Layer, Option, Redacted, Result, Schema } from "effect"
import { Base64 } from "effect/encoding"

const { EventDefinition, Fact, PersonalData, SubjectKeys } = Events

const Said = EventDefinition.make("Said", {
  fields: { sender: Schema.String, text: Schema.String, likes: Schema.Int },
  personal: { subject: (event) => event.sender, fields: ["text"] }
})
const events = EventDefinition.set([Said])

/** A reader has to say what it makes of a text that is gone. The compiler insists. */
const show = ({ likes, sender, text }: typeof Said.schema.Type) =>
  `${sender}: ${PersonalData.isErased(text) ? "(erased)" : text}, ${likes} likes`

const story = Effect.gen(function*() {
  const store = yield* Events.EventStore.EventStore
  const keys = yield* SubjectKeys.SubjectKeys
  const before = yield* store.head
  const [ada, bob] = [`ada ${before}`, `bob ${before}`] // Two people of their own in each run.
  const stream = Fact.streamId("room", `${before}`)
  const say = (sender: string, text: string) =>
    store.append({ facts: [events.encode(Said.make({ sender, text, likes: 2 }), { stream })] })
  const print = Effect.fnUntraced(function*(title: string, facts: ReadonlyArray<Events.Fact.Fact>) {
    yield* Console.log(title)
    for (const fact of facts) yield* Console.log(`  ${show(Result.getOrThrow(events.decode(fact)))}`)
  })

  const { recordedAt } = yield* say(ada, "my new number is 555 0123")
  yield* say(bob, "noted")
  yield* print("what was said", yield* store.readStream(stream))

  const question = { stream, data: [{ path: "/text", is: "equal", value: "noted" }] } as const
  yield* print("found by its text", (yield* store.read(question)).facts)

  const erasure = { subject: ada, reason: "asked for it by letter", actor: "support" }
  const { again } = yield* keys.erase(erasure)
  yield* Console.log(`erased before: ${again}, and when asked again: ${(yield* keys.erase(erasure)).again}`)
  yield* print("what is left", yield* store.readStream(stream))
  yield* print("as known before", (yield* store.read({ stream, knownAt: { time: recordedAt } })).facts)

  const told = (yield* store.readLog({ after: before })).at(-1)!
  const { reason, subject } = Option.getOrThrow(PersonalData.erasureOf(told))
  const streams = yield* keys.streamsOf({ store: store.name, subject })
  yield* Console.log(`the log tells ${told.type}: ${reason}; fold again ${streams.length} stream`)

  yield* say(ada, "back again")
  yield* print("who comes back gets a new key", yield* store.readStream(stream))
})

// Made for this example. Yours comes from where your secrets are, and from nowhere near the database.
const example = Redacted.make(Base64.encode(new Uint8Array(32)))
const Keys = Layer.unwrap(
  Effect.map(
    Config.withDefault(Config.Redacted("MASTER_KEY"), example),
    (key) => SubjectKeys.layer({ masterKey: { id: "2026", key } })
  )
)
const Server = EmbeddedPostgres.layer({ directory: ".strata-example" }).pipe(Layer.provideMerge(NodeServices.layer))
const Database = Layer.unwrap(Effect.map(EmbeddedPostgres.url, (url) => Postgres.layer({ url })))
const Migrated = Migrations.layer([Events.EventStoreMigrations.migrations])
const Store = Events.EventStorePostgres.layer().pipe(
  Layer.provideMerge(Keys),
  Layer.provide(Migrated),
  Layer.provide(Database)
)
story.pipe(Effect.provide(Store.pipe(Layer.provide(Server))), NodeRuntime.runMain)
