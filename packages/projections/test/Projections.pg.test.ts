import { assert, layer } from "@effect/vitest"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { Position, streamId } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Operations from "@strata/projections/Operations"
import * as Projection from "@strata/projections/Projection"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
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

/** A table whose rows are not told apart by the fact: one applied twice is there twice. */
const tablesOf = (name: string, more = "") => `
  create table ${tableOf(name)} (
    tenant text not null, stream text not null, position bigint not null, by integer not null,
    number bigint generated always as identity
    ${more}
  );
  create index on ${tableOf(name)} (tenant, stream)`
const tableOf = (name: string) => `applied_${name}`

const record = (name: string, batch: ReadonlyArray<Projection.Projected<{ readonly by: number }>>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql`
      insert into ${sql(tableOf(name))} (tenant, stream, position, by)
      select * from unnest(
        ${Pg.textArray(batch.map(({ fact }) => fact.tenant))}, ${Pg.textArray(batch.map(({ fact }) => fact.stream))},
        ${Pg.bigintArray(batch.map(({ fact }) => fact.position))}, ${Pg.intArray(batch.map(({ event }) => event.by))}
      )`)

const recorder = (name: string, options: {
  readonly version?: number
  readonly checks?: string
  readonly before?: Effect.Effect<void>
  readonly after?: Effect.Effect<unknown, Projection.ApplyError, SqlClient.SqlClient>
} = {}) =>
  Projection.make({
    name,
    version: options.version,
    events: Counters,
    tables: tablesOf(name, options.checks),
    apply: Effect.fnUntraced(function*(batch) {
      yield* options.before ?? Effect.void
      yield* record(name, batch)
      yield* options.after ?? Effect.void
    })
  })

const appliedBy = Effect.fnUntraced(function*(name: string) {
  const { sql } = yield* Postgres
  const rows = yield* sql<{ position: bigint }>`select position from ${sql(tableOf(name))} order by number`
  return rows.map(({ position }) => position)
})

/** All by one statement. */
const append = Effect.fnUntraced(function*(count: number, stream = streamId("counter", "1")) {
  const store = yield* EventStore
  return yield* store.append({
    facts: Array.from({ length: count }, (_, by) => ({ stream, type: "Counted", data: { by } }))
  })
})

const statusWhere = (
  projections: Projections.Projections["Service"],
  holds: (status: Projections.Status) => boolean
) =>
  Effect.repeat(Effect.map(projections.status, (all) => all[0]!), {
    until: (status) => holds(status),
    schedule: Schedule.spaced("10 millis")
  }).pipe(Effect.timeout("20 seconds"))

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
      yield* append(30)
      const projections = yield* start([recorder("live")], { batchSize: 4 })
      for (let index = 0; index < 10; index++) yield* append(3)
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* appliedBy("live"), upTo(60n))
      const measured = yield* Metric.snapshot
      const facts = measured.find(({ attributes, id }) =>
        id === "strata_projection_facts_total" && attributes?.["projection"] === "live"
      )
      assert.deepInclude(facts?.state, { count: 60 })
      const [status] = yield* projections.status
      const { generations, ...rest } = status!
      assert.deepStrictEqual(generations.map(({ number, schema, state }) => ({ number, schema, state })), [
        { number: 1, schema: "strata_live_1", state: "live" }
      ])
      assert.deepStrictEqual(rest, {
        name: "live",
        version: 1,
        position: Position.make(60n),
        head: Position.make(60n),
        lag: 0n,
        lagSeconds: 0,
        state: "running",
        error: null,
        parked: 0
      })
    })))

  it.effect("a fact that cannot be read stops a projection before it, and is named in the status", () =>
    inFreshStore(Effect.gen(function*() {
      const { sql } = yield* Postgres
      yield* append(3)
      yield* sql`update fact set data = to_json(repeat('€', 6000000)) where position = 3`
      const projections = yield* start([recorder("unreadable")])
      const failed = yield* statusWhere(projections, ({ state }) => state === "failed")
      assert.match(
        failed.error ?? "",
        /^After fact 2: Fact [0-9a-f-]{36} at position 3 cannot be read: it holds 18000004 bytes$/
      )
      assert.deepStrictEqual(yield* appliedBy("unreadable"), [1n, 2n])
    })))

  it.effect("two processes that run one projection apply every fact once and in order", () =>
    inFreshStore(Effect.gen(function*() {
      yield* append(200)
      const processes = yield* Effect.forEach(
        [1, 2, 3],
        () => start([recorder("shared")], { batchSize: 7 })
      )
      yield* Effect.forEach(Array.from({ length: 50 }), () => append(2), { concurrency: 4, discard: true })
      yield* Effect.forEach(processes, (each) => each.catchUp(), { discard: true })
      assert.deepStrictEqual(yield* appliedBy("shared"), upTo(300n))
    })))

  it.effect("a connection killed in the middle of a batch loses and doubles nothing", () =>
    inFreshStore(Effect.gen(function*() {
      const kills = yield* Ref.make(0)
      const killed = recorder("killed", {
        after: Effect.gen(function*() {
          if ((yield* Ref.updateAndGet(kills, (n) => n + 1)) % 2 === 1) {
            const sql = yield* SqlClient.SqlClient
            yield* sql`select pg_terminate_backend(pg_backend_pid())`
          }
        })
      })
      const projections = yield* start([killed], { batchSize: 10 })
      yield* append(50)
      yield* projections.catchUp({ timeout: "30 seconds" })
      assert.deepStrictEqual(yield* appliedBy("killed"), upTo(50n))
      assert.isAtLeast(yield* Ref.get(kills), 10)
    })))

  it.effect("waiting for a position ends when it is reached, and fails after its bound", () =>
    inFreshStore(Effect.gen(function*() {
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
      const projection = recorder("elsewhere")
      const waiting = yield* start([projection], { run: false })
      assert.strictEqual((yield* waiting.status)[0]?.state, "new")
      const { position } = yield* append(3)
      yield* Effect.forkScoped(Effect.andThen(Effect.sleep("50 millis"), start([projection])))
      yield* waiting.waitFor({ position })
      assert.deepStrictEqual(yield* appliedBy("elsewhere"), upTo(3n))
    })))

  it.effect("who waits in a transaction holds up nobody who waits outside of it", () =>
    inFreshStore(Effect.gen(function*() {
      const { sql, transact } = yield* Postgres
      const projection = recorder("beside")
      const waiting = yield* start([projection], { run: false })
      const { position } = yield* append(3)
      const inside = yield* Effect.forkScoped(transact(Effect.gen(function*() {
        // Its connection is busy from now on.
        yield* Effect.forkScoped(sql`select pg_sleep(5)`)
        yield* Effect.sleep("50 millis")
        yield* waiting.waitFor({ position })
      })))
      yield* Effect.sleep("200 millis")
      yield* start([projection])
      const [waited] = yield* Effect.timed(waiting.waitFor({ position }))
      assert.isBelow(Duration.toSeconds(waited), 3)
      yield* Fiber.interrupt(inside)
    })))

  it.effect("a fact that cannot be decoded is put aside with its key, and all other keys go on", () =>
    inFreshStore(Effect.gen(function*() {
      const store = yield* EventStore
      yield* append(20)
      const poison = yield* store.append({
        facts: [{ stream: streamId("counter", "1"), type: "Counted", data: { by: "many" } }]
      })
      yield* append(3)
      const { position } = yield* append(2, streamId("counter", "2"))
      const Lenient = EventDefinition.set([EventDefinition.make("Counted", { fields: { by: Schema.Json } })])

      const parkedKey = yield* Effect.scoped(Effect.gen(function*() {
        const projections = yield* start([recorder("strict")])
        yield* projections.waitFor({ position, timeout: "20 seconds" })
        const status = yield* statusWhere(projections, ({ state }) => state === "parked")
        assert.strictEqual(status.parked, 1)
        assert.include(status.error, `Fact ${poison.position}`)
        assert.deepStrictEqual((yield* appliedBy("strict")).toSorted(), [...upTo(20n), 25n, 26n].toSorted())
        const [parked, ...others] = yield* projections.operate.parked("strict")
        assert.deepStrictEqual(others, [])
        assert.deepInclude(parked, { position: poison.position, held: 3n, key: "default/counter-1" })
        const still = yield* Effect.flip(projections.operate.retry("strict", parked!.key))
        assert.instanceOf(still, Operations.StillParked)
        assert.strictEqual((yield* projections.operate.parked("strict"))[0]?.attempts, parked!.attempts + 1)
        return parked!.key
      }))

      const repaired = Projection.make({
        name: "strict",
        events: Lenient,
        tables: tablesOf("strict"),
        apply: (batch) => record("strict", batch.map(({ fact }) => ({ fact, event: { by: 0 } })))
      })
      const projections = yield* start([repaired])
      yield* projections.operate.retry("strict", parkedKey)
      const after = yield* append(1)
      yield* projections.waitFor({ position: after.position })
      assert.deepStrictEqual((yield* appliedBy("strict")).toSorted(), upTo(after.position).toSorted())
      assert.strictEqual((yield* projections.status)[0]?.state, "running")
      assert.instanceOf(yield* Effect.flip(projections.operate.retry("strict", parkedKey)), Operations.NotParked)
    })))

  it.effect("a fact that the tables refuse is put aside with the database's reason, and its key goes on without it", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([recorder("checked", { checks: ", check (by <> 5)" })])
      const { position } = yield* append(10)
      yield* projections.waitFor({ position, timeout: "20 seconds" })
      const status = yield* statusWhere(projections, ({ state }) => state === "parked")
      assert.include(status.error, "violates check constraint")
      assert.deepStrictEqual(yield* appliedBy("checked"), upTo(5n))
      yield* projections.operate.skip("checked", "default/counter-1")
      yield* projections.waitFor({ position: (yield* append(2)).position })
      assert.deepStrictEqual(yield* appliedBy("checked"), upTo(12n).filter((n) => n !== 6n))
      // What was left out stays out when the same version is built again.
      yield* projections.operate.rebuild("checked")
      yield* statusWhere(
        projections,
        ({ generations }) => generations.some(({ number, state }) => number === 2 && state === "live")
      )
      assert.deepStrictEqual(yield* appliedBy("checked"), upTo(12n).filter((n) => n !== 6n))
    })))

  it.effect("a projection that cannot even start says so", () =>
    inFreshStore(Effect.gen(function*() {
      const broken = Projection.make({
        name: "broken",
        events: Counters,
        tables: "create table broken (tenant text, stream text, other no_such_type)",
        apply: () => Effect.void
      })
      const keyless = Projection.make({
        name: "keyless",
        events: Counters,
        tables: "create table keyless (stream text)",
        apply: () => Effect.void
      })
      const projections = yield* start([broken, keyless])
      const { position } = yield* append(1)
      const error = yield* Effect.flip(projections.waitFor({ position, timeout: "20 seconds" }))
      assert.instanceOf(error, Projections.ProjectionBehind)
      assert.strictEqual(error.behind[0]?.state, "failed")
      yield* statusWhere(projections, ({ state }) => state === "failed")
      const [first, second] = yield* Effect.repeat(projections.status, {
        until: (all) => all.every(({ state }) => state === "failed"),
        schedule: Schedule.spaced("10 millis")
      }).pipe(Effect.timeout("20 seconds"))
      assert.include(first?.error, "no_such_type")
      assert.include(second?.error, "has no column tenant of type text")
    })))

  it.effect("the traces that appended facts are linked to what applies them; one alone goes on through its projection", () =>
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
        const request = (name: string) =>
          Effect.withSpan(Effect.andThen(append(2), Effect.currentSpan), name, { root: true })
        const requests = [yield* request("first"), yield* request("second")]
        const projections = yield* start([recorder("traced")])
        yield* projections.catchUp()
        return requests.map(({ traceId }) => traceId)
      })).pipe(Effect.provideService(Tracer.Tracer, tracer))

      const applied = spans.find(({ name }) => name === "Projection.apply")
      assert.strictEqual(applied?.attributes.get("projection.name"), "traced")
      assert.strictEqual(applied?.attributes.get("projection.facts"), 4)
      const batch = spans.find(({ name }) => name === "DurableSubscription.handle")
      assert.strictEqual(applied?.traceId, batch?.traceId)
      assert.deepStrictEqual(batch?.links.map(({ span }) => span.traceId), traceIds)
    }))
})
