import { NodeRuntime } from "@effect/platform-node"
import { DeadLetters, Queue, Queues, QueueWorker } from "@strata/queues"
import { Console, Effect, Schema } from "effect"
import { Everything } from "./database.ts"

const Mails = Queue.make({
  name: "mails",
  payload: Schema.Struct({ to: Schema.String }),
  settings: { retry: { attempts: 2, base: "100 millis", total: "1 minute" } }
})
let isMended = false
const send = ({ attempt, payload: { to } }: { readonly attempt: number; readonly payload: { readonly to: string } }) =>
  to.includes("@") || isMended
    ? Console.log(`sent to ${to}`)
    : Effect.andThen(Console.log(`try ${attempt} to reach ${to}`), Effect.fail("no address"))

Effect.gen(function*() {
  const queues = yield* Queues.Queues
  const letters = yield* DeadLetters.DeadLetters
  yield* queues.declare(Mails)
  const before = yield* queues.stats(Mails)
  yield* queues.send(Mails, [{ payload: { to: "ada@example.org" }, priority: 9 }, { payload: { to: "bob" } }])
  yield* Effect.forkScoped(QueueWorker.run(Mails, send, { concurrency: 1 }))
  yield* Effect.repeat(queues.stats(Mails), { until: ({ dead }) => dead > before.dead })
  const [group] = yield* letters.groups(Mails)
  yield* Console.log(`dead: ${group?.count} × ${group?.fingerprint}`)
  isMended = true
  yield* letters.reprocess(Mails, { fingerprint: group?.fingerprint })
  yield* Effect.repeat(queues.stats(Mails), { until: ({ done }) => done === before.done + 2 })
}).pipe(Effect.scoped, Effect.provide(Everything), NodeRuntime.runMain)
