import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import * as Outbox from "@strata/outbox/Outbox"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Queues from "@strata/queues/Queues"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import * as TopicPolicies from "@strata/queues/topics/TopicPolicies"
import * as Topics from "@strata/queues/topics/Topics"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import { eventually, migrations, topicOf } from "./fixture.ts"

/** Nothing gets to the disk that nobody waits for. */
const lazy = { synchronous_commit: "off", wal_writer_delay: "10s", max_connections: "40" }

const topic = topicOf("lives", { partitions: 1 })

/** A group that handles at least once saves how far it is after the crash only. */
const Seldom = Layer.succeed(TopicPolicies.TopicPolicies, { ...TopicPolicies.defaults, commit: Duration.seconds(5) })

/** Publishes a number by a transaction that waits for what is named, and tells nobody. */
const publish = Effect.fnUntraced(function*(n: number, waitsFor: "local" | "on") {
  const { rows, transact } = yield* Postgres.Postgres
  yield* transact(Effect.andThen(
    rows("select set_config('synchronous_commit', $1, true)", [Pg.text(waitsFor)]),
    rows(
      `
      insert into outbox (slot, kind, destination, count, published_at, ids, tenants, data)
      values (
        outbox_slot_now(), 'topic', $1, 1, clock_timestamp(), array[gen_random_uuid()], array['default'],
        array[json_build_object('n', $2::integer)]
      )`,
      [Pg.text(topic.name), Pg.int(n)]
    )
  ))
})

layer(NodeServices.layer, { excludeTestServices: true })("a consumer group that outlives its server", (it) => {
  for (const delivery of ["transactional", "atLeastOnce"] as const) {
    it.effect(
      `handles what is at positions that others had before the crash, ${delivery}`,
      () =>
        Effect.gen(function*() {
          const server = yield* PrivatePostgres.make({ settings: { ...lazy, synchronous_standby_names: "nobody" } })
          yield* Effect.gen(function*() {
            const { rows, sql } = yield* Postgres.Postgres
            const topics = yield* Topics.Topics
            yield* sql`create table handled (n integer not null, position bigint not null)`
            const seen: Array<number> = []
            const begun = yield* Latch.make()
            const proceed = yield* Latch.make()
            yield* ConsumerGroup.run({
              name: "lives",
              topics: [topic],
              startFrom: "beginning",
              delivery,
              handler: (messages) =>
                Effect.gen(function*() {
                  const numbers = messages.map(({ payload }) => payload.n)
                  seen.push(...numbers)
                  yield* rows("insert into handled select * from unnest($1::integer[], $2::bigint[])", [
                    Pg.intArray(numbers),
                    Pg.bigintArray(messages.map(({ position }) => position))
                  ])
                  if (!numbers.includes(2)) return
                  yield* begun.open
                  if (delivery === "transactional") yield* proceed.await
                })
            })
            const isDone = (count: number) =>
              eventually(
                Effect.orElseSucceed(
                  Effect.gen(function*() {
                    const { last } = yield* topics.find(topic)
                    const { partitions } = yield* topics.group({ name: "lives" })
                    return Number(last) === count && partitions.every(({ lag }) => lag === 0n)
                  }),
                  () => false
                ),
                (isDone) => isDone
              )
            yield* publish(0, "local")
            yield* eventually(Effect.sync(() => seen), (seen) => seen.includes(0))
            yield* sql`checkpoint`

            // It is on the disk, and nobody sees it.
            yield* Effect.forkChild(Effect.exit(publish(1, "on")))
            yield* eventually(
              rows("select from pg_stat_activity where wait_event = 'SyncRep'", []),
              (found) => found.length > 0
            )
            // It overtakes the other one, and the server forgets that.
            yield* publish(2, "local")
            yield* begun.await
            yield* Effect.sleep("300 millis")
            yield* server.kill9
            yield* server.start(lazy)
            yield* proceed.open

            yield* isDone(3)
            const handled = yield* rows("select n, position from handled order by position, n", [])
            if (delivery === "transactional") assert.deepStrictEqual(handled, [[0, 1n], [1, 2n], [2, 3n]])
            else {
              assert.deepStrictEqual([...new Set(seen)].toSorted(), [0, 1, 2])
              // The other way round than before the crash.
              assert.deepInclude(handled, [1, 2n])
              assert.deepInclude(handled, [2, 3n])
            }
          }).pipe(
            Effect.provide(
              Layer.mergeAll(Outbox.layer, Topics.layer, Queues.layer, OutboxRelay.layer).pipe(
                Layer.provide(Layer.effectDiscard(Migrations.run(migrations))),
                Layer.provideMerge(Postgres.layer({ url: server.url, maxConnections: 12, allowDataLossOnCrash: true })),
                Layer.provideMerge(Seldom)
              )
            ),
            Effect.scoped
          )
        }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
      60_000
    )
  }
})
