import { layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Outbox from "@strata/outbox/Outbox"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import { Postgres } from "@strata/postgres/Postgres"
import * as Queues from "@strata/queues/Queues"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import * as TopicPolicies from "@strata/queues/topics/TopicPolicies"
import * as Topics from "@strata/queues/topics/Topics"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { eventually, many, migrations, topicOf } from "./fixture.ts"

const AsApplication = Layer.mergeAll(Outbox.layer, Topics.layer, Queues.layer, OutboxRelay.layer).pipe(
  Layer.provideMerge(PostgresTest.layer({ migrations, options: { role: applicationRole, maxConnections: 10 } })),
  Layer.provide(Layer.succeed(TopicPolicies.TopicPolicies, {
    ...TopicPolicies.defaults,
    upkeep: Duration.millis(100),
    tableSize: 1
  }))
)

layer(AsApplication, { excludeTestServices: true })("a role that owns no tables", (it) => {
  it.effect("publishes, relays, rotates, consumes, grows, trims and steers", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topics = yield* Topics.Topics
      const { rows } = yield* Postgres
      const topic = topicOf("role", { keepFor: "0 millis", requiresGroup: true })
      const seen = new Set<number>()
      const all = yield* Deferred.make<void>()
      yield* ConsumerGroup.run({
        name: "role",
        topics: [topic],
        startFrom: "beginning",
        handler: (messages) =>
          Effect.suspend(() => {
            // Some come twice, since what was going on while the topic grew is void.
            for (const { position } of messages) seen.add(Number(position))
            return seen.size === 200 ? Deferred.succeed(all, undefined) : Effect.void
          })
      })
      yield* outbox.publish(topic, many(100))
      // What is moved together would be one chunk, and the last one stays.
      yield* eventually(topics.find(topic), ({ last }) => last === 100n)
      yield* topics.configure(topic, { partitions: 16, keepFor: "0 millis", requiresGroup: true })
      yield* outbox.publish(topic, many(100))
      yield* Deferred.await(all)
      yield* eventually(rows("select slot from outbox_slot", []), ([row]) => row?.[0] !== 0)
      yield* eventually(topics.find(topic), ({ first }) => first > 1n)
      yield* topics.seek({ name: "role" }, topic, "end")
      yield* topics.cancel({ name: "role" })
      deepStrictEqual((yield* topics.group({ name: "role" })).state, "cancelled")
    }).pipe(Effect.scoped), 60_000)
})
