/**
 * A process that takes part in a consumer group, and writes what it handles to the table `handled_apart`.
 *
 * Argument: JSON with `group`, `topic`, `label`, `instance`, `sessionMillis`, `hold`. Prints `ready`, then `batch <positions>` for
 * each batch after its rows are inserted; with `hold` it then waits for a line before it goes on, and each line lets go of all that is held
 * from then on. Prints `ended <why>` when it cannot take part any more. Ends with its standard input.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import * as Postgres from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Queues from "@strata/queues/Queues"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import * as Topic from "@strata/queues/topics/Topic"
import * as TopicPolicies from "@strata/queues/topics/TopicPolicies"
import * as Topics from "@strata/queues/topics/Topics"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"

const Arguments = Schema.fromJsonString(Schema.Struct({
  group: Schema.String,
  topic: Schema.String,
  label: Schema.String,
  instance: Schema.optionalKey(Schema.String),
  sessionMillis: Schema.Int,
  hold: Schema.Boolean,
  relays: Schema.Boolean
}))

const print = (line: string) => Effect.sync(() => void process.stdout.write(`${line}\n`))

const program = Effect.gen(function*() {
  const { group, hold, instance, label, relays, sessionMillis, topic } = yield* Schema.decodeEffect(Arguments)(
    process.argv[2] ?? ""
  )
  const { sql } = yield* Postgres.Postgres
  const released = yield* Latch.make(!hold)
  if (relays) yield* Effect.forkScoped(OutboxRelay.run)
  const { ended } = yield* ConsumerGroup.run({
    name: group,
    topics: [Topic.make({ name: topic, payload: Schema.Struct({ n: Schema.Int }) })],
    label,
    instance,
    session: sessionMillis,
    startFrom: "beginning",
    batchSize: 20,
    handler: Effect.fnUntraced(function*(batch) {
      const positions = batch.map(({ position }) => position)
      yield* sql`
        insert into handled_apart ("group", label, position, partition, key, n)
        select ${group}, ${label}, * from unnest(
          ${Pg.bigintArray(positions)}, ${Pg.intArray(batch.map(({ partition }) => partition))},
          ${Pg.textArray(batch.map(({ key }) => key ?? null))}, ${Pg.intArray(batch.map(({ payload: { n } }) => n))}
        )`
      yield* print(`batch ${positions.join(" ")}`)
      yield* released.await
      yield* sql`
        update handled_apart set ended = clock_timestamp()
        where "group" = ${group} and position = any(${Pg.bigintArray(positions)})`
    })
  })
  yield* print("ready")
  yield* Effect.forkScoped(Effect.tapError(ended, (error) => print(`ended ${error.message}`)))
  const stdio = yield* Stdio.Stdio
  yield* Stream.runForEach(stdio.stdin, () => released.open)
}).pipe(Effect.scoped)

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url, maxConnections: 5 }))
)

program.pipe(
  Effect.provide(
    Layer.mergeAll(Topics.layer, Queues.layer).pipe(
      Layer.provideMerge(Database),
      Layer.merge(NodeStdio.layer),
      Layer.provideMerge(Layer.succeed(TopicPolicies.TopicPolicies, {
        ...TopicPolicies.defaults,
        settle: Duration.millis(300),
        relayLease: Duration.seconds(1),
        upkeep: Duration.seconds(1)
      })),
      Layer.merge(Layer.succeed(References.MinimumLogLevel, "Error"))
    )
  ),
  NodeRuntime.runMain
)
