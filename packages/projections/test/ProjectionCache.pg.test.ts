import { assert, layer } from "@effect/vitest"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { type EventId, streamId } from "@strata/event-store/Fact"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import { Postgres } from "@strata/postgres/Postgres"
import * as KeyedProjection from "@strata/projections/KeyedProjection"
import type { Projection } from "@strata/projections/Projection"
import * as ProjectionCache from "@strata/projections/ProjectionCache"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Persistence from "effect/persistence/Persistence"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"

const Counted = EventDefinition.make("Counted", { fields: { by: Schema.Int } })
const Events = EventDefinition.set([Counted])

/** `factor` tells versions apart; a total below zero cannot be kept. */
const totals = (options: { readonly version?: number; readonly factor?: number } = {}) =>
  KeyedProjection.make({
    name: "totals",
    version: options.version,
    events: Events,
    table: "total",
    state: Schema.Struct({ total: Schema.Int }),
    initial: { total: 0 },
    evolve: ({ total }, { by }) => ({ total: total + by * (options.factor ?? 1) }),
    columns: { total: { type: "integer", of: ({ total }) => total } },
    indexes: "alter table total add constraint total_positive check (total >= 0)"
  })

const Store = EventStorePostgres.layer().pipe(Layer.provideMerge(PostgresTest.layer({
  migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations],
  options: { role: applicationRole }
})))
const inFreshStore = <A, E>(test: Effect.Effect<A, E, EventStore | Postgres | PostgresTest | Scope.Scope>) =>
  Effect.scoped(test).pipe(Effect.provide(Layer.fresh(Store)))

/** One partition: the checkpoint of another one would follow over facts of its own time, and make an answer be computed once more. */
const start = (projections: ReadonlyArray<Projection>, options?: Projections.Options) =>
  Effect.map(
    Layer.build(Projections.layer(projections, { partitions: 1, ...options })),
    (context) => Context.get(context, Projections.Projections)
  )

const count = Effect.fnUntraced(function*(by: number, counter = "1") {
  const store = yield* EventStore
  return yield* store.append({
    facts: [Events.encode(Counted.make({ by }), { stream: streamId("counter", counter) })]
  })
})
const retract = Effect.fnUntraced(function*(eventId: EventId) {
  const store = yield* EventStore
  return yield* store.revise({ _tag: "Retraction", revises: eventId, reason: "never happened", actor: "ada" })
})

const totalOf = Effect.fnUntraced(function*(counter: string) {
  const { sql } = yield* Postgres
  const [row] = yield* sql<{ total: number }>`select total from total where stream = ${streamId("counter", counter)}`
  return row?.total ?? 0
})

/** A cache of totals that counts how often one is computed. */
const cached = Effect.fnUntraced(function*(
  lookup: (counter: string) => ReturnType<typeof totalOf> = totalOf
) {
  const computed = yield* Ref.make(0)
  const cache = yield* ProjectionCache.make({
    name: "totals",
    projections: ["totals"],
    key: (counter: string) => counter,
    answer: Schema.Int,
    lookup: (counter) => Effect.andThen(Ref.update(computed, (n) => n + 1), lookup(counter)),
    timeToLive: "1 minute",
    capacity: 100
  })
  return { get: cache.get, computed: Ref.get(computed) }
})

layer(Layer.empty, { excludeTestServices: true })("a cache of queries on projections", (it) => {
  it.effect("computes an answer once while nothing changes, and each question by itself", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([totals()])
      yield* count(5)
      yield* count(7, "2")
      yield* projections.catchUp()
      const { computed, get } = yield* cached()
      for (let times = 0; times < 3; times++) {
        assert.deepStrictEqual([yield* get("1"), yield* get("2")], [5, 7])
      }
      assert.strictEqual(yield* computed, 2)
    })))

  it.effect("who waits for the position of a write never gets what was kept before it", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([totals()])
      const { computed, get } = yield* cached()
      let total = 0
      for (let by = 1; by <= 20; by++) {
        const { position } = yield* count(by)
        total += by
        yield* projections.waitFor({ position })
        assert.deepStrictEqual([yield* get("1"), yield* get("1")], [total, total])
      }
      assert.strictEqual(yield* computed, 20)
      const { facts: [last], position } = yield* count(100)
      yield* projections.waitFor({ position })
      assert.strictEqual(yield* get("1"), total + 100)
      const { position: gone } = yield* retract(last!.eventId)
      yield* projections.waitFor({ position: gone })
      assert.strictEqual(yield* get("1"), total)
    })))

  it.effect("a process that runs no projections gives no answer that is older than the tables", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([totals()])
      const { get } = yield* cached()
      yield* count(1)
      yield* projections.catchUp()
      yield* get("1")
      const { position } = yield* count(1)
      yield* projections.waitFor({ position })
      // Nobody has told the cache of anything.
      assert.strictEqual(yield* get("1"), 2)
    })))

  it.effect("readers that are switched to another generation, and back, never get an answer of the one they do not see", () =>
    inFreshStore(Effect.gen(function*() {
      const old = yield* start([totals()])
      const { computed, get } = yield* cached()
      const { position } = yield* count(3)
      yield* old.waitFor({ position })
      assert.strictEqual(yield* get("1"), 3)
      const current = yield* start([totals({ version: 2, factor: 10 })], { switch: "manual" })
      yield* Effect.repeat(current.status, {
        until: ([status]) => status?.generations[1]?.lag === 0n,
        schedule: Schedule.spaced("10 millis")
      })
      assert.strictEqual(yield* get("1"), 3)
      assert.strictEqual(yield* computed, 1)
      yield* current.operate.switchTo("totals")
      assert.strictEqual(yield* get("1"), 30)
      yield* current.operate.rollback("totals")
      assert.strictEqual(yield* get("1"), 3)
      yield* current.operate.switchTo("totals", 2)
      assert.strictEqual(yield* get("1"), 30)
      assert.strictEqual(yield* computed, 4)
    })))

  it.effect(
    "a key that waited and goes on changes the answer, though no fact has come",
    () =>
      inFreshStore(Effect.gen(function*() {
        const projections = yield* start([totals()])
        const { get } = yield* cached()
        for (const by of [1, -5, 10]) {
          yield* count(by)
          yield* projections.catchUp()
        }
        assert.strictEqual(yield* get("1"), 1)
        yield* projections.operate.skip("totals", "default/counter-1")
        assert.strictEqual(yield* get("1"), 11)
      })),
    30_000
  )

  it.effect("those who ask for the same at once wait for one query", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([totals()])
      const { position } = yield* count(4)
      yield* projections.waitFor({ position })
      const gate = yield* Latch.make()
      const { computed, get } = yield* cached((counter) => Effect.andThen(gate.await, totalOf(counter)))
      const asking = yield* Effect.forkChild(
        Effect.forEach(Arr.range(1, 50), () => get("1"), { concurrency: "unbounded" })
      )
      yield* Effect.repeat(computed, { until: (n) => n > 0, schedule: Schedule.spaced("5 millis") })
      yield* gate.open
      assert.deepStrictEqual(yield* Fiber.join(asking), Arr.makeBy(50, () => 4))
      assert.strictEqual(yield* computed, 1)
    })))

  it.effect("a failure is the asker's, and is not kept", () =>
    inFreshStore(Effect.gen(function*() {
      yield* start([totals()])
      const { sql } = yield* Postgres
      const broken = yield* Ref.make(true)
      const { get } = yield* cached((counter) =>
        Effect.flatMap(Ref.get(broken), (isBroken) => isBroken ? Effect.as(sql`select 1 / 0`, 0) : totalOf(counter))
      )
      assert.strictEqual((yield* Effect.flip(get("1")))._tag, "SqlError")
      yield* Ref.set(broken, false)
      assert.strictEqual(yield* get("1"), 0)
    })))

  it.effect("an answer is computed again when its time is over", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([totals()])
      const { position } = yield* count(4)
      yield* projections.waitFor({ position })
      yield* Effect.gen(function*() {
        const { computed, get } = yield* cached()
        yield* get("1")
        yield* TestClock.adjust("59 seconds")
        yield* get("1")
        assert.strictEqual(yield* computed, 1)
        yield* TestClock.adjust("1 second")
        yield* get("1")
        assert.strictEqual(yield* computed, 2)
      }).pipe(Effect.provide(TestClock.layer()))
    })))

  it.effect("in a transaction nothing is kept, since it may be rolled back", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([totals()])
      const { sql, transact } = yield* Postgres
      const { position } = yield* count(4)
      yield* projections.waitFor({ position })
      const { get } = yield* cached()
      yield* Effect.flip(transact(Effect.gen(function*() {
        yield* sql`update strata_totals_1.total set total = 99`
        assert.strictEqual(yield* get("1"), 99)
        return yield* Effect.fail("changed my mind")
      })))
      assert.strictEqual(yield* get("1"), 4)
    })))

  it.effect("with a persistence, what one process has computed another one gets, as long as it is right", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([totals()])
      const { position } = yield* count(4)
      yield* projections.waitFor({ position })
      yield* Effect.gen(function*() {
        const [one, other] = yield* Effect.all([cached(), cached()])
        assert.deepStrictEqual([yield* one.get("1"), yield* other.get("1")], [4, 4])
        assert.deepStrictEqual([yield* one.computed, yield* other.computed], [1, 0])
        const { position } = yield* count(1)
        yield* projections.waitFor({ position })
        assert.deepStrictEqual([yield* other.get("1"), yield* one.get("1")], [5, 5])
        assert.deepStrictEqual([yield* one.computed, yield* other.computed], [1, 1])
      }).pipe(Effect.provide(Persistence.layerMemory))
    })))

  it.effect("a persistence that fails, or holds something else, does not fail the read", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([totals()])
      const { position } = yield* count(4)
      yield* projections.waitFor({ position })
      const failure = new Persistence.PersistenceError({ message: "the server is gone" })
      const backed = (get: Effect.Effect<object | undefined, Persistence.PersistenceError>) =>
        Persistence.layer.pipe(Layer.provide(Layer.succeed(Persistence.BackingPersistence, {
          make: () =>
            Effect.succeed({
              get: () => get,
              getMany: () => Effect.fail(failure),
              set: () => Effect.fail(failure),
              setMany: () => Effect.fail(failure),
              remove: () => Effect.fail(failure),
              clear: Effect.fail(failure)
            })
        })))
      for (const get of [Effect.fail(failure), Effect.succeed({ something: "else" }), Effect.die("a bug")]) {
        yield* Effect.gen(function*() {
          const { computed, get } = yield* cached()
          assert.deepStrictEqual([yield* get("1"), yield* get("1")], [4, 4])
          assert.strictEqual(yield* computed, 1)
        }).pipe(Effect.provide(backed(get)))
      }
    })))
})
