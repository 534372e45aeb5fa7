/**
 * A process that relays a topic to NATS and takes it in from there to another one.
 *
 * Arguments: the server of NATS, the topics. Prints `ready`. Ends when it is killed.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as BrokerNats from "@strata/nats/BrokerNats"
import * as Outbox from "@strata/outbox/Outbox"
import * as Postgres from "@strata/postgres/Postgres"
import * as BrokerIntake from "@strata/queues/brokers/BrokerIntake"
import * as BrokerRelay from "@strata/queues/brokers/BrokerRelay"
import * as Queues from "@strata/queues/Queues"
import * as Topic from "@strata/queues/topics/Topic"
import * as Topics from "@strata/queues/topics/Topics"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schema from "effect/Schema"

const [servers = "", out = "", into = ""] = process.argv.slice(2)

const payload = Schema.Struct({ n: Schema.Int })
const topicOf = (name: string) => Topic.make({ name, payload })

const Database = Layer.unwrap(
  Effect.map(Config.Redacted("DATABASE_URL"), (url) => Postgres.layer({ url, maxConnections: 5 }))
)

const Bridge = Layer.mergeAll(
  BrokerRelay.layer({ group: "to nats", topic: topicOf(out), subject: () => "both.numbers" }),
  BrokerIntake.layer({ consumer: "from nats", subject: "both.>", destination: topicOf(into), payload })
).pipe(
  Layer.provide(BrokerNats.layer({ servers, stream: "both", subjects: ["both.>"] })),
  Layer.provide(Layer.mergeAll(Outbox.layer, Topics.layer, Queues.layer)),
  Layer.provide(Database),
  Layer.merge(Layer.succeed(References.MinimumLogLevel, "Error"))
)

Effect.sync(() => void process.stdout.write("ready\n")).pipe(
  Effect.andThen(Effect.never),
  Effect.provide(Bridge),
  NodeRuntime.runMain
)
