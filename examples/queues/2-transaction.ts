import { NodeRuntime } from "@effect/platform-node"
import { Postgres } from "@strata/postgres"
import { Inbox, type Message, Queue, Queues, QueueWorker } from "@strata/queues"
import { Console, Effect, Schema } from "effect"
import { Everything } from "./database.ts"

const Invoices = Queue.make({ name: "invoices", payload: Schema.Struct({ order: Schema.Int }) })

Effect.gen(function*() {
  const { sql, transact } = yield* Postgres.Postgres
  const queues = yield* Queues.Queues
  yield* queues.declare(Invoices)
  const before = yield* queues.stats(Invoices)
  yield* sql`create table if not exists invoice ("order" int)`
  yield* sql`truncate invoice`

  // The message is sent with the transaction, or not at all.
  yield* transact(Effect.andThen(queues.send(Invoices, [{ payload: { order: 1 } }]), Effect.fail("no"))).pipe(
    Effect.ignore
  )
  yield* transact(queues.send(Invoices, [{ payload: { order: 2 } }]))

  // That it was handled is written with what the handler writes, so a message that comes twice is handled once.
  const write = (message: Message.Message<{ readonly order: number }>) =>
    Inbox.once("invoicing", message)(sql`insert into invoice ("order") values (${message.payload.order})`)
  yield* Effect.forkScoped(QueueWorker.run(Invoices, write))
  yield* Effect.repeat(queues.stats(Invoices), { until: ({ done }) => done > before.done })
  const invoices = yield* sql<{ order: number }>`select "order" from invoice`
  yield* Console.log(`invoices of the orders ${invoices.map(({ order }) => order).join(", ")}`)
}).pipe(Effect.scoped, Effect.provide(Everything), NodeRuntime.runMain)
