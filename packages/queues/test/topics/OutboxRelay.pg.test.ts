import * as NodeServices from "@effect/platform-node/NodeServices"
import { layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual, throws } from "@effect/vitest/utils"
import * as Outbox from "@strata/outbox/Outbox"
import * as Publication from "@strata/outbox/Publication"
import * as Migrations from "@strata/postgres/Migrations"
import { layer as layerOfPostgres, Postgres } from "@strata/postgres/Postgres"
import * as Queue from "@strata/queues/Queue"
import * as Queues from "@strata/queues/Queues"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import type * as Topic from "@strata/queues/topics/Topic"
import * as TopicPolicies from "@strata/queues/topics/TopicPolicies"
import * as Topics from "@strata/queues/topics/Topics"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Tracer from "effect/Tracer"
import { collect } from "../fixture.ts"
import { Database, eventually, many, member, migrations, numbers, Payload, seenBy, Tables, topicOf } from "./fixture.ts"

const ends = (name: string) =>
  Effect.flatMap(Topics.Topics, (topics) => Effect.map(topics.find({ name }), ({ last }) => last))

layer(Database, { excludeTestServices: true })("the outbox", (it) => {
  it.effect("publishes with the transaction, and nothing of one that is rolled back", () =>
    Effect.gen(function*() {
      const { transact } = yield* Postgres
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("transactions")
      yield* member({ name: "transactions", topics: [topic] })
      yield* Effect.exit(transact(Effect.andThen(outbox.publish(topic, many(3)), Effect.fail("no"))))
      yield* transact(Effect.andThen(
        outbox.publish(topic, [{ payload: { n: 10 } }]),
        Effect.andThen(
          Effect.exit(transact(Effect.andThen(outbox.publish(topic, many(3)), Effect.fail("no")))),
          outbox.publish(topic, [{ payload: { n: 11 } }])
        )
      ))
      const seen = yield* eventually(seenBy("transactions"), (seen) => seen.length >= 2)
      deepStrictEqual(seen.map(({ n }) => n), [10, 11])
      strictEqual(yield* ends("transactions"), 2n)
    }).pipe(Effect.scoped))

  it.effect("holds nobody up: a transaction that is open delays only what it published itself", () =>
    Effect.gen(function*() {
      const { transact } = yield* Postgres
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("open")
      yield* member({ name: "open", topics: [topic] })
      const published = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const slow = yield* Effect.forkChild(transact(
        outbox.publish(topic, [{ payload: { n: 0 } }]).pipe(
          Effect.andThen(Deferred.succeed(published, undefined)),
          Effect.andThen(Deferred.await(go))
        )
      ))
      yield* Deferred.await(published)
      yield* outbox.publish(topic, [{ payload: { n: 1 } }])
      yield* eventually(seenBy("open"), (seen) => seen.length === 1)
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(slow)
      const seen = yield* eventually(seenBy("open"), (seen) => seen.length === 2)
      deepStrictEqual(seen.map(({ n }) => n), [1, 0])
    }).pipe(Effect.scoped))

  it.effect("refuses what cannot be published by the name of the field, and publishes nothing of it", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("refused")
      throws(
        () => Queue.destination(Queue.makeBytes({ name: "raw" })),
        new TypeError("payload: the messages of raw are bytes, expected JSON")
      )
      const queue = Queue.destination(Queue.make({ name: "refused", payload: Payload }))
      const refused = (...[destination, message]: readonly [Publication.Destination<{ n: number }>, object]) =>
        Effect.map(
          Effect.result(outbox.publish(destination, [{ payload: { n: 1 } }, { payload: { n: 2 }, ...message }])),
          (result) => Result.isFailure(result) ? result.failure.message : "published"
        )
      deepStrictEqual(
        yield* Effect.all([
          refused(topic, { payload: { n: 0.5 } }),
          refused(topic, { key: "" }),
          refused(topic, { id: "1" }),
          refused(topic, { priority: 3 }),
          refused(topic, { delay: "1 second" }),
          refused(queue, { priority: 11 }),
          refused(queue, { delay: "4000 days" }),
          refused(topic, { headers: { "": 1 } }),
          refused({ ...topic, name: "" }, {})
        ]),
        [
          "messages[1].payload: Expected an integer\n  at [\"n\"]",
          "messages[1].key: expected 1 to 512 characters, none of them NUL or half of a surrogate pair",
          "messages[1].id: expected a UUID",
          "messages[1].priority: a topic has none: what it holds is read in order",
          "messages[1].delay: a topic has none: what it holds is read in order",
          "messages[1].priority: expected a whole number from 0 to 10",
          "messages[1].delay: expected a time of at most ten years",
          "messages[1].headers: of a name, expected 1 to 512 characters, none of them NUL or half of a surrogate pair",
          "destination.name: expected 1 to 128 characters, none of them NUL"
        ]
      )
      deepStrictEqual(yield* numbers("select count(*) from outbox"), [[0]])
    }))

  it.effect("goes to topics and queues, several at once, and makes those that are not there", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("several")
      const queue = Queue.make({ name: "several", payload: Payload })
      yield* outbox.publishAll([
        Publication.make(topic, many(2)),
        Publication.make(Queue.destination(queue), [
          { payload: { n: 5 }, priority: 1 },
          { payload: { n: 6 }, priority: 9 },
          { payload: { n: 7 }, delay: "2 seconds" }
        ]),
        Publication.make(topic, [{ payload: { n: 2 } }])
      ])
      deepStrictEqual(yield* collect(queue, 3, { concurrency: 1 }), [{ n: 6 }, { n: 5 }, { n: 7 }])
      const { done, sent } = yield* (yield* Queues.Queues).stats(queue)
      deepStrictEqual([sent, done <= 3], [3, true])
      yield* member({ name: "several", topics: [topic] })
      const seen = yield* eventually(seenBy("several"), (seen) => seen.length === 3)
      deepStrictEqual(seen.map(({ n }) => n), [0, 1, 2])
    }).pipe(Effect.scoped))

  it.effect("keeps what each message says, whether it moves alone, among a few or among many", () =>
    Effect.gen(function*() {
      const { transact } = yield* Postgres
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("said", { partitions: 1 })
      const found: Array<Topic.TopicMessage<{ readonly n: number }>> = []
      const said = (n: number): Publication.NewMessage<{ readonly n: number }> => ({
        payload: { n },
        key: n % 3 === 0 ? undefined : `key ${n}`,
        type: n % 2 === 0 ? "Even" : undefined,
        tenant: n % 4 === 0 ? "acme" : undefined,
        correlationId: n % 5 === 0 ? `correlation ${n}` : undefined,
        causationId: n % 7 === 0 ? `cause ${n}` : undefined,
        headers: n % 11 === 0 ? { n } : undefined
      })
      const alike = (n: number): ReturnType<typeof said> => ({ payload: { n }, type: "Alike", tenant: "acme" })
      const statements = [
        [0].map(alike),
        [1, 2, 3, 4].map(said),
        [5, 6].map(alike),
        Array.from({ length: 100 }, (_, i) => said(7 + i)),
        Array.from({ length: 100 }, (_, i) => alike(107 + i)),
        [207].map(said),
        [208].map(alike)
      ]
      const publish = (some: typeof statements) =>
        Effect.forEach(some, (messages) => outbox.publish(topic, messages), { discard: true })
      yield* publish(statements.slice(0, 1))
      yield* eventually(Effect.orElseSucceed(ends("said"), () => 0n), (last) => last === 1n)
      yield* transact(publish(statements.slice(1)))
      yield* ConsumerGroup.run({
        name: "said",
        topics: [topic],
        startFrom: "beginning",
        batchSize: 50,
        handler: (messages) => Effect.sync(() => void found.push(...messages))
      })
      yield* eventually(Effect.sync(() => found.length), (length) => length >= 209)
      deepStrictEqual(
        found.map(({ causationId, correlationId, headers, id, key, payload, position, tenant, type }) => ({
          ...{ payload, key, type, tenant, causationId, headers, position },
          // What belongs to nothing else belongs to itself.
          correlationId: correlationId === id ? undefined : correlationId
        })),
        statements.flat().map((message, index) => ({
          key: undefined,
          correlationId: undefined,
          causationId: undefined,
          ...message,
          type: message.type ?? "said",
          tenant: message.tenant ?? "default",
          headers: message.headers ?? {},
          position: BigInt(index + 1)
        }))
      )
    }).pipe(Effect.scoped))

  it.effect("tells a queue how large a payload is, so that claims count what they take", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const outbox = yield* Outbox.Outbox
      const queues = yield* Queues.Queues
      const queue = Queue.make({ name: "weighed", payload: Schema.String })
      yield* queues.declare(queue)
      const destination: Publication.Destination<string> = { kind: "queue", name: "weighed", encode: Result.succeed }
      const weighs = sql<{ weighs: boolean }>`select weighs from queue where name = 'weighed'`
      const stored = sql<{ stored_at: string | null }>`
        select stored_at from message where queue = (select id from queue where name = 'weighed')
        union all
        select (message).stored_at from message_later
        where (message).queue = (select id from queue where name = 'weighed')
        order by 1 nulls first`
      yield* outbox.publish(destination, [{ payload: "x".repeat(16_000) }])
      yield* eventually(stored, (rows) => rows.length === 1)
      deepStrictEqual(yield* weighs, [{ weighs: false }])
      yield* outbox.publish(destination, [{ payload: "x".repeat(30_000) }, {
        payload: "x".repeat(40_000),
        delay: "1 hour"
      }])
      const rows = yield* eventually(stored, (rows) => rows.length === 3)
      deepStrictEqual(rows.map(({ stored_at }) => stored_at?.slice(0, 6)), [undefined, "row:30", "row:40"])
      deepStrictEqual(yield* weighs, [{ weighs: true }])
      deepStrictEqual((yield* collect(queue, 2)).map(({ length }) => length).toSorted(), [16_000, 30_000])
    }).pipe(Effect.scoped))

  it.effect("keeps the order of a key, however many publish", () =>
    Effect.gen(function*() {
      const { transact } = yield* Postgres
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("ordered")
      yield* member({ name: "ordered", topics: [topic], concurrency: 4 })
      yield* Effect.forEach(
        Array.from({ length: 10 }, (_, key) => `${key}`),
        (key) =>
          Effect.forEach(many(40), (message) => transact(outbox.publish(topic, [{ ...message, key }])), {
            discard: true
          }),
        { concurrency: "unbounded", discard: true }
      )
      const seen = yield* eventually(seenBy("ordered"), (seen) => seen.length === 400)
      for (const [, of] of Map.groupBy(seen, ({ key }) => key)) {
        deepStrictEqual(of.map(({ n }) => n), Array.from({ length: 40 }, (_, n) => n))
      }
    }).pipe(Effect.scoped), 60_000)
})

layer(Tables, { excludeTestServices: true })("relays", (it) => {
  it.effect(
    "are one at a time; when it stops another goes on at once, when it is gone within its lease",
    () =>
      Effect.gen(function*() {
        const { rows } = yield* Postgres
        const outbox = yield* Outbox.Outbox
        const topic = topicOf("relays")
        const epoch = Effect.map(numbers("select epoch from outbox_relay"), ([row]) => row![0])
        const first = yield* Effect.forkChild(OutboxRelay.run)
        yield* outbox.publish(topic, many(1))
        yield* eventually(Effect.orElseSucceed(ends("relays"), () => 0n), (end) => end === 1n)
        const second = yield* Effect.forkChild(OutboxRelay.run)
        yield* outbox.publish(topic, many(1))
        yield* eventually(ends("relays"), (end) => end === 2n)
        strictEqual(yield* epoch, 1)
        yield* Fiber.interrupt(first)
        yield* outbox.publish(topic, many(1))
        yield* eventually(ends("relays"), (end) => end === 3n)
        strictEqual(yield* epoch, 2)
        yield* Fiber.interrupt(second)
        yield* eventually(numbers("select count(*) from outbox_relay where owner is null"), ([row]) => row![0] === 1)
        // Somebody who is gone, and whose clock was ahead.
        yield* rows("update outbox_relay set owner = gen_random_uuid(), until = now() + interval '1 day'", [])
        yield* Effect.forkScoped(OutboxRelay.run)
        yield* outbox.publish(topic, many(1))
        yield* eventually(ends("relays"), (end) => end === 4n)
        strictEqual(yield* epoch, 3)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("go on above what is done, and that is never above what may still come", () =>
    Effect.gen(function*() {
      const { transact } = yield* Postgres
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("done")
      const done = Effect.map(
        numbers("select done, last_value from outbox_relay, outbox_id"),
        ([row]) => ({ done: row![0]!, issued: row![1]! })
      )
      yield* outbox.publish(topic, many(1))
      const before = yield* done
      const published = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const slow = yield* Effect.forkChild(transact(
        outbox.publish(topic, many(1)).pipe(
          Effect.andThen(Deferred.succeed(published, undefined)),
          Effect.andThen(Deferred.await(go))
        )
      ))
      yield* Deferred.await(published)
      yield* Effect.forkScoped(OutboxRelay.run)
      // Some looks at who publishes, each half a second.
      for (let n = 2; n < 10; n++) {
        yield* outbox.publish(topic, many(1))
        yield* eventually(Effect.orElseSucceed(ends("done"), () => 0n), (end) => end === BigInt(n))
        yield* Effect.sleep(200)
      }
      strictEqual((yield* done).done <= before.issued, true)
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(slow)
      yield* eventually(Effect.orElseSucceed(ends("done"), () => 0n), (end) => end === 10n)
      yield* eventually(done, ({ done, issued }) => done === issued)
      // A copy of the database without its sequences.
      yield* numbers("select setval('outbox_id', 1, false)")
      yield* outbox.publish(topic, many(1))
      yield* eventually(ends("done"), (end) => end === 11n)
    }).pipe(Effect.scoped), 60_000)

  it.effect(
    "look at all when they take over: ids may have begun anew, and passed what was done",
    () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topic = topicOf("anew")
        const first = yield* Effect.forkChild(OutboxRelay.run)
        yield* outbox.publish(topic, many(1))
        yield* eventually(numbers("select done - last_value from outbox_relay, outbox_id"), ([row]) => row![0] === 0)
        yield* Fiber.interrupt(first)
        yield* numbers("select setval('outbox_id', 1, false)")
        yield* Effect.repeat(outbox.publish(topic, many(1)), { times: 29 })
        yield* Effect.forkScoped(OutboxRelay.run)
        yield* eventually(Effect.orElseSucceed(ends("anew"), () => 0n), (end) => end === 31n)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect(
    "look at all when they take over, also for what is open meanwhile under an id that began anew",
    () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const outbox = yield* Outbox.Outbox
        const topic = topicOf("anew and open")
        const first = yield* Effect.forkChild(OutboxRelay.run)
        yield* Effect.repeat(outbox.publish(topic, many(1)), { times: 9 })
        yield* eventually(numbers("select done - last_value from outbox_relay, outbox_id"), ([row]) => row![0] === 0)
        yield* Fiber.interrupt(first)
        yield* numbers("select setval('outbox_id', 1, false)")
        const published = yield* Deferred.make<void>()
        const go = yield* Deferred.make<void>()
        const slow = yield* Effect.forkChild(transact(
          outbox.publish(topic, many(1)).pipe(
            Effect.andThen(Deferred.succeed(published, undefined)),
            Effect.andThen(Deferred.await(go))
          )
        ))
        yield* Deferred.await(published)
        yield* Effect.repeat(outbox.publish(topic, many(1)), { times: 29 })
        yield* Effect.forkScoped(OutboxRelay.run)
        yield* eventually(ends("anew and open"), (end) => end === 40n)
        yield* Effect.sleep("1200 millis")
        yield* Deferred.succeed(go, undefined)
        yield* Fiber.join(slow)
        yield* eventually(ends("anew and open"), (end) => end === 41n)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("give rows a position each that have one id, since ids began anew beside what was not moved yet", () =>
    Effect.gen(function*() {
      const { rows } = yield* Postgres
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("same ids")
      const publish = Effect.repeat(outbox.publish(topic, many(1)), { times: 29 })
      const [[next]] = (yield* numbers("select last_value from outbox_id")) as [[number]]
      yield* publish
      yield* numbers(`select setval('outbox_id', ${next})`)
      yield* publish
      // Of which a step takes some, and parts two of one id.
      const step = rows("select messages from relay_outbox(gen_random_uuid(), 'test', 0, 7, 5000)", [])
      yield* Effect.repeat(step, { until: ([row]) => row![0] === 0 })
      strictEqual(yield* ends("same ids"), 60n)
      const [counted] = yield* numbers(`
        select count(*), count(distinct m.id), sum(c.last - c.first + 1)
        from topic_chunk c join topic t on t.id = c.topic
        cross join lateral unnest(c.ids) as m (id) where t.name = 'same ids'`)
      deepStrictEqual(counted!.slice(0, 2), [60, 60])
    }))

  it.effect(
    "move no more in a step than it has the time for, and one message more than that by itself",
    () =>
      Effect.gen(function*() {
        const { rows } = yield* Postgres
        yield* rows(
          `
        insert into outbox (slot, kind, destination, count, published_at, ids, tenants, data)
        select
          outbox_slot_now(), 'topic', 'heavy', 1, clock_timestamp(), array[gen_random_uuid()], array['default'],
          array[to_json(repeat('x', 1000000 * case when n = 1 then 20 else 1 end))]
        from generate_series(1, 40) n`,
          []
        )
        const step = rows("select messages from relay_outbox(gen_random_uuid(), 'test', 0, 500, 5000)", [])
        const moved: Array<unknown> = []
        yield* Effect.repeat(Effect.tap(step, ([row]) => Effect.sync(() => moved.push(row![0]))), {
          until: ([row]) => row![0] === 0
        })
        deepStrictEqual(moved, [1, 17, 17, 5, 0])
        strictEqual(yield* ends("heavy"), 40n)
      }),
    60_000
  )

  it.effect("go on at once after a step that was full, also where it was full of bytes", () =>
    Effect.gen(function*() {
      const { rows } = yield* Postgres
      yield* rows(
        `
        insert into outbox (slot, kind, destination, count, published_at, ids, tenants, data)
        select
          outbox_slot_now(), 'topic', 'full', 1, clock_timestamp(), array[gen_random_uuid()], array['default'],
          array[to_json(repeat('x', 1000000))]
        from generate_series(1, 60) n`,
        []
      )
      yield* Effect.forkScoped(OutboxRelay.run)
      const all = eventually(Effect.orElseSucceed(ends("full"), () => 0n), (end) => end === 60n)
      yield* Effect.timeout(all, "10 seconds")
    }).pipe(
      Effect.provideService(TopicPolicies.TopicPolicies, {
        ...TopicPolicies.defaults,
        relayPoll: Duration.minutes(1)
      }),
      Effect.scoped
    ), 60_000)

  it.effect("go on after what nobody has thought of", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("defects")
      let broken = 0
      const tracer = Tracer.make({
        span: (options) => {
          if (options.name === "relay" && broken++ === 0) throw new Error("no span")
          return Tracer.nativeTracer.span(options)
        }
      })
      yield* Effect.forkScoped(Effect.withTracer(OutboxRelay.run, tracer))
      const publish = outbox.publish(topic, many(1)).pipe(Effect.withSpan("publisher"))
      yield* publish
      yield* eventually(Effect.sync(() => broken), (n) => n > 0)
      yield* publish
      yield* eventually(Effect.orElseSucceed(ends("defects"), () => 0n), (end) => end === 2n)
    }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")), 60_000)

  it.effect(
    "lose, double and reorder nothing when a step does not arrive, or its answer does not",
    () =>
      Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const url = yield* PostgresTest.url
        const { hostname, port } = new URL(Redacted.value(url))
        const proxy = yield* TcpProxy.make({ host: hostname, port: Number(port) })
        const proxied = yield* Layer.build(layerOfPostgres({ url: proxy.through(url), maxConnections: 3 }))
        yield* Effect.forkScoped(Effect.provideContext(OutboxRelay.run, proxied))
        const topic = topicOf("cut off")
        const rules = [
          { from: "client", matches: TcpProxy.contains(`pid ${process.pid}`), deliver: false },
          { from: "client", matches: TcpProxy.contains(`pid ${process.pid}`), deliver: true },
          { from: "server", matches: TcpProxy.contains("moved"), deliver: false }
        ] as const
        let published = 0
        for (const rule of [...rules, ...rules, ...rules]) {
          const cut = yield* Effect.forkChild(proxy.cutWhen(rule), { startImmediately: true })
          while (cut.pollUnsafe() === undefined) {
            yield* outbox.publish(topic, [{ payload: { n: published++ }, key: "one" }])
            yield* Effect.sleep("20 millis")
          }
        }
        yield* eventually(ends("cut off"), (end) => end >= BigInt(published))
        yield* Effect.sleep("300 millis")
        const [row] = yield* numbers(`
        select
          count(*), count(distinct m.id),
          count(*) filter (where (m.data ->> 'n')::integer = c.first + m.place - 2)
        from topic_chunk c join topic t on t.id = c.topic
        cross join lateral unnest(c.ids, c.data) with ordinality as m (id, data, place)
        where t.name = 'cut off'`)
        deepStrictEqual(row, [published, published, published])
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
    60_000
  )

  it.effect("keep the order of a key where many rows are moved together", () =>
    Effect.gen(function*() {
      const { transact } = yield* Postgres
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("together")
      const late = (n: number) => outbox.publish(topic, [{ payload: { n }, key: "late" }])
      const published = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      // Its ids are below all others, and its messages come after them.
      const slow = yield* Effect.forkChild(transact(
        Effect.all([late(0), late(1), Deferred.succeed(published, undefined), Deferred.await(go)], { discard: true })
      ))
      yield* Deferred.await(published)
      yield* transact(Effect.repeat(outbox.publish(topic, [{ payload: { n: 9 }, key: "others" }]), { times: 2499 }))
      yield* Effect.forkScoped(
        Effect.provideService(OutboxRelay.run, TopicPolicies.TopicPolicies, {
          ...TopicPolicies.defaults,
          relayRows: 2000
        })
      )
      yield* eventually(Effect.orElseSucceed(ends("together"), () => 0n), (end) => end > 0n)
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(slow)
      yield* late(2)
      yield* eventually(ends("together"), (end) => end === 2503n)
      yield* member({ name: "together", topics: [topic], batchSize: 1000 })
      const seen = yield* eventually(seenBy("together"), (seen) => seen.length === 2503)
      deepStrictEqual(seen.filter(({ key }) => key === "late").map(({ n }) => n), [0, 1, 2])
    }).pipe(Effect.scoped), 60_000)

  it.effect("refuse an isolation level in which they would not see what they waited for", () =>
    Effect.gen(function*() {
      const { sql, transact } = yield* Postgres
      const refusal = (statement: string) =>
        transact(Effect.andThen(sql`set transaction isolation level repeatable read`, numbers(statement))).pipe(
          Effect.flip,
          Effect.map((error) => error.reason.cause instanceof Error ? error.reason.cause.message : "")
        )
      strictEqual(
        yield* refusal("select rotate_outbox(1)"),
        "rotate_outbox: expected the isolation level read committed, got repeatable read"
      )
      strictEqual(
        yield* refusal("select rows from relay_outbox(gen_random_uuid(), 'x', 1, 1, 1)"),
        "relay_outbox: expected the isolation level read committed, got repeatable read"
      )
    }))

  it.effect(
    "lose nothing of transactions that take their time, and of others, however often they change",
    () =>
      Effect.gen(function*() {
        const { transact } = yield* Postgres
        const outbox = yield* Outbox.Outbox
        const topic = topicOf("slow")
        const relays = yield* OutboxRelay.run.pipe(
          Effect.timeout(270),
          Effect.ignore,
          Effect.forever,
          Effect.forkChild
        )
        yield* Effect.forEach(
          Array.from({ length: 180 }, (_, n) => n),
          (n) => {
            const publish = outbox.publish(topic, many(1))
            if (n % 3 > 0) return Effect.andThen(publish, Effect.sleep(n % 17))
            // In a transaction that stays open for a while, and a third of these are rolled back.
            const slow = Effect.andThen(publish, Effect.sleep(n * 37 % 1500))
            return n % 9 > 0 ? transact(slow) : Effect.exit(transact(Effect.andThen(slow, Effect.fail("no"))))
          },
          { concurrency: 12, discard: true }
        )
        yield* eventually(Effect.orElseSucceed(ends("slow"), () => 0n), (end) => end === 160n)
        yield* Fiber.interrupt(relays)
        strictEqual(
          (yield* numbers(
            "select count(distinct i) from topic t join topic_chunk c on c.topic = t.id, unnest(c.ids) i where t.name = 'slow'"
          ))[0]![0],
          160
        )
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("leave nothing behind: the outbox does not grow with what was published", () =>
    Effect.gen(function*() {
      const outbox = yield* Outbox.Outbox
      const topic = topicOf("size")
      yield* Effect.forkScoped(OutboxRelay.run)
      const text = "x".repeat(1000)
      for (let round = 0; round < 30; round++) {
        yield* outbox.publish(topic, Array.from({ length: 1000 }, (_, n) => ({ payload: { n }, headers: { text } })))
      }
      yield* eventually(ends("size"), (end) => end === 30_000n)
      yield* eventually(
        numbers(
          "select sum(pg_total_relation_size(c)) from unnest(array['outbox_0', 'outbox_1', 'outbox_2']::regclass[]) c"
        ),
        ([row]) => row![0]! < 16_000_000
      )
    }).pipe(Effect.scoped), 60_000)
})

const publishOne = `
  select publish_messages(
    '{}', '{}', '{topic}', '{prepared}', '{1}', array[gen_random_uuid()], '{}', '{}', '{default}', '{}', '{}', '{}', '{}',
    array['{"n": 0}']::json[], '{}'
  )`

layer(NodeServices.layer, { excludeTestServices: true })("a relay", (it) => {
  it.effect(
    "loses nothing of a transaction that is prepared, over a restart of the server",
    () =>
      Effect.gen(function*() {
        const server = yield* PrivatePostgres.make({ settings: { max_prepared_transactions: "2" } })
        yield* Effect.gen(function*() {
          const { rows, transact } = yield* Postgres
          const outbox = yield* Outbox.Outbox
          const topic = topicOf("prepared")
          yield* Migrations.run(migrations)
          yield* Effect.forkScoped(OutboxRelay.run)
          const published = yield* Deferred.make<void>()
          const go = yield* Deferred.make<void>()
          const slow = yield* Effect.forkChild(transact(
            // Without the hint: who has told something cannot prepare.
            rows(publishOne, []).pipe(
              Effect.andThen(Deferred.succeed(published, undefined)),
              Effect.andThen(Deferred.await(go)),
              // The COMMIT after it finds nothing to commit.
              Effect.andThen(rows("prepare transaction 'prepared'", []))
            )
          ))
          yield* Deferred.await(published)
          const others = Effect.repeat(Effect.andThen(outbox.publish(topic, many(1)), Effect.sleep("150 millis")), {
            times: 9
          })
          yield* others
          yield* Deferred.succeed(go, undefined)
          yield* Fiber.join(slow)
          yield* others
          yield* server.stop
          yield* server.start()
          yield* eventually(Effect.isSuccess(rows("select 1", [])), (isThere) => isThere)
          yield* others
          yield* eventually(ends("prepared"), (end) => end === 30n)
          yield* rows("commit prepared 'prepared'", [])
          yield* eventually(ends("prepared"), (end) => end === 31n)
        }).pipe(
          Effect.provide(
            Layer.mergeAll(Outbox.layer, Topics.layer, Queues.layer).pipe(
              Layer.provideMerge(layerOfPostgres({ url: server.url, maxConnections: 6 }))
            )
          )
        )
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
    60_000
  )

  it.effect("warns once while its tables are not there, and goes on when they are", () =>
    Effect.gen(function*() {
      const warnings: Array<string> = []
      const keeper = Logger.make(({ logLevel, message }) =>
        void (logLevel === "Warn" && warnings.push(String(message)))
      )
      yield* Effect.forkScoped(Effect.provide(OutboxRelay.run, Logger.layer([keeper])))
      yield* Effect.sleep("1 second")
      yield* Migrations.run(migrations)
      yield* Effect.gen(function*() {
        const outbox = yield* Outbox.Outbox
        const topic = topicOf("awaited")
        yield* Effect.flatMap(Topics.Topics, ({ declare }) => declare(topic))
        yield* outbox.publish(topic, many(3))
        yield* eventually(ends("awaited"), (end) => end === 3n)
      }).pipe(Effect.provide(Layer.mergeAll(Outbox.layer, Topics.layer)))
      deepStrictEqual(warnings.map((warning) => warning.split(",")[0]), ["The outbox is not relayed"])
    }).pipe(Effect.scoped, Effect.provide(PostgresTest.layer({ migrations: [] }))))
})
