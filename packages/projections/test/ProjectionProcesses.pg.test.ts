import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import { EventStorePolicies } from "@strata/event-store/EventStorePolicies"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { streamId } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Counted, Counters, counting, hasty } from "./programs/counters.ts"

const Store = Layer.mergeAll(
  EventStorePostgres.layer().pipe(Layer.provideMerge(PostgresTest.layer({
    migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations]
  }))),
  NodeServices.layer,
  Layer.succeed(References.MinimumLogLevel, "None")
)
const inFreshStore = <A, E>(
  test: Effect.Effect<A, E, EventStore | Postgres | PostgresTest | NodeServices.NodeServices | Scope.Scope>
) => Effect.scoped(test).pipe(Effect.provide(Layer.fresh(Store)), Effect.provideService(EventStorePolicies, hasty))

const toJson = Schema.encodeSync(Schema.fromJsonString(Schema.Unknown))

const projector = Effect.fnUntraced(function*(options: { readonly version: number; readonly hold?: boolean }) {
  return yield* ChildProgram.start(new URL("./programs/projector.ts", import.meta.url), {
    args: [toJson({ hold: false, ...options })],
    env: { DATABASE_URL: yield* PostgresTest.url }
  })
})
const isBatch = (line: string) => line.startsWith("batch ")

/** `rounds` facts in each of eight streams. */
const append = Effect.fnUntraced(function*(rounds: number) {
  const store = yield* EventStore
  for (let round = 0; round < rounds; round++) {
    yield* store.append({
      facts: Arr.makeBy(8, (n) => Counters.encode(Counted.make({ by: 1 }), { stream: streamId("counter", String(n)) }))
    })
  }
  return yield* store.head
})

const start = (version: number) =>
  Effect.map(
    Layer.build(Projections.layer([counting({ version })])),
    (context) => Context.get(context, Projections.Projections)
  )

const liveIs = (projections: Projections.Projections["Service"], number: number) =>
  Effect.repeat(projections.status, {
    until: ([status]) => status!.generations.some((each) => each.number === number && each.state === "live"),
    schedule: Schedule.spaced("20 millis")
  }).pipe(Effect.timeout("60 seconds"))

/** Each fact once, those of a stream in order. */
const assertOnce = Effect.fnUntraced(function*(head: bigint) {
  const { sql } = yield* Postgres
  const rows = yield* sql<{ stream: string; position: bigint }>`select stream, position from counted order by number`
  assert.strictEqual(BigInt(rows.length), head)
  assert.strictEqual(new Set(rows.map(({ position }) => position)).size, rows.length)
  const last = new Map<string, bigint>()
  for (const { position, stream } of rows) {
    assert.isTrue(position > (last.get(stream) ?? 0n))
    last.set(stream, position)
  }
})

layer(Layer.empty, { excludeTestServices: true })("projections, several processes", (it) => {
  it.effect(
    "a process killed in the middle of a batch leaves nothing of it, and another does it once",
    () =>
      inFreshStore(Effect.gen(function*() {
        yield* append(5)
        const child = yield* projector({ version: 1, hold: true })
        yield* child.waitFor(isBatch)
        yield* child.kill9
        const projections = yield* start(1)
        const head = yield* append(5)
        yield* projections.catchUp()
        yield* assertOnce(head)
      })),
    120_000
  )

  it.effect(
    "a process killed as its checkpoint is about to move has applied nothing",
    () =>
      inFreshStore(Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        const child = yield* projector({ version: 1 })
        yield* child.waitFor((line) => line === "ready")
        const projections = yield* Effect.map(
          Layer.build(Projections.layer([counting({ version: 1 })], { run: false })),
          (context) => Context.get(context, Projections.Projections)
        )
        yield* append(1)
        yield* projections.catchUp()
        // Whoever holds the checkpoints, batches stop right before their last statement.
        yield* transact(Effect.gen(function*() {
          yield* sql`select from subscription_partition for update`
          yield* Effect.forkDetach(append(1))
          yield* child.waitFor(isBatch)
          yield* child.kill9
        }))
        const mine = yield* start(1)
        const head = yield* append(2)
        yield* mine.catchUp()
        yield* assertOnce(head)
      })),
    120_000
  )

  it.effect(
    "two processes share a projection, one is killed, and every fact is applied once and in order",
    () =>
      inFreshStore(Effect.gen(function*() {
        const first = yield* projector({ version: 1 })
        const second = yield* projector({ version: 1 })
        yield* first.waitFor((line) => line === "ready")
        yield* second.waitFor((line) => line === "ready")
        const writing = yield* Effect.forkChild(append(150))
        yield* Effect.all([first.waitFor(isBatch), second.waitFor(isBatch)], { concurrency: "unbounded" })
        yield* first.kill9
        const head = yield* Fiber.join(writing)
        const projections = yield* start(1)
        yield* projections.catchUp()
        yield* assertOnce(head)
      })),
    120_000
  )

  it.effect("a rebuild goes on where a killed process left it", () =>
    inFreshStore(Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const projections = yield* start(1)
        yield* append(100)
        yield* projections.catchUp()
      }))
      const child = yield* projector({ version: 2 })
      for (let batches = 0; batches < 5; batches++) yield* child.waitFor(isBatch)
      yield* child.kill9
      const projections = yield* start(2)
      yield* liveIs(projections, 2)
      yield* assertOnce(yield* append(0))
    })), 120_000)

  it.effect(
    "a process killed while it waits to switch leaves readers where they are, and another switches",
    () =>
      inFreshStore(Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        yield* Effect.scoped(Effect.gen(function*() {
          const projections = yield* start(1)
          yield* append(5)
          yield* projections.catchUp()
        }))
        const reading = yield* Deferred.make<void>()
        const done = yield* Deferred.make<void>()
        const reader = yield* Effect.forkChild(transact(Effect.gen(function*() {
          yield* sql`select count(*) from counted`
          yield* Deferred.succeed(reading, undefined)
          yield* Deferred.await(done)
        })))
        yield* Deferred.await(reading)
        const child = yield* projector({ version: 2 })
        const waiting = sql`
        select from pg_locks l join pg_class c on c.oid = l.relation
        where c.relname = 'counted' and not l.granted and l.mode = 'AccessExclusiveLock'`
        yield* Effect.repeat(waiting, { until: (rows) => rows.length > 0 }).pipe(Effect.timeout("30 seconds"))
        // Readers that come meanwhile are not held up.
        for (let reads = 0; reads < 20; reads++) yield* sql`select count(*) from counted`
        yield* child.kill9
        yield* assertOnce(yield* append(0))
        const projections = yield* start(2)
        assert.isTrue(
          (yield* projections.status)[0]!.generations.some(({ number, state }) => number === 1 && state === "live")
        )
        yield* Deferred.succeed(done, undefined)
        yield* Fiber.join(reader)
        yield* liveIs(projections, 2)
        const head = yield* append(1)
        yield* projections.catchUp()
        yield* assertOnce(head)
      })),
    120_000
  )
})
