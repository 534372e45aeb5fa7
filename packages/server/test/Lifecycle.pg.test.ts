import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { EventStore } from "@strata/event-store/EventStore"
import { streamId } from "@strata/event-store/Fact"
import * as Postgres from "@strata/postgres/Postgres"
import * as HttpListener from "@strata/server/HttpListener"
import * as Server from "@strata/server/Server"
import { ServerConfig } from "@strata/server/ServerConfig"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import {
  conversation,
  layerServer,
  onDatabase,
  settings,
  someoneWaits,
  soon,
  TestServer,
  testServer
} from "./testServer.ts"

const c = "/api/v1/conversations"
const message = { senderId: "ada", content: "hello" }

describe("the server's life", () => {
  it.live("before the application is there, a request gets 503 at once and the process is alive", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const early = yield* send("POST", c, { body: conversation("early") })
      assert.strictEqual(early.status, 503)
      assert.strictEqual(early.headers["retry-after"], "1")
      assert.strictEqual(early.headers["content-type"], "application/problem+json")
      assert.match(early.json.traceId, /^[0-9a-f]{32}$/)
      assert.strictEqual((yield* send("GET", "/health/live")).status, 200)
      assert.strictEqual((yield* send("GET", "/health/ready")).status, 503)
    }).pipe(
      Effect.provide(testServer.pipe(
        Layer.provideMerge(HttpListener.layer),
        Layer.provide(Layer.succeed(ServerConfig, settings)),
        Layer.provideMerge([NodeServices.layer, NodeHttpClient.layerUndici]),
        Layer.provideMerge(Logger.layer([]))
      ))
    ))

  it.live("a shutdown finishes what was accepted, takes no more, and is not held up by open connections", () =>
    Effect.gen(function*() {
      const { sql, transact } = yield* Postgres.Postgres
      const scope = yield* Scope.make()
      const server = yield* Layer.buildWithScope(onDatabase(), scope)
      const { send } = Context.get(server, TestServer)
      yield* send("POST", c, { body: conversation("last") })
      const [accepted, closing] = yield* transact(Effect.gen(function*() {
        yield* sql`lock table fact in exclusive mode`
        const accepted = yield* Effect.forkDetach(send("POST", `${c}/last/messages`, { body: message }), {
          startImmediately: true
        })
        yield* someoneWaits
        const closing = yield* Effect.forkDetach(Scope.close(scope, Exit.void), { startImmediately: true })
        const refused = yield* Effect.repeat(Effect.exit(send("GET", "/health/live")), {
          until: Exit.isFailure,
          schedule: soon
        })
        assert.isTrue(Exit.isFailure(refused))
        return [accepted, closing] as const
      }))
      const answer = yield* Fiber.join(accepted)
      assert.strictEqual(answer.status, 201, answer.text)
      // Far less than the five seconds the server would wait for a connection that is kept open.
      yield* Effect.timeout(Fiber.join(closing), "3 seconds")
    }).pipe(
      Effect.provide([NodeHttpClient.layerUndici, PostgresTest.layer({ migrations: Server.migrations })]),
      Effect.scoped
    ))

  it.live("a fact that cannot be projected degrades the server, which goes on to serve and to project", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const store = yield* EventStore
      const { position } = yield* store.append({
        facts: [{ stream: streamId("conversation", "broken"), type: "MessageSent", data: { not: "a message" } }]
      })
      const health = yield* Effect.repeat(send("GET", "/health"), {
        until: ({ json }) => json.status === "DEGRADED",
        schedule: soon
      })
      assert.strictEqual(health.status, 200)
      const projections = health.json.checks.find(({ name }: { name: string }) => name === "projections")
      assert.isTrue(projections.details.failed.length > 0)
      assert.strictEqual((yield* send("GET", c)).status, 200)
      const behind = yield* send("GET", `${c}?minPosition=${position}`)
      assert.strictEqual(behind.status, 200)
      const { json } = yield* send("GET", "/api/v1/projections")
      assert.isTrue(
        json.projections.some(({ error, state }: Record<string, string>) => state === "parked" && error !== null)
      )
      assert.strictEqual((yield* send("POST", c, { body: conversation("still") })).status, 201)
    }).pipe(Effect.provide(layerServer())))

  it.live("a database that swallows everything holds up neither probes nor, for long, requests", () =>
    Effect.gen(function*() {
      const url = yield* PostgresTest.url
      const { hostname, port } = new URL(Redacted.value(url))
      const proxy = yield* TcpProxy.make({ host: hostname, port: Number(port) })
      const server = yield* Layer.build(
        onDatabase().pipe(Layer.provideMerge(
          Postgres.layer({ url: proxy.through(url), statementTimeout: "1 second", socketTimeout: "2 seconds" })
        ))
      )
      const { send } = Context.get(server, TestServer)
      assert.strictEqual((yield* send("GET", c)).status, 200)
      yield* proxy.blackhole
      const [duration, health] = yield* Effect.timed(Effect.repeat(send("GET", "/health"), {
        until: ({ status }) => status === 503,
        schedule: soon
      }))
      assert.strictEqual(health.json.status, "DOWN")
      assert.isBelow(Duration.toMillis(duration), 4000)
      const answer = yield* Effect.timeout(send("GET", c), "8 seconds")
      assert.strictEqual(answer.status, 503)
      yield* proxy.cut
      yield* proxy.pass
      yield* Effect.repeat(send("GET", c), { until: ({ status }) => status === 200, schedule: soon })
    }).pipe(
      Effect.provide([
        NodeServices.layer,
        NodeHttpClient.layerUndici,
        PostgresTest.layer({ migrations: Server.migrations })
      ]),
      Effect.scoped
    ))

  it.live("without its database the server says so quickly, and recovers by itself", () =>
    Effect.gen(function*() {
      const database = yield* PrivatePostgres.make()
      const server = yield* Layer.build(onDatabase().pipe(Layer.provideMerge(Postgres.layer({ url: database.url }))))
      const { send } = Context.get(server, TestServer)
      yield* send("POST", c, { body: conversation("survivor") })
      assert.strictEqual((yield* send("GET", "/health/ready")).status, 200)

      yield* database.kill9
      const health = yield* Effect.repeat(Effect.timed(send("GET", "/health")), {
        until: ([, answer]) => answer.status === 503,
        schedule: soon
      })
      assert.strictEqual(health[1].json.status, "DOWN")
      assert.include(
        health[1].json.checks.map((check: { name: string; status: string }) => `${check.name} ${check.status}`),
        "database DOWN"
      )
      for (
        const answer of [
          yield* send("GET", "/health/ready"),
          yield* send("GET", c),
          yield* send("GET", "/api/v1/projections"),
          yield* send("POST", `${c}/survivor/messages`, { body: message }),
          yield* send("POST", `${c}/survivor/messages`, { body: message, headers: { "idempotency-key": "while away" } })
        ]
      ) {
        assert.strictEqual(answer.status, 503, answer.text)
        assert.strictEqual(answer.headers["retry-after"], "1")
        assert.strictEqual(answer.headers["content-type"], "application/problem+json")
      }
      assert.strictEqual((yield* send("GET", "/health/live")).status, 200)

      yield* database.start()
      yield* Effect.repeat(send("GET", "/health/ready"), { until: ({ status }) => status === 200, schedule: soon })
      const sent = yield* Effect.repeat(send("POST", `${c}/survivor/messages`, { body: message }), {
        until: ({ status }) => status < 500,
        schedule: soon
      })
      assert.isTrue(sent.status === 201 || sent.json.duplicate)
      const position = sent.headers["strata-position"]
      const page = yield* Effect.repeat(send("GET", `${c}/survivor/messages?minPosition=${position}`), {
        until: ({ status }) => status === 200,
        schedule: soon
      })
      assert.strictEqual(page.json.messages.length, 1)
    }).pipe(Effect.provide([NodeServices.layer, NodeHttpClient.layerUndici]), Effect.scoped))
})
