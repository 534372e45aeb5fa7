import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as RequestReply from "@strata/queues/patterns/RequestReply"
import * as PayloadStore from "@strata/queues/PayloadStore"
import * as Queue from "@strata/queues/Queue"
import * as QueuePolicies from "@strata/queues/QueuePolicies"
import * as QueuePull from "@strata/queues/QueuePull"
import * as Queues from "@strata/queues/Queues"
import type * as QueueSettings from "@strata/queues/QueueSettings"
import { migrations } from "@strata/queues/QueuesMigrations"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as Schedules from "@strata/queues/Schedules"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { collect, Database } from "./fixture.ts"

/** What is larger than 100 bytes is stored apart. */
const Small = Schedules.layer.pipe(
  Layer.provideMerge(Layer.merge(Database, SecureRandom.layerWebCrypto)),
  Layer.provide(Layer.succeed(QueuePolicies.QueuePolicies, {
    ...QueuePolicies.defaults,
    inline: 100,
    upkeep: Duration.millis(20)
  }))
)

const Text = Schema.Struct({ text: Schema.String })

const declared = Effect.fnUntraced(function*(name: string, settings?: QueueSettings.Options) {
  const queue = Queue.make({ name, payload: Text, settings })
  yield* (yield* Queues.Queues).declare(queue)
  return queue
})

/** A payload that is stored apart. */
const large = (n: number) => ({ text: `${n}`.padStart(1000, "x") })

/** How many payloads are stored for the messages of this test: every test leaves none. */
const stored = Effect.flatMap(
  Postgres,
  ({ sql }) =>
    Effect.map(
      sql<{ count: number }>`select count(distinct key)::int as count from queue_payload`,
      ([row]) => row!.count
    )
)

const untilStored = (count: number) => Effect.repeat(stored, { until: (n) => n === count })

layer(Small, { excludeTestServices: true })("a payload that is larger than the setting", (it) => {
  it.effect("is stored apart, and comes back wherever its message is looked at", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("everywhere")
      yield* queues.send(queue, [{ payload: large(1) }, { payload: { text: "small" } }])
      deepStrictEqual(yield* sql`select stored_at is null as inline, data is null as apart from message order by id`, [
        { inline: false, apart: true },
        { inline: true, apart: false }
      ])
      deepStrictEqual((yield* queues.browse(queue)).map(({ payload }) => payload), [large(1), { text: "small" }])
      const [first, second] = yield* pull.claim(queue, { limit: 2 })
      deepStrictEqual([first, second].map((delivery) => delivery?.message.payload), [large(1), { text: "small" }])
      yield* pull.nack(first!, { reason: "no", giveUp: true })
      yield* pull.ack(second!)
      deepStrictEqual((yield* letters.list(queue)).map(({ payload }) => payload), [large(1)])
      yield* letters.reprocess(queue, {})
      deepStrictEqual(yield* collect(queue, 1), [large(1)])
      yield* untilStored(0)

      const tail = yield* Effect.forkChild(Stream.runHead(queues.tail(queue)), { startImmediately: true })
      yield* Effect.repeat(
        Effect.andThen(queues.send(queue, [{ payload: large(2) }]), Effect.sync(() => tail.pollUnsafe())),
        { until: (exit) => exit !== undefined }
      )
      const seen = yield* Fiber.join(tail)
      deepStrictEqual(Option.getOrUndefined(seen)?.payload, large(2))
      yield* queues.purge(queue)
      yield* untilStored(0)
    }))

  it.effect("is what it was, whatever it holds: NUL, half of a surrogate pair, 64 levels, numbers to 2^53 and above", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = Queue.make({ name: "odd", payload: Schema.Unknown })
      yield* queues.declare(queue)
      let deep: unknown = "x".repeat(200)
      for (let level = 0; level < 64; level++) deep = level % 2 === 0 ? { deep } : [deep]
      const pad = "x".repeat(200)
      const payloads = [
        [pad, "a\0b"],
        [pad, "\ud800", "\udc00\ud800"],
        deep,
        [pad, 2 ** 53, 2 ** 53 + 2, -(2 ** 53), 1e308, 5e-324, 0.1 + 0.2],
        { [`${pad}\0\ud800`]: null },
        "🙂".repeat(100)
      ]
      yield* queues.send(queue, payloads.map((payload) => ({ payload })))
      strictEqual(yield* stored, payloads.length)
      const back = yield* pull.claim(queue, { limit: 20 })
      deepStrictEqual(back.map(({ message }) => message.payload), payloads)
      for (const delivery of back) yield* pull.ack(delivery)
      yield* untilStored(0)
    }))

  it.effect("keeps 2^53 + 1 where the queue says that it is a whole number, and refuses it where it does not", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const whole = Queue.make({ name: "whole", payload: Schema.Struct({ n: Schema.BigInt, pad: Schema.String }) })
      yield* queues.declare(whole)
      const payload = { n: 2n ** 53n + 1n, pad: "x".repeat(200) }
      yield* queues.send(whole, [{ payload }])
      const [delivery] = yield* pull.claim(whole)
      deepStrictEqual(delivery?.message.payload, payload)
      yield* pull.ack(delivery!)
      yield* untilStored(0)
      const unknown = Queue.make({ name: "unknown", payload: Schema.Unknown })
      yield* queues.declare(unknown)
      const error = yield* Effect.flip(queues.send(unknown, [{ payload: [2n ** 53n + 1n] }]))
      strictEqual(error.reason._tag, "InvalidMessage")
      strictEqual(error.message.startsWith("payload: "), true, error.message)
    }))

  it.effect("is not there when its transaction was rolled back, its message was skipped or its queue was full", () =>
    Effect.gen(function*() {
      const { transact } = yield* Postgres
      const queues = yield* Queues.Queues
      const queue = yield* declared("nothing", { maxDepth: 2 })
      yield* Effect.ignore(transact(Effect.andThen(queues.send(queue, [{ payload: large(1) }]), Effect.fail("no"))))
      strictEqual(yield* stored, 0)
      const unique = { key: "one" }
      yield* queues.send(queue, [{ payload: large(1), unique }])
      const [skipped] = yield* queues.send(queue, [{ payload: large(2), unique }])
      strictEqual(skipped?.outcome, "skipped")
      strictEqual(yield* stored, 1)
      const error = yield* Effect.flip(queues.send(queue, [{ payload: large(3) }, { payload: large(4) }]))
      strictEqual(error.reason._tag, "QueueFull")
      strictEqual(yield* stored, 1)
      // The caller goes on, and commits.
      yield* transact(Effect.ignore(queues.send(queue, [{ payload: large(3) }, { payload: large(4) }])))
      strictEqual(yield* stored, 1)
      strictEqual((yield* queues.stats(queue)).sent, 1)
      yield* queues.purge(queue)
      yield* untilStored(0)
    }))

  it.effect("is removed when its message is done, by hand and by a worker, with a key and without", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("done")
      yield* queues.send(queue, [{ payload: large(1) }, { payload: large(2), key: "a" }])
      for (const delivery of yield* pull.claim(queue, { limit: 2 })) yield* pull.ack(delivery)
      yield* untilStored(0)
      yield* queues.send(queue, [
        { payload: large(1) },
        { payload: large(2), key: "a" },
        { payload: { text: "3" } },
        { payload: large(4), key: "a" }
      ])
      strictEqual((yield* collect(queue, 4)).length, 4)
      yield* untilStored(0)
    }))

  it.effect("is removed when its message is withdrawn, replaced or purged, wherever that waits", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* declared("withdrawn")
      const messages = [
        { payload: large(1) },
        { payload: large(2), delay: "1 hour" },
        { payload: large(3), key: "a" },
        { payload: large(4), key: "a" }
      ] as const
      const sent = yield* queues.send(queue, messages)
      // The last one waits behind its key.
      const claimed = yield* pull.claim(queue, { limit: 5 })
      deepStrictEqual((yield* queues.stats(queue)).parked, 1)
      for (const { id } of sent) yield* queues.withdraw(queue, id)
      yield* untilStored(2)
      for (const delivery of claimed) yield* pull.ack(delivery)
      yield* untilStored(0)

      yield* queues.send(queue, messages)
      strictEqual(yield* queues.purge(queue), 4)
      yield* untilStored(0)

      const unique = { key: "u", onConflict: "replace" } as const
      for (let n = 0; n < 3; n++) yield* queues.send(queue, [{ payload: large(n), unique }])
      yield* untilStored(1)
      deepStrictEqual(yield* collect(queue, 1), [large(2)])
      yield* untilStored(0)
    }))

  it.effect("stays while its message is released, put off, tried again, given up and sent again", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("stays", { retry: { attempts: 5, base: "1 milli", total: "1 minute" } })
      yield* queues.send(queue, [{ payload: large(7) }])
      const claim = Effect.repeat(pull.claim(queue), { until: (found) => found.length > 0 }).pipe(
        Effect.map(([delivery]) => delivery!),
        Effect.tap(({ message }) => Effect.sync(() => deepStrictEqual(message.payload, large(7))))
      )
      yield* pull.release(yield* claim)
      yield* pull.snooze(yield* claim, "1 milli")
      yield* pull.nack(yield* claim, { reason: "no" })
      yield* claim
      yield* sql`update message_lease set until = clock_timestamp() - interval '1 second'`
      yield* pull.nack(yield* claim, { reason: "no", giveUp: true })
      yield* letters.reprocess(queue, {})
      strictEqual(yield* stored, 1)
      yield* pull.ack(yield* claim)
      yield* untilStored(0)
    }))

  it.effect("is removed when its dead letter is discarded, edited, or older than its queue keeps them", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const letters = yield* DeadLetters.DeadLetters
      const kill = Effect.fnUntraced(function*(queue: Queue.Queue<typeof Text.Type>, count: number) {
        yield* queues.send(queue, Array.from({ length: count }, (_, n) => ({ payload: large(n) })))
        for (const delivery of yield* pull.claim(queue, { limit: count })) {
          yield* pull.nack(delivery, { reason: "no", giveUp: true })
        }
      })
      const queue = yield* declared("discarded")
      yield* kill(queue, 1)
      yield* letters.discard(queue, {})
      yield* untilStored(0)

      yield* kill(queue, 2)
      yield* letters.reprocess(queue, {}, { edit: { payload: { text: "small" } } })
      yield* untilStored(0)
      deepStrictEqual(yield* collect(queue, 2), [{ text: "small" }, { text: "small" }])

      // Each of them gets a payload of its own.
      yield* kill(queue, 2)
      yield* letters.reprocess(queue, {}, { edit: { payload: large(42) } })
      yield* untilStored(2)
      const [first, second] = yield* pull.claim(queue, { limit: 2 })
      yield* pull.ack(first!)
      yield* untilStored(1)
      yield* pull.release(second!)
      deepStrictEqual(yield* collect(queue, 1), [large(42)])
      yield* untilStored(0)

      const brief = yield* declared("brief", { keepDead: "1 milli" })
      yield* kill(brief, 3)
      yield* untilStored(0)
      strictEqual((yield* queues.stats(brief)).dead, 0)
      const error = yield* Effect.flip(letters.reprocess(queue, {}, { edit: { payload: 1n } }))
      strictEqual(error.message.startsWith("edit.payload: "), true, error.message)
    }))

  it.effect("that is not there makes a dead letter, which says so and can be sent again with another one", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const letters = yield* DeadLetters.DeadLetters
      const queue = yield* declared("missing")
      yield* queues.send(queue, [{ payload: large(1) }, { payload: { text: "there" } }, { payload: large(2) }])
      yield* sql`delete from queue_payload`
      deepStrictEqual((yield* queues.browse(queue)).map(({ payload }) => payload), [
        undefined,
        { text: "there" },
        undefined
      ])
      const [there] = yield* pull.claim(queue, { limit: 2 })
      strictEqual(there?.message.payload.text, "there")
      yield* pull.release(there!)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.forkScoped(QueueWorker.run(queue, () => Effect.void))
        yield* Effect.repeat(queues.stats(queue), { until: ({ dead, done }) => dead === 2 && done === 1 })
      }))
      const found = yield* letters.list(queue)
      deepStrictEqual(found.map(({ payload, reason }) => ({ payload, reason })), [
        { payload: undefined, reason: "unreadable" },
        { payload: undefined, reason: "unreadable" }
      ])
      strictEqual(found[0]?.error.message?.includes("it is not in the store"), true)
      yield* letters.reprocess(queue, {}, { edit: { payload: { text: "mended" } } })
      deepStrictEqual(yield* collect(queue, 2), [{ text: "mended" }, { text: "mended" }])
    }))

  it.effect("of a schedule is sent with every message of it, and removed with the schedule", () =>
    Effect.gen(function*() {
      const schedules = yield* Schedules.Schedules
      const queues = yield* Queues.Queues
      const queue = yield* declared("scheduled")
      const at = Timestamp.fromMillis(0)
      yield* schedules.put("large", { at }, queue, { payload: large(1) })
      deepStrictEqual(yield* collect(queue, 1), [large(1)])
      yield* untilStored(1)
      yield* schedules.put("large", { at }, queue, { payload: large(2) })
      deepStrictEqual(yield* collect(queue, 1), [large(2)])
      yield* untilStored(1)
      yield* schedules.setPaused("large", true)
      strictEqual(yield* stored, 1)
      yield* schedules.remove("large")
      yield* untilStored(0)
      strictEqual((yield* queues.stats(queue)).done, 2)
    }))

  it.effect("is asked, and answered", () =>
    Effect.gen(function*() {
      const queue = yield* declared("asked")
      yield* Effect.forkScoped(
        QueueWorker.run(
          queue,
          RequestReply.replying(Text, ({ payload }) => Effect.succeed({ text: `${payload.text}!` }))
        )
      )
      const answer = yield* RequestReply.ask(queue, { payload: large(1) }, { reply: Text, timeout: "10 seconds" })
      deepStrictEqual(answer, { text: `${large(1).text}!` })
      yield* untilStored(0)
    }).pipe(Effect.scoped))

  it.effect("is removed with an answer that nobody took", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const { payloads } = yield* Queues.Queues
      const key = yield* payloads.put(new Uint8Array(5))
      yield* sql`
        insert into queue_reply (id, at, stored_at)
        values (gen_random_uuid(), clock_timestamp() - interval '2 hours', ${`json:5:${key}`})`
      yield* untilStored(0)
    }))

  it.effect("stays with its message in the history, and is removed with it", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("kept", { history: "1 hour" })
      yield* queues.send(queue, [{ payload: large(1) }])
      deepStrictEqual(yield* collect(queue, 1), [large(1)])
      yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 1 })
      deepStrictEqual((yield* queues.history(queue)).map(({ payload }) => payload), [large(1)])
      strictEqual(yield* stored, 1)
      yield* queues.configure(queue, { ...queue.settings, history: Duration.millis(1) })
      yield* untilStored(0)
      deepStrictEqual(yield* queues.history(queue), [])
    }))
})

layer(Database, { excludeTestServices: true })("payloads of many megabytes", (it) => {
  const whole = Queue.makeBytes({ name: "bytes" })
  const text = Queue.make({ name: "text", payload: Text })
  const letter = (n: number) => String.fromCharCode(97 + n % 26)

  it.effect("of 20 MB come back as they were, as JSON and as bytes", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      yield* queues.declare(whole)
      yield* queues.declare(text)
      const bytes = new Uint8Array(20_000_000)
      for (let n = 0; n < bytes.length; n++) bytes[n] = Math.imul(n, 2_654_435_761) >>> 24
      const payload = { text: Array.from({ length: 1_000_000 }, (_, n) => `${letter(n)}é${n % 10}\0\ud800🙂`).join("") }
      yield* queues.send(whole, [{ payload: bytes }])
      yield* queues.send(text, [{ payload }])
      const [first] = yield* pull.claim(whole)
      strictEqual(Buffer.from(bytes).equals(first!.message.payload), true)
      const [back] = yield* collect(text, 1)
      strictEqual(back?.text === payload.text, true)
    }))

  it.effect("above 64 MiB are refused by the field", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      yield* queues.declare(whole)
      yield* queues.declare(text)
      const bytes = new Uint8Array(67_108_865)
      const refused = yield* Effect.flip(queues.send(whole, [{ payload: new Uint8Array(1) }, { payload: bytes }]))
      strictEqual(refused.message, "messages[1].payload: expected at most 67108864 bytes, as JSON or as they are")
      const long = yield* Effect.flip(queues.send(text, [{ payload: { text: "é".repeat(33_554_432) } }]))
      strictEqual(long.message.startsWith("payload: expected at most"), true)
    }))

  /** A queue with messages of a megabyte, each of one letter, so that they would be small if they were compressed. */
  const filled = Effect.fnUntraced(function*(name: string) {
    const queues = yield* Queues.Queues
    const queue = Queue.make({ name, payload: Text })
    yield* queues.declare(queue)
    yield* queues.send(
      queue,
      Array.from({ length: 30 }, (_, n) => ({ payload: { text: letter(n).repeat(1_000_000) }, priority: n % 2 }))
    )
    return queue
  })

  it.effect("together are claimed a few at a time, by several at the same time too", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = yield* filled("pulled")
      strictEqual((yield* queues.find(queue)).weighs, true)
      const claims = yield* Effect.forEach(
        Array.from({ length: 3 }),
        () => pull.claim(queue, { limit: 30 }),
        { concurrency: "unbounded" }
      )
      deepStrictEqual(claims.map(({ length }) => length), [9, 9, 9])
      strictEqual(new Set(claims.flat().map(({ message }) => message.id)).size, 27)
    }))

  it.effect("together are all handled by a worker, which holds a few of them", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const queue = yield* filled("worked")
      const { id } = yield* queues.find(queue)
      const seen = new Set<string>()
      let most = 0
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.forkScoped(QueueWorker.run(queue, ({ payload }) =>
          Effect.gen(function*() {
            seen.add(payload.text.slice(0, 1))
            const [row] = yield* sql<{ size: number }>`
              select coalesce(sum(size), 0)::int as size from message_lease where queue = ${id}`
            most = Math.max(most, row!.size)
          }), { concurrency: 2 }))
        yield* Effect.repeat(queues.stats(queue), { until: ({ done }) => done === 30 })
      }))
      strictEqual(seen.size, 26)
      strictEqual(most <= 20, true, `${most} at once`)
    }))

  it.effect("up to one are in the row, and are counted after an edit too", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const letters = yield* DeadLetters.DeadLetters
      const queue = Queue.make({ name: "edited", payload: Text })
      yield* queues.declare(queue)
      yield* queues.send(queue, [{ payload: { text: "a" } }, { payload: { text: "b" } }])
      for (const delivery of yield* pull.claim(queue, { limit: 2 })) {
        yield* pull.nack(delivery, { reason: "no", giveUp: true })
      }
      const payload = { text: "x".repeat(500_000) }
      yield* letters.reprocess(queue, {}, { edit: { payload } })
      deepStrictEqual((yield* queues.browse(queue)).map(({ payload }) => payload), [payload, payload])
      const claimed = yield* pull.claim(queue, { limit: 2 })
      deepStrictEqual(claimed.map(({ claimed: { size } }) => size), [500_011, 500_011])
      for (const delivery of claimed) yield* pull.ack(delivery)
      deepStrictEqual(yield* sql`select stored_at from queue_payload_ended where stored_at like 'row:%'`, [])
    }))

  it.effect("are no matter to a queue that has none", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const pull = yield* QueuePull.QueuePull
      const queue = Queue.make({ name: "light", payload: Text })
      yield* queues.declare(queue)
      yield* queues.send(queue, Array.from({ length: 500 }, (_, n) => ({ payload: { text: letter(n) } })))
      strictEqual((yield* queues.find(queue)).weighs, false)
      const claimed = yield* pull.claim(queue, { limit: 500 })
      deepStrictEqual([...new Set(claimed.map(({ claimed: { size } }) => size))], [null])
      strictEqual(claimed.length, 500)
    }))
})

layer(PostgresTest.layer({ migrations: [migrations] }), { excludeTestServices: true })("another store", (it) => {
  it.effect("has the payloads instead of the database", () =>
    Effect.gen(function*() {
      const kept = new Map<string, Uint8Array>()
      let next = 0
      const Memory = Layer.succeed(PayloadStore.PayloadStore, {
        put: (content) =>
          Effect.sync(() => {
            const key = `memory:${next++}`
            kept.set(key, content)
            return key
          }),
        get: (key) => Effect.sync(() => Option.fromUndefinedOr(kept.get(key))),
        remove: (keys) =>
          Effect.sync(() => {
            for (const key of keys) kept.delete(key)
          })
      })
      const queue = Queue.make({ name: "elsewhere", payload: Text })
      yield* Effect.gen(function*() {
        const queues = yield* Queues.Queues
        yield* queues.declare(queue)
        yield* queues.send(queue, [{ payload: { text: "x".repeat(2_000_000) } }])
        strictEqual(kept.size, 1)
        strictEqual(yield* stored, 0)
        const [back] = yield* collect(queue, 1)
        strictEqual(back?.text.length, 2_000_000)
        yield* Effect.repeat(Effect.sync(() => kept.size), { until: (size) => size === 0 })
      }).pipe(Effect.provide(Queues.layerNoDeps.pipe(Layer.provide(Memory))))
    }))
})
