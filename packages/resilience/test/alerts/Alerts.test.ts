import { assert, describe, it } from "@effect/vitest"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Alert from "@strata/resilience/alerts/Alert"
import * as AlertChannel from "@strata/resilience/alerts/AlertChannel"
import * as AlertPolicy from "@strata/resilience/alerts/AlertPolicy"
import * as Alerts from "@strata/resilience/alerts/Alerts"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Arr from "effect/Array"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import * as TestClock from "effect/testing/TestClock"
import * as WebhookServer from "./webhookServer.ts"

/** A channel that keeps what it is given as `kind` and count. */
const makeChannel = (name: string) => {
  const told: Array<string> = []
  const opening: AlertChannel.Opening = Effect.succeed({
    name,
    offer: ({ alert, kind }) => Effect.sync(() => void told.push(`${kind} ${alert.key} ${alert.count}`))
  })
  return { told, opening }
}

const policy = (options: AlertPolicy.Options) => Result.getOrThrow(AlertPolicy.make(options))

const alert = (options: Partial<Alert.Alert> = {}): Alert.Alert => ({
  name: "deep",
  severity: "warning",
  summary: "The queue is deep",
  ...options
})

/** Alerts that tell one channel. */
const single = Effect.fnUntraced(function*(options: AlertPolicy.Options = {}) {
  const { opening, told } = makeChannel("only")
  const alerts = yield* Alerts.make({ channels: [opening], policy: policy(options) })
  return { alerts, told }
})

/** Alerts that tell a room at once, and the others when nobody acknowledges. */
const escalating = Effect.gen(function*() {
  const [room, pager, boss] = [makeChannel("room"), makeChannel("pager"), makeChannel("boss")]
  const alerts = yield* Alerts.make({
    channels: [room.opening, pager.opening, boss.opening],
    policy: policy({
      steps: [
        { channels: ["room"] },
        { after: "5 minutes", channels: ["pager"] },
        { after: "15 minutes", channels: ["boss"], severity: "critical" }
      ]
    })
  })
  return { alerts, room: room.told, pager: pager.told, boss: boss.told }
})

describe("an alert", () => {
  it.effect("is told once, however often it is raised, and then as one summary", () =>
    Effect.gen(function*() {
      const { alerts, told } = yield* single()
      yield* Effect.replicateEffect(alerts.raise(alert()), 50)
      assert.deepStrictEqual(told, ["raised deep 1"])
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(told.length, 1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(told, ["raised deep 1", "summary deep 50"])
    }))

  it.effect("has no summary when it was raised only once", () =>
    Effect.gen(function*() {
      const { alerts, told } = yield* single()
      yield* alerts.raise(alert())
      yield* TestClock.adjust("59 minutes")
      assert.deepStrictEqual(told, ["raised deep 1"])
    }))

  it.effect("is told again only after repeatAfter, while it is active", () =>
    Effect.gen(function*() {
      const { alerts, told } = yield* single({ repeatAfter: "1 hour" })
      yield* alerts.raise(alert())
      yield* TestClock.adjust("2 minutes")
      yield* Effect.replicateEffect(alerts.raise(alert()), 9)
      yield* TestClock.adjust("57 minutes")
      assert.deepStrictEqual(told, ["raised deep 1"])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(told, ["raised deep 1", "repeated deep 10"])
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(told.length, 4)
      yield* alerts.resolve("deep")
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(told.slice(4), ["resolved deep 10"])
    }))

  it.effect("is another one when its key is another", () =>
    Effect.gen(function*() {
      const { alerts, told } = yield* single()
      yield* alerts.raise(alert({ key: "deep/a" }))
      yield* alerts.raise(alert({ key: "deep/b" }))
      assert.deepStrictEqual(told, ["raised deep/a 1", "raised deep/b 1"])
    }))

  it.effect("is a new one after it was resolved", () =>
    Effect.gen(function*() {
      const { alerts, told } = yield* single()
      yield* alerts.raise(alert())
      yield* alerts.resolve("deep")
      yield* alerts.resolve("deep")
      yield* alerts.raise(alert())
      assert.deepStrictEqual(told, ["raised deep 1", "resolved deep 1", "raised deep 1"])
    }))

  it.effect("is told at once when it gets worse, and not when it gets better", () =>
    Effect.gen(function*() {
      const { alerts, told } = yield* single()
      yield* alerts.raise(alert())
      yield* alerts.raise(alert({ severity: "critical" }))
      yield* alerts.raise(alert({ severity: "info", summary: "Better" }))
      yield* alerts.raise(alert({ severity: "critical" }))
      assert.deepStrictEqual(told, ["raised deep 1", "raised deep 2"])
      assert.deepStrictEqual((yield* alerts.active).map(({ severity }) => severity), ["critical"])
    }))

  it.effect("resolves itself when it was not raised again for as long as it lasts", () =>
    Effect.gen(function*() {
      const { alerts, told } = yield* single()
      yield* alerts.raise(alert({ expireAfter: "10 minutes" }))
      yield* TestClock.adjust("9 minutes")
      yield* alerts.raise(alert({ expireAfter: "10 minutes" }))
      yield* TestClock.adjust("9 minutes")
      assert.strictEqual((yield* alerts.active).length, 1)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* alerts.active, [])
      assert.deepStrictEqual(told, ["raised deep 1", "resolved deep 2"])
    }))

  it.effect("says how often and since when", () =>
    Effect.gen(function*() {
      const { alerts } = yield* single()
      yield* TestClock.adjust("1 minute")
      yield* alerts.raise(alert({ details: { queue: "orders" } }))
      yield* TestClock.adjust("1 minute")
      yield* alerts.raise(alert({ details: { queue: "orders" }, summary: "Deeper" }))
      const [active] = yield* alerts.active
      assert.deepStrictEqual(active, {
        name: "deep",
        key: "deep",
        severity: "warning",
        summary: "Deeper",
        details: { queue: "orders" },
        count: 2,
        firstAt: Timestamp.fromMillis(60_000),
        lastAt: Timestamp.fromMillis(120_000),
        acknowledgedBy: undefined
      })
    }))
})

describe("an escalation", () => {
  it.effect("tells the next ones when nobody acknowledges, and from then on all of them", () =>
    Effect.gen(function*() {
      const { alerts, boss, pager, room } = yield* escalating
      yield* alerts.raise(alert({ severity: "critical" }))
      assert.deepStrictEqual([room, pager, boss], [["raised deep 1"], [], []])
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual([pager, boss], [["escalated deep 1"], []])
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(boss, ["escalated deep 1"])
      yield* TestClock.adjust("45 minutes")
      yield* alerts.resolve("deep")
      assert.deepStrictEqual(room, ["raised deep 1", "repeated deep 1", "resolved deep 1"])
      for (const later of [pager, boss]) {
        assert.deepStrictEqual(later, ["escalated deep 1", "repeated deep 1", "resolved deep 1"])
      }
    }))

  it.effect("stops when somebody acknowledges, as do repetitions, but all are told that it is over", () =>
    Effect.gen(function*() {
      const { alerts, boss, pager, room } = yield* escalating
      yield* alerts.raise(alert({ severity: "critical" }))
      yield* TestClock.adjust("6 minutes")
      assert.isTrue(yield* alerts.acknowledge("deep", { actor: "ada" }))
      yield* TestClock.adjust("1 day")
      yield* alerts.raise(alert({ severity: "critical" }))
      assert.deepStrictEqual((yield* alerts.active).map(({ acknowledgedBy }) => acknowledgedBy), ["ada"])
      yield* alerts.resolve("deep")
      assert.deepStrictEqual(room, ["raised deep 1", "resolved deep 2"])
      assert.deepStrictEqual(pager, ["escalated deep 1", "resolved deep 2"])
      assert.deepStrictEqual(boss, [])
    }))

  it.effect("leaves out steps for alerts that are more severe", () =>
    Effect.gen(function*() {
      const { alerts, boss, pager } = yield* escalating
      yield* alerts.raise(alert())
      yield* TestClock.adjust("59 minutes")
      assert.deepStrictEqual([pager, boss], [["escalated deep 1"], []])
    }))

  it.effect("begins anew when the alert gets worse, also after somebody acknowledged it", () =>
    Effect.gen(function*() {
      const { alerts, boss, pager, room } = yield* escalating
      yield* alerts.raise(alert())
      yield* alerts.acknowledge("deep", { actor: "ada" })
      yield* TestClock.adjust("30 minutes")
      yield* alerts.raise(alert({ severity: "critical" }))
      assert.deepStrictEqual([room, pager, boss], [["raised deep 1", "raised deep 2"], [], []])
      yield* TestClock.adjust("15 minutes")
      assert.deepStrictEqual([pager, boss], [["escalated deep 2"], ["escalated deep 2"]])
    }))

  it.effect("tells at once, when the alert gets worse, also those who were told later", () =>
    Effect.gen(function*() {
      const { alerts, pager } = yield* escalating
      yield* alerts.raise(alert())
      yield* TestClock.adjust("6 minutes")
      yield* alerts.raise(alert({ severity: "critical" }))
      assert.deepStrictEqual(pager, ["escalated deep 1", "raised deep 2"])
    }))

  it.effect("has nobody to acknowledge for when there is no such alert", () =>
    Effect.gen(function*() {
      const { alerts } = yield* escalating
      assert.isFalse(yield* alerts.acknowledge("deep", { actor: "ada" }))
    }))
})

describe("when there is no room for one more alert", () => {
  it.effect("the oldest of the least severe makes room", () =>
    Effect.gen(function*() {
      const { alerts } = yield* single({ capacity: 3 })
      yield* alerts.raise(alert({ key: "a", severity: "critical" }))
      yield* alerts.raise(alert({ key: "b" }))
      yield* alerts.raise(alert({ key: "c" }))
      yield* alerts.raise(alert({ key: "b" }))
      yield* alerts.raise(alert({ key: "d" }))
      assert.deepStrictEqual((yield* alerts.active).map(({ key }) => key), ["a", "c", "d"])
    }))

  it.effect("one that matters less than all others is left out, and counted", () =>
    Effect.gen(function*() {
      const { alerts, told } = yield* single({ capacity: 1 })
      yield* alerts.raise(alert({ key: "a", severity: "critical" }))
      yield* alerts.raise(alert({ key: "b", severity: "info" }))
      assert.deepStrictEqual(told, ["raised a 1"])
      const series = (yield* Metric.snapshot).find(({ attributes, id }) =>
        id === "strata_alerts_displaced_total" && attributes?.["severity"] === "info"
      )
      assert.isTrue(series !== undefined && "count" in series.state && Number(series.state.count) >= 1)
    }))

  it.effect("there are never more than there may be, and the worst stay, whatever is raised", () =>
    SeededScheduler.forEachSeed(50, (seed) =>
      Effect.gen(function*() {
        const { alerts } = yield* single({ capacity: 5 })
        const next = SeededScheduler.random(seed)
        const raised = Arr.makeBy(100, () => ({
          key: `k${Math.floor(next() * 20)}`,
          severity: Alert.severities[Math.floor(next() * 3)]!
        }))
        yield* Effect.forEach(raised, (options) => alerts.raise(alert(options)), { concurrency: 8, discard: true })
        const active = yield* alerts.active
        assert.isAtMost(active.length, 5)
        const severe = new Set(raised.filter(({ severity }) => severity === "critical").map(({ key }) => key)).size
        const kept = active.filter(({ severity }) => severity === "critical").length
        assert.isAtMost(kept, severe)
        const ranks = active.map(({ severity }) => Alert.severities.indexOf(severity))
        assert.deepStrictEqual(ranks, ranks.toSorted((a, b) => b - a))
      }).pipe(Effect.scoped)))
})

describe("whatever happens to alerts", () => {
  it.effect(
    "every raise is counted, and one key is never told more often than its policy says",
    () =>
      SeededScheduler.forEachSeed(30, (seed) =>
        Effect.gen(function*() {
          const { alerts, told } = yield* single({ groupWindow: "10 seconds", repeatAfter: "1 minute" })
          const next = SeededScheduler.random(seed)
          let raised = 0
          for (let second = 0; second < 300; second++) {
            const times = Math.floor(next() * 4)
            raised += times
            yield* Effect.replicateEffect(alerts.raise(alert()), times, { concurrency: 4 })
            yield* TestClock.adjust("1 second")
          }
          // One at the beginning, one summary, and one each minute after it.
          assert.isAtMost(told.length, 7, told.join("\n"))
          assert.isAtLeast(told.length, 5)
          assert.deepStrictEqual((yield* alerts.active).map(({ count }) => count), [raised])
          yield* alerts.resolve("deep")
          const counts = told.map((line) => Number(line.split(" ")[2]))
          assert.deepStrictEqual(counts, counts.toSorted((a, b) => a - b))
        }).pipe(Effect.scoped)),
    20_000
  )
})

describe("a channel that breaks", () => {
  it.effect("is not the business of whoever raises an alert, nor of other channels", () =>
    Effect.gen(function*() {
      const { opening, told } = makeChannel("whole")
      const broken: AlertChannel.Opening = Effect.succeed({ name: "broken", offer: () => Effect.die("broken") })
      const alerts = yield* Alerts.make({ channels: [broken, opening] })
      yield* alerts.raise(alert())
      assert.deepStrictEqual(told, ["raised deep 1"])
    }))
})

describe("a policy is refused", () => {
  const table: ReadonlyArray<readonly [what: string, options: AlertPolicy.Options, problem: string]> = [
    [
      "when a step comes sooner than the one before it",
      { steps: [{ after: "5 minutes", channels: ["a"] }, { after: "4 minutes", channels: ["b"] }] },
      "step 2 comes after 4m, which is sooner than the step before it"
    ],
    ["when a step never comes", { steps: [{ after: "Infinity", channels: ["a"] }] }, "step 1 comes after Infinity"],
    ["when a step tells nobody", { steps: [{ channels: [] }] }, "step 1 names no channel"],
    [
      "when its window has no length",
      { groupWindow: 0 },
      "its groupWindow is 0: expected a time above zero"
    ],
    [
      "when it repeats within its window",
      { groupWindow: "1 hour", repeatAfter: "1 hour" },
      "its repeatAfter is 1h: expected more than the groupWindow of 1h"
    ],
    ["when no alert may be active", { capacity: 0 }, "its capacity is 0: expected 1 or more"]
  ]
  for (const [what, options, problem] of table) {
    it(what, () => {
      const made = AlertPolicy.make(options)
      assert.strictEqual(
        Result.isFailure(made) ? made.failure.message : "no error",
        `The alert policy cannot be used: ${problem}`
      )
    })
  }

  it.effect("when it names a channel that is not there, and when two have one name, or there is none", () =>
    Effect.gen(function*() {
      const [one, same] = [makeChannel("one"), makeChannel("one")]
      const steps = policy({ steps: [{ channels: ["one"] }, { after: 1, channels: ["two"] }] })
      const unknown = yield* Effect.flip(Alerts.make({ channels: [one.opening], policy: steps }))
      assert.include(unknown.message, "step 2 names \"two\", expected \"one\"")
      const twice = yield* Effect.flip(Alerts.make({ channels: [one.opening, same.opening] }))
      assert.include(twice.message, "two channels are named \"one\"")
      const none = yield* Effect.flip(Alerts.make({ channels: [] }))
      assert.include(none.message, "there is no channel to tell")
    }))
})

describe("the memory of alerts", () => {
  it.effect("shows tests what was told, each notification with an id of its own", () =>
    Effect.gen(function*() {
      const alerts = yield* Alerts.Alerts
      yield* alerts.raise(alert())
      yield* alerts.resolve("deep")
      const notifications = yield* Effect.flatMap(AlertChannel.Memory, ({ notifications }) => notifications)
      assert.deepStrictEqual(notifications.map(Alert.format), [
        "WARNING deep: The queue is deep",
        "RESOLVED deep: The queue is deep"
      ])
      assert.strictEqual(new Set(notifications.map(({ id }) => id)).size, 2)
    }).pipe(Effect.provide(Layer.fresh(Alerts.layerMemory))))
})

describe("the configuration of alerts", () => {
  const built = (env: Record<string, string>) =>
    Layer.build(Alerts.layerConfig).pipe(
      Effect.provide(FetchHttpClient.layer),
      Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))
    )

  it.effect("needs nothing to be set", () =>
    Effect.gen(function*() {
      const alerts = Context.get(yield* built({}), Alerts.Alerts)
      yield* alerts.raise(alert({ severity: "info" }))
      assert.strictEqual((yield* alerts.active).length, 1)
    }))

  it.effect("refuses numbers that make no sense, by name", () =>
    Effect.gen(function*() {
      const window = yield* Effect.flip(built({ STRATA_ALERTS_REPEAT_AFTER: "10 seconds" }))
      assert.include(window.message, "its repeatAfter is 10s: expected more than the groupWindow of 1m")
      const severity = yield* Effect.flip(built({ STRATA_ALERTS_WEBHOOK_SEVERITY: "bad" }))
      assert.include(severity.message, "STRATA_ALERTS_WEBHOOK_SEVERITY")
    }))

  it.live("posts to a webhook what is severe enough", () =>
    Effect.gen(function*() {
      const server = yield* WebhookServer.make(() => WebhookServer.status(200))
      const context = yield* built({
        STRATA_ALERTS_WEBHOOK: server.url,
        STRATA_ALERTS_WEBHOOK_SEVERITY: "critical"
      })
      const alerts = Context.get(context, Alerts.Alerts)
      yield* alerts.raise(alert({ key: "a" }))
      yield* alerts.raise(alert({ key: "b", severity: "critical" }))
      assert.deepInclude((yield* server.next).body, { key: "b" })
    }).pipe(Effect.provide(Logger.layer([]))))
})
