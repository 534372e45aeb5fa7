import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, it } from "@effect/vitest"
import * as Acceptors from "@strata/server/Acceptors"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as Http from "node:http"
import * as Net from "node:net"

const listening = (server: Net.Server, options: Net.ListenOptions) =>
  Effect.callback<number>((resume) => {
    server.listen({ host: "127.0.0.1", ...options }, () => {
      const address = server.address()
      resume(Effect.succeed(address === null || typeof address === "string" ? 0 : address.port))
    })
  })

const isLinux = process.platform === "linux"

it.live.runIf(isLinux)(
  "a server hears of the connections of all sockets, and closing waits for what they still answer",
  () =>
    Effect.gen(function*() {
      const answers: Array<() => void> = []
      const server = new Http.Server((_, response) => void answers.push(() => response.end("done")))
      const closeOthers = Acceptors.attach(server)
      const port = yield* listening(server, { port: 0, reusePort: true })
      yield* Effect.sleep("50 millis")
      const asked = 200
      const fetched = Effect.flatMap(HttpClient.get(`http://127.0.0.1:${port}`), ({ text }) => text)
      const all = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: asked }), () => fetched, { concurrency: "unbounded" }),
        { startImmediately: true }
      )
      while (answers.length < asked) yield* Effect.sleep("5 millis")
      const own = yield* Effect.callback<number>((resume) => {
        server.getConnections((_, count) => resume(Effect.succeed(count)))
      })
      // The kernel deals them out evenly: one socket of 32 has 6 of them, or somewhat more.
      assert.isBelow(own, asked / 4)
      const closed: Array<string> = []
      server.close(() => closed.push("own"))
      closeOthers(() => closed.push("others"))
      yield* Effect.sleep("50 millis")
      assert.notInclude(closed, "others")
      for (const answer of answers) answer()
      server.closeIdleConnections()
      assert.strictEqual((yield* Fiber.join(all)).length, asked)
      server.closeAllConnections()
      while (closed.length < 2) yield* Effect.sleep("5 millis")
    }).pipe(Effect.provide(NodeHttpClient.layerUndici))
)

it.live.runIf(isLinux)("a port that somebody has is not shared", () =>
  Effect.gen(function*() {
    const other = Net.createServer()
    const port = yield* listening(other, { port: 0 })
    assert.isFalse(yield* Acceptors.canShare("127.0.0.1", port))
    yield* Effect.callback<void>((resume) => void other.close(() => resume(Effect.void)))
    assert.isTrue(yield* Acceptors.canShare("127.0.0.1", port))
  }))
