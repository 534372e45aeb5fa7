import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as Inbox from "@strata/queues/Inbox"
import { MessageId } from "@strata/queues/Message"
import * as RequestReply from "@strata/queues/patterns/RequestReply"
import * as Router from "@strata/queues/patterns/Router"
import * as ScatterGather from "@strata/queues/patterns/ScatterGather"
import * as Queues from "@strata/queues/Queues"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Database, declared } from "./fixture.ts"

const Answer = Schema.Struct({ twice: Schema.Int })

layer(Layer.merge(Database, SecureRandom.layerWebCrypto), { excludeTestServices: true })("patterns", (it) => {
  it.effect("a question is answered through a queue", () =>
    Effect.gen(function*() {
      const queue = yield* declared("questions")
      const worker = QueueWorker.run(
        queue,
        RequestReply.replying(Answer, ({ payload: { n } }) => Effect.succeed({ twice: n * 2 }))
      )
      yield* Effect.forkScoped(worker)
      const answer = yield* RequestReply.ask(queue, { payload: { n: 21 } }, { reply: Answer, timeout: "10 seconds" })
      deepStrictEqual(answer, { twice: 42 })
    }))

  it.effect("a question that nobody answers in time fails, and is taken back", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const queue = yield* declared("silence")
      const error = yield* Effect.flip(
        RequestReply.ask(queue, { payload: { n: 1 } }, { reply: Answer, timeout: "100 millis" })
      )
      strictEqual(error._tag, "DeadlineExceeded")
      strictEqual((yield* queues.stats(queue)).ready, 0)
    }))

  it.effect("answers of several queues are gathered, and who is late is told by name", () =>
    Effect.gen(function*() {
      const quick = yield* declared("quick")
      const silent = yield* declared("silent")
      yield* Effect.forkScoped(QueueWorker.run(
        quick,
        RequestReply.replying(Answer, ({ payload: { n } }) => Effect.succeed({ twice: n * 2 }))
      ))
      const { answers, missing } = yield* ScatterGather.ask([quick, silent], { payload: { n: 1 } }, {
        reply: Answer,
        timeout: "2 seconds"
      })
      deepStrictEqual([...answers], [["quick", { twice: 2 }]])
      deepStrictEqual([...missing.keys()], ["silent"])
    }))

  it.effect("messages are routed by header and by what they hold, and what no route wants is given up", () =>
    Effect.gen(function*() {
      const queues = yield* Queues.Queues
      const [from, eu, large] = [yield* declared("from"), yield* declared("eu"), yield* declared("large")]
      yield* queues.send(from, [
        { payload: { n: 1 }, headers: { region: "eu" } },
        { payload: { n: 5000 } },
        { payload: { n: 2 } }
      ])
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(Router.layer(from, [
          { when: Router.header("region", "eu"), to: eu },
          { when: ({ payload }) => payload.n > 1000, to: large }
        ]))
        yield* Effect.repeat(queues.stats(from), { until: ({ dead, done }) => done + dead === 3 })
      }))
      deepStrictEqual((yield* queues.browse(eu)).map(({ payload }) => payload), [{ n: 1 }])
      deepStrictEqual((yield* queues.browse(large)).map(({ payload }) => payload), [{ n: 5000 }])
      strictEqual((yield* queues.stats(from)).dead, 1)
    }))

  it.effect("the effect of a message that comes twice happens once, and not at all when it failed", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      yield* sql`create table counter (value int not null)`
      yield* sql`insert into counter values (0)`
      const count = Inbox.once("counting", { id: MessageId.make(1n) })
      yield* Effect.ignore(count(Effect.andThen(sql`update counter set value = value + 1`, Effect.fail("no"))))
      const results = yield* Effect.forEach(
        Array.from({ length: 5 }),
        () => count(sql`update counter set value = value + 1`),
        { concurrency: "unbounded" }
      )
      strictEqual(results.filter(Option.isSome).length, 1)
      deepStrictEqual(yield* sql`select value from counter`, [{ value: 1 }])
    }))

  it.effect("what was handled long ago, and answers that nobody took, are forgotten", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      yield* sql`
        insert into inbox (consumer, message_id, at)
        select 'old', n, clock_timestamp() - n * interval '1 day' from generate_series(1, 60) n`
      yield* sql`insert into queue_reply (id, at) values (gen_random_uuid(), clock_timestamp() - interval '2 hours')`
      // The layer looks after the queues by itself.
      yield* Effect.repeat(sql<{ n: number }>`select count(*)::int as n from inbox where consumer = 'old'`, {
        until: ([row]) => row?.n === 29
      })
      deepStrictEqual(yield* sql`select count(*)::int as n from queue_reply`, [{ n: 0 }])
    }))
})
