import { describe, it } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Feed from "@strata/queues/topics/group/Feed"
import type * as TopicLog from "@strata/queues/topics/TopicLog"
import * as Effect from "effect/Effect"
import { ConnectionError, SqlError } from "effect/sql/SqlError"

const partitions = 4
const batchSize = 10

const messageAt = (position: number, partition: number): TopicLog.StoredMessage => ({
  position: BigInt(position),
  partition,
  id: String(position),
  key: null,
  type: "t",
  tenant: "default",
  correlationId: String(position),
  causationId: null,
  traceparent: null,
  headers: null,
  data: position,
  publishedAt: Timestamp.fromMicros(0n)
})

interface TestTopic {
  readonly log: Array<TopicLog.StoredMessage>
  /** Whose messages were asked for, look by look. */
  readonly looks: Array<ReadonlyArray<number>>
  /** How many messages were asked for at a time at most. */
  largest: number
  hints: number
  /** Of its server. */
  life: string
  /** So many looks fail. */
  failures: number
  readonly read: TopicLog.Read
}

/** A topic of which the partition of each message is given. */
const topicOf = (partitionOf: (position: number) => number, last: number): TestTopic => {
  const topic: TestTopic = {
    log: Array.from({ length: last }, (_, n) => messageAt(n + 1, partitionOf(n + 1))),
    looks: [],
    largest: 0,
    hints: 0,
    life: "first",
    failures: 0,
    read: (wanted) =>
      Effect.gen(function*() {
        yield* Effect.yieldNow
        topic.looks.push(wanted.of.map(({ partition }) => partition))
        topic.largest = Math.max(topic.largest, wanted.limit)
        if (topic.failures-- > 0) {
          return yield* new SqlError({
            reason: new ConnectionError({ cause: "cut", message: "cut", operation: "read" })
          })
        }
        const cursors = new Map(wanted.of.map(({ cursor, partition }) => [partition, cursor]))
        const found = topic.log.filter(({ partition, position }) => position > (cursors.get(partition) ?? position))
        const messages = found.slice(0, wanted.limit)
        const isFull = messages.length === wanted.limit
        return {
          life: topic.life,
          messages,
          isFull,
          seen: isFull ? messages.at(-1)!.position : BigInt(topic.log.length)
        }
      })
  }
  return topic
}

const open = (topic: TestTopic, lanes: number) =>
  Feed.make({ read: topic.read, hintsOf: () => topic.hints, batchSize, lanes })

/** A lane with these partitions, and what came to it, batch by batch. */
const laneOf = (feed: Feed.Feed, own: ReadonlyArray<number>, from = 0n) => {
  const held = own.map((partition) => ({ topic: 1, partition, partitions, cursor: from }))
  const take = feed.join(new Set(held))
  const lane = {
    held,
    batches: new Array<ReadonlyArray<bigint>>(),
    step: Effect.gen(function*() {
      const portion = yield* take({ topic: 1, partitions, of: held })
      lane.batches.push(portion.messages.map(({ position }) => position))
      for (const place of held) place.cursor = portion.seen
      return portion
    }),
    untilTheEnd: Effect.suspend((): Effect.Effect<void, SqlError> =>
      Effect.flatMap(lane.step, ({ isFull }) => isFull ? lane.untilTheEnd : Effect.void)
    )
  }
  return lane
}

const together = (lanes: ReadonlyArray<ReturnType<typeof laneOf>>) =>
  Effect.forEach(lanes, ({ untilTheEnd }) => untilTheEnd, { concurrency: "unbounded", discard: true })

const everyNth = (position: number) => position % partitions

describe("the lanes of a member", () => {
  it.effect("read what they want once for all, and each gets its own, in order, a batch at a time", () =>
    Effect.gen(function*() {
      for (const partitionOf of [everyNth, (position: number) => position < 300 ? 0 : position % 2]) {
        const topic = topicOf(partitionOf, 1000)
        const feed = open(topic, 2)
        const lanes = [laneOf(feed, [0, 1]), laneOf(feed, [2, 3])]
        yield* together(lanes)
        for (const { batches, held } of lanes) {
          const own = new Set(held.map(({ partition }) => partition))
          deepStrictEqual(
            batches.flat(),
            topic.log.filter(({ partition }) => own.has(partition)).map(({ position }) => position)
          )
          strictEqual(batches.every(({ length }) => length <= batchSize), true)
        }
        // Fifty pages, and the end of the topic.
        strictEqual(topic.looks.length <= 53, true, String(topic.looks.length))
      }
    }))

  it.effect("read for themselves where they are far apart, have few of the partitions, or one of them has all", () =>
    Effect.gen(function*() {
      const topic = topicOf(everyNth, 12_000)
      const apart = open(topic, 2)
      yield* laneOf(apart, [0, 1]).step
      yield* laneOf(apart, [2, 3], 6000n).step
      const few = open(topic, 2)
      const lane = laneOf(few, [0])
      laneOf(few, [])
      yield* lane.step
      yield* laneOf(open(topic, 2), [0, 1, 2, 3]).step
      yield* laneOf(open(topic, 1), [0, 1]).step
      deepStrictEqual(topic.looks, [[0, 1], [2, 3], [0], [0, 1, 2, 3], [0, 1]])
    }))

  it.effect("read no more than 5,000 messages at a time for all, however many they are", () =>
    Effect.gen(function*() {
      const topic = topicOf(everyNth, 12_000)
      const feed = open(topic, 1000)
      const lanes = [laneOf(feed, [0, 1]), laneOf(feed, [2, 3])]
      yield* together(lanes)
      strictEqual(topic.largest, 5000)
      deepStrictEqual(lanes.map(({ batches }) => batches.flat().length), [6000, 6000])
    }))

  it.effect("give nothing that was read in one life of the server for what is there in another one", () =>
    Effect.gen(function*() {
      // The first page is nearly all of one lane's.
      const topic = topicOf((position) => position % 10 === 0 ? 2 : position % 2, 40)
      const feed = open(topic, 2)
      const [first, second] = [laneOf(feed, [0, 1]), laneOf(feed, [2, 3])]
      strictEqual((yield* first.step).life, "first")
      // The server begins again without what is after it, and gives those positions to others.
      topic.life = "second"
      topic.log.splice(20)
      const old = yield* second.step
      deepStrictEqual([old.life, old.seen, old.isFull, second.batches], ["first", 20n, true, [[10n, 20n]]])
      feed.forget()
      for (const place of second.held) place.cursor = 0n
      strictEqual((yield* second.step).life, "second")
    }))

  it.effect("look again where there was nothing more, and after a failure", () =>
    Effect.gen(function*() {
      const topic = topicOf(everyNth, 4)
      const feed = open(topic, 2)
      const lanes = [laneOf(feed, [0, 1]), laneOf(feed, [2, 3])]
      yield* together(lanes)
      topic.log.push(messageAt(5, 1), messageAt(6, 2))
      topic.hints = 7
      topic.failures = 1
      strictEqual((yield* Effect.flip(lanes[0]!.step))._tag, "SqlError")
      for (const lane of lanes) strictEqual((yield* lane.step).hints, 7)
      deepStrictEqual(lanes.map(({ batches }) => batches.at(-1)), [[5n], [6n]])
    }))
})
