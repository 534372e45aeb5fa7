import { NodeRuntime } from "@effect/platform-node"
import { Outbox } from "@strata/outbox"
import { Postgres } from "@strata/postgres"
import { ConsumerGroup, Topic } from "@strata/queues"
import { Console, Effect, Latch, Schema } from "effect"
import { Everything } from "./database.ts"

const Orders = Topic.make({ name: "orders", payload: Schema.Struct({ order: Schema.String }) })

Effect.gen(function*() {
  const { sql, transact } = yield* Postgres.Postgres
  const outbox = yield* Outbox.Outbox
  yield* sql`create table if not exists purchase (id text)`

  const place = (order: string, isPaid: boolean) =>
    transact(Effect.gen(function*() {
      yield* sql`insert into purchase (id) values (${order})`
      yield* outbox.publish(Orders, [{ payload: { order }, key: order }])
      if (!isPaid) return yield* Effect.fail("not paid")
    })).pipe(Effect.matchEffect({
      onSuccess: () => Console.log(`${order} is placed`),
      onFailure: () => Console.log(`${order} is not`)
    }))

  yield* place("bread", false)
  yield* place("butter", true)

  const told = yield* Latch.make()
  yield* ConsumerGroup.run({
    name: "first look",
    topics: [Orders],
    startFrom: "beginning",
    handler: ([{ payload: { order } }]) => Effect.andThen(Console.log(`the world is told of ${order}`), told.open)
  })
  yield* told.await
}).pipe(Effect.scoped, Effect.provide(Everything), NodeRuntime.runMain)
