import { assert, describe, it } from "@effect/vitest"
import * as Caller from "@strata/benchmarks/resilience/Caller"
import * as Connections from "@strata/benchmarks/resilience/Connections"
import * as Load from "@strata/benchmarks/resilience/Load"
import * as Requests from "@strata/benchmarks/resilience/Requests"
import * as Effect from "effect/Effect"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"

/** A server that answers by the priority of a request, and not at all where none is named. */
const serve = (statuses: Readonly<Record<string, number>>) =>
  Effect.acquireRelease(
    Effect.callback<Http.Server>((resume) => {
      const server = Http.createServer((request, response) => {
        const status = statuses[String(request.headers["x-priority"])]
        if (status !== undefined) response.writeHead(status).end("{}")
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  ).pipe(Effect.map((server): number => portOf(server.address())))

const portOf = (address: AddressInfo | string | null): number =>
  address === null || typeof address === "string" ? 0 : address.port

const order = (port: number, task: Load.Task): Load.Order => ({
  port,
  key: "key",
  label: "test",
  conversations: 10,
  task
})

describe("callers who do not wait for each other", () => {
  it.live("send all requests in their time, and tell what became of each class", () =>
    Effect.gen(function*() {
      const port = yield* serve({ 10: 200, 7: 503, 1: 500 })
      const task = { _tag: "Open", rate: 500, settle: 0.1, seconds: 0.4, urgent: false } as const
      const { classes, seconds } = yield* Caller.run(order(port, task))
      assert.isAtLeast(seconds, 0.4)
      const { P0, P1, P2, P3 } = classes
      const counts = [P0.good, P1.refused, P2.late, P3.failed]
      assert.deepStrictEqual(counts, [P0, P1, P2, P3].map(Load.offered))
      assert.strictEqual(counts.reduce((sum, count) => sum + count, 0), 200)
      assert.isAbove(P0.p99, 0)
      assert.isBelow(P0.p99, Load.patience)
      assert.strictEqual(P2.p50, Load.patience)
    }))

  it.live("are told when their requests make no sense, and when nobody listens", () =>
    Effect.gen(function*() {
      const task = { _tag: "Open", rate: 100, settle: 0, seconds: 0.1, urgent: true } as const
      const port = yield* serve({ 10: 400 })
      const { wrong } = (yield* Caller.run(order(port, task))).classes.P0
      const { failed } = (yield* Caller.run(order(1, task))).classes.P0
      assert.deepStrictEqual([wrong, failed], [10, 10])
    }))
})

describe("callers who wait", () => {
  it.live("start every conversation once", () =>
    Effect.gen(function*() {
      const port = yield* serve({ 10: 201 })
      const { classes } = yield* Caller.run(order(port, { _tag: "Prepare" }))
      assert.strictEqual(classes.P0.good, 10)
    }))

  it.live("call until the time is over", () =>
    Effect.gen(function*() {
      const port = yield* serve({ 10: 200, 7: 200, 5: 200, 1: 200 })
      const result = yield* Caller.run(order(port, { _tag: "Closed", callers: 4, seconds: 0.1 }))
      assert.isAbove(Load.sum(result, ({ good }) => good), 4)
      assert.isAtLeast(result.seconds, 0.1)
    }))
})

describe("requests", () => {
  it("are mixed as the shares of their classes say, and half of them send a message", () => {
    const requests = Array.from({ length: 10_000 }, (_, n) => Requests.nth(order(80, { _tag: "Prepare" }), n, false))
    for (const { name, share } of Load.classes) {
      const count = requests.filter((request) => request.class === name).length
      assert.approximately(count, share * 10_000, 20, name)
    }
    const messages = requests.filter(({ text }) => text.startsWith("POST"))
    assert.approximately(messages.length, 5000, 20)
    assert.strictEqual(new Set(messages.map(({ text }) => text)).size, messages.length)
  })
})

describe("an answer", () => {
  const head = "HTTP/1.1 503 Service Unavailable\r\n"

  it("has a status once it is there as a whole", () => {
    const text = `${head}Content-Length: 5\r\n\r\nsorry`
    assert.strictEqual(Connections.statusOf(text), 503)
    for (let length = 0; length < text.length; length++) {
      assert.isUndefined(Connections.statusOf(text.slice(0, length)))
    }
  })

  it("may come in chunks, of which the last one is empty", () => {
    const text = `${head}Transfer-Encoding: chunked\r\n\r\n5\r\nsorry\r\n`
    assert.isUndefined(Connections.statusOf(text))
    assert.strictEqual(Connections.statusOf(`${text}0\r\n\r\n`), 503)
  })
})
