import { assert, layer } from "@effect/vitest"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { Position, streamId } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Projection from "@strata/projections/Projection"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import * as Tracer from "effect/Tracer"

const Counted = EventDefinition.make("Counted", { fields: { by: Schema.Int } })
const Counters = EventDefinition.set([Counted])

const Database = PostgresTest.layer({
  migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations]
})
const Store = EventStorePostgres.layer().pipe(Layer.provideMerge(Database))

/** Rows have no key: a fact applied twice is there twice. */
const createTable = Effect.gen(function*() {
  const { sql } = yield* Postgres
  yield* sql`
    create table if not exists applied (
      projection text not null, position bigint not null, by integer not null,
      number bigint generated always as identity
    )`
})

const record = (name: string, batch: ReadonlyArray<Projection.Projected<{ readonly by: number }>>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql`
      insert into applied (projection, position, by)
      select ${name}, * from unnest(
        ${Pg.bigintArray(batch.map(({ fact }) => fact.position))}, ${Pg.intArray(batch.map(({ event }) => event.by))}
      )`)

const recorder = (name: string, options: {
  readonly version?: number
  readonly before?: Effect.Effect<void>
  readonly after?: Effect.Effect<unknown, Projection.ApplyError, SqlClient.SqlClient>
} = {}) =>
  Projection.make({
    name,
    version: options.version,
    events: Counters,
    apply: Effect.fnUntraced(function*(batch) {
      yield* options.before ?? Effect.void
      yield* record(name, batch)
      yield* options.after ?? Effect.void
    }),
    reset: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`delete from applied where projection = ${name}`)
  })

const appliedBy = Effect.fnUntraced(function*(name: string) {
  const { sql } = yield* Postgres
  const rows = yield* sql<{ position: bigint }>`
    select position from applied where projection = ${name} order by number`
  return rows.map(({ position }) => position)
})

/** A stream of its own for each append, all by one statement. */
const append = Effect.fnUntraced(function*(count: number) {
  const store = yield* EventStore
  return yield* store.append({
    facts: Array.from(
      { length: count },
      (_, by) => ({ stream: streamId("counter", "1"), type: "Counted", data: { by } })
    )
  })
})

/** As another process would: with a runner of its own. */
const start = (projections: ReadonlyArray<Projection.Projection>, options?: Projections.Options) =>
  Effect.map(
    Layer.build(Projections.layer(projections, options)),
    (context) => Context.get(context, Projections.Projections)
  )

const upTo = (position: bigint) => Array.from({ length: Number(position) }, (_, index) => BigInt(index + 1))

/** Of a test on a database of its own. */
const inFreshStore = <A, E>(test: Effect.Effect<A, E, EventStore | Postgres | PostgresTest | Scope.Scope>) =>
  Effect.scoped(test).pipe(Effect.provide(Layer.fresh(Store)))

layer(Layer.empty, { excludeTestServices: true })("projections", (it) => {
  it.effect("every fact is applied once and in order, backlog and live", () =>
    inFreshStore(Effect.gen(function*() {
      yield* createTable
      yield* append(30)
      const projections = yield* start([recorder("live")], { batchSize: 4, maxBatchSize: 8 })
      for (let index = 0; index < 10; index++) yield* append(3)
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* appliedBy("live"), upTo(60n))
      const measured = yield* Metric.snapshot
      const position = measured.find(({ attributes, id }) =>
        id === "strata_projection_position" && attributes?.["projection"] === "live"
      )
      assert.deepInclude(position?.state, { value: 60 })
      const [status] = yield* projections.status
      assert.deepStrictEqual(status, {
        name: "live",
        version: 1,
        position: Position.make(60n),
        head: Position.make(60n),
        lag: 0n,
        lagSeconds: 0,
        state: "running",
        error: null
      })
    })))

  it.effect("a fact that cannot be read stops a projection before it, and is named in the status", () =>
    inFreshStore(Effect.gen(function*() {
      yield* createTable
      const { sql } = yield* Postgres
      yield* append(3)
      yield* sql`update fact set data = to_json(repeat('€', 6000000)) where position = 3`
      const projections = yield* start([recorder("unreadable")])
      const failed = yield* Effect.repeat(projections.status, {
        until: ([status]) => status?.state === "failed",
        schedule: Schedule.spaced("10 millis")
      }).pipe(Effect.timeout("20 seconds"))
      assert.match(failed[0]!.error ?? "", /^Fact [0-9a-f-]{36} at position 3 cannot be read: it holds 18000004 bytes$/)
      assert.deepStrictEqual(yield* appliedBy("unreadable"), [1n, 2n])
    })))

  it.effect("two processes that run one projection apply every fact once and in order", () =>
    inFreshStore(Effect.gen(function*() {
      yield* createTable
      yield* append(200)
      const processes = yield* Effect.forEach(
        [1, 2, 3],
        () => start([recorder("shared")], { batchSize: 7, maxBatchSize: 7 })
      )
      yield* Effect.forEach(Array.from({ length: 50 }), () => append(2), { concurrency: 4, discard: true })
      yield* Effect.forEach(processes, (each) => each.catchUp(), { discard: true })
      assert.deepStrictEqual(yield* appliedBy("shared"), upTo(300n))
    })))

  it.effect("a connection killed in the middle of a batch loses and doubles nothing", () =>
    inFreshStore(Effect.gen(function*() {
      yield* createTable
      const kills = yield* Ref.make(0)
      const killed = recorder("killed", {
        after: Effect.gen(function*() {
          if ((yield* Ref.updateAndGet(kills, (n) => n + 1)) % 2 === 1) {
            const sql = yield* SqlClient.SqlClient
            yield* sql`select pg_terminate_backend(pg_backend_pid())`
          }
        })
      })
      const projections = yield* start([killed], { batchSize: 10, maxBatchSize: 10 })
      yield* append(50)
      yield* projections.catchUp({ timeout: "30 seconds" })
      assert.deepStrictEqual(yield* appliedBy("killed"), upTo(50n))
      assert.isAtLeast(yield* Ref.get(kills), 10)
    })))

  it.effect("waiting for a position ends when it is reached, and fails after its bound", () =>
    inFreshStore(Effect.gen(function*() {
      yield* createTable
      const gate = yield* Latch.make()
      const projections = yield* start([recorder("free"), recorder("held", { before: gate.await })])
      const { position } = yield* append(3)

      yield* projections.waitFor({ position, projections: ["free"] })
      const error = yield* Effect.flip(projections.waitFor({ position, timeout: "100 millis" }))
      assert.instanceOf(error, Projections.ProjectionBehind)
      assert.deepStrictEqual(error.behind, [{ name: "held", position: Position.make(0n), state: "running" }])

      const lagging = (yield* projections.status).find(({ name }) => name === "held")!
      assert.strictEqual(lagging.lag, 3n)
      assert.isAbove(lagging.lagSeconds, 0)

      yield* gate.open
      yield* projections.waitFor({ position })
      assert.deepStrictEqual(yield* appliedBy("held"), upTo(3n))
    })))

  it.effect("a process that runs none waits for those of another", () =>
    inFreshStore(Effect.gen(function*() {
      yield* createTable
      const projection = recorder("elsewhere")
      const waiting = yield* start([projection], { run: false })
      assert.strictEqual((yield* waiting.status)[0]?.state, "new")
      const { position } = yield* append(3)
      yield* Effect.forkScoped(Effect.andThen(Effect.sleep("50 millis"), start([projection])))
      yield* waiting.waitFor({ position })
      assert.deepStrictEqual(yield* appliedBy("elsewhere"), upTo(3n))
    })))

  it.effect("a fact that cannot be decoded stops its projection alone, with everything before it applied", () =>
    inFreshStore(Effect.gen(function*() {
      yield* createTable
      const store = yield* EventStore
      yield* append(20)
      const poison = yield* store.append({
        facts: [{ stream: streamId("counter", "1"), type: "Counted", data: { by: "many" } }]
      })
      const { position } = yield* append(3)
      const Lenient = EventDefinition.set([EventDefinition.make("Counted", { fields: { by: Schema.Json } })])
      const lenient = Projection.make({
        name: "lenient",
        events: Lenient,
        apply: (batch) => record("lenient", batch.map(({ fact }) => ({ fact, event: { by: 0 } }))),
        reset: Effect.void
      })

      yield* Effect.scoped(Effect.gen(function*() {
        const projections = yield* start([recorder("strict"), lenient])
        yield* projections.waitFor({ position, projections: ["lenient"] })
        const error = yield* Effect.flip(projections.waitFor({ position, timeout: "20 seconds" }))
        assert.instanceOf(error, Projections.ProjectionBehind)
        assert.deepStrictEqual(error.behind, [{ name: "strict", position: Position.make(20n), state: "failed" }])
        const strict = (yield* projections.status).find(({ name }) => name === "strict")!
        assert.strictEqual(strict.state, "failed")
        assert.include(strict.error, `Fact ${poison.position}`)
        assert.deepStrictEqual(yield* appliedBy("strict"), upTo(20n))
      }))

      const repaired = Projection.make({
        name: "strict",
        events: Lenient,
        apply: (batch) => record("strict", batch.map(({ fact }) => ({ fact, event: { by: 0 } }))),
        reset: Effect.void
      })
      const projections = yield* start([repaired])
      yield* projections.waitFor({ position })
      assert.deepStrictEqual(yield* appliedBy("strict"), upTo(24n))
    })))

  it.effect("a fact that the tables refuse stops the projection with the database's reason", () =>
    inFreshStore(Effect.gen(function*() {
      yield* createTable
      const { sql } = yield* Postgres
      yield* sql`alter table applied add check (by < 5)`
      const projections = yield* start([recorder("checked")])
      const { position } = yield* append(10)
      yield* Effect.flip(projections.waitFor({ position, timeout: "20 seconds" }))
      const [status] = yield* projections.status
      assert.strictEqual(status?.state, "failed")
      assert.strictEqual(status?.position, Position.make(5n))
      assert.include(status?.error, "violates check constraint")
      assert.deepStrictEqual(yield* appliedBy("checked"), upTo(5n))
    })))

  it.effect("a projection that cannot even start says so", () =>
    inFreshStore(Effect.gen(function*() {
      const { sql } = yield* Postgres
      yield* sql`
        insert into projection (store, name, version, position, state) values ('default', 'broken', 1, 0, 'running')`
      const broken = Projection.make({
        name: "broken",
        version: 2,
        events: Counters,
        apply: () => Effect.void,
        reset: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`truncate no_such_table`)
      })
      const projections = yield* start([broken])
      const { position } = yield* append(1)
      const error = yield* Effect.flip(projections.waitFor({ position, timeout: "20 seconds" }))
      assert.instanceOf(error, Projections.ProjectionBehind)
      assert.strictEqual(error.behind[0]?.state, "failed")
      const [status] = yield* projections.status
      assert.strictEqual(status?.state, "failed")
      assert.include(status?.error, "no_such_table")
    })))

  it.effect("another version empties the tables and starts from the first fact, and the old one stops", () =>
    inFreshStore(Effect.gen(function*() {
      yield* createTable
      const old = yield* start([recorder("versioned")])
      yield* append(10)
      yield* old.catchUp()

      const current = yield* start([recorder("versioned", { version: 2 })])
      yield* current.catchUp()
      assert.deepStrictEqual(yield* appliedBy("versioned"), upTo(10n))
      yield* append(5)
      yield* current.catchUp()
      yield* old.catchUp()
      assert.deepStrictEqual(yield* appliedBy("versioned"), upTo(15n))
      assert.strictEqual((yield* old.status)[0]?.version, 2)
    })))

  it.effect("the trace that appended a fact goes on through its projection", () =>
    Effect.gen(function*() {
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      const traceIds = yield* inFreshStore(Effect.gen(function*() {
        yield* createTable
        const request = (name: string) =>
          Effect.withSpan(Effect.andThen(append(2), Effect.currentSpan), name, { root: true })
        const requests = [yield* request("first"), yield* request("second")]
        const projections = yield* start([recorder("traced")])
        yield* projections.catchUp()
        return requests.map(({ traceId }) => traceId)
      })).pipe(Effect.provideService(Tracer.Tracer, tracer))

      const applied = spans.filter(({ name }) => name === "Projection.apply")
      for (const traceId of traceIds) {
        const span = applied.find((span) => span.traceId === traceId)
        assert.strictEqual(span?.attributes.get("projection.name"), "traced")
        assert.strictEqual(span?.attributes.get("projection.facts"), 4)
        assert.strictEqual(span?.status._tag, "Ended")
      }
      const batch = applied.find(({ traceId }) => !traceIds.includes(traceId))
      assert.deepStrictEqual(batch?.links.map(({ span }) => span.traceId), traceIds)
    }))
})
