import { assert, describe, it } from "@effect/vitest"
import * as Alert from "@strata/resilience/alerts/Alert"
import * as AlertChannel from "@strata/resilience/alerts/AlertChannel"
import * as AlertRules from "@strata/resilience/alerts/AlertRules"
import * as Alerts from "@strata/resilience/alerts/Alerts"
import * as AlertWatch from "@strata/resilience/alerts/AlertWatch"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"

/** Runs a test under a watch of the standard rules, with the standard interval. */
const watching = <E>(
  sampler: Effect.Effect<ReadonlyArray<AlertRules.Sample>, string>,
  test: Effect.Effect<void, E, Alerts.Alerts | AlertChannel.Memory>
) =>
  Effect.provide(
    test,
    AlertWatch.layer(AlertRules.standard, sampler).pipe(Layer.provideMerge(Layer.fresh(Alerts.layerMemory)))
  )

const told = Effect.flatMap(
  AlertChannel.Memory,
  ({ notifications }) => Effect.map(notifications, (notifications) => notifications.map(Alert.format))
)

describe("a watch", () => {
  it.effect("raises an alert when a value is too large for too long, makes it worse, and resolves it", () => {
    let depth = 6000
    const sampler = Effect.sync(() => [{ signal: "queue_depth", subject: "orders", value: depth }])
    return watching(
      sampler,
      Effect.gen(function*() {
        yield* TestClock.adjust("50 seconds")
        assert.deepStrictEqual(yield* told, [])
        yield* TestClock.adjust("10 seconds")
        depth = 12_000
        yield* TestClock.adjust("70 seconds")
        depth = 10
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(yield* told, [
          "WARNING queue_depth: queue_depth of orders is 6000, above 5000 for 1m",
          "CRITICAL queue_depth: queue_depth of orders is 12000, above 10000 for 1m",
          "RESOLVED queue_depth: queue_depth of orders is 12000, above 10000 for 1m"
        ])
      })
    )
  })

  it.effect("raises one alert for each subject", () => {
    const sampler = Effect.succeed(["orders", "mails", "calm"].map((subject) => ({
      signal: "queue_depth",
      subject,
      value: subject === "calm" ? 1 : 20_000
    })))
    return watching(
      sampler,
      Effect.gen(function*() {
        yield* TestClock.adjust("10 minutes")
        const { active } = yield* Alerts.Alerts
        assert.deepStrictEqual((yield* active).map(({ count, details, key }) => ({ count, details, key })), [
          { count: 1, details: { subject: "orders" }, key: "queue_depth/orders" },
          { count: 1, details: { subject: "mails" }, key: "queue_depth/mails" }
        ])
      })
    )
  })

  it.effect("is itself an alert while it cannot sample, keeps what it knew, and goes on when it can", () => {
    let sampler: Effect.Effect<ReadonlyArray<AlertRules.Sample>, string> = Effect.succeed([
      { signal: "queue_depth", value: 6000 }
    ])
    return watching(
      Effect.suspend(() => sampler),
      Effect.gen(function*() {
        const { active } = yield* Alerts.Alerts
        const names = Effect.map(active, (active) => active.map(({ name }) => name))
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(yield* names, ["queue_depth"])
        const working = sampler
        for (const broken of [Effect.fail("no database"), Effect.die("bug"), Effect.never]) {
          sampler = broken
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(yield* names, ["queue_depth", "alert_rules_blind"])
          sampler = working
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(yield* names, ["queue_depth"])
        }
        assert.strictEqual((yield* told).filter((line) => line.startsWith("WARNING alert_rules_blind")).length, 3)
      })
    )
  })
})
