import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as QueuePolicies from "@strata/queues/QueuePolicies"
import * as Queues from "@strata/queues/Queues"
import * as Schedules from "@strata/queues/Schedules"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Database, declared } from "./fixture.ts"

// What is due is sent when a test says so.
const Manual = Layer.succeed(QueuePolicies.QueuePolicies, {
  ...QueuePolicies.defaults,
  upkeep: Duration.hours(1)
})

const set = (name: string, ago: string) =>
  Effect.flatMap(
    Postgres,
    ({ sql }) =>
      sql`update queue_schedule set next_at = date_trunc('minute', clock_timestamp()) - ${ago}::interval where name = ${name}`
  )

layer(Schedules.layer.pipe(Layer.provideMerge(Database), Layer.provide(Manual)), { excludeTestServices: true })(
  "a schedule",
  (it) => {
    it.effect("sends its message once over all who look at the same time, and says for which time", () =>
      Effect.gen(function*() {
        const queues = yield* Queues.Queues
        const schedules = yield* Schedules.Schedules
        const queue = yield* declared("nightly")
        yield* schedules.put("report", { cron: "0 3 * * *", timezone: "Europe/Berlin" }, queue, { payload: { n: 7 } })
        strictEqual(yield* schedules.fire, 0)
        yield* set("report", "1 second")
        const counts = yield* Effect.forEach(Array.from({ length: 5 }), () => schedules.fire, {
          concurrency: "unbounded"
        })
        strictEqual(counts.reduce((sum, count) => sum + count, 0), 1)
        const [message] = yield* queues.browse(queue)
        deepStrictEqual(message?.payload, { n: 7 })
        strictEqual(message?.headers["schedule"], "report")
        const [stored] = yield* schedules.all
        strictEqual(stored!.nextAt! > stored!.lastAt!, true)
        strictEqual(
          new Intl.DateTimeFormat("en", { hour: "numeric", hourCycle: "h23", timeZone: "Europe/Berlin" }).format(
            Timestamp.toMillis(stored!.nextAt!)
          ),
          "03"
        )
      }))

    it.effect("leaves out what was missed, or makes up for it once, or for all of it", () =>
      Effect.gen(function*() {
        const queues = yield* Queues.Queues
        const schedules = yield* Schedules.Schedules
        for (const [missed, count] of [["skip", 0], ["once", 1], ["all", 4]] as const) {
          const queue = yield* declared(`missed-${missed}`)
          yield* schedules.put(missed, { cron: "0 * * * *", missed }, queue, { payload: { n: 1 } })
          yield* Effect.flatMap(Postgres, ({ sql }) =>
            sql`update queue_schedule
              set next_at = date_trunc('hour', clock_timestamp() - interval '5 minutes') - interval '3 hours'
              where name = ${missed}`)
          yield* schedules.fire
          const { ready } = yield* queues.stats(queue)
          // About the full hour there is one time more or less to make up for.
          strictEqual(Math.abs(ready - count) <= 1, true, `${missed}: ${ready}`)
        }
      }))

    it.effect("that is for one time fires once, and not while it is paused", () =>
      Effect.gen(function*() {
        const queues = yield* Queues.Queues
        const schedules = yield* Schedules.Schedules
        const queue = yield* declared("one-off")
        yield* schedules.put("one", { at: Timestamp.fromMillis(0) }, queue, { payload: { n: 1 } })
        strictEqual(yield* schedules.setPaused("one", true), true)
        yield* schedules.fire
        strictEqual((yield* queues.stats(queue)).sent, 0)
        yield* schedules.setPaused("one", false)
        yield* schedules.fire
        yield* schedules.fire
        strictEqual((yield* queues.stats(queue)).sent, 1)
        strictEqual(yield* schedules.remove("one"), true)
        strictEqual(yield* schedules.remove("one"), false)
      }))

    it.effect("that makes no sense is refused by the field", () =>
      Effect.gen(function*() {
        const schedules = yield* Schedules.Schedules
        const queue = yield* declared("refused")
        const put = (when: Schedules.When) =>
          Effect.map(Effect.flip(schedules.put("x", when, queue, { payload: { n: 1 } })), ({ message }) =>
            message.split(":")[0])
        strictEqual(yield* put({ cron: "every day" }), "cron")
        strictEqual(yield* put({ cron: "0 0 * * *", timezone: "Mars/Olympus" }), "timezone")
      }))
  }
)
