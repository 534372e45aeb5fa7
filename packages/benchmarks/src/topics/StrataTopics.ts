/**
 * Strata's outbox, topics and consumer groups, through their public layers.
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Outbox from "@strata/outbox/Outbox"
import * as OutboxMigrations from "@strata/outbox/OutboxMigrations"
import * as Publication from "@strata/outbox/Publication"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Queues from "@strata/queues/Queues"
import * as QueuesMigrations from "@strata/queues/QueuesMigrations"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import * as Topic from "@strata/queues/topics/Topic"
import * as Topics from "@strata/queues/topics/Topics"
import * as TopicsMigrations from "@strata/queues/topics/TopicsMigrations"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Audit, System } from "../event-store/System.ts"
import * as Workload from "../event-store/Workload.ts"
import { BenchmarkError, failure } from "../Suite.ts"
import { batchSize, type Consumer, Payload, payloads } from "./Work.ts"

const migrations = [
  OutboxMigrations.migrations,
  EventStoreMigrations.migrations,
  QueuesMigrations.migrations,
  TopicsMigrations.migrations
]

/** What is consumed, and what appends tell of. */
const Numbers = Topic.make({ name: "numbers", payload: Payload })
const News = Topic.make({ name: "news", payload: Payload })

/**
 * Opens topics in a database, for the time of the scope, with a relay unless `relays` is false.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  url: Redacted.Redacted,
  { relays = true }: { readonly relays?: boolean | undefined } = {}
) {
  const ledger = Migrations.layer(migrations).pipe(Layer.provide(NodeServices.layer))
  const context = yield* Layer.build(
    Layer.mergeAll(
      Outbox.layer,
      Topics.layer,
      Queues.layer,
      relays ? OutboxRelay.layer : Layer.empty,
      EventStorePostgres.layer()
    ).pipe(
      Layer.provide(ledger),
      Layer.provideMerge(Postgres.layer({ url, statementTimeout: 0, maxConnections: 40 }))
    )
  ).pipe(Effect.mapError(failure("Opening Strata's topics")))
  const outbox = Context.get(context, Outbox.Outbox)
  const topics = Context.get(context, Topics.Topics)
  const store = Context.get(context, EventStore)
  const { rows, sql, transact } = Context.get(context, Postgres.Postgres)
  yield* Effect.forEach([Numbers, News], topics.declare, { discard: true }).pipe(
    Effect.andThen(rows("create table if not exists effect (n integer not null)", [])),
    Effect.mapError(failure("Declaring topics"))
  )

  const fill: Consumer["fill"] = (count) =>
    Effect.forEach(payloads(count), (some) => outbox.publish(Numbers, some), { discard: true }).pipe(
      Effect.andThen(Effect.repeat(topics.find(Numbers), {
        until: ({ last }) => last === BigInt(count),
        schedule: Schedule.spaced(20)
      })),
      Effect.asVoid,
      Effect.mapError(failure("Filling a topic"))
    )

  let groups = 0
  const consume: Consumer["consume"] = (count) =>
    Effect.scoped(Effect.gen(function*() {
      yield* rows("truncate effect", [])
      const all = yield* Deferred.make<void>()
      let seen = 0
      yield* ConsumerGroup.run({
        name: `group ${++groups}`,
        topics: [Numbers],
        startFrom: "beginning",
        batchSize,
        concurrency: 2,
        handler: (messages) =>
          Effect.andThen(
            rows("insert into effect select * from unnest($1::integer[])", [
              Pg.intArray(messages.map(({ payload: { n } }) => n))
            ]),
            Effect.suspend(() => {
              seen += messages.length
              return seen >= count ? Deferred.succeed(all, undefined) : Effect.void
            })
          )
      })
      yield* Deferred.await(all)
    })).pipe(Effect.provideContext(context), Effect.mapError(failure("A consumer group")))

  const check: Consumer["check"] = (count) =>
    sql<{ rows: number; different: number }>`
      select count(*)::integer as rows, count(distinct n)::integer as different from effect`.pipe(
      Effect.mapError(failure("Counting effects")),
      Effect.flatMap(([found]) =>
        found?.rows === count && found.different === count
          ? Effect.void
          : Effect.fail(new BenchmarkError({ message: `The group handled ${found?.rows} of ${count} messages` }))
      )
    )

  const append = (publishes: boolean): System["append"] => (stream, version, facts) => {
    const id = Fact.StreamId.make(stream)
    return store.append({
      facts: facts.map((data) => ({ stream: id, type: Workload.type, data, metadata: Workload.metadata })),
      expect: { [stream]: version === 0 || version === "any" ? "noStream" : version },
      publications: publishes ? [Publication.make(News, [{ payload: { n: 1, at: 0 }, key: stream }])] : undefined
    }).pipe(Effect.asVoid, Effect.mapError(failure("Strata append")))
  }
  const appending = {
    head: Effect.mapError(store.head, failure("Strata head")),
    audit: (after: bigint) =>
      sql<Audit>`
        select count(*)::integer as facts, count(*) filter (where version <> nth)::integer as misplaced
        from (
          select version, row_number() over (partition by stream order by position) as nth from fact
          where position > ${Pg.bigint(after)}
        ) f`.pipe(Effect.mapBoth({ onSuccess: ([row]) => row!, onFailure: failure("Strata audit") }))
  }

  /** Takes part in a group that does nothing but tell what came. */
  const listen = (
    group: string,
    heard: (payload: Payload) => void
  ): Effect.Effect<void, BenchmarkError, Scope.Scope> =>
    ConsumerGroup.run({
      name: group,
      topics: [News],
      startFrom: "end",
      delivery: "atLeastOnce",
      handler: (messages) =>
        Effect.sync(() => {
          for (const { payload } of messages) heard(payload)
        })
    }).pipe(Effect.provideContext(context), Effect.asVoid, Effect.mapError(failure("A consumer group")))

  /** A transaction that has published and stays open until the scope closes. */
  const held = Effect.gen(function*() {
    const published = yield* Latch.make()
    const over = yield* Latch.make()
    yield* Effect.forkScoped(
      transact(Effect.andThen(
        outbox.publish(News, [{ payload: { n: -1, at: 0 } }]),
        Effect.andThen(published.open, over.await)
      ))
    )
    yield* Effect.addFinalizer(() => over.open)
    yield* published.await
  })

  /** Publishes so many messages, each as one statement would, without a process that does. */
  const pile = (count: number) =>
    rows(
      `
      insert into outbox (slot, kind, destination, count, published_at, ids, tenants, keys, data)
      select
        outbox_slot_now(), 'topic', 'numbers', 1, clock_timestamp(), array[gen_random_uuid()], array['default'],
        array['key ' || n % 1000], array[json_build_object('n', n, 'at', 0)]
      from generate_series(1, $1::integer) n`,
      [Pg.int(count)]
    ).pipe(Effect.mapError(failure("Filling the outbox")))

  /** Relays until so many more messages are in the topic. */
  const relay = (count: number) =>
    Effect.gen(function*() {
      const last = Effect.map(topics.find(Numbers), ({ last }) => last)
      const until = (yield* last) + BigInt(count)
      yield* Effect.raceFirst(
        OutboxRelay.run,
        Effect.repeat(last, { until: (last) => last >= until, schedule: Schedule.spaced(5) })
      )
    }).pipe(Effect.provideContext(context), Effect.mapError(failure("Relaying")))

  return {
    pile,
    relay,
    consumer: { name: "Strata", fill, consume, check } satisfies Consumer,
    silent: { name: "Strata, nothing published", append: append(false), ...appending },
    telling: { name: "Strata", append: append(true), ...appending },
    held,
    publish: (payload: Payload) => Effect.mapError(outbox.publish(News, [{ payload }]), failure("Strata publish")),
    listen
  }
})

/**
 * Strata's topics in a database.
 *
 * @category models
 * @since 0.1.0
 */
export type StrataTopics = Effect.Success<ReturnType<typeof make>>
