import { layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Outbox from "@strata/outbox/Outbox"
import * as Broker from "@strata/queues/brokers/Broker"
import * as BrokerIntake from "@strata/queues/brokers/BrokerIntake"
import * as BrokerRelay from "@strata/queues/brokers/BrokerRelay"
import * as Topics from "@strata/queues/topics/Topics"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import { Database, eventually, many, member, Payload, seenBy, topicOf } from "../topics/fixture.ts"

const message = (id: string, body: string, headers: Broker.BrokerMessage["headers"] = {}): Broker.BrokerMessage => ({
  id,
  subject: "in.numbers",
  headers,
  body
})

layer(Layer.provideMerge(Broker.layerMemory, Database), { excludeTestServices: true })("a broker", (it) => {
  it.effect(
    "gets what a topic has, once and in order, though it does not always confirm",
    () =>
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const outbox = yield* Outbox.Outbox
        const topic = topicOf("out")
        const tries = yield* Ref.make(0)
        const moody: Broker.Broker["Service"] = {
          ...broker,
          publish: (messages) =>
            Effect.flatMap(Ref.getAndUpdate(tries, (n) => n + 1), (n) =>
              // Every third time it has them and says nothing.
              n % 3 === 0
                ? Effect.andThen(
                  broker.publish(messages),
                  Effect.fail(new Broker.BrokerError({ operation: "publish", cause: "no answer" }))
                )
                : broker.publish(messages))
        }
        yield* Layer.build(BrokerRelay.layer({ group: "out", topic, subject: ({ key }) => `out.${key}` })).pipe(
          Effect.provideService(Broker.Broker, moody)
        )
        for (let round = 0; round < 5; round++) {
          yield* outbox.publish(
            topic,
            many(20, (n) => `${n % 4}`).map(({ key }, n) => ({ key, payload: { n: round * 20 + n } }))
          )
        }
        const got = yield* eventually(
          broker.read({ subject: "out.>", after: undefined, limit: 1000 }),
          (messages) => messages.length >= 100
        )
        deepStrictEqual(got.length, 100)
        for (const [subject, of] of Map.groupBy(got, ({ subject }) => subject)) {
          const numbers = of.map(({ body }) => Number(/\d+/.exec(body)?.[0]))
          deepStrictEqual(numbers, numbers.toSorted((one, other) => one - other), subject)
        }
        deepStrictEqual(got[0]?.headers["strata-type"], "out")
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect(
    "is taken from into a topic, once each, and what makes no sense does not stand in the way",
    () =>
      Effect.gen(function*() {
        const broker = yield* Broker.Broker
        const topic = topicOf("in")
        yield* (yield* Topics.Topics).declare(topic)
        yield* Effect.forkScoped(
          BrokerIntake.run({ consumer: "numbers", subject: "in.*", destination: topic, payload: Payload, limit: 7 })
        )
        yield* member({ name: "in", topics: [topic] })
        const ids = Array.from({ length: 20 }, (_, n) => `id ${n}`)
        yield* broker.publish(ids.map((id, n) => message(id, `{"n":${n}}`, { "strata-key": "k" })))
        yield* broker.publish([message("bad", "nonsense"), message("worse", `{"n":"x"}`)])
        yield* broker.publish([message("id 100", `{"n":100}`, { "strata-key": "k", color: "red" })])
        const seen = yield* eventually(seenBy("in"), (seen) => seen.length >= 21)
        deepStrictEqual(seen.map(({ n }) => n), [...ids.keys(), 100])
        deepStrictEqual(new Set(seen.map(({ key }) => key)), new Set(["k"]))
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("that two processes take from is heard once", () =>
    Effect.gen(function*() {
      const broker = yield* Broker.Broker
      const topic = topicOf("twice")
      const intake = BrokerIntake.run({
        consumer: "twice",
        subject: "twice.*",
        destination: topic,
        payload: Payload,
        limit: 3
      })
      yield* Effect.forkScoped(intake)
      yield* Effect.forkScoped(intake)
      yield* member({ name: "twice", topics: [topic] })
      const numbers = Array.from({ length: 50 }, (_, n) => n)
      for (const n of numbers) {
        yield* broker.publish([{
          id: `twice ${n}`,
          subject: "twice.a",
          headers: { "strata-key": "k" },
          body: `{"n":${n}}`
        }])
      }
      const seen = yield* eventually(seenBy("twice"), (seen) => seen.length >= 50)
      deepStrictEqual(seen.map(({ n }) => n), numbers)
    }).pipe(Effect.scoped), 60_000)
})
