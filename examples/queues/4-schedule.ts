import { NodeRuntime } from "@effect/platform-node"
import { Queue, Queues, QueueWorker, Schedules } from "@strata/queues"
import { Console, Deferred, Effect, Schema } from "effect"
import { Everything } from "./database.ts"

const Reports = Queue.make({ name: "reports", payload: Schema.Struct({ of: Schema.String }) })

Effect.gen(function*() {
  const queues = yield* Queues.Queues
  const schedules = yield* Schedules.Schedules
  const done = yield* Deferred.make<void>()
  yield* queues.declare(Reports)

  yield* schedules.put("nightly", { cron: "0 3 * * *", timezone: "Europe/Berlin" }, Reports, {
    payload: { of: "sales" }
  })
  // With seconds: the next one is due at once.
  yield* schedules.put("tick", { cron: "* * * * * *" }, Reports, { payload: { of: "nothing" } })

  yield* Effect.forkScoped(QueueWorker.run(Reports, ({ headers, payload }) =>
    Effect.andThen(
      Console.log(`report of ${payload.of}, by the schedule ${headers["schedule"]}`),
      Deferred.succeed(done, undefined)
    )))
  yield* Deferred.await(done)
  yield* schedules.remove("tick")
}).pipe(Effect.scoped, Effect.provide(Everything), NodeRuntime.runMain)
