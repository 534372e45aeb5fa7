import { assert, describe, it } from "@effect/vitest"
import * as Timestamp from "@strata/postgres/Timestamp"
import type * as Alert from "@strata/resilience/alerts/Alert"
import * as AlertChannel from "@strata/resilience/alerts/AlertChannel"
import * as Alerts from "@strata/resilience/alerts/Alerts"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as WebhookServer from "./webhookServer.ts"

const notification = (id: string, severity: Alert.Severity = "critical"): Alert.Notification => ({
  id,
  kind: "raised",
  alert: {
    name: "deep",
    key: "deep/orders",
    severity,
    summary: "The queue is deep",
    details: { queue: "orders", depth: 12_000 },
    count: 1,
    firstAt: Timestamp.fromMillis(0),
    lastAt: Timestamp.fromMillis(1000),
    acknowledgedBy: undefined
  }
})

/** How often a channel did this. */
const counted = (channel: string, outcome: string) =>
  Effect.map(Metric.snapshot, (snapshot) => {
    const series = snapshot.find(({ attributes, id }) =>
      id === "strata_alert_notifications_total" && attributes?.["channel"] === channel &&
      attributes["outcome"] === outcome
    )
    return series !== undefined && "count" in series.state ? Number(series.state.count) : 0
  })

/** The lines that are logged meanwhile, with their level. */
const makeLogs = () => {
  const lines: Array<string> = []
  const layer = Logger.layer([
    Logger.make(({ cause, logLevel, message }) =>
      void lines.push(`${logLevel} ${String(message)} ${JSON.stringify(cause)}`)
    )
  ])
  return { lines, layer }
}

/** The lines that are logged, one after the other. */
const makeQueuedLogs = Effect.gen(function*() {
  const lines = yield* Queue.unbounded<string>()
  const logger = Logger.make(({ cause, logLevel, message }) => {
    Queue.offerUnsafe(lines, `${logLevel} ${String(message)} ${Cause.pretty(cause)} ${JSON.stringify(cause)}`)
  })
  return { layer: Logger.layer([logger]), next: Queue.take(lines) }
})

const quick = RetryPolicy.make({ attempts: 3, base: "10 millis", total: "10 seconds", jitter: "none" })

describe("the log", () => {
  it.effect("has critical alerts as errors, warnings as such, and what is over as information", () =>
    Effect.gen(function*() {
      const { layer, lines } = makeLogs()
      const log = yield* AlertChannel.log
      yield* Effect.all([
        log.offer(notification("1", "info")),
        log.offer(notification("2", "warning")),
        log.offer(notification("3", "critical")),
        log.offer({ ...notification("4", "critical"), kind: "resolved" })
      ]).pipe(Effect.provide(layer))
      assert.deepStrictEqual(lines.map((line) => line.split(" ").slice(0, 2).join(" ")), [
        "Info INFO",
        "Warn WARNING",
        "Error CRITICAL",
        "Info RESOLVED"
      ])
    }))
})

describe("a queue before a channel", () => {
  it.effect("never makes anybody wait: what finds no room is dropped and counted, and the log says so once", () =>
    Effect.gen(function*() {
      const { layer, lines } = makeLogs()
      const gate = yield* Deferred.make<void>()
      const delivered: Array<string> = []
      const channel = yield* AlertChannel.queued({
        name: "narrow",
        capacity: 2,
        timeout: "1 hour",
        deliver: ({ id }) => Effect.andThen(Deferred.await(gate), Effect.sync(() => void delivered.push(id)))
      })
      yield* channel.offer(notification("0"))
      yield* Effect.yieldNow
      yield* Effect.forEach(["1", "2", "3", "4"], (id) => channel.offer(notification(id))).pipe(Effect.provide(layer))
      assert.deepStrictEqual([yield* counted("narrow", "dropped"), lines.length], [2, 1])
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(delivered, ["0", "1", "2"])
      yield* channel.offer(notification("5"))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([delivered.at(-1), yield* counted("narrow", "delivered")], ["5", 4])
    }))

  it.effect("delivers what is in it when the scope closes", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const delivered: Array<string> = []
      const channel = yield* AlertChannel.queued({
        name: "closing",
        deliver: ({ id }) => Effect.andThen(Effect.yieldNow, Effect.sync(() => void delivered.push(id)))
      }).pipe(Scope.provide(scope))
      yield* Effect.forEach(["0", "1", "2"], (id) => channel.offer(notification(id)))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(delivered, ["0", "1", "2"])
    }))

  it.effect("does not hold up the closing for longer than one time-out", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const channel = yield* AlertChannel.queued({
        name: "hanging",
        timeout: "5 seconds",
        deliver: () => Effect.never
      }).pipe(Scope.provide(scope))
      yield* Effect.forEach(["0", "1", "2"], (id) => channel.offer(notification(id)))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(closing)
      assert.strictEqual(yield* Clock.currentTimeMillis, 5000)
    }))

  it.effect("tries again after a time-out, gives up as its policy says, and goes on with the next", () =>
    Effect.gen(function*() {
      const { layer, lines } = makeLogs()
      const tried: Array<string> = []
      const channel = yield* AlertChannel.queued({
        name: "stuck",
        timeout: "5 seconds",
        retry: RetryPolicy.make({ attempts: 2, base: "1 second", total: "1 minute", jitter: "none" }),
        deliver: ({ id }) => Effect.andThen(Effect.sync(() => tried.push(id)), id === "0" ? Effect.never : Effect.void)
      }).pipe(Effect.provide(layer))
      yield* channel.offer(notification("0"))
      yield* channel.offer(notification("1"))
      yield* TestClock.adjust("11 seconds")
      assert.deepStrictEqual(tried, ["0", "0", "1"])
      assert.deepStrictEqual([yield* counted("stuck", "failed"), yield* counted("stuck", "delivered")], [1, 1])
      assert.include(lines.join("\n"), "Alert channel \"stuck\" could not deliver: CRITICAL deep: The queue is deep")
    }))

  it.effect("outlives a delivery that dies", () =>
    Effect.gen(function*() {
      const delivered: Array<string> = []
      const channel = yield* AlertChannel.queued({
        name: "dying",
        deliver: ({ id }) => id === "0" ? Effect.die("bug") : Effect.sync(() => void delivered.push(id))
      })
      yield* channel.offer(notification("0"))
      yield* channel.offer(notification("1"))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(delivered, ["1"])
    }))

  it.effect("tries again also when it was opened below something that retries, or has a deadline", () =>
    Effect.gen(function*() {
      let tried = 0
      const channel = yield* AlertChannel.queued({
        name: "nested",
        retry: quick,
        deliver: () => Effect.suspend(() => ++tried < 3 ? Effect.fail("down") : Effect.void),
        classify: () => ({ _tag: "Transient" })
      }).pipe(Effect.provideService(RetryPolicy.Retrying, "everything"))
      yield* channel.offer(notification("0"))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(tried, 3)
    }))
})

describe("a webhook", () => {
  const open = (options: Omit<AlertChannel.WebhookOptions, "retry">) =>
    AlertChannel.webhook({ ...options, retry: quick }).pipe(Effect.provide(FetchHttpClient.layer))

  it.live("posts the notification as JSON, with its id against doubles and the headers it was given", () =>
    Effect.gen(function*() {
      const server = yield* WebhookServer.make(() => WebhookServer.status(204))
      const channel = yield* open({ url: Redacted.make(server.url), headers: { authorization: "Bearer key" } })
      yield* channel.offer(notification("n1"))
      const { body, headers } = yield* server.next
      assert.deepStrictEqual(body, {
        id: "n1",
        kind: "raised",
        text: "CRITICAL deep: The queue is deep",
        name: "deep",
        key: "deep/orders",
        severity: "critical",
        summary: "The queue is deep",
        details: { queue: "orders", depth: 12_000 },
        count: 1,
        firstAt: "1970-01-01T00:00:00.000000Z",
        lastAt: "1970-01-01T00:00:01.000000Z",
        acknowledgedBy: null
      })
      assert.deepInclude(headers, {
        "idempotency-key": "n1",
        authorization: "Bearer key",
        "content-type": "application/json"
      })
      assert.isUndefined(headers["traceparent"])
    }))

  it.live("tries again after an answer that says it may, with the same id", () =>
    Effect.gen(function*() {
      const server = yield* WebhookServer.make((request) => WebhookServer.status([500, 408][request - 1] ?? 200))
      const channel = yield* open({ url: server.url })
      yield* channel.offer(notification("n1"))
      yield* channel.offer(notification("n2"))
      const ids = yield* Effect.replicateEffect(Effect.map(server.next, ({ headers }) => headers["idempotency-key"]), 4)
      assert.deepStrictEqual(ids, ["n1", "n1", "n1", "n2"])
    }))

  it.live("does not try again what is refused, and goes on with the next", () =>
    Effect.gen(function*() {
      const { next, layer } = yield* makeQueuedLogs
      const server = yield* WebhookServer.make((request) => WebhookServer.status(request === 1 ? 400 : 200))
      const channel = yield* Effect.provide(open({ url: server.url }), layer)
      yield* channel.offer(notification("n1"))
      yield* channel.offer(notification("n2"))
      assert.include(yield* next, "it answered 400")
      yield* server.next
      assert.strictEqual((yield* server.next).headers["idempotency-key"], "n2")
      assert.strictEqual(server.requests(), 2)
    }))

  it.live("comes back no sooner than it is told to", () =>
    Effect.gen(function*() {
      const server = yield* WebhookServer.make((request) =>
        request === 1 ? WebhookServer.status(429, { "retry-after": "1" }) : WebhookServer.status(200)
      )
      const channel = yield* open({ url: server.url })
      yield* channel.offer(notification("n1"))
      yield* server.next
      const refused = yield* Clock.currentTimeMillis
      yield* server.next
      assert.isAtLeast((yield* Clock.currentTimeMillis) - refused, 900)
    }))

  it.live("that never answers does not hold up whoever raises alerts, nor the log", () =>
    Effect.gen(function*() {
      const server = yield* WebhookServer.make(() => Effect.never)
      const { layer, lines } = makeLogs()
      const webhook = Alerts.layerWebhook({
        name: "silent",
        url: server.url,
        timeout: "100 millis",
        capacity: 10,
        retry: quick
      })
      yield* Effect.gen(function*() {
        const alerts = yield* Alerts.Alerts
        for (let n = 0; n < 500; n++) {
          yield* alerts.raise({ name: "deep", key: `deep/${n}`, severity: "critical", summary: "The queue is deep" })
        }
        assert.strictEqual(lines.filter((line) => line.startsWith("Error CRITICAL")).length, 500)
        assert.isAtLeast(yield* counted("silent", "dropped"), 450)
        yield* server.next
      }).pipe(Effect.provide(Layer.provideMerge(Layer.provide(webhook, FetchHttpClient.layer), layer)))
    }))

  it.live("keeps its address to itself when it cannot be reached, or has none", () =>
    Effect.gen(function*() {
      const server = yield* WebhookServer.make(() => WebhookServer.status(500))
      for (const url of ["http://127.0.0.1:1/secret-hook", "no url, secret-hook", server.url]) {
        const { next, layer } = yield* makeQueuedLogs
        const channel = yield* Effect.provide(open({ url }), layer)
        yield* channel.offer(notification("n1"))
        const line = yield* next
        assert.include(line, "The webhook did not take the notification")
        assert.notInclude(line, "secret-hook")
      }
    }))
})
