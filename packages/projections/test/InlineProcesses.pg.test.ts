import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { streamId } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Counted, Counters, counting } from "./programs/counters.ts"

const Store = Layer.mergeAll(
  EventStorePostgres.layer({ pollInterval: "200 millis" }).pipe(Layer.provideMerge(PostgresTest.layer({
    migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations]
  }))),
  NodeServices.layer,
  Layer.succeed(References.MinimumLogLevel, "None")
)
const inFreshStore = <A, E>(
  test: Effect.Effect<A, E, EventStore | Postgres | PostgresTest | NodeServices.NodeServices | Scope.Scope>
) => Effect.scoped(test).pipe(Effect.provide(Layer.fresh(Store)))

const toJson = Schema.encodeSync(Schema.fromJsonString(Schema.Unknown))

const writer = Effect.fnUntraced(function*(options: { readonly hold: boolean }) {
  return yield* ChildProgram.start(new URL("./programs/inlineWriter.ts", import.meta.url), {
    args: [toJson(options)],
    env: { DATABASE_URL: yield* PostgresTest.url }
  })
})
const isWritten = (line: string) => line.startsWith("written ")

const start = Effect.map(
  Layer.build(Projections.layer([counting({ version: 1, inline: true })])),
  (context) => Context.get(context, Projections.Projections)
)

/** Facts of the log, and rows that are of a believed fact: neither without the other. */
const assertAgreed = Effect.gen(function*() {
  const store = yield* EventStore
  const { sql, transact } = yield* Postgres
  const [compared] = yield* transact(Effect.andThen(
    sql`select set_config('strata.all_tenants', 'on', true)`,
    sql<{ facts: bigint; rows: bigint; matching: bigint; checkpoint: bigint }>`
      select
        (select count(*) from fact where revision = 0) as facts,
        (select count(*) from counted) as rows,
        (select count(distinct f.position) from counted c join fact f on f.position = c.position) as matching,
        (select min(position) from subscription_partition) as checkpoint`
  ))
  const head = yield* store.head
  assert.deepStrictEqual(compared, {
    facts: compared!.facts,
    rows: compared!.facts,
    matching: compared!.facts,
    checkpoint: head
  })
  return head
})

// They wait more than they work.
describe.concurrent("inline projections, several processes", () => {
  layer(Layer.empty, { excludeTestServices: true })((it) => {
    it.effect(
      "a writer that is killed leaves log and tables in agreement, and nothing that was answered is lost",
      () =>
        inFreshStore(Effect.gen(function*() {
          let answered = 0n
          for (const count of [1, 7, 20, 60]) {
            const child = yield* writer({ hold: false })
            for (let answers = 0; answers < count; answers++) {
              const position = BigInt((yield* child.waitFor(isWritten)).slice("written ".length))
              if (position > answered) answered = position
            }
            yield* child.kill9
            const { sql } = yield* Postgres
            // What the server was doing for it has ended.
            yield* Effect.repeat(
              sql`select from pg_stat_activity where application_name like 'strata%' and pid <> pg_backend_pid()
            and state = 'active'`,
              { until: (rows) => rows.length === 0, schedule: Schedule.spaced("20 millis") }
            )
            assert.isAtLeast(Number(yield* assertAgreed), Number(answered))
          }
          const projections = yield* start
          const store = yield* EventStore
          yield* store.append({
            facts: [Counters.encode(Counted.make({ by: 1 }), { stream: streamId("counter", "1") })]
          })
          yield* assertAgreed
          assert.strictEqual((yield* projections.status)[0]?.generations[0]?.applied, "inline")
        })),
      120_000
    )

    it.effect(
      "a writer that is killed in the middle of the work has written nothing, and holds up nobody",
      () =>
        inFreshStore(Effect.gen(function*() {
          const child = yield* writer({ hold: true })
          yield* child.waitFor((line) => line === "held")
          yield* child.kill9
          yield* start
          const store = yield* EventStore
          assert.strictEqual(yield* store.head, 0n)
          yield* store.append({
            facts: [Counters.encode(Counted.make({ by: 1 }), { stream: streamId("counter", "1") })]
          })
          assert.strictEqual(yield* assertAgreed, 1n)
        })),
      120_000
    )

    it.effect(
      "several processes write, one is killed, and each fact is applied once",
      () =>
        inFreshStore(Effect.gen(function*() {
          const children = yield* Effect.all([writer({ hold: false }), writer({ hold: false })])
          yield* start
          const store = yield* EventStore
          for (let round = 0; round < 30; round++) {
            yield* store.append({
              facts: [Counters.encode(Counted.make({ by: 1 }), { stream: streamId("counter", "9") })]
            })
          }
          for (const child of children) {
            for (let answers = 0; answers < 30; answers++) yield* child.waitFor(isWritten)
          }
          yield* children[0].kill9
          for (let answers = 0; answers < 30; answers++) yield* children[1].waitFor(isWritten)
          yield* children[1].kill9
          yield* store.append({
            facts: [Counters.encode(Counted.make({ by: 1 }), { stream: streamId("counter", "9") })]
          })
          yield* assertAgreed
        })),
      120_000
    )
  })
})
