import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as Handling from "@strata/queues/consuming/Handling"
import * as HeaderFilter from "@strata/queues/consuming/HeaderFilter"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as Queues from "@strata/queues/Queues"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { collect, Database, declared, many } from "./fixture.ts"

layer(Database, { excludeTestServices: true })("a worker", (it) => {
  it.effect("handles what was sent, the most urgent first and then in the order of sending", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("order")
      yield* queues.send(queue, [
        { payload: { n: 1 }, priority: 1 },
        { payload: { n: 2 }, priority: 10 },
        { payload: { n: 3 }, priority: 5 },
        { payload: { n: 4 }, priority: 5 },
        { payload: { n: 5 }, priority: 10 }
      ])
      const seen = yield* collect(queue, 5, { concurrency: 1 })
      deepStrictEqual(seen.map(({ n }) => n), [2, 5, 3, 4, 1])
      deepStrictEqual(yield* queues.stats(queue), {
        ready: 0,
        later: 0,
        parked: 0,
        leased: 0,
        dead: 0,
        sent: 5,
        done: 5,
        failed: 0
      })
    }))

  it.effect("handles a message once however many workers there are", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("workers")
      yield* Effect.forEach(Array.from({ length: 20 }), () => queues.send(queue, many(100)), {
        concurrency: "unbounded",
        discard: true
      })
      const counts = new Map<bigint, number>()
      const done = yield* Deferred.make<void>()
      const work = QueueWorker.run(queue, ({ id }) =>
        Effect.suspend(() => {
          counts.set(id, (counts.get(id) ?? 0) + 1)
          return counts.size === 2000 ? Deferred.succeed(done, undefined) : Effect.void
        }))
      yield* Effect.scoped(Effect.gen(function*() {
        for (let worker = 0; worker < 4; worker++) yield* Effect.forkScoped(work)
        yield* Deferred.await(done)
      }))
      strictEqual([...counts.values()].every((count) => count === 1), true)
      strictEqual((yield* queues.stats(queue)).done, 2000)
    }))

  it.effect("tries again what failed, and gives it up in the end, with all that went wrong", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("failing", { retry: { attempts: 3, base: "10 millis", total: "1 minute" } })
      yield* queues.send(queue, [{ payload: { n: 1 } }])
      const tries: Array<number> = []
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.forkScoped(QueueWorker.run(queue, ({ attempt }) => {
          tries.push(attempt)
          return Effect.fail(`order 4711 of try ${attempt} is not there`)
        }))
        yield* Effect.repeat(queues.stats(queue), { until: ({ dead }) => dead === 1 })
      }))
      deepStrictEqual(tries, [1, 2, 3])
      const [letter] = yield* letters.list(queue)
      strictEqual(letter?.reason, "attempts")
      strictEqual(letter?.fingerprint, "string: order # of try # is not there")
      deepStrictEqual(letter?.failures.map(({ attempt }) => attempt), [1, 2])
      strictEqual(letter?.error.attempt, 3)
    }))

  it.effect("keeps the messages of a key in order, one at a time, while others go on", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("keys")
      yield* queues.send(
        queue,
        Array.from({ length: 200 }, (_, n) => ({ payload: { n }, key: `key-${n % 7}` }))
      )
      const seen = new Map<string, Array<number>>()
      let count = 0
      const running = new Set<string>()
      const overlaps: Array<string> = []
      const done = yield* Deferred.make<void>()
      yield* Effect.scoped(Effect.gen(function*() {
        const work = QueueWorker.run(queue, ({ key = "", payload }) =>
          Effect.gen(function*() {
            if (running.has(key)) overlaps.push(key)
            running.add(key)
            yield* Effect.sleep(1)
            running.delete(key)
            seen.set(key, [...(seen.get(key) ?? []), payload.n])
            if (++count === 200) yield* Deferred.succeed(done, undefined)
          }))
        yield* Effect.forkScoped(work)
        yield* Effect.forkScoped(work)
        yield* Deferred.await(done)
      }))
      deepStrictEqual(overlaps, [])
      for (const order of seen.values()) deepStrictEqual(order, [...order].sort((one, other) => one - other))
      strictEqual(seen.size, 7)
    }))

  it.effect("keeps a key in order when one of its messages has to be tried again", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("key-retry", { retry: { attempts: 5, base: "20 millis", total: "1 minute" } })
      yield* queues.send(queue, Array.from({ length: 5 }, (_, n) => ({ payload: { n }, key: "a" })))
      const seen: Array<string> = []
      const done = yield* Deferred.make<void>()
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.forkScoped(QueueWorker.run(queue, ({ attempt, payload: { n } }) =>
          Effect.suspend(() => {
            if (n === 1 && attempt < 3) {
              seen.push(`${n} fails`)
              return Effect.fail("not yet")
            }
            seen.push(String(n))
            return n === 4 ? Deferred.succeed(done, undefined) : Effect.void
          })))
        yield* Deferred.await(done)
      }))
      deepStrictEqual(seen, ["0", "1 fails", "1 fails", "1", "2", "3", "4"])
    }))

  it.effect("puts off what is snoozed without counting the try, and gives up what is rejected", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("snoozing", { retry: { attempts: 2, base: "10 millis", total: "1 minute" } })
      yield* queues.send(queue, [{ payload: { n: 1 } }])
      const attempts: Array<number> = []
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.forkScoped(QueueWorker.run(queue, ({ attempt }) =>
          Effect.suspend(() => {
            attempts.push(attempt)
            const said = attempts.length < 4
              ? Handling.snooze("10 millis")
              : new Handling.Reject({ reason: "of no use" })
            return Effect.fail(said)
          })))
        yield* Effect.repeat(queues.stats(queue), { until: ({ dead }) => dead === 1 })
      }))
      deepStrictEqual(attempts, [1, 1, 1, 1])
      const [letter] = yield* letters.list(queue)
      strictEqual(letter?.reason, "rejected")
      strictEqual(letter?.failures.length, 0)
    }))

  it.effect("takes what its filter wants, and leaves the rest to others", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("filtered")
      yield* queues.send(
        queue,
        Array.from({ length: 30 }, (_, n) => ({ payload: { n }, headers: { region: n % 3 === 0 ? "eu" : "us" } }))
      )
      const filter = HeaderFilter.equal("region", "eu")
      const european = yield* collect(queue, 10, { filter })
      deepStrictEqual(european.map(({ n }) => n % 3), Array.from({ length: 10 }, () => 0))
      strictEqual((yield* queues.stats(queue)).ready, 20)
      const others = yield* collect(queue, 20)
      strictEqual(others.every(({ n }) => n % 3 !== 0), true)
    }))

  it.effect("gives back what it has not begun when it stops, and finishes what it has", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("stopping")
      yield* queues.send(queue, many(50))
      const begun = yield* Deferred.make<void>()
      const finished: Array<number> = []
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.forkScoped(
          QueueWorker.run(queue, ({ payload: { n } }) =>
            Effect.gen(function*() {
              yield* Deferred.succeed(begun, undefined)
              yield* Effect.sleep(50)
              finished.push(n)
            }), { concurrency: 2 })
        )
        yield* Deferred.await(begun)
      }))
      const { done, leased, ready } = yield* queues.stats(queue)
      strictEqual(done, finished.length)
      strictEqual(leased, 0)
      strictEqual(ready, 50 - done)
      const { sql } = yield* Postgres
      const [row] = yield* sql<{ attempts: number }>`select max(attempts) as attempts from message`
      strictEqual(row?.attempts, 0)
    }))

  it.effect("gives up what waited for too long instead of beginning it", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("aged", { maxAge: "20 millis" })
      yield* queues.send(queue, many(1))
      yield* Effect.sleep(40)
      let handled = 0
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.forkScoped(QueueWorker.run(queue, () => Effect.sync(() => handled++)))
        yield* Effect.repeat(queues.stats(queue), { until: ({ dead }) => dead === 1 })
      }))
      strictEqual(handled, 0)
      strictEqual((yield* letters.list(queue))[0]?.reason, "expired")
    }))
})
