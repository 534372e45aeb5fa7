/**
 * A process that appends to the store `default` with the inline projection `counting`, from four fibers, and corrects every third fact.
 *
 * Argument: JSON with `hold`. Prints `ready`, and `written <position>` for each answer; with `hold` it prints `held` and waits for ever in
 * the first transaction, after its rows are inserted.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { streamId } from "@strata/event-store/Fact"
import * as Postgres from "@strata/postgres/Postgres"
import * as Projections from "@strata/projections/Projections"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Counted, Counters, counting } from "./counters.ts"

const Arguments = Schema.fromJsonString(Schema.Struct({ hold: Schema.Boolean }))

const print = (line: string) => Effect.sync(() => void process.stdout.write(`${line}\n`))

const write = Effect.fnUntraced(function*(writer: number) {
  const store = yield* EventStore
  for (let round = 0;; round++) {
    const stream = streamId("counter", String((writer + round) % 6))
    const { facts: [fact], position } = yield* store.append({
      facts: [Counters.encode(Counted.make({ by: round }), { stream })]
    })
    yield* print(`written ${position}`)
    if (round % 3 > 0) continue
    const correction = { revises: fact!.eventId, reason: "counted wrongly", actor: "ada" }
    const revised = yield* store.revise(Counters.encodeCorrection(Counted.make({ by: 1 }), correction))
    yield* print(`written ${revised.position}`)
  }
})

const program = Effect.gen(function*() {
  const { hold } = yield* Schema.decodeEffect(Arguments)(process.argv[2] ?? "")
  const projection = counting({
    version: 1,
    inline: true,
    applied: () => hold ? Effect.andThen(print("held"), Effect.never) : Effect.void
  })
  yield* Layer.build(Projections.layer([projection]))
  yield* print("ready")
  yield* Effect.forEach([0, 1, 2, 3], write, { concurrency: "unbounded" })
}).pipe(Effect.scoped)

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url, maxConnections: 6 }))
)

program.pipe(
  Effect.provide(EventStorePostgres.layer({ pollInterval: "200 millis" }).pipe(Layer.provideMerge(Database))),
  NodeRuntime.runMain
)
