import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as DeadLetters from "@strata/queues/DeadLetters"
import type { NewMessage } from "@strata/queues/Message"
import * as Queue from "@strata/queues/Queue"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Database, declared, many } from "./fixture.ts"

layer(Database, { excludeTestServices: true })("sending", (it) => {
  it.effect("in a transaction is there when it commits, and not when it does not", () =>
    Effect.gen(function*() {
      const { transact } = yield* Postgres
      const queues = yield* Queues.Queues
      const queue = yield* declared("transacted")
      yield* Effect.ignore(transact(Effect.andThen(queues.send(queue, many(2)), Effect.fail("no"))))
      strictEqual((yield* queues.stats(queue)).sent, 0)
      yield* transact(queues.send(queue, many(2)))
      strictEqual((yield* queues.stats(queue)).sent, 2)
    }))

  it.effect("sends all messages of a call or none, and names the field that is wrong", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("atomic")
      const wrong: ReadonlyArray<readonly [Partial<NewMessage<{ n: number }>>, string]> = [
        [{ payload: { n: 0.5 } }, "messages[1].payload"],
        [{ priority: 11 }, "messages[1].priority"],
        [{ priority: 1.5 }, "messages[1].priority"],
        [{ delay: -1 }, "messages[1].delay"],
        [{ delay: Infinity }, "messages[1].delay"],
        [{ key: "" }, "messages[1].key"],
        [{ key: "a\0b" }, "messages[1].key"],
        [{ type: "x".repeat(513) }, "messages[1].type"],
        [{ correlationId: "\ud800" }, "messages[1].correlationId"],
        [{ headers: { big: "x".repeat(5000) } }, "messages[1].headers.big"],
        [{ headers: { nan: NaN } }, "messages[1].headers.nan"],
        [{ unique: { key: "" } }, "messages[1].unique.key"],
        [{ unique: { key: "a", during: ["done"] } }, "messages[1].unique.window"]
      ]
      for (const [fields, path] of wrong) {
        const error = yield* Effect.flip(queues.send(queue, [{ payload: { n: 1 } }, { payload: { n: 1 }, ...fields }]))
        strictEqual(error.reason._tag, "InvalidMessage")
        strictEqual(error.message.startsWith(`${path}: `), true, error.message)
      }
      strictEqual((yield* queues.stats(queue)).sent, 0)
    }))

  it.effect("to a queue that is not there fails by its name", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = Queue.make({ name: "nowhere", payload: Schema.Int })
      const error = yield* Effect.flip(queues.send(queue, [{ payload: 1 }]))
      deepStrictEqual(error.message, "There is no queue named nowhere")
    }))

  it.effect("with a delay is not claimed before its time", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("delayed")
      yield* queues.send(queue, [{ payload: { n: 1 }, delay: "1 hour" }, { payload: { n: 2 }, delay: "1 milli" }])
      yield* Effect.sleep(5)
      deepStrictEqual((yield* pull.claim(queue, { limit: 5 })).map(({ message }) => message.payload.n), [2])
      strictEqual((yield* queues.stats(queue)).later, 1)
    }))

  it.effect("under a unique key tells whether it was sent, and which one is there", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("unique")
      const one = (n: number, unique: Partial<NewMessage<unknown>["unique"]> = {}) =>
        Effect.map(
          queues.send(queue, [{ payload: { n }, unique: { key: "daily", ...unique } }]),
          ([sent]) => sent!
        )
      const first = yield* one(1)
      strictEqual(first.outcome, "inserted")
      deepStrictEqual(yield* one(2), { outcome: "skipped", id: first.id })
      const replaced = yield* one(3, { onConflict: "replace" })
      strictEqual(replaced.outcome, "replaced")
      const [delivery] = yield* pull.claim(queue, { limit: 5 })
      strictEqual(delivery?.message.payload.n, 3)
      // It runs: it is in the way of those who say so, and of nobody else.
      deepStrictEqual(yield* one(4), { outcome: "skipped", id: replaced.id })
      deepStrictEqual(yield* one(5, { onConflict: "replace" }), { outcome: "skipped", id: replaced.id })
      yield* pull.ack(delivery!)
      strictEqual((yield* one(6)).outcome, "inserted")
    }))

  it.effect("under a unique key with a window is skipped after the other is done, until the window is over", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("window")
      const unique = { key: "k", during: ["waiting", "running", "done"], window: "200 millis" } as const
      const send = Effect.map(queues.send(queue, [{ payload: { n: 1 }, unique }]), ([sent]) => sent?.outcome)
      strictEqual(yield* send, "inserted")
      const [delivery] = yield* pull.claim(queue)
      yield* pull.ack(delivery!)
      strictEqual(yield* send, "skipped")
      yield* Effect.sleep(220)
      strictEqual(yield* send, "inserted")
    }))

  it.effect("under one unique key at the same time sends one", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("race")
      const sent = yield* Effect.forEach(
        Array.from({ length: 20 }),
        () => queues.send(queue, [{ payload: { n: 1 }, unique: { key: "only" } }]),
        { concurrency: "unbounded" }
      )
      strictEqual(sent.flat().filter(({ outcome }) => outcome === "inserted").length, 1)
      strictEqual((yield* queues.stats(queue)).sent, 1)
    }))

  it.effect("to a full queue is refused, makes room, or spills, as the queue says", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const letters = yield* DeadLetters.DeadLetters
      const refusing = yield* declared("refusing", { maxDepth: 3 })
      yield* queues.send(refusing, many(2))
      const error = yield* Effect.flip(queues.send(refusing, many(2)))
      strictEqual(error.reason._tag, "QueueFull")
      strictEqual((yield* queues.stats(refusing)).sent, 2)

      const dropping = yield* declared("dropping", { maxDepth: 2, overflow: "dropLowest" })
      yield* queues.send(dropping, [{ payload: { n: 1 }, priority: 1 }, { payload: { n: 2 }, priority: 8 }])
      yield* queues.send(dropping, [{ payload: { n: 3 }, priority: 9 }])
      deepStrictEqual((yield* queues.browse(dropping)).map(({ payload }) => payload), [{ n: 3 }, { n: 2 }])
      strictEqual((yield* letters.list(dropping))[0]?.reason, "dropped")
      strictEqual(
        (yield* Effect.flip(queues.send(dropping, [{ payload: { n: 4 }, priority: 0 }]))).reason._tag,
        "QueueFull"
      )

      const spilling = yield* declared("spilling", { maxDepth: 2, overflow: "spill" })
      yield* queues.send(spilling, many(2))
      yield* queues.send(spilling, many(1))
      const { later, ready } = yield* queues.stats(spilling)
      deepStrictEqual({ later, ready }, { later: 1, ready: 2 })
      strictEqual((yield* pull.claim(spilling, { limit: 5 })).length, 3)
    }))

  it.effect("is looked at without taking anything, and taken back", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("browsed")
      yield* queues.send(queue, Array.from({ length: 5 }, (_, n) => ({ payload: { n }, priority: n })))
      const first = yield* queues.browse(queue, { limit: 2 })
      const rest = yield* queues.browse(queue, { after: first[1] })
      deepStrictEqual([...first, ...rest].map(({ priority }) => priority), [4, 3, 2, 1, 0])
      strictEqual(yield* queues.withdraw(queue, first[0]!.id), true)
      strictEqual(yield* queues.withdraw(queue, first[0]!.id), false)
      strictEqual(yield* queues.purge(queue), 4)
      strictEqual((yield* queues.stats(queue)).ready, 0)
    }))

  it.effect("keeps a payload as it is, or refuses it by name", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = Queue.make({ name: "payloads", payload: Schema.Unknown })
      yield* queues.declare(queue)
      let deep: unknown = 1
      for (let level = 0; level < 64; level++) deep = { deep }
      const payloads = ["a\0b", "\ud800", deep, 2 ** 53, "x".repeat(100_000), null, [], { "": "" }]
      yield* queues.send(queue, payloads.map((payload) => ({ payload })))
      const back = yield* pull.claim(queue, { limit: 20 })
      deepStrictEqual(back.map(({ message }) => message.payload), payloads)

      const bytes = Queue.makeBytes({ name: "bytes" })
      yield* queues.declare(bytes)
      const content = Uint8Array.from({ length: 1000 }, (_, n) => n % 256)
      yield* queues.send(bytes, [{ payload: content }])
      deepStrictEqual((yield* pull.claim(bytes))[0]?.message.payload, content)
    }))
})
