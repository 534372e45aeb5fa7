import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import * as Outbox from "@strata/outbox/Outbox"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import * as Topic from "@strata/queues/topics/Topic"
import * as TopicPolicies from "@strata/queues/topics/TopicPolicies"
import * as Topics from "@strata/queues/topics/Topics"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { Database, eventually, many, member, numbers, type Seen, seenBy, shares, topicOf } from "./fixture.ts"

const count = (name: string, wanted: number) => eventually(seenBy(name), ({ length }) => length >= wanted)

const sorted = (seen: ReadonlyArray<Seen>) => seen.map(({ n }) => n).toSorted((one, other) => one - other)

const upTo = (end: number) => Array.from({ length: end }, (_, n) => n)

const inOrder = (seen: ReadonlyArray<Seen>) => {
  for (const [, of] of Map.groupBy(seen, ({ key }) => key)) {
    deepStrictEqual(of.map(({ n }) => n), of.map(({ n }) => n).toSorted((one, other) => one - other))
  }
}

layer(Database, { excludeTestServices: true })("a consumer group", (it) => {
  it.effect("gets every message of its topics once, as every other group does", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const one = topicOf("each-one")
      const other = topicOf("each-other", { partitions: 3 })
      const names = ["each-1", "each-2", "each-3"]
      for (const name of names) yield* member({ name, topics: [one, other] })
      yield* outbox.publish(one, many(50, (n) => `${n % 7}`))
      yield* outbox.publish(other, many(50).map(({ payload: { n } }) => ({ payload: { n: n + 50 } })))
      for (const name of names) {
        const seen = yield* count(name, 100)
        deepStrictEqual(sorted(seen), upTo(100))
        inOrder(seen)
      }
    }).pipe(Effect.scoped))

  it.effect("begins at the beginning, at the end, after a position or at a time", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topics = yield* Topics.Topics
      const topic = topicOf("starts")
      yield* topics.declare(topic)
      yield* outbox.publish(topic, many(5))
      yield* eventually(topics.find(topic), ({ last }) => last === 5n)
      yield* Effect.sleep("20 millis")
      const [[micros]] = yield* numbers(
        "select extract(epoch from clock_timestamp()) * 1000000"
      ) as never as Effect.Effect<
        [[number]]
      >
      const starts = {
        beginning: "beginning",
        end: "end",
        position: { position: 3n },
        time: { time: Timestamp.fromMicros(BigInt(Math.floor(micros))) }
      } as const
      const wanted = { beginning: [0, 1, 2, 3, 4, 5], end: [5], position: [3, 4, 5], time: [5] }
      for (const [name, startFrom] of Object.entries(starts)) {
        yield* member({ name: `starts-${name}`, topics: [topic], startFrom })
      }
      yield* outbox.publish(topic, [{ payload: { n: 5 } }])
      for (const [name, numbers] of Object.entries(wanted)) {
        const seen = yield* eventually(seenBy(`starts-${name}`), (seen) => seen.some(({ n }) => n === 5))
        deepStrictEqual(sorted(seen), numbers)
      }
    }).pipe(Effect.scoped))

  it.effect("commits what its handler writes with its positions, or neither", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const { rows } = yield* Postgres
      const topic = topicOf("effects")
      yield* rows("create table effect (n integer)", [])
      let failed = 0
      yield* ConsumerGroup.run({
        name: "effects",
        topics: [topic],
        startFrom: "beginning",
        handler: (messages) =>
          Effect.gen(function*() {
            for (const { payload: { n } } of messages) yield* rows(`insert into effect values (${n})`, [])
            // What came together fails, and then goes well one by one.
            if (messages.length > 1 && failed++ >= 0) return yield* Effect.fail("together")
          })
      })
      yield* outbox.publish(topic, many(30, (n) => `${n % 3}`))
      yield* eventually(numbers("select count(*) from effect"), ([row]) => row![0]! >= 30)
      strictEqual(failed > 0, true)
      deepStrictEqual(yield* numbers("select count(*), count(distinct n) from effect"), [[30, 30]])
      const { aside, dead } = yield* (yield* Topics.Topics).group({ name: "effects" })
      deepStrictEqual([aside, dead], [0, 0])
    }).pipe(Effect.scoped))

  it.effect("tries a message again that failed, in the order of its key, and goes on with others meanwhile", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("poison")
      yield* member({
        name: "poison",
        topics: [topic],
        retries: { retry: { attempts: 3, base: "100 millis", kind: "fixed", total: "1 minute" } },
        handler: ConsumerGroup.each(({ attempt, key, payload: { n } }) =>
          (key === "bad" && n === 1) || (key === "late" && n === 1 && attempt < 3)
            ? Effect.fail("not now")
            : Effect.void
        )
      })
      yield* outbox.publish(
        topic,
        upTo(4).flatMap((n) => ["bad", "good", "late"].map((key) => ({ payload: { n }, key })))
      )
      const of = (seen: ReadonlyArray<Seen>, key: string) => seen.filter((each) => each.key === key).map(({ n }) => n)
      const seen = yield* count("poison", 11)
      deepStrictEqual(["good", "late", "bad"].map((key) => of(seen, key)), [[0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 3]])
      const placeOf = (key: string, n: number) => seen.findIndex((each) => each.key === key && each.n === n)
      strictEqual(placeOf("good", 3) < placeOf("late", 1), true)

      // Its key goes on directly again.
      yield* outbox.publish(topic, [{ payload: { n: 4 }, key: "bad" }])
      yield* eventually(seenBy("poison"), (seen) => of(seen, "bad").length === 4)

      const letters = yield* DeadLetters.DeadLetters
      const [letter, ...others] = yield* letters.list(ConsumerGroup.deadLettersOf("poison"))
      deepStrictEqual(others, [])
      deepStrictEqual([letter?.payload, letter?.key, letter?.attempts, letter?.reason], [
        { n: 1 },
        "bad",
        3,
        "attempts"
      ])
      yield* letters.reprocess(ConsumerGroup.deadLettersOf("poison"), {}, { edit: { payload: { n: 9 } } })
      yield* eventually(seenBy("poison"), (seen) => of(seen, "bad").includes(9))
    }).pipe(Effect.scoped))

  it.effect(
    "keeps the order of a key of which messages are aside, while partitions move to other members and grow",
    () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topics = yield* Topics.Topics
        const name = "moving aside"
        const topic = topicOf(name, { partitions: 2 })
        let isDown = true
        const of = (label: string) => ({
          name,
          label,
          topics: [topic] as const,
          retries: {
            retry: { attempts: 100, base: "200 millis", cap: "200 millis", kind: "fixed", total: "1 hour" }
          } as const,
          handler: ConsumerGroup.each((
            { key, payload: { n } }: { readonly key: string | undefined; readonly payload: { readonly n: number } }
          ) => key === "waits" && n === 1 && isDown ? Effect.fail("not now") : Effect.void)
        })
        const publish = (from: number, to: number) =>
          outbox.publish(
            topic,
            upTo(to).slice(from).flatMap((n) =>
              ["waits", "a", "b", "c", "d", "e"].map((key) => ({ payload: { n }, key }))
            )
          )
        const first = yield* member(of("first"))
        yield* publish(0, 4)
        yield* eventually(topics.group({ name }), ({ aside }) => aside === 3)
        yield* member(of("second"))
        yield* eventually(shares(name), (counts) => counts["first"] === 1 && counts["second"] === 1)
        yield* publish(4, 6)
        yield* topics.configure(topic, { partitions: 8 })
        yield* eventually(shares(name), (counts) => counts["first"] === 4 && counts["second"] === 4)
        yield* publish(6, 8)
        yield* first.leave
        yield* eventually(shares(name), (counts) => counts["second"] === 8)
        yield* publish(8, 10)
        yield* eventually(topics.group({ name }), ({ aside }) => aside === 9)
        isDown = false
        const seen = yield* count(name, 60)
        inOrder(seen)
        deepStrictEqual(seen.length, 60)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("hands a message that came alone and failed to its handler once, and goes on after one that interrupts itself", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("alone")
      const tries: Array<number> = []
      let interrupts = true
      yield* member({
        name: "alone",
        topics: [topic],
        retries: { retry: { attempts: 2, base: "1 hour", cap: "1 hour", total: "1 day" } },
        handler: ([{ payload: { n } }]) =>
          Effect.suspend(() => {
            tries.push(n)
            if (n === 1) return Effect.fail("not now")
            if (n === 2 && interrupts) {
              interrupts = false
              return Effect.interrupt
            }
            return Effect.void
          })
      })
      yield* outbox.publish(topic, [{ payload: { n: 1 } }])
      yield* eventually(
        Effect.map(Topics.Topics.use((topics) => topics.group({ name: "alone" })), ({ aside }) => aside),
        (n) => n === 1
      )
      deepStrictEqual(tries, [1])
      yield* outbox.publish(topic, [{ payload: { n: 2 } }])
      yield* count("alone", 1)
      deepStrictEqual(tries, [1, 2, 2])
    }).pipe(Effect.scoped))

  it.effect("gives up what cannot be read or is rejected at once, and what is permanent", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("unreadable")
      yield* member({ name: "unreadable", topics: [topic] })
      yield* outbox.publish({ kind: "topic", name: "unreadable", encode: () => Result.succeed("text") }, [
        { payload: undefined }
      ])
      yield* outbox.publish(topic, many(1))
      yield* count("unreadable", 1)
      const [letter] = yield* (yield* DeadLetters.DeadLetters).list(ConsumerGroup.deadLettersOf("unreadable"))
      deepStrictEqual([letter?.payload, letter?.reason], ["text", "unreadable"])
    }).pipe(Effect.scoped))

  it.effect(
    "is shared by its members, and moves only the partitions that it must when they come and go",
    () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topic = topicOf("shared")
        const a = yield* member({ name: "shared", topics: [topic], label: "a" })
        yield* eventually(shares("shared"), (owners) => owners["a"] === 8)
        const publish = (from: number) =>
          outbox.publish(
            topic,
            many(200, (n) => `${n % 20}`).map((each) => ({ ...each, payload: { n: from + each.payload.n } }))
          )
        yield* publish(0)
        const b = yield* member({ name: "shared", topics: [topic], label: "b" })
        yield* publish(200)
        yield* eventually(shares("shared"), (owners) => owners["a"] === 4 && owners["b"] === 4)
        yield* publish(400)
        yield* member({ name: "shared", topics: [topic], label: "c" })
        yield* eventually(shares("shared"), (owners) => owners["c"] === 2)
        yield* publish(600)
        yield* b.leave
        yield* eventually(shares("shared"), (owners) => owners["a"] === 4 && owners["c"] === 4)
        yield* publish(800)
        yield* a.leave
        yield* eventually(shares("shared"), (owners) => owners["c"] === 8)
        const seen = yield* count("shared", 1000)
        deepStrictEqual(sorted(seen), upTo(1000))
        inOrder(seen)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("grows partitions while it reads, without losing, doubling or overtaking", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topics = yield* Topics.Topics
      const topic = topicOf("grows", { partitions: 1 })
      yield* topics.declare(topic)
      yield* member({ name: "grows", topics: [topic], label: "a", concurrency: 4 })
      yield* member({ name: "grows", topics: [topic], label: "b", concurrency: 4 })
      const publishing = yield* Effect.forkChild(
        Effect.forEach(upTo(100), (round) =>
          outbox.publish(
            topic,
            many(20, (n) => `${n}`).map(({ key }, n) => ({ key, payload: { n: round * 20 + n } }))
          ), {
          discard: true
        })
      )
      for (const partitions of [2, 3, 7, 16]) yield* topics.configure(topic, { partitions })
      yield* Fiber.join(publishing)
      const seen = yield* count("grows", 2000)
      deepStrictEqual(sorted(seen), upTo(2000))
      inOrder(seen)
      strictEqual((yield* topics.find(topic)).settings.partitions, 16)
      const refused = yield* Effect.flip(topics.configure(topic, { partitions: 8 }))
      strictEqual(refused.message, "settings.partitions: expected 16 at least, as many as there are")
    }).pipe(Effect.scoped), 60_000)

  it.effect(
    "is paused, resumed, sought and cancelled",
    () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topics = yield* Topics.Topics
        const topic = topicOf("steered")
        const name = "steered"
        const { ended } = yield* member({ name, topics: [topic] })
        yield* outbox.publish(topic, many(10))
        yield* count(name, 10)
        yield* eventually(topics.group({ name }), ({ partitions }) => partitions.every(({ lag }) => lag === 0n))
        yield* topics.pause({ name })
        yield* outbox.publish(topic, many(10).map(() => ({ payload: { n: 100 } })))
        yield* eventually(topics.find(topic), ({ last }) => last === 20n)
        yield* Effect.sleep("300 millis")
        const paused = yield* topics.group({ name })
        deepStrictEqual([
          (yield* seenBy(name)).length,
          paused.state,
          paused.partitions.reduce((sum, { lag }) => sum + Number(lag), 0)
        ], [
          10,
          "paused",
          10
        ])
        strictEqual(paused.partitions.every(({ lag, lagSeconds }) => lagSeconds > 0 === lag > 0n), true)
        yield* topics.resume({ name })
        yield* count(name, 20)
        yield* eventually(
          topics.group({ name }),
          ({ partitions, state }) => state === "stable" && partitions.every(({ lag }) => lag === 0n)
        )
        yield* topics.seek({ name }, topic, { position: 18n })
        yield* count(name, 22)
        yield* topics.seek({ name }, topic, "beginning")
        yield* count(name, 42)
        yield* topics.cancel({ name })
        const error = yield* Effect.flip(ended)
        strictEqual(error.message, "The consumer group steered was cancelled")
        strictEqual((yield* Effect.flip(member({ name, topics: [topic] }))).message, error.message)
        deepStrictEqual((yield* topics.group({ name })).state, "cancelled")
      }).pipe(Effect.scoped),
    60_000
  )

  for (const steered of ["paused", "sought", "cancelled"] as const) {
    it.effect(`that is ${steered} while it handles a batch commits nothing of that`, () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topics = yield* Topics.Topics
        const name = `${steered} meanwhile`
        const topic = topicOf(name, { partitions: 1 })
        const inside = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        let batches = 0
        yield* member({
          name,
          topics: [topic],
          handler: () =>
            Effect.andThen(
              Effect.sync(() => batches++),
              Effect.andThen(Deferred.succeed(inside, undefined), Deferred.await(go))
            )
        })
        yield* outbox.publish(topic, many(5))
        yield* Deferred.await(inside)
        if (steered === "paused") yield* topics.pause({ name })
        if (steered === "sought") yield* topics.seek({ name }, topic, { position: 3n })
        if (steered === "cancelled") yield* topics.cancel({ name })
        yield* Deferred.succeed(go, undefined)
        if (steered === "sought") {
          deepStrictEqual(sorted(yield* count(name, 2)), [3, 4])
        } else {
          yield* Effect.sleep("500 millis")
          deepStrictEqual(yield* seenBy(name), [])
        }
        if (steered === "paused") {
          // One that joins meanwhile gets nothing either.
          yield* member({ name, topics: [topic], label: "other" })
          yield* Effect.sleep("500 millis")
          deepStrictEqual([yield* seenBy(name), batches], [[], 1])
          yield* topics.resume({ name })
          deepStrictEqual(sorted(yield* count(name, 5)), upTo(5))
        }
      }).pipe(Effect.scoped), 60_000)
  }

  it.effect(
    "that is cancelled holds no topic open that wants a reader, also when it is cancelled twice",
    () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topics = yield* Topics.Topics
        const name = "given up"
        const topic = topicOf(name, { requiresGroup: true })
        yield* member({ name, topics: [topic] })
        yield* eventually(Effect.result(outbox.publish(topic, many(1))), Result.isSuccess)
        yield* topics.cancel({ name })
        yield* topics.cancel({ name })
        yield* eventually(Effect.result(outbox.publish(topic, many(1))), Result.isFailure)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("takes no more members than it may have", () =>
    Effect.gen(function*() {
      const topic = topicOf("full")
      const first = yield* member({ name: "full", topics: [topic], maxMembers: 1 })
      const error = yield* Effect.flip(member({ name: "full", topics: [topic], maxMembers: 1 }))
      strictEqual(error.message, "The consumer group full has 1 members, and may have no more")
      yield* first.leave
      yield* member({ name: "full", topics: [topic], maxMembers: 1 })
    }).pipe(Effect.scoped))

  it.effect(
    "keeps the partitions of a static member that comes back, and fences who was it before",
    () =>
      Effect.gen(function*() {
        const topics = yield* Topics.Topics
        const topic = topicOf("static")
        const name = "static"
        const options = { name, topics: [topic] as const, session: "5 seconds" as const }
        yield* member({ ...options, label: "b" })
        const a = yield* member({ ...options, label: "a", instance: "one" })
        yield* eventually(shares(name), (owners) => owners["a"] === 4 && owners["b"] === 4)
        const before = yield* topics.group({ name })
        yield* a.leave
        const again = yield* member({ ...options, label: "a again", instance: "one" })
        yield* eventually(shares(name), (owners) => owners["a again"] === 4)
        const after = yield* topics.group({ name })
        strictEqual(after.epoch, before.epoch)
        const owned = (of: typeof before, owner: string) =>
          of.partitions.filter((each) => each.owner === owner).map(({ partition }) => partition)
        deepStrictEqual(owned(after, "a again"), owned(before, "a"))
        yield* member({ ...options, label: "thief", instance: "one" })
        const error = yield* Effect.flip(again.ended)
        strictEqual(error.message, "Another process takes part in the consumer group static as one")
        yield* eventually(shares(name), (owners) => owners["thief"] === 4)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("that many join at once has two assignments at most", () =>
    Effect.gen(function*() {
      const topics = yield* Topics.Topics
      const topic = topicOf("many", { partitions: 24 })
      yield* Effect.forEach(upTo(12), (n) => member({ name: "many", topics: [topic], label: `${n}` }), {
        concurrency: "unbounded"
      })
      yield* eventually(shares("many"), (owners) => Object.keys(owners).length === 12)
      strictEqual((yield* topics.group({ name: "many" })).epoch <= 2n, true)
    }).pipe(
      // However long it takes them to come.
      Effect.provideService(TopicPolicies.TopicPolicies, { ...TopicPolicies.defaults, settle: Duration.seconds(5) }),
      Effect.scoped
    ), 60_000)

  it.effect(
    "that reads nobody any more is dead after a while, and alive again with its next member",
    () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topics = yield* Topics.Topics
        const topic = topicOf("lonely", { requiresGroup: true })
        const name = "lonely"
        yield* topics.declare(topic)
        const refused = yield* Effect.flip(outbox.publish(topic, many(1)))
        strictEqual(refused.message, "Nothing is published to topic lonely: no live group reads it")
        // That somebody is alive is noticed by whoever looks after groups.
        const publish = Effect.retry(outbox.publish(topic, many(1)), {
          schedule: Schedule.spaced("20 millis"),
          times: 500
        })
        const first = yield* member({ name, topics: [topic] })
        yield* publish
        yield* count(name, 1)
        yield* first.leave
        yield* eventually(topics.group({ name }), ({ state }) => state === "dead")
        yield* eventually(Effect.result(outbox.publish(topic, many(1))), Result.isFailure)
        yield* member({ name, topics: [topic] })
        yield* eventually(topics.group({ name }), ({ state }) => state === "stable")
        yield* publish
        yield* count(name, 2)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect(
    "gets no more at a time than 16 MiB and a message, however many a batch may be",
    () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topic = Topic.make({ name: "heavy", payload: Schema.Struct({ n: Schema.Int, text: Schema.String }) })
        const heavy = Array.from(
          { length: 60 },
          (_, n) => ({ payload: { n, text: "x".repeat(900_000) }, key: `${n % 7}` })
        )
        for (const message of heavy) yield* outbox.publish(topic, [message])
        const batches: Array<ReadonlyArray<number>> = []
        const join = (name: string, label: string) =>
          ConsumerGroup.run({
            name,
            label,
            topics: [topic],
            startFrom: "beginning",
            handler: (messages) =>
              Effect.andThen(
                Effect.sync(() => batches.push(messages.map(({ payload: { n } }) => n))),
                // So that the other one gets its part.
                Effect.sleep("400 millis")
              )
          })
        const all = eventually(Effect.sync(() => batches.flat().length), (count) => count >= 60)
        const check = Effect.andThen(
          all,
          Effect.sync(() => {
            deepStrictEqual(batches.flat().toSorted((a, b) => a - b), heavy.map((_, n) => n))
            deepStrictEqual(batches.filter(({ length }) => length > 19), [])
            batches.length = 0
          })
        )
        // All partitions by one, and some of them by each of two.
        yield* Effect.scoped(Effect.andThen(join("heavy-whole", "one"), check))
        yield* Effect.scoped(Effect.andThen(
          Effect.all([join("heavy-parts", "one"), join("heavy-parts", "other")], { concurrency: 2 }),
          check
        ))
      }),
    60_000
  )

  it.effect("holds back what a topic would remove, until it has read it", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topics = yield* Topics.Topics
      const topic = topicOf("kept", { keepBytes: 0 })
      const go = yield* Deferred.make<void>()
      yield* member({ name: "kept-slow", topics: [topic], handler: () => Deferred.await(go), batchSize: 10 })
      yield* member({ name: "kept-fast", topics: [topic] })
      // One chunk after the other: what is moved together would be one, and the last one stays.
      for (let round = 1; round <= 5; round++) {
        yield* outbox.publish(topic, many(10))
        yield* count("kept-fast", 10 * round)
      }
      yield* Effect.sleep("500 millis")
      strictEqual((yield* topics.find(topic)).first, 1n)
      yield* Deferred.succeed(go, undefined)
      yield* eventually(topics.find(topic), ({ first }) => first > 1n)
    }).pipe(Effect.scoped), 60_000)

  it.effect(
    "lets a topic forget what is too old or too much and nothing else, unless it lives and has not read it",
    () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topics = yield* Topics.Topics
        const { rows } = yield* Postgres
        const firstOf = (name: string) => Effect.map(topics.find({ name }), ({ first }) => first)
        /** Four chunks of ten, of which two are two hours old. */
        const aged = Effect.fnUntraced(function*(name: string) {
          const topic = topicOf(name, { keepFor: "1 hour" })
          for (let round = 1; round <= 4; round++) {
            yield* outbox.publish(topic, many(10))
            yield* eventually(
              Effect.orElseSucceed(topics.find(topic), () => ({ last: 0n })),
              ({ last }) => last === BigInt(10 * round)
            )
          }
          yield* topics.configure(topic, { keepFor: "1 hour" })
          return Effect.asVoid(rows(
            `update topic_chunk c set at = c.at - interval '2 hours' from topic t where t.id = c.topic and t.name = $1 and c.last <= 20`,
            [Pg.text(name)]
          ))
        })
        const stays = (name: string, first: bigint) =>
          Effect.andThen(
            Effect.sleep("500 millis"),
            Effect.map(firstOf(name), (found) => strictEqual(found, first))
          )
        yield* yield* aged("aged")
        yield* eventually(firstOf("aged"), (first) => first === 21n)
        yield* stays("aged", 21n)

        for (const end of ["cancelled", "dead"]) {
          const name = `slow ${end}`
          const slow = yield* member({ name, topics: [topicOf(`aged ${end}`)] })
          yield* topics.pause({ name })
          const age = yield* aged(`aged ${end}`)
          yield* age
          yield* stays(`aged ${end}`, 1n)
          yield* end === "cancelled" ? topics.cancel({ name }) : slow.leave
          yield* eventually(firstOf(`aged ${end}`), (first) => first === 21n)
        }

        const sized = topicOf("sized", { keepBytes: 3000 })
        yield* topics.declare(sized)
        for (let n = 1; n <= 10; n++) {
          yield* outbox.publish(sized, [{ payload: { n }, headers: { filled: "x".repeat(1000) } }])
          yield* eventually(topics.find(sized), ({ last }) => last === BigInt(n))
        }
        const kept = Effect.map(topics.find(sized), ({ first, last }) => Number(last - first) + 1)
        yield* eventually(kept, (count) => count <= 3)
        yield* Effect.sleep("500 millis")
        strictEqual((yield* kept) >= 2, true)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("catches up no faster than it may, in one lane or in four", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("throttled")
      yield* outbox.publish(topic, many(100, String))
      yield* eventually(Effect.flatMap(Topics.Topics, (topics) => Effect.option(topics.find(topic))), (found) =>
        found._tag === "Some" && found.value.last === 100n)
      for (const [concurrency, least] of [[1, 900], [4, 450]] as const) {
        const name = `throttled-${concurrency}`
        const [took] = yield* Effect.timed(
          Effect.andThen(
            member({ name, topics: [topic], batchSize: 10, catchUpRate: 100, concurrency }),
            count(name, 100)
          )
        )
        // The last pages are not full, and held up by nothing.
        strictEqual(Duration.toMillis(took) >= least, true)
        deepStrictEqual(sorted(yield* seenBy(name)), upTo(100))
      }
    }).pipe(Effect.scoped))

  for (const strategy of ["roundRobin", "range", "sticky", "random"] as const) {
    it.effect(
      `shares its partitions by ${strategy}, and handles each message once when a member comes and goes`,
      () =>
        Effect.gen(function*() {
          const outbox = yield* Outbox.Outbox
          const topic = topicOf(`by ${strategy}`)
          const name = `by ${strategy}`
          const of = (n: number) => ({
            topics: [topic] as const,
            strategy,
            instance: `${n}`,
            label: `${n}`,
            name,
            session: "1 second" as const
          })
          yield* member(of(1))
          yield* outbox.publish(topic, many(40, String))
          yield* count(name, 40)
          const second = yield* member(of(2))
          yield* eventually(shares(name), (counts) => counts["1"] === 4 && counts["2"] === 4)
          const { partitions, strategy: told } = yield* (yield* Topics.Topics).group({ name })
          strictEqual(told, strategy)
          const owners = partitions.map(({ owner }) => owner).join("")
          if (strategy === "range") strictEqual(owners, "11112222")
          if (strategy === "roundRobin") strictEqual(owners, "12121212")
          yield* outbox.publish(topic, many(40, String))
          yield* count(name, 80)
          yield* second.leave
          yield* outbox.publish(topic, many(40, String))
          deepStrictEqual(
            sorted(yield* count(name, 120)),
            [...upTo(40), ...upTo(40), ...upTo(40)].toSorted((a, b) => a - b)
          )
        }).pipe(Effect.scoped),
      60_000
    )
  }
})
