import { assert, describe, it } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as ShedLadder from "@strata/resilience/shedding/ShedLadder"
import * as Server from "@strata/server/Server"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as IpNetwork from "effect/net/IpNetwork"
import * as Result from "effect/Result"
import { admission, conversation, keys, layerServer, onDatabase, soon, TestServer } from "./testServer.ts"

const c = "/api/v1/conversations"

/** So slow that within a test nothing comes back. */
const few = (name: string, burst: number, keyOf: string) =>
  RateLimit.make({ name, rate: 1, period: "1 hour", burst, keyOf })

const server = (changes: Partial<typeof admission>) => layerServer({ admission: { ...admission, ...changes } })

/** Any load at all is too much for all but the most urgent. */
const overloaded = server({
  shedding: {
    enabled: true,
    ladder: Result.getOrThrow(ShedLadder.parse("0.0001=100/100/100", { margin: 0 })),
    retryAfter: Duration.seconds(6),
    floor: 0
  }
})

describe("admission", () => {
  it.live("refuses a caller above their limit with 429, the time to wait and where the limit stands, and nobody else", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const first = yield* send("GET", c, { key: keys.operator })
      assert.deepStrictEqual(
        [first.status, first.headers["ratelimit-limit"], first.headers["ratelimit-remaining"]],
        [200, "2", "1"]
      )
      assert.strictEqual((yield* send("GET", c, { key: keys.operator })).status, 200)
      const refused = yield* send("GET", c, { key: keys.operator })
      assert.strictEqual(refused.status, 429)
      assert.strictEqual(refused.json.type, "urn:strata:problem:too-many-requests")
      assert.deepStrictEqual(
        [refused.headers["retry-after"], refused.headers["ratelimit-remaining"]],
        [String(refused.json.retryAfter), "0"]
      )
      assert.isAbove(refused.json.retryAfter, 3500)
      assert.include(refused.json.detail, "per-user")
      assert.strictEqual((yield* send("GET", c, { key: keys.viewer })).status, 200)
    }).pipe(Effect.provide(server({ perUser: few("per-user", 2, "user") }))))

  it.live("charges nobody for what it refuses", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      yield* send("GET", c, { key: keys.operator })
      for (let ask = 0; ask < 5; ask++) assert.strictEqual((yield* send("GET", c, { key: keys.operator })).status, 429)
      // One of all callers' three was taken by the operator, not six.
      assert.strictEqual((yield* send("GET", c, { key: keys.viewer })).status, 200)
      assert.strictEqual((yield* send("GET", c, { key: keys.corrector })).status, 200)
      assert.strictEqual((yield* send("GET", c, { key: keys.other })).status, 429)
    }).pipe(Effect.provide(server({ perUser: few("per-user", 1, "user"), global: few("global", 3, "nobody") }))))

  it.live("limits by the address that a trusted proxy names, and believes nobody else's word", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const from = (address: string) => send("GET", c, { headers: { "x-forwarded-for": address } })
      assert.strictEqual((yield* from("192.0.2.1")).status, 200)
      assert.strictEqual((yield* from("192.0.2.1")).status, 429)
      assert.strictEqual((yield* from("192.0.2.2")).status, 200)
      assert.strictEqual((yield* from("192.0.2.3, 192.0.2.2")).status, 429)
    }).pipe(Effect.provide(server({
      perIp: few("per-ip", 1, "client address"),
      trustedProxies: [Result.getOrThrow(IpNetwork.fromString("127.0.0.0/8"))]
    }))))

  it.live("without a trusted proxy takes every request from the machine for the machine's own", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      for (const address of ["192.0.2.1", "192.0.2.1"]) {
        assert.strictEqual((yield* send("GET", c, { headers: { "x-forwarded-for": address } })).status, 200)
      }
    }).pipe(Effect.provide(server({ perIp: few("per-ip", 1, "client address") }))))

  it.live("slows down who guesses keys", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const statuses = yield* Effect.forEach(
        Array.from({ length: 5 }),
        () => Effect.map(send("GET", c, { key: "guessed-key-0123456789" }), ({ status }) => status)
      )
      assert.deepStrictEqual(statuses, [401, 401, 401, 429, 429])
      assert.strictEqual((yield* send("GET", c)).status, 200)
    }).pipe(Effect.provide(server({ strangers: few("strangers", 3, "client address") }))))

  it.live("refuses headers it cannot read, and names them", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      for (const [name, value] of [["x-priority", "11"], ["x-priority", "high"], ["x-deadline-ms", "soon"]] as const) {
        const refused = yield* send("GET", c, { headers: { [name]: value } })
        assert.deepStrictEqual([refused.status, refused.json.errors[0].path], [400, `headers.${name}`])
      }
    }).pipe(Effect.provide(server({}))))

  it.live("ends a request when its time is up, and says that a write may have happened", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const { sql, transact } = yield* Postgres
      yield* transact(Effect.gen(function*() {
        yield* sql`lock table fact in exclusive mode`
        const late = yield* send("POST", c, {
          headers: { "x-deadline-ms": "200" },
          body: { participants: [{ userId: "ada", role: "CUSTOMER" }] }
        })
        assert.deepStrictEqual([late.status, late.headers["retry-after"]], [503, "1"])
        assert.include(late.json.detail, "Not done within 200ms")
      }))
    }).pipe(Effect.provide(
      onDatabase().pipe(Layer.provideMerge(PostgresTest.layer({ migrations: Server.migrations })))
    )))

  it.live("sheds the least urgent in overload with 503 and a time to wait, and never the most urgent", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const shed = yield* Effect.repeat(send("GET", c), { until: ({ status }) => status === 503, schedule: soon })
      assert.isAtLeast(Number(shed.headers["retry-after"]), 3)
      assert.include(shed.json.detail, "more to do than it can")
      assert.strictEqual((yield* send("GET", c, { headers: { "x-priority": "10" } })).status, 200)
      // Only an admin may say that it is urgent.
      const viewer = yield* send("GET", c, { key: keys.viewer, headers: { "x-priority": "10" } })
      assert.strictEqual(viewer.status, 503)
      assert.strictEqual((yield* send("GET", "/health/live")).status, 200)
      const { text } = yield* send("GET", "/metrics")
      assert.match(text, /strata_shed_refused_total\{[^}]*class="P2"[^}]*\} [1-9]/)
    }).pipe(Effect.provide(overloaded)))

  it.live("tells whoever it knows in the same words, before the application hears of the request", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      yield* Effect.repeat(send("GET", c), { until: ({ status }) => status === 503, schedule: soon })
      const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
      const ask = send("POST", c, {
        key: keys.operator,
        headers: { traceparent },
        body: conversation("c-1")
      })
      // Of the application, and of what stands before it; other servers of this process count in the same place.
      const counts = Effect.map(
        send("GET", "/metrics"),
        ({ text }) =>
          ["/api/v1/conversations", "refused"].map((route) => {
            const labels = `http_request_method="POST",http_route="${route}",http_response_status_code="503"`
            return Number(text.split(`duration_seconds_count{${labels}} `)[1]?.split("\n")[0] ?? 0)
          })
      )
      const before = yield* counts
      // Its first request makes it known, and is refused by the application.
      const [late, early] = [yield* ask, yield* ask]
      const after = yield* counts
      assert.deepStrictEqual([after[0]! - before[0]!, after[1]! - before[1]!], [1, 1])
      const shown = ({ headers, json, status }: typeof early) => ({
        status,
        json: { ...json, timestamp: typeof json.timestamp, retryAfter: json.retryAfter >= 3 },
        headers: ["content-type", "cache-control"].map((name) => headers[name]),
        sameWait: headers["retry-after"] === String(json.retryAfter)
      })
      assert.deepStrictEqual(shown(early), shown(late))
      assert.strictEqual(early.json.traceId, traceparent.slice(3, 35))
      // The connection is of use after it, and what cannot be read is told rather than refused.
      const mistaken = yield* send("GET", c, { key: keys.operator, headers: { "x-priority": "high" } })
      assert.strictEqual(mistaken.status, 400)
    }).pipe(Effect.provide(overloaded)))
})
