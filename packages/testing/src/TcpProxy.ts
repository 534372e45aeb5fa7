/**
 * A proxy between a client and a server that can lose, hold or cut what passes: the network as it is on a bad day.
 *
 * **Details**
 *
 * - `pass`: bytes go through, later by the `latency`
 * - `blackhole`: bytes vanish in both directions and nothing is closed, as after a pulled cable or a dropped NAT entry;
 *   new connections are accepted and never answered
 * - `cut`: every connection is reset, and new ones are too
 *
 * `pass` serves new connections again; those that lost bytes stay silent, as theirs would be corrupt.
 *
 * **Example** (A commit whose answer never arrives)
 *
 * ```ts
 * import * as TcpProxy from "@strata/testing/TcpProxy"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const proxy = yield* TcpProxy.make({ host: "127.0.0.1", port: 5432 })
 *   yield* proxy.cutWhen({ from: "client", matches: TcpProxy.contains("COMMIT") })
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"

/**
 * The proxy could not listen.
 *
 * @category errors
 * @since 0.1.0
 */
export class TcpProxyError extends Schema.TaggedError<TcpProxyError>("@strata/testing/TcpProxyError")(
  "TcpProxyError",
  { message: Schema.String, cause: Schema.Defect() }
) {}

/**
 * Which bytes end their connection. `matches` sees each chunk together with the end of the one before, so that a
 * needle of up to 64 bytes is found wherever the network has split it.
 *
 * @category models
 * @since 0.1.0
 */
export interface CutRule {
  readonly from: "client" | "server"
  readonly matches: (bytes: Uint8Array) => boolean
  /** Whether the bytes that match still go through before the cut. Defaults to true. */
  readonly deliver?: boolean | undefined
}

/**
 * A running proxy.
 *
 * @category models
 * @since 0.1.0
 */
export interface TcpProxy {
  readonly host: string
  readonly port: number
  /** The URL with the address of the proxy in it. */
  readonly through: (url: Redacted.Redacted) => Redacted.Redacted
  readonly pass: Effect.Effect<void>
  readonly blackhole: Effect.Effect<void>
  readonly cut: Effect.Effect<void>
  /** Cuts the first connection that matches, once, and then goes on. Waits for it: fork it, or race it. */
  readonly cutWhen: (rule: CutRule) => Effect.Effect<void>
  /** Milliseconds by which every chunk is late from now on, in each direction. */
  readonly latency: (millis: number) => Effect.Effect<void>
  /** How many connections are open now. */
  readonly connections: Effect.Effect<number>
}

/**
 * True when the bytes hold this ASCII text.
 *
 * @category predicates
 * @since 0.1.0
 */
export const contains = (text: string) => (bytes: Uint8Array): boolean => Buffer.from(bytes).includes(text, 0, "latin1")

/**
 * Listens on a port of 127.0.0.1 that the system chooses and forwards to the target, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  target: { readonly host: string; readonly port: number }
): Effect.fn.Return<TcpProxy, TcpProxyError, Scope.Scope> {
  const state = new State(target)
  const server = yield* Effect.acquireRelease(listen(state), (server) =>
    Effect.callback<void>((resume) => {
      state.cut()
      server.close(() => resume(Effect.void))
    }))
  const address = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  return {
    host: "127.0.0.1",
    port,
    through: (url) => {
      const changed = new URL(Redacted.value(url))
      changed.host = `127.0.0.1:${port}`
      return Redacted.make(changed.href)
    },
    pass: Effect.sync(() => {
      state.mode = "pass"
    }),
    blackhole: Effect.sync(() => state.blackhole()),
    cut: Effect.sync(() => state.cut()),
    cutWhen: (rule) =>
      Effect.callback<void>((resume) => {
        const waiting = { rule, done: () => resume(Effect.void) }
        state.rules.add(waiting)
        return Effect.sync(() => state.rules.delete(waiting))
      }),
    latency: (millis) =>
      Effect.sync(() => {
        state.latency = millis
      }),
    connections: Effect.sync(() => state.pairs.size)
  }
})

const listen = (state: State) =>
  Effect.callback<Net.Server, TcpProxyError>((resume) => {
    const server = Net.createServer({ noDelay: true }, (client) => state.accept(client))
    server.once("error", (cause) =>
      resume(Effect.fail(new TcpProxyError({ message: `The proxy cannot listen: ${cause.message}`, cause }))))
    server.listen(0, "127.0.0.1", () =>
      resume(Effect.succeed(server)))
  })

interface Waiting {
  readonly rule: CutRule
  readonly done: () => void
}

/** A connection of a client and its counterpart to the server. */
interface Pair {
  readonly client: Net.Socket
  readonly server: Net.Socket
  lost: boolean
}

const overlap = 64

class State {
  mode: "pass" | "blackhole" | "cut" = "pass"
  latency = 0
  readonly pairs = new Set<Pair>()
  readonly rules = new Set<Waiting>()
  readonly target: { readonly host: string; readonly port: number }

  constructor(target: { readonly host: string; readonly port: number }) {
    this.target = target
  }

  accept(client: Net.Socket): void {
    if (this.mode === "cut") {
      client.resetAndDestroy()
      return
    }
    const pair: Pair = {
      client,
      server: Net.connect({ ...this.target, noDelay: true }),
      lost: this.mode === "blackhole"
    }
    this.pairs.add(pair)
    this.forward(pair, "client")
    this.forward(pair, "server")
  }

  cut(): void {
    this.mode = "cut"
    for (const pair of this.pairs) this.destroy(pair)
  }

  blackhole(): void {
    this.mode = "blackhole"
    for (const pair of this.pairs) pair.lost = true
  }

  private destroy(pair: Pair): void {
    this.pairs.delete(pair)
    pair.client.resetAndDestroy()
    pair.server.resetAndDestroy()
  }

  private forward(pair: Pair, from: "client" | "server"): void {
    const [source, sink] = from === "client" ? [pair.client, pair.server] : [pair.server, pair.client]
    let tail = Buffer.alloc(0)
    source.on("data", (chunk) => {
      if (pair.lost) return
      const seen = Buffer.concat([tail, chunk])
      tail = seen.subarray(-overlap)
      const waiting = [...this.rules].find(({ rule }) => rule.from === from && rule.matches(seen))
      if (waiting !== undefined) return this.obey(pair, waiting, sink, chunk)
      this.later(() => {
        if (pair.lost || sink.destroyed) return
        if (!sink.write(chunk)) {
          source.pause()
          sink.once("drain", () => source.resume())
        }
      })
    })
    source.on("end", () => this.later(() => pair.lost ? undefined : sink.end()))
    // What happened is seen by the other side as a close; a lost pair shows nothing at all.
    source.on("error", () => undefined)
    source.on("close", () => {
      if (pair.lost && from === "server") return
      this.pairs.delete(pair)
      this.later(() => sink.destroy())
    })
  }

  private obey(pair: Pair, waiting: Waiting, sink: Net.Socket, chunk: Uint8Array): void {
    this.rules.delete(waiting)
    const end = () => {
      this.destroy(pair)
      waiting.done()
    }
    if (waiting.rule.deliver === false) return end()
    // The server must have read the bytes before its side is closed, or they may be dropped with it.
    pair.client.destroy()
    this.pairs.delete(pair)
    sink.end(chunk, () => waiting.done())
  }

  private later(action: () => void): void {
    if (this.latency === 0) return action()
    Effect.runFork(Effect.delay(Effect.sync(action), this.latency))
  }
}
