/**
 * Does what an `Order` says: calls the HTTP server, and counts what comes back.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { Connections } from "./Connections.ts"
import * as Load from "./Load.ts"
import * as Requests from "./Requests.ts"
import { Tally } from "./Tally.ts"

/** A process may have some 20,000 files open here, and the server needs as many as its callers. */
const mostConnections = 8000

/**
 * Carries out an order.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function*(order: Load.Order): Effect.fn.Return<Load.Result> {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const connections = new Connections({ port: order.port, most: mostConnections })
  return yield* Effect.ensuring(carryOut(order, connections, now), Effect.sync(() => connections.close()))
})

const carryOut = (order: Load.Order, connections: Connections, now: () => number): Effect.Effect<Load.Result> => {
  const { task } = order
  switch (task._tag) {
    case "Prepare": {
      const isLeft = (n: number) => n < order.conversations
      return closed({ connections, now, callers: 16, isLeft, request: (n) => Requests.start(order, n) })
    }
    case "Closed": {
      const end = now() + task.seconds * 1000
      const isLeft = () => now() < end
      const request = (n: number) => Requests.nth(order, n, false)
      return closed({ connections, now, callers: task.callers, isLeft, request })
    }
    case "Open":
      return open(order, task, connections, now)
  }
}

/** Each caller sends its next request when the last one is answered. All are waited for. */
const closed = (options: {
  readonly connections: Connections
  readonly now: () => number
  readonly callers: number
  readonly isLeft: (n: number) => boolean
  readonly request: (n: number) => Requests.Request
}): Effect.Effect<Load.Result> =>
  Effect.callback((resume) => {
    const { callers, connections, isLeft, now, request } = options
    const tally = new Tally()
    const start = now()
    let sent = 0
    let calling = callers
    const next = (): void => {
      if (!isLeft(sent)) {
        if (--calling === 0) resume(Effect.succeed(tally.result((now() - start) / 1000, 0)))
        return
      }
      const { class: name, text } = request(sent++)
      const answered = tally.sent(name, now)
      connections.send(text, now(), (status) => {
        answered(status)
        next()
      })
    }
    for (let caller = 0; caller < callers; caller++) next()
  })

/** Requests are sent when their time has come, whatever was answered. */
const open = Effect.fnUntraced(function*(
  order: Load.Order,
  { rate, seconds, settle, urgent }: Load.Task & { readonly _tag: "Open" },
  connections: Connections,
  now: () => number
) {
  const uncounted = new Tally()
  const tally = new Tally()
  const delays: Array<number> = []
  const start = now()
  const due = (n: number) => start + n * 1000 / rate
  const first = Math.ceil(settle * rate)
  const last = Math.floor((settle + seconds) * rate)

  const send = (n: number) => {
    const { class: name, text } = Requests.nth(order, n, urgent)
    const counted = n < first ? uncounted : tally
    if (n >= first) delays.push(now() - due(n))
    const answered = counted.sent(name, now)
    if (!connections.send(text, now(), answered)) counted.unsent(name)
  }

  let sent = 0
  while (sent < last) {
    for (const at = now(); sent < last && due(sent) <= at; sent++) send(sent)
    connections.hangUp(now() - Load.patience)
    yield* Effect.sleep(1)
  }
  // Whoever is too busy to send in time has offered less.
  const took = Math.max(seconds, (now() - due(first)) / 1000)
  while (connections.busy > 0) {
    yield* Effect.sleep(5)
    connections.hangUp(now() - Load.patience)
  }
  const sorted = Float64Array.from(delays).sort()
  return tally.result(took, sorted[Math.ceil(sorted.length * 0.99) - 1] ?? 0)
})
