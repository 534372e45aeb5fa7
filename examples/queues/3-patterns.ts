import { NodeRuntime } from "@effect/platform-node"
import { Queue, Queues, QueueWorker, RequestReply, Router, ScatterGather } from "@strata/queues"
import { Console, Effect, Layer, Schema } from "effect"
import { Everything } from "./database.ts"

const Article = Schema.Struct({ article: Schema.String })
const Offer = Schema.Struct({ cents: Schema.Int })
const queueOf = (name: string) => Queue.make({ name, payload: Article })
const [Near, Far, Orders, Books, Rest] = ["near", "far", "orders", "books", "rest"].map(queueOf)

const seller = (queue: typeof Near, cents: number) =>
  QueueWorker.layer(queue!, RequestReply.replying(Offer, () => Effect.succeed({ cents })))
const Sellers = Layer.merge(seller(Near, 250), seller(Far, 199))
const Sorting = Router.layer(Orders!, [{ when: Router.header("kind", "book"), to: Books! }], { otherwise: Rest! })

Effect.gen(function*() {
  const queues = yield* Queues.Queues
  for (const queue of [Near, Far, Orders, Books, Rest]) yield* queues.declare(queue!)
  const question = { payload: { article: "lamp" } }
  const options = { reply: Offer, timeout: "5 seconds" } as const

  const { cents } = yield* RequestReply.ask(Near!, question, options)
  yield* Console.log(`the one next door asks for ${cents}`)

  const { answers } = yield* ScatterGather.ask([Near!, Far!], question, options)
  yield* Console.log(`the best offer is ${Math.min(...Array.from(answers.values(), ({ cents }) => cents))}`)

  const before = yield* queues.stats(Orders!)
  yield* queues.send(Orders!, [
    { payload: { article: "atlas" }, headers: { kind: "book" } },
    { payload: { article: "lamp" } }
  ])
  yield* Effect.repeat(queues.stats(Orders!), { until: ({ done }) => done === before.done + 2 })
  for (const queue of [Books!, Rest!]) {
    yield* Console.log(`${queue.name}: ${(yield* queues.browse(queue)).map(({ payload }) => JSON.stringify(payload))}`)
    yield* queues.purge(queue)
  }
}).pipe(
  Effect.scoped,
  Effect.provide(Layer.merge(Sellers, Sorting).pipe(Layer.provideMerge(Everything))),
  NodeRuntime.runMain
)
