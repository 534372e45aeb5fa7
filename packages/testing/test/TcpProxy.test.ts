import { assert, describe, it } from "@effect/vitest"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Net from "node:net"

/** A server that answers every chunk with the same in capitals, and remembers what it received. */
const shouter = Effect.acquireRelease(
  Effect.callback<{ readonly server: Net.Server; readonly received: Array<string>; readonly port: number }>(
    (resume) => {
      const received: Array<string> = []
      const server = Net.createServer((socket) => {
        socket.on("data", (chunk) => {
          received.push(chunk.toString())
          socket.write(chunk.toString().toUpperCase())
        })
        socket.on("error", () => undefined)
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({ server, received, port }))
      })
    }
  ),
  ({ server }) => Effect.sync(() => server.close())
)

interface Client {
  readonly say: (text: string) => Effect.Effect<void>
  /** Waits until so many characters were received, and returns all so far. */
  readonly hear: (length: number) => Effect.Effect<string>
  readonly closed: Effect.Effect<void>
}

const connect = (port: number) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const socket = Net.connect({ host: "127.0.0.1", port })
        const closed = Deferred.makeUnsafe<void>()
        const state = { heard: "", waiting: () => undefined as void }
        socket.on("data", (chunk) => {
          state.heard += chunk.toString()
          state.waiting()
        })
        socket.on("error", () => undefined)
        socket.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
        return { socket, closed, state }
      }),
      ({ socket }) => Effect.sync(() => socket.destroy())
    ),
    ({ closed, socket, state }): Client => ({
      say: (text) => Effect.sync(() => void socket.write(text)),
      hear: (length) =>
        Effect.callback((resume) => {
          state.waiting = () => {
            if (state.heard.length >= length) resume(Effect.succeed(state.heard))
          }
          state.waiting()
        }),
      closed: Deferred.await(closed)
    })
  )

const setup = Effect.gen(function*() {
  const server = yield* shouter
  const proxy = yield* TcpProxy.make({ host: "127.0.0.1", port: server.port })
  return { ...server, proxy }
})

describe("TcpProxy", () => {
  it.live("passes bytes both ways", () =>
    Effect.gen(function*() {
      const { proxy } = yield* setup
      const client = yield* connect(proxy.port)
      yield* client.say("hello")
      assert.strictEqual(yield* client.hear(5), "HELLO")
      assert.strictEqual(yield* proxy.connections, 1)
    }))

  it.live("puts itself into a URL", () =>
    Effect.gen(function*() {
      const { proxy } = yield* setup
      const url = proxy.through(Redacted.make("postgresql://u:p@db.example:5432/strata?a=b"))
      assert.strictEqual(Redacted.value(url), `postgresql://u:p@127.0.0.1:${proxy.port}/strata?a=b`)
    }))

  it.live("lets bytes vanish in a black hole, with the connection left open", () =>
    Effect.gen(function*() {
      const { proxy, received } = yield* setup
      const old = yield* connect(proxy.port)
      yield* old.say("hello")
      yield* old.hear(5)
      yield* proxy.blackhole
      const fresh = yield* connect(proxy.port)
      yield* Effect.all([old.say("lost"), fresh.say("lost")])
      const anything = yield* Effect.timeoutOption(
        Effect.raceAll([old.hear(6), fresh.hear(1), old.closed, fresh.closed]),
        "200 millis"
      )
      assert.isTrue(Option.isNone(anything))
      assert.deepStrictEqual(received, ["hello"])
      yield* proxy.pass
      const later = yield* connect(proxy.port)
      yield* later.say("again")
      assert.strictEqual(yield* later.hear(5), "AGAIN")
    }))

  it.live("cuts all connections and refuses new ones until it passes again", () =>
    Effect.gen(function*() {
      const { proxy } = yield* setup
      const client = yield* connect(proxy.port)
      yield* client.say("hello")
      yield* client.hear(5)
      yield* proxy.cut
      yield* client.closed
      yield* Effect.flatMap(connect(proxy.port), (refused) => refused.closed)
      yield* proxy.pass
      const later = yield* connect(proxy.port)
      yield* later.say("again")
      assert.strictEqual(yield* later.hear(5), "AGAIN")
    }))

  it.live("cuts after bytes of the client that match, which still arrive", () =>
    Effect.gen(function*() {
      const { proxy, received } = yield* setup
      const client = yield* connect(proxy.port)
      const cut = yield* Effect.forkChild(
        proxy.cutWhen({ from: "client", matches: TcpProxy.contains("COMMIT") }),
        { startImmediately: true }
      )
      yield* client.say("insert")
      assert.strictEqual(yield* client.hear(6), "INSERT")
      yield* client.say("COMMIT")
      yield* client.closed
      yield* Fiber.join(cut)
      yield* Effect.sync(() => received).pipe(
        Effect.repeat({ until: (all) => all.length === 2 }),
        Effect.timeout("2 seconds")
      )
      assert.deepStrictEqual(received, ["insert", "COMMIT"])
    }))

  it.live("cuts before bytes of the server that match, when they are not to be delivered", () =>
    Effect.gen(function*() {
      const { proxy, received } = yield* setup
      const client = yield* connect(proxy.port)
      yield* Effect.forkChild(
        proxy.cutWhen({ from: "server", matches: TcpProxy.contains("COMMIT"), deliver: false }),
        { startImmediately: true }
      )
      yield* client.say("commit")
      yield* client.closed
      assert.deepStrictEqual(received, ["commit"])
      assert.strictEqual(yield* client.hear(0), "")
    }))

  it.live("is late when told to be", () =>
    Effect.gen(function*() {
      const { proxy } = yield* setup
      yield* proxy.latency(60)
      const client = yield* connect(proxy.port)
      const [duration] = yield* Effect.timed(Effect.andThen(client.say("hello"), client.hear(5)))
      assert.isAtLeast(Duration.toMillis(duration), 115)
    }))
})
