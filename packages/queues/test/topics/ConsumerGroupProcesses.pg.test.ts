import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Outbox from "@strata/outbox/Outbox"
import * as Topics from "@strata/queues/topics/Topics"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import { eventually, many, shares, Tables, topicOf } from "./fixture.ts"
import { assertOnceInOrder, createTable, handledBy, type Member, startMember } from "./groupProcesses.ts"

const Services = Layer.mergeAll(Tables, NodeServices.layer, Layer.succeed(References.MinimumLogLevel, "None"))

const start = Effect.fnUntraced(function*(options: Member) {
  return yield* startMember(yield* PostgresTest.url, options)
})

const isBatch = (line: string) => line.startsWith("batch ")

const publish = Effect.fnUntraced(function*(topic: ReturnType<typeof topicOf>, rounds: number) {
  const outbox = yield* Outbox.Outbox
  for (let round = 0; round < rounds; round++) yield* outbox.publish(topic, many(24, (n) => `${n}`))
})

layer(Services, { excludeTestServices: true })("a consumer group of several processes", (it) => {
  it.effect(
    "loses, doubles and reorders nothing when one is killed and one stands still past its session (RB4, RB9, RB10)",
    () =>
      Effect.gen(function*() {
        yield* createTable
        const topic = topicOf("killed")
        const name = "killed"
        const [killed, stopped] = yield* Effect.all([
          start({ group: name, topic: name, label: "killed", hold: true }),
          start({ group: name, topic: name, label: "stopped", hold: true }),
          start({ group: name, topic: name, label: "steady" })
        ])
        yield* eventually(Effect.orElseSucceed(shares(name), () => ({})), (owners: Record<string, number>) =>
          ["killed", "stopped", "steady"].every((label) =>
            [2, 3].includes(owners[label] ?? 0)
          ))
        const before = yield* (yield* Topics.Topics).group({ name })

        // Both hold a batch whose rows are inserted and not committed.
        yield* publish(topic, 5)
        yield* Effect.all([killed.waitFor(isBatch), stopped.waitFor(isBatch)])
        yield* stopped.pause
        yield* killed.kill9
        yield* eventually(shares(name), (owners) => owners["steady"] === 8)
        yield* publish(topic, 5)
        yield* eventually(handledBy(name), (rows) => rows.length >= 240)

        // The late owner goes on with its batch, and with what it thinks it owns.
        yield* stopped.send("go on")
        yield* stopped.resume
        yield* eventually(shares(name), (owners) => owners["stopped"] === 4)
        const rows = yield* handledBy(name)
        assertOnceInOrder(rows, 240)
        deepStrictEqual(new Set(rows.map(({ label }) => label)), new Set(["steady"]))
        const after = yield* (yield* Topics.Topics).group({ name })
        for (const { epoch, owner, partition } of before.partitions) {
          if (owner !== "steady") assert.isTrue(after.partitions[partition]!.epoch > epoch)
        }
      }),
    120_000
  )

  it.effect("goes on where it was when the relay is killed at any time, again and again", () =>
    Effect.gen(function*() {
      yield* createTable
      const topic = topicOf("relayed")
      const name = "relayed"
      yield* start({ group: name, topic: name, label: "steady", relays: false })
      for (let round = 0; round < 4; round++) {
        const relaying = yield* start({ group: `${name} by`, topic: name, label: `relay ${round}` })
        yield* relaying.waitFor((line) => line === "ready")
        yield* Effect.forkChild(publish(topic, 20))
        yield* Effect.sleep("150 millis")
        yield* relaying.kill9
      }
      yield* start({ group: `${name} by`, topic: name, label: "last" })
      const rows = yield* eventually(handledBy(name), (rows) => rows.length >= 1920)
      assertOnceInOrder(rows, 1920)
      yield* eventually(handledBy(`${name} by`), (rows) => rows.length >= 1920)
      assertOnceInOrder(yield* handledBy(`${name} by`), 1920)
    }), 120_000)

  it.effect(
    "is brought on within seconds when the relay stands still, which moves nothing when it goes on",
    () =>
      Effect.gen(function*() {
        yield* createTable
        const topic = topicOf("still")
        const name = "still"
        yield* start({ group: name, topic: name, label: "steady", relays: false })
        const handled = (count: number) => eventually(handledBy(name), (rows) => rows.length >= count)
        const still = yield* start({ group: `${name} by`, topic: name, label: "still" })
        yield* publish(topic, 5)
        yield* handled(120)
        yield* start({ group: `${name} by`, topic: name, label: "other" })
        yield* still.pause
        yield* publish(topic, 5)
        const [took] = yield* Effect.timed(handled(240))
        // The lease, and the look of the one that stands by.
        assert.isBelow(Duration.toMillis(took), 10_000)
        yield* still.resume
        yield* Effect.forEach(Array.from({ length: 10 }), () => Effect.delay(publish(topic, 1), "100 millis"), {
          discard: true
        })
        assertOnceInOrder(yield* handled(480), 480)
      }),
    120_000
  )

  it.effect(
    "loses, doubles and reorders nothing while a member joins or leaves every second",
    () =>
      Effect.gen(function*() {
        yield* createTable
        const topic = topicOf("storm")
        const name = "storm"
        yield* start({ group: name, topic: name, label: "steady" })
        const publishing = yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: 40 }), () => Effect.delay(publish(topic, 5), "150 millis"), {
            discard: true
          })
        )
        for (let round = 0; round < 3; round++) {
          const joining = yield* start({ group: name, topic: name, label: `joining ${round}` })
          yield* joining.waitFor((line) => line === "ready")
          yield* Effect.sleep("1 second")
          if (round % 2 === 0) yield* joining.end
          else yield* joining.kill9
        }
        yield* Fiber.join(publishing)
        const rows = yield* eventually(handledBy(name), (rows) => rows.length >= 4800)
        assertOnceInOrder(rows, 4800)
        assert.isAbove(new Set(rows.map(({ label }) => label)).size, 2)
      }),
    120_000
  )

  it.effect(
    "keeps the partitions of a static member that was killed and comes back in time (RB6)",
    () =>
      Effect.gen(function*() {
        yield* createTable
        const topic = topicOf("static processes")
        const name = "static processes"
        const options = { group: name, topic: name, sessionMillis: 10_000 }
        yield* start({ ...options, label: "other" })
        const first = yield* start({ ...options, label: "first", instance: "one" })
        yield* eventually(
          Effect.orElseSucceed(shares(name), () => ({})),
          (owners: Record<string, number>) => owners["first"] === 4 && owners["other"] === 4
        )
        const { epoch } = yield* (yield* Topics.Topics).group({ name })
        yield* first.kill9
        const second = yield* start({ ...options, label: "second", instance: "one" })
        yield* eventually(shares(name), (owners) => owners["second"] === 4)
        deepStrictEqual((yield* (yield* Topics.Topics).group({ name })).epoch, epoch)
        yield* publish(topic, 5)
        yield* eventually(handledBy(name), (rows) => rows.length >= 120)
        yield* start({ ...options, label: "third", instance: "one" })
        yield* second.waitFor((line) => line.startsWith("ended "))
        assertOnceInOrder(yield* handledBy(name), 120)
      }),
    120_000
  )
})
