import * as NodeServices from "@effect/platform-node/NodeServices"
import { describe, layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as BrokerNats from "@strata/nats/BrokerNats"
import * as Outbox from "@strata/outbox/Outbox"
import { migrations as outboxMigrations } from "@strata/outbox/OutboxMigrations"
import { Postgres } from "@strata/postgres/Postgres"
import * as Broker from "@strata/queues/brokers/Broker"
import * as Queues from "@strata/queues/Queues"
import { migrations as queuesMigrations } from "@strata/queues/QueuesMigrations"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import * as Topic from "@strata/queues/topics/Topic"
import * as Topics from "@strata/queues/topics/Topics"
import { migrations as topicsMigrations } from "@strata/queues/topics/TopicsMigrations"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as NatsServer from "./natsServer.ts"

const Database = Layer.mergeAll(Outbox.layer, Topics.layer, Queues.layer, OutboxRelay.layer, NodeServices.layer).pipe(
  Layer.provideMerge(PostgresTest.layer({ migrations: [outboxMigrations, queuesMigrations, topicsMigrations] })),
  Layer.merge(Layer.succeed(References.MinimumLogLevel, "None"))
)

const Payload = Schema.Struct({ n: Schema.Int })
const topicOf = (name: string) => Topic.make({ name, payload: Payload })

const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, holds: (value: A) => boolean) =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("20 millis") }).pipe(
    Effect.andThen(effect),
    Effect.timeout("1 minute")
  )

/** Numbers that a group has written to the table `got`, in order. */
const got = (group: string) =>
  Effect.flatMap(Postgres, ({ sql }) =>
    Effect.map(
      sql<{ n: number }>`select n from got where name = ${group} order by number`,
      (rows) => rows.map(({ n }) => n)
    ))

const writing = Effect.fnUntraced(function*(name: string, topic: Topic.Topic<typeof Payload.Type>) {
  const { sql } = yield* Postgres
  yield* sql`create table if not exists got (number bigint generated always as identity, name text, n integer)`
  yield* ConsumerGroup.run({
    name,
    topics: [topic],
    startFrom: "beginning",
    handler: ConsumerGroup.each(({ payload: { n } }) => sql`insert into got (name, n) values (${name}, ${n})`)
  })
})

const upTo = (end: number) => Array.from({ length: end }, (_, n) => n)

// Where it cannot be had, the report says so.
describe.skipIf(NatsServer.missing !== undefined)(`NATS JetStream${NatsServer.missing ?? ""}`, () => {
  layer(Database, { excludeTestServices: true })("as a broker", (it) => {
    it.effect("keeps a message once under one id, and gives it from any position on", () =>
      Effect.gen(function*() {
        const { servers } = yield* NatsServer.make
        const broker = yield* Effect.map(
          Layer.build(BrokerNats.layer({ servers, stream: "once", subjects: ["once.>"] })),
          (context) => Context.get(context, Broker.Broker)
        )
        const messages = upTo(3).map((n) => ({
          id: `id ${n}`,
          subject: `once.${n}`,
          headers: { color: "red" },
          body: `${n}`
        }))
        yield* broker.publish(messages)
        yield* broker.publish(messages)
        const placed = messages.map((message, n) => ({ ...message, position: `${n + 1}` })).toSorted((one, other) =>
          Number(one.position) - Number(other.position)
        )
        const read = (after: string | undefined, subject = "once.*") => broker.read({ subject, after, limit: 10 })
        deepStrictEqual(new Set((yield* read(undefined)).map(({ id }) => id)), new Set(placed.map(({ id }) => id)))
        deepStrictEqual((yield* read("1")).map(({ position }) => position), ["2", "3"])
        deepStrictEqual((yield* read(undefined, "once.2")).map(({ body, headers }) => ({ body, headers })), [
          { body: "2", headers: { color: "red" } }
        ])
        deepStrictEqual(yield* read("3"), [])
      }).pipe(Effect.scoped), 60_000)

    it.effect(
      "loses, doubles and reorders nothing from topic to topic, though both sides are killed, each at once",
      () =>
        Effect.gen(function*() {
          const nats = yield* NatsServer.make
          const outbox = yield* Outbox.Outbox
          const [out, into] = [topicOf("out"), topicOf("into")]
          const start = Effect.gen(function*() {
            const child = yield* ChildProgram.start(new URL("./programs/bridge.ts", import.meta.url), {
              args: [nats.servers, out.name, into.name],
              env: { DATABASE_URL: yield* PostgresTest.url }
            })
            yield* child.waitFor((line) => line === "ready")
            return child
          })
          yield* writing("into", into)
          const bridge = yield* start
          const publishing = yield* Effect.forkChild(
            Effect.forEach(upTo(60), (round) =>
              Effect.delay(
                outbox.publish(out, upTo(10).map((n) => ({ key: "k", payload: { n: round * 10 + n } }))),
                "20 millis"
              ), { discard: true })
          )
          yield* eventually(got("into"), (numbers) => numbers.length > 50)
          yield* nats.kill9
          yield* Effect.sleep("300 millis")
          yield* nats.start
          yield* eventually(got("into"), (numbers) => numbers.length > 250)
          yield* bridge.kill9
          yield* start
          yield* Fiber.join(publishing)
          const numbers = yield* eventually(got("into"), (numbers) => numbers.length >= 600)
          strictEqual(numbers.length, 600)
          deepStrictEqual(numbers, upTo(600))
        }).pipe(Effect.scoped),
      120_000
    )
  })
})
