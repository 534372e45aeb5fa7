import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import type { NewMessage } from "@strata/queues/Message"
import * as QueuePolicies from "@strata/queues/QueuePolicies"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { collect, Database, declared } from "./fixture.ts"

type Sent = NewMessage<{ readonly n: number }>

const many = (count: number, message: Omit<Sent, "payload"> = {}, from = 0): ReadonlyArray<Sent> =>
  Array.from({ length: count }, (_, n) => ({ ...message, payload: { n: n + from } }))

/** Twenty handlers that wait at a turnstile, in a worker that holds eighty more: all of them of no urgency. */
const busy = Effect.fnUntraced(function*(name: string) {
  const queues = yield* Queues.Queues
  const queue = yield* declared(name)
  const begun: Array<number> = []
  const turnstile = yield* Latch.make(false)
  yield* queues.send(queue, many(200, { priority: 0 }))
  yield* Effect.forkScoped(QueueWorker.run(queue, ({ payload: { n } }) => {
    begun.push(n)
    return turnstile.await
  }, { concurrency: 20, prefetch: 80 }))
  yield* Effect.repeat(queues.stats(queue), { until: ({ leased }) => leased === 100 })
  // Whatever it does not hold is not there any more.
  yield* queues.purge(queue)
  return { queue, begun, turnstile }
})

/** Until the worker has what is urgent, and has given back as much. */
const untilExchanged = (queue: { readonly name: string }, count: number) =>
  Effect.flatMap(Queues.Queues, (queues) =>
    Effect.repeat(queues.browse(queue), {
      until: (waiting) => waiting.length === count && waiting.every(({ priority }) => priority === 0)
    }))

layer(Database, { excludeTestServices: true })("a worker that holds what is not urgent", (it) => {
  it.effect(
    "begins what is as soon as a handler is free, and another one gets as much of what it held",
    () =>
      Effect.gen(function*() {
        const queues = yield* Queues.Queues
        const { begun, queue, turnstile } = yield* busy("urgent")
        yield* queues.send(queue, many(2, { priority: 10 }, 1000))
        yield* untilExchanged(queue, 2)
        const others = yield* collect(queue, 2)
        deepStrictEqual(others.map(({ n }) => n), [98, 99])
        strictEqual(begun.length, 20)
        yield* turnstile.open
        yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 102 })
        deepStrictEqual(begun.slice(20, 23), [1000, 1001, 20])
        const { failed, leased, ready } = yield* queues.stats(queue)
        deepStrictEqual({ failed, leased, ready }, { failed: 0, leased: 0, ready: 0 })
      }).pipe(Effect.scoped),
    20_000
  )

  it.effect(
    "finds out by itself when something urgent may begin of which nobody tells",
    () =>
      Effect.gen(function*() {
        const queues = yield* Queues.Queues
        const { begun, queue, turnstile } = yield* busy("later")
        yield* queues.send(queue, many(1, { priority: 10, delay: "150 millis" }, 1000))
        yield* untilExchanged(queue, 1)
        yield* turnstile.open
        yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 101 })
        strictEqual(begun[20], 1000)
      }).pipe(
        Effect.scoped,
        Effect.provideService(QueuePolicies.QueuePolicies, { ...QueuePolicies.defaults, poll: Duration.millis(100) })
      ),
    20_000
  )

  it.effect("lets the tenants of what it holds begin in turn, however much one of them has sent before", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("tenants")
      const begun: Array<string> = []
      const turnstile = yield* Latch.make(false)
      yield* queues.send(queue, [
        ...many(20, { priority: 10 }),
        ...many(30, { tenant: "large" }),
        ...many(10, { tenant: "small" })
      ])
      yield* Effect.forkScoped(QueueWorker.run(queue, ({ priority, tenant }) =>
        Effect.suspend(() => {
          if (priority === 10) return turnstile.await
          begun.push(tenant)
          return Effect.void
        }), { concurrency: 20 }))
      yield* Effect.repeat(queues.stats(queue), { until: ({ leased }) => leased === 60 })
      yield* turnstile.open
      yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 60 })
      deepStrictEqual(begun.slice(0, 20), Array.from({ length: 20 }, (_, n) => n % 2 === 0 ? "large" : "small"))
    }).pipe(Effect.scoped))

  it.effect("begins the next one at once when a limit of the queue lets it", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("limited", { maxRunning: 2 })
      yield* queues.send(queue, many(20))
      // It would take ten seconds if each pair waited for the next look.
      const seen = yield* collect(queue, 20)
      strictEqual(seen.length, 20)
    }), 5000)

  it.effect("leaves a message that it gave back all the time there is for its tries", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const { sql } = yield* Postgres
      const queue = yield* declared("untried", { retry: { attempts: 5, base: "1 second", total: "1 minute" } })
      yield* queues.send(queue, many(1))
      const [first] = yield* pull.claim(queue)
      yield* pull.release(first!)
      // It stays there for an hour.
      yield* sql`update message set first_at = first_at - interval '1 hour'`
      const [second] = yield* pull.claim(queue)
      strictEqual(second?.message.attempt, 1)
      yield* pull.nack(second!, { reason: "not yet" })
      const { dead, later } = yield* queues.stats(queue)
      deepStrictEqual({ dead, later }, { dead: 0, later: 1 })
    }))
})
