/**
 * A process that takes part in a durable subscription over the store `shared`, and writes what it handles to the table `handled`.
 *
 * Argument: JSON with `name`, `label`, `partitions`, `delivery`, `leaseMillis`, `hold`. Prints `ready`, then `batch <positions>`
 * for each batch after its rows are inserted. With `hold` it then waits for a line before it goes on; each line lets go of all
 * that is held from then on. Ends with its standard input.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import * as DurableSubscription from "@strata/event-store/DurableSubscription"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Postgres from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"

const Arguments = Schema.fromJsonString(Schema.Struct({
  name: Schema.String,
  label: Schema.String,
  partitions: Schema.Int,
  delivery: Schema.Literals(["transactional", "atLeastOnce"]),
  leaseMillis: Schema.Int,
  hold: Schema.Boolean
}))

const print = (line: string) => Effect.sync(() => void process.stdout.write(`${line}\n`))

const program = Effect.gen(function*() {
  const { delivery, hold, label, leaseMillis, name, partitions } = yield* Schema.decodeEffect(Arguments)(
    process.argv[2] ?? ""
  )
  const { sql } = yield* Postgres.Postgres
  const released = yield* Latch.make(!hold)
  yield* DurableSubscription.run({
    name,
    label,
    partitions,
    delivery,
    lease: leaseMillis,
    startFrom: "beginning",
    batchSize: 20,
    handler: Effect.fnUntraced(function*(batch) {
      const positions = batch.map((fact) => fact.position)
      yield* sql`
        insert into handled (subscription, label, position, stream, version)
        select ${name}, ${label}, * from unnest(
          ${Pg.bigintArray(positions)}, ${Pg.textArray(batch.map((fact) => fact.stream))},
          ${Pg.intArray(batch.map((fact) => fact.version))}
        )`
      yield* print(`batch ${positions.join(" ")}`)
      yield* released.await
    })
  })
  yield* print("ready")
  const stdio = yield* Stdio.Stdio
  yield* Stream.runForEach(stdio.stdin, () => released.open)
}).pipe(Effect.scoped)

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url, maxConnections: 5 }))
)

program.pipe(
  Effect.provide(
    EventStorePostgres.layer({ name: "shared", pollInterval: "200 millis" }).pipe(
      Layer.provideMerge(Database),
      Layer.merge(NodeStdio.layer)
    )
  ),
  NodeRuntime.runMain
)
