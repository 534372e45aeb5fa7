import { NodeRuntime } from "@effect/platform-node"
import { Outbox } from "@strata/outbox"
import { Postgres } from "@strata/postgres"
import { Queue, Queues, QueueWorker } from "@strata/queues"
import { Console, Effect, Schema } from "effect"
import { Everything } from "./database.ts"

const Parcels = Queue.make({ name: "parcels", payload: Schema.Struct({ order: Schema.String }) })

Effect.gen(function*() {
  const { transact } = yield* Postgres.Postgres
  const outbox = yield* Outbox.Outbox
  const queues = yield* Queues.Queues
  yield* queues.declare(Parcels)
  const { done } = yield* queues.stats(Parcels)
  yield* transact(
    outbox.publish(Queue.destination(Parcels), [
      { payload: { order: "butter" } },
      { payload: { order: "bread" }, priority: 9 }
    ])
  )
  // However many workers there are, each parcel is one's to pack.
  const pack = ({ payload: { order } }: { readonly payload: { readonly order: string } }) =>
    Console.log(`packing ${order}`)
  yield* Effect.repeat(queues.stats(Parcels), { until: ({ ready }) => ready === 2 })
  yield* Effect.forkScoped(QueueWorker.run(Parcels, pack, { concurrency: 1 }))
  yield* Effect.repeat(queues.stats(Parcels), { until: (stats) => stats.done === done + 2 })
}).pipe(Effect.scoped, Effect.provide(Everything), NodeRuntime.runMain)
