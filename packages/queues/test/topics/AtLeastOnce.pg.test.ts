import { layer } from "@effect/vitest"
import { deepStrictEqual, notDeepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as Outbox from "@strata/outbox/Outbox"
import { Postgres } from "@strata/postgres/Postgres"
import type * as TopicLog from "@strata/queues/topics/TopicLog"
import * as Topics from "@strata/queues/topics/Topics"
import * as Effect from "effect/Effect"
import { Database, eventually, many, member, seenBy, topicOf } from "./fixture.ts"

const numbersSeen = (name: string) => Effect.map(seenBy(name), (seen) => seen.map(({ n }) => n))

const count = (name: string, wanted: number) => eventually(numbersSeen(name), ({ length }) => length >= wanted)

/** Until the group's positions are saved. */
const saved = (name: string) =>
  Effect.flatMap(
    Topics.Topics,
    (topics) => eventually(topics.group({ name }), ({ partitions }) => partitions.every(({ lag }) => lag === 0n))
  )

layer(Database, { excludeTestServices: true })("a consumer group that handles at least once", (it) => {
  it.effect("leaves nothing that it handled to the next member, when it leaves in order", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const group = { name: "leaving", topics: [topicOf("leaving")], delivery: "atLeastOnce" } as const
      const first = yield* member(group)
      yield* outbox.publish(group.topics[0], many(10))
      yield* count(group.name, 10)
      yield* first.leave
      yield* member(group)
      yield* outbox.publish(group.topics[0], [{ payload: { n: 10 } }])
      deepStrictEqual((yield* count(group.name, 11)).toSorted((a, b) => a - b), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    }).pipe(Effect.scoped))

  it.effect("saves how far it is, so that who takes its place by force begins there", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const name = "forced"
      const topic = topicOf(name)
      const group = { name, topics: [topic], delivery: "atLeastOnce", instance: "one" } as const
      yield* member({ ...group, label: "first" })
      yield* outbox.publish(topic, many(10))
      yield* count(name, 10)
      yield* saved(name)
      yield* member({ ...group, label: "second" })
      yield* outbox.publish(topic, [{ payload: { n: 10 } }])
      yield* count(name, 11)
      yield* saved(name)
      const seen = (yield* seenBy(name)).filter(({ label }) => label === "second")
      deepStrictEqual(seen.map(({ n }) => n), [10])
    }).pipe(Effect.scoped))

  it.effect("reads again from where it is sent, whatever it had handled and not saved", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topics = yield* Topics.Topics
      const name = "sent"
      const topic = topicOf(name, { partitions: 1 })
      yield* member({ name, topics: [topic], delivery: "atLeastOnce", session: "1 second" })
      yield* outbox.publish(topic, many(5))
      yield* count(name, 5)
      yield* topics.seek({ name }, topic, { position: 2n })
      deepStrictEqual(yield* count(name, 8), [0, 1, 2, 3, 4, 2, 3, 4])
      yield* outbox.publish(topic, [{ payload: { n: 5 } }])
      deepStrictEqual((yield* count(name, 9)).slice(8), [5])
    }).pipe(Effect.scoped))

  it.effect("puts aside what fails, and saves with it what went well before", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const name = "aside"
      const topic = topicOf(name, { partitions: 1 })
      const isBad = ({ payload: { n } }: { readonly payload: { readonly n: number } }) => n === 3
      const first = yield* member({
        name,
        topics: [topic],
        delivery: "atLeastOnce",
        handler: (messages) => messages.some(isBad) ? Effect.die("bad") : Effect.void
      })
      yield* outbox.publish(topic, many(6))
      deepStrictEqual(yield* count(name, 5), [0, 1, 2, 4, 5])
      yield* first.leave
      const topics = yield* Topics.Topics
      yield* saved(name)
      strictEqual((yield* topics.group({ name })).aside, 1)
    }).pipe(Effect.scoped))
})

layer(Database, { excludeTestServices: true })("reading a topic for nobody", (it) => {
  it.effect("is one look for all who ask for the same at the same time, and a new one for who comes later", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topics = yield* Topics.Topics
      const { transact } = yield* Postgres
      const topic = topicOf("looks", { partitions: 2 })
      const { id } = yield* topics.declare(topic)
      yield* outbox.publish(topic, many(4))
      yield* eventually(topics.find(topic), ({ last }) => last === 4n)
      const wanted = {
        topic: id,
        partitions: 2,
        of: [{ partition: 0, cursor: 0n }, { partition: 1, cursor: 0n }],
        limit: 3
      }
      const [one, other, more] = yield* Effect.all(
        [topics.read(wanted), transact(topics.read(wanted)), topics.read({ ...wanted, limit: 10 })],
        { concurrency: "unbounded" }
      )
      deepStrictEqual(one.messages.map(({ position }) => position), [1n, 2n, 3n])
      deepStrictEqual([one.isFull, one.seen], [true, 3n])
      deepStrictEqual(other, one)
      deepStrictEqual([more.messages.length, more.isFull, more.seen], [4, false, 4n])
      yield* outbox.publish(topic, many(1))
      yield* eventually(topics.find(topic), ({ last }) => last === 5n)
      notDeepStrictEqual(yield* topics.read({ ...wanted, limit: 10 }), more)
    }))

  it.effect("gives the same messages wherever it begins, whether all partitions are asked for or some", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topics = yield* Topics.Topics
      const topic = topicOf("parts", { partitions: 3 })
      const { id } = yield* topics.declare(topic)
      for (const [count, last] of [[3, 3n], [1, 4n], [9, 13n]] as const) {
        yield* outbox.publish(topic, many(count, String))
        yield* eventually(topics.find(topic), (found) => found.last === last)
      }
      const read = (of: TopicLog.Wanted["of"], limit: number, isAhead: boolean) =>
        Effect.map(
          topics.read({ topic: id, partitions: 3, of, limit, isAhead }),
          ({ messages }) => messages.map(({ key, partition, position }) => ({ key, partition, position }))
        )
      const from = (partitions: ReadonlyArray<number>, cursor: bigint) =>
        partitions.map((partition) => ({ partition, cursor }))
      const all = yield* read(from([0, 1, 2], 0n), 100, false)
      deepStrictEqual(all.map(({ position }) => position), Array.from({ length: 13 }, (_, n) => BigInt(n + 1)))
      strictEqual(new Set(all.map(({ partition }) => partition)).size, 3)
      for (let cursor = 0n; cursor <= 14n; cursor++) {
        const rest = all.filter(({ position }) => position > cursor)
        for (const limit of [1, 4, 13]) {
          deepStrictEqual(yield* read(from([0, 1, 2], cursor), limit, limit > 1), rest.slice(0, limit))
          const some = rest.filter(({ partition }) => partition !== 1)
          deepStrictEqual(yield* read(from([0, 2], cursor), limit, false), some.slice(0, limit))
        }
      }
    }))
})
