import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as Server from "@strata/server/Server"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as OsProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import NodeProcess from "node:process"
import { fileURLToPath } from "node:url"
import * as OtlpReceiver from "./otlpReceiver.ts"
import { conversation, send, someoneWaits, soon } from "./testServer.ts"
import * as WebhookServer from "./webhookServer.ts"

const program = new URL("../src/main.ts", import.meta.url)
const apiKey = "0123456789abcdef"

/** Starts the process on the test's database and waits until it serves. */
const start = Effect.fnUntraced(function*(env: Readonly<Record<string, string>> = {}) {
  const url = yield* PostgresTest.url
  const child = yield* ChildProgram.start(program, {
    env: {
      PORT: "0",
      DATABASE_URL: url,
      STRATA_DATABASE_POOL: "4",
      STRATA_API_KEY: apiKey,
      STRATA_LOG_FORMAT: "json",
      ...env
    }
  })
  const line = yield* child.waitFor((line) => line.includes("serves at"))
  const address = /http:\/\/[\d.:]+/.exec(line)?.[0]
  assert.isString(address)
  return { child, address: address!, send: send(address!) }
})

/** Runs a process that is expected to end by itself. */
const refuse = (env: Readonly<Record<string, string>>) =>
  ChildProgram.run(program, { env: { STRATA_API_KEY: undefined, ...env } }).pipe(Effect.timeout("20 seconds"))

const services = Layer.mergeAll(
  PostgresTest.layer({ migrations: Server.migrations }),
  NodeServices.layer,
  NodeHttpClient.layerUndici
)

layer(services, { excludeTestServices: true })("the process", (it) => {
  it.effect("starts, serves, and ends with 0 after SIGTERM", () =>
    Effect.gen(function*() {
      const { child, send } = yield* start()
      assert.strictEqual((yield* send("GET", "/health", { key: null })).json.status, "UP")
      assert.strictEqual((yield* send("GET", "/api/v1/session", { key: apiKey })).json.subject, "admin")
      yield* child.terminate
      assert.strictEqual(yield* child.exitCode, 0)
    }))

  it.effect("ends with 0 when the process of npm start is told to", () =>
    Effect.gen(function*() {
      const url = yield* PostgresTest.url
      const address = yield* Deferred.make<string>()
      const npm = yield* OsProcess.make("npm", ["start"], {
        cwd: fileURLToPath(new URL("../../..", import.meta.url)),
        env: { PORT: "0", DATABASE_URL: Redacted.value(url), STRATA_API_KEY: apiKey, STRATA_LOG_FORMAT: "json" },
        extendEnv: true,
        stdin: "ignore"
      })
      // What is left of it is in its process group.
      yield* Effect.addFinalizer(() => Effect.ignore(Effect.try(() => NodeProcess.kill(-npm.pid, "SIGKILL"))))
      yield* npm.stdout.pipe(
        Stream.decodeText(),
        Stream.splitLines,
        Stream.runForEach((line) => {
          const found = /serves at (http:\/\/[\d.:]+)/.exec(line)?.[1]
          return found === undefined ? Effect.void : Deferred.succeed(address, found)
        }),
        Effect.ignore,
        Effect.forkScoped
      )
      const live = HttpClient.get(`${yield* Deferred.await(address)}/health/live`)
      assert.strictEqual((yield* live).status, 200)
      NodeProcess.kill(npm.pid, "SIGTERM")
      assert.strictEqual(yield* npm.exitCode, 0)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(live)))
    }), 60_000)

  it.effect("a second signal ends it at once, whatever is still under way", () =>
    Effect.gen(function*() {
      const { address, child, send } = yield* start()
      const { sql, transact } = yield* Postgres
      yield* transact(Effect.gen(function*() {
        yield* sql`lock table fact in exclusive mode`
        yield* Effect.forkChild(send("POST", "/api/v1/conversations", { key: apiKey, body: conversation("stuck") }))
        yield* someoneWaits
        yield* child.terminate
        const refused = Effect.exit(HttpClient.get(`${address}/health/live`))
        yield* Effect.repeat(refused, { until: Exit.isFailure, schedule: soon })
        // Signals close together count as one, so it is sent until one comes late enough.
        yield* Effect.forkChild(Effect.repeat(Effect.exit(child.terminate), Schedule.spaced("200 millis")))
        assert.strictEqual(yield* child.exitCode, 130)
      }))
    }))

  it.effect("a trace runs from the caller through the request and the append to the projections", () =>
    Effect.gen(function*() {
      const receiver = yield* OtlpReceiver.make
      const { child, send } = yield* start({
        OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
        OTEL_BSP_SCHEDULE_DELAY: "100"
      })
      // What the processes before have left is applied with the first facts, in a trace of all of them.
      const before = yield* send("POST", "/api/v1/conversations", { key: apiKey, body: conversation("before") })
      yield* Effect.repeat(
        send("GET", `/api/v1/conversations/before?minPosition=${before.json.position}`, { key: apiKey }),
        { until: ({ status }) => status === 200, schedule: soon }
      )
      const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
      const sent = yield* send("POST", "/api/v1/conversations", {
        key: apiKey,
        headers: { traceparent: `00-${traceId}-00f067aa0ba902b7-01` },
        body: conversation("traced")
      })
      assert.strictEqual(sent.status, 201)
      const spans = yield* Effect.repeat(receiver.spansOf(traceId), {
        until: (spans) =>
          ["EventStore.append", "Projection.apply"].every((name) => spans.some((span) => span.name === name)),
        schedule: soon
      })
      const names = spans.map(({ name }) => name)
      assert.include(names, "EventStore.append")
      assert.include(names, "Projection.apply")
      const request = spans.find(({ kind }) => kind === OtlpReceiver.server)
      assert.strictEqual(request?.parentSpanId, "00f067aa0ba902b7")
      assert.include(request?.attributes ?? [], "/api/v1/conversations")

      yield* child.terminate
      assert.strictEqual(yield* child.exitCode, 0)
      assert.isTrue((yield* receiver.signals).has("metrics"))
      assert.isTrue((yield* receiver.signals).has("logs"))
    }))

  it.effect("a trace runs from the caller through the message, its topic and its queue to the webhook of its recipient", () =>
    Effect.gen(function*() {
      const receiver = yield* OtlpReceiver.make
      const webhook = yield* WebhookServer.make
      const { child, send } = yield* start({
        OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
        OTEL_BSP_SCHEDULE_DELAY: "100",
        STRATA_NOTIFICATIONS_WEBHOOK: webhook.url
      })
      yield* send("POST", "/api/v1/conversations", { key: apiKey, body: conversation("notified") })
      const traceId = "4bf92f3577b34da6a3ce929d0e0e4737"
      const sent = yield* send("POST", "/api/v1/conversations/notified/messages", {
        key: apiKey,
        headers: { traceparent: `00-${traceId}-00f067aa0ba902b7-01` },
        body: { senderId: "ada", content: "Is it free?" }
      })
      assert.strictEqual(sent.status, 201)
      const notified = yield* webhook.next
      assert.deepInclude(notified.body, { recipientId: "bob", senderId: "ada", preview: "Is it free?" })
      assert.include(notified.headers["traceparent"], traceId)

      const expected = ["EventStore.append", "relay", "process notifications", "NotificationChannel.deliver"]
      const spans = yield* Effect.repeat(receiver.spansOf(traceId), {
        until: (spans) => expected.every((name) => spans.some((span) => span.name === name)),
        schedule: soon
      })
      assert.includeMembers(spans.map(({ name }) => name), expected)
      yield* child.terminate
      assert.strictEqual(yield* child.exitCode, 0)
    }))

  it.effect("a variable that cannot be read is named in one line, and nothing starts", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<readonly [Record<string, string>, RegExp]> = [
        [{ PORT: "eighty" }, /^Cannot start: PORT: .+$/],
        [{ PORT: "70000" }, /^Cannot start: PORT: .+$/],
        [{ STRATA_API_KEY: "short" }, /^Cannot start: STRATA_API_KEY: Expected at least 16 characters$/],
        [{ STRATA_SHUTDOWN_TIMEOUT: "soon" }, /^Cannot start: STRATA_SHUTDOWN_TIMEOUT: .+$/],
        [{ STRATA_MAX_BODY_SIZE: "big" }, /^Cannot start: STRATA_MAX_BODY_SIZE: .+$/],
        [{ OTEL_EXPORTER_OTLP_ENDPOINT: "nonsense" }, /^Cannot start: OTEL_EXPORTER_OTLP_ENDPOINT: .+$/],
        [{ HOST: "0.0.0.0" }, /^Cannot start: HOST is 0\.0\.0\.0, which others can reach\. Set STRATA_API_KEY .+$/]
      ]
      const outcomes = yield* Effect.forEach(cases, ([env]) => refuse(env), { concurrency: 2 })
      outcomes.forEach(({ exitCode, stderr }, index) => {
        assert.match(stderr.trim(), cases[index]![1])
        assert.strictEqual(exitCode, 1)
      })
    }))

  it.effect("a port that is taken is said in one line", () =>
    Effect.gen(function*() {
      const { address, child } = yield* start()
      const { exitCode, stderr } = yield* refuse({
        PORT: new URL(address).port,
        DATABASE_URL: Redacted.value(yield* PostgresTest.url),
        STRATA_API_KEY: apiKey
      })
      assert.match(stderr.trim(), /^Cannot start: .*EADDRINUSE.*$/)
      assert.strictEqual(exitCode, 1)
      yield* child.kill9
    }))

  it.effect("a key is made once, kept for its owner only, and accepted from then on", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* fs.makeTempDirectoryScoped()
      const url = yield* PostgresTest.url
      const env = { PORT: "0", DATABASE_URL: url, STRATA_DATA_DIR: directory, STRATA_API_KEY: undefined }
      const first = yield* ChildProgram.start(program, { env })
      const printed = yield* first.waitFor((line) => line.startsWith("API key: "))
      const key = printed.slice("API key: ".length)
      assert.strictEqual((yield* fs.readFileString(`${directory}/api-key`)).trim(), key)
      assert.strictEqual((yield* fs.stat(`${directory}/api-key`)).mode & 0o777, 0o600)
      yield* first.kill9

      const second = yield* ChildProgram.start(program, { env })
      const told = yield* second.waitFor((line) => line.includes("api-key"))
      assert.notInclude(told, key)
      const line = yield* second.waitFor((line) => line.includes("serves at"))
      const answer = yield* send(/http:\/\/[\d.:]+/.exec(line)![0])("GET", "/api/v1/session", { key })
      assert.strictEqual(answer.status, 200)
      yield* second.terminate
      assert.strictEqual(yield* second.exitCode, 0)
    }))
})
