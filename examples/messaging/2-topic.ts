import { NodeRuntime } from "@effect/platform-node"
import { Outbox } from "@strata/outbox"
import { Postgres } from "@strata/postgres"
import { ConsumerGroup, Topic, Topics } from "@strata/queues"
import { Console, Effect, Schema } from "effect"
import { Everything } from "./database.ts"

const Prices = Topic.make({
  name: "prices",
  payload: Schema.Struct({ good: Schema.String, cents: Schema.Int }),
  settings: { partitions: 4, keepFor: "7 days" }
})

Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  const outbox = yield* Outbox.Outbox
  const topics = yield* Topics.Topics
  yield* sql`create table if not exists price (good text primary key, cents integer)`

  const { last: before } = yield* topics.declare(Prices)

  // Two groups: each gets every message. What the first writes commits with how far it is.
  yield* ConsumerGroup.run({
    name: "price list",
    topics: [Prices],
    startFrom: "beginning",
    handler: ConsumerGroup.each(({ payload: { cents, good } }) =>
      sql`insert into price values (${good}, ${cents}) on conflict (good) do update set cents = excluded.cents`
    )
  })
  yield* ConsumerGroup.run({
    name: "alarms",
    topics: [Prices],
    startFrom: "end",
    delivery: "atLeastOnce",
    handler: ConsumerGroup.each(({ payload: { cents, good } }) =>
      cents > 400 ? Console.log(`${good} is dear: ${cents} cents`) : Effect.void
    )
  })

  yield* outbox.publish(Prices, [
    { payload: { good: "bread", cents: 310 }, key: "bread" },
    { payload: { good: "butter", cents: 420 }, key: "butter" },
    { payload: { good: "bread", cents: 350 }, key: "bread" }
  ])
  const isDone = ({ partitions }: Topics.GroupStatus) => partitions.every(({ lag }) => lag === 0n)
  yield* Effect.repeat(topics.find(Prices), { until: ({ last }) => last === before + 3n })
  yield* Effect.repeat(topics.group({ name: "alarms" }), { until: isDone })
  yield* Effect.repeat(topics.group({ name: "price list" }), { until: isDone })
  for (const { cents, good } of yield* sql`select good, cents from price order by good`) {
    yield* Console.log(`${String(good)}: ${String(cents)} cents`)
  }
}).pipe(Effect.scoped, Effect.provide(Everything), NodeRuntime.runMain)
