import { assert, layer } from "@effect/vitest"
import { partitionOf } from "@strata/event-store/DurableSubscriptionFilter"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { type EventId, streamId } from "@strata/event-store/Fact"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as GenerationModule from "@strata/projections/Generation"
import * as Projection from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"

const Priced = EventDefinition.make("Priced", { fields: { item: Schema.String, cents: Schema.Int } })
const Sold = EventDefinition.make("Sold", { fields: { item: Schema.String, count: Schema.Int } })
const Events = EventDefinition.set([Priced, Sold])

const Store = EventStorePostgres.layer().pipe(Layer.provideMerge(PostgresTest.layer({
  migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations],
  options: { role: applicationRole }
})))

/** The last price and the takings of each stream; `factor` and `more` tell versions apart. */
const takings = (options: { readonly version?: number; readonly factor?: number; readonly more?: string } = {}) => {
  const { factor = 1, more = "", version } = options
  return Projection.make({
    name: "takings",
    version,
    events: Events,
    tables: `
      create table price (
        tenant text not null, stream text not null, cents integer not null${more}, primary key (tenant, stream)
      );
      create table taking (
        tenant text not null, stream text not null, position bigint not null, cents integer not null,
        primary key (tenant, stream, position)
      )`,
    apply: Effect.fnUntraced(function*(batch) {
      const sql = yield* SqlClient.SqlClient
      for (const { event, fact } of batch) {
        if (event._tag === "Priced") {
          yield* sql`
            insert into price (tenant, stream, cents) values (${fact.tenant}, ${fact.stream}, ${event.cents * factor})
            on conflict (tenant, stream) do update set cents = excluded.cents`
        } else {
          yield* sql`
            insert into taking (tenant, stream, position, cents)
            select ${fact.tenant}, ${fact.stream}, ${Pg.bigint(fact.origin)}, ${event.count} * coalesce(cents, 0)
            from (select 1) as one
            left join price on tenant = ${fact.tenant} and stream = ${fact.stream}`
        }
      }
    })
  })
}

const shop = (number: number) => streamId("shop", String(number))
const append = Effect.fnUntraced(function*(
  shopNumber: number,
  facts: ReadonlyArray<typeof Priced.schema.Type | typeof Sold.schema.Type>
) {
  const store = yield* EventStore
  return yield* store.append({ facts: facts.map((event) => Events.encode(event, { stream: shop(shopNumber) })) })
})
const priced = (cents: number) => Priced.make({ item: "tea", cents })
const sold = (count: number) => Sold.make({ item: "tea", count })

const start = (projection: Projection.Projection, options?: Projections.Options) =>
  Effect.map(
    Layer.build(Projections.layer([projection], options)),
    (context) => Context.get(context, Projections.Projections)
  )

const statusWhere = (
  projections: Projections.Projections["Service"],
  holds: (status: Projections.Status) => boolean
) =>
  Effect.repeat(Effect.map(projections.status, (all) => all[0]!), {
    until: (status) => holds(status),
    schedule: Schedule.spaced("10 millis")
  }).pipe(Effect.timeout("30 seconds"))

const isLive = (number: number) => ({ generations }: Projections.Status) =>
  generations.some((each) => each.number === number && each.state === "live")

const rows = Effect.gen(function*() {
  const { sql } = yield* Postgres
  const found = yield* sql<{ row: string }>`
    select concat_ws(' ', stream, 'price', cents) as row from price
    union all
    select concat_ws(' ', stream, 'taking', position, cents) from taking
    order by 1`
  return found.map(({ row }) => row)
})

const correct = Effect.fnUntraced(
  function*(eventId: EventId, event: typeof Priced.schema.Type | typeof Sold.schema.Type) {
    const store = yield* EventStore
    return yield* store.revise(
      Events.encodeCorrection(event, { revises: eventId, reason: "typing error", actor: "ada" })
    )
  }
)
const retract = Effect.fnUntraced(function*(eventId: EventId) {
  const store = yield* EventStore
  return yield* store.revise({ _tag: "Retraction", revises: eventId, reason: "never happened", actor: "ada" })
})

const inFreshStore = <A, E>(test: Effect.Effect<A, E, EventStore | Postgres | PostgresTest | Scope.Scope>) =>
  Effect.scoped(test).pipe(Effect.provide(Layer.fresh(Store)))

layer(Layer.empty, { excludeTestServices: true })("generations", (it) => {
  it.effect("corrections and retractions change what a key shows, and nothing else", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start(takings())
      const first = yield* append(1, [priced(100), sold(2), priced(200), sold(1)])
      yield* append(2, [priced(50), sold(3)])
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* rows, [
        "shop-1 price 200",
        "shop-1 taking 2 200",
        "shop-1 taking 4 200",
        "shop-2 price 50",
        "shop-2 taking 6 150"
      ])
      // The first price counts for what was sold before the second one.
      yield* correct(first.facts[0]!.eventId, priced(110))
      yield* retract(first.facts[2]!.eventId)
      yield* append(1, [sold(5)])
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* rows, [
        "shop-1 price 110",
        "shop-1 taking 2 220",
        "shop-1 taking 4 110",
        "shop-1 taking 9 550",
        "shop-2 price 50",
        "shop-2 taking 6 150"
      ])
      const live = yield* rows
      yield* projections.operate.rebuild("takings")
      yield* statusWhere(projections, isLive(2))
      assert.deepStrictEqual(yield* rows, live)
    })))

  it.effect("a correction that moves a fact to another key changes both keys", () =>
    inFreshStore(Effect.gen(function*() {
      const { sql } = yield* Postgres
      const byItem = Projection.make({
        name: "items",
        events: Events,
        key: ProjectionKey.make({ columns: ["item"], of: ({ item }: { readonly item: string }) => [item] }),
        tables:
          "create table item_sold (item text not null, position bigint not null, count integer not null, primary key (item, position))",
        apply: Effect.fnUntraced(function*(batch) {
          const sql = yield* SqlClient.SqlClient
          for (const { event, fact } of batch) {
            if (event._tag === "Sold") {
              yield* sql`insert into item_sold values (${event.item}, ${Pg.bigint(fact.origin)}, ${event.count})`
            }
          }
        })
      })
      const projections = yield* start(byItem, { partitions: 1 })
      const first = yield* append(1, [sold(2), Sold.make({ item: "milk", count: 1 })])
      yield* append(2, [sold(3)])
      yield* projections.catchUp()
      yield* correct(first.facts[0]!.eventId, Sold.make({ item: "milk", count: 2 }))
      yield* projections.catchUp()
      const items = yield* sql`select item, sum(count)::integer as count from item_sold group by item order by item`
      assert.deepStrictEqual(items, [{ item: "milk", count: 3 }, { item: "tea", count: 3 }])
      yield* correct(first.facts[0]!.eventId, Sold.make({ item: "tea", count: 1 }))
      yield* projections.catchUp()
      const again = yield* sql`select item, sum(count)::integer as count from item_sold group by item order by item`
      assert.deepStrictEqual(again, [{ item: "milk", count: 1 }, { item: "tea", count: 4 }])
    })))

  it.effect("another version is built beside the one in use, readers are switched to it, and back, until it is dropped", () =>
    inFreshStore(Effect.gen(function*() {
      const { sql } = yield* Postgres
      const old = yield* start(takings())
      yield* append(1, [priced(100), sold(2)])
      yield* old.catchUp()
      const before = yield* rows

      const current = yield* start(takings({ version: 2, factor: 10, more: ", note text" }), { switch: "manual" })
      yield* statusWhere(current, ({ generations }) => generations[1]?.position === 2n)
      assert.deepStrictEqual(yield* rows, before)
      yield* current.operate.switchTo("takings")
      assert.deepStrictEqual(yield* rows, ["shop-1 price 1000", "shop-1 taking 2 2000"])
      assert.deepStrictEqual(yield* sql`select note from price`, [{ note: null }])

      yield* append(1, [sold(1)])
      yield* old.catchUp()
      yield* current.catchUp()
      yield* statusWhere(old, ({ generations }) => generations.every(({ lag }) => lag === 0n))
      yield* current.operate.rollback("takings")
      assert.deepStrictEqual(yield* rows, ["shop-1 price 100", "shop-1 taking 2 200", "shop-1 taking 3 100"])
      assert.strictEqual((yield* current.status)[0]?.version, 1)
      const refused = yield* Effect.flip(current.operate.drop("takings", 1))
      assert.instanceOf(refused, GenerationModule.NoSuchGeneration)
      yield* current.operate.switchTo("takings", 2)
      yield* current.operate.drop("takings", 1)
      assert.deepStrictEqual((yield* current.status)[0]?.generations.map(({ number }) => number), [2])
      assert.deepStrictEqual(yield* sql`select from pg_namespace where nspname = 'strata_takings_1'`, [])
      yield* append(1, [sold(1)])
      yield* current.catchUp()
      assert.strictEqual((yield* rows).length, 4)
    })))

  it.effect("a generation that is behind what readers see is not switched to", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start(takings())
      yield* append(1, [priced(100), sold(2)])
      yield* projections.catchUp()
      const { number } = yield* projections.operate.rebuild("takings", { switch: "manual" })
      yield* statusWhere(projections, ({ generations }) => generations[1]?.lag === 0n)
      yield* projections.operate.pause("takings")
      const { sql } = yield* Postgres
      yield* sql`
        update subscription_partition set position = 1
        where partition <> ${
        partitionOf(`default\0${shop(1)}`, 2)
      } and subscription = (select id from subscription where name = ${`projection/takings/${number}`})`
      const refused = yield* Effect.flip(projections.operate.switchTo("takings", number))
      assert.instanceOf(refused, GenerationModule.GenerationBehind)
      assert.isTrue(isLive(1)((yield* projections.status)[0]!))
      yield* projections.operate.resume("takings")
      yield* projections.operate.switchTo("takings", number)
      assert.isTrue(isLive(2)((yield* projections.status)[0]!))
    })))

  it.effect("a paused projection applies nothing until it is resumed", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start(takings())
      yield* append(1, [priced(100)])
      yield* projections.catchUp()
      yield* projections.operate.pause("takings")
      yield* statusWhere(projections, ({ state }) => state === "paused")
      const { position } = yield* append(1, [sold(1)])
      yield* Effect.flip(projections.waitFor({ position, timeout: "300 millis" }))
      yield* projections.operate.resume("takings")
      yield* projections.waitFor({ position })
      assert.deepStrictEqual(yield* rows, ["shop-1 price 100", "shop-1 taking 2 100"])
    })))

  it.effect(
    "readers and writers go on while a generation takes the place of another: no read fails, none is mixed",
    () =>
      inFreshStore(Effect.gen(function*() {
        const { sql, transact } = yield* Postgres
        const old = yield* start(takings())
        yield* Effect.forEach(
          [1, 2, 3, 4, 5, 6],
          (number) => append(number, [priced(100), ...Array.from({ length: 50 }, () => sold(1))])
        )
        yield* old.catchUp()
        const stop = yield* Ref.make(false)
        const reads = yield* Ref.make(0)
        // Prices of the new version are ten times those of the old one, and so is what was taken.
        const read = Effect.gen(function*() {
          const seen = yield* sql<{ price: number; low: number; high: number }>`
          select p.cents as price, min(t.cents) as low, max(t.cents) as high
          from price p join taking t using (tenant, stream)
          group by p.cents`
          for (const { high, low, price } of seen) assert.deepStrictEqual([low, high], [price, price])
          yield* Ref.update(reads, (n) => n + 1)
        })
        const readTwice = transact(Effect.gen(function*() {
          const prices = yield* sql<{ cents: number }>`select distinct cents from price`
          const takings = yield* sql<{ cents: number }>`select distinct cents from taking`
          assert.deepStrictEqual(takings, prices)
          yield* Ref.update(reads, (n) => n + 1)
        }))
        const until = <A, E, R>(work: Effect.Effect<A, E, R>) =>
          Effect.forkChild(
            Effect.orDie(Effect.repeat(Effect.andThen(work, Ref.get(stop)), { until: (stopped) => stopped }))
          )
        const work = yield* Effect.all([until(read), until(readTwice), until(readTwice), until(append(1, [sold(1)]))])
        const current = yield* start(takings({ version: 2, factor: 10, more: ", note text" }))
        yield* statusWhere(current, isLive(2))
        yield* current.operate.rollback("takings")
        yield* current.operate.switchTo("takings", 2)
        yield* Ref.set(stop, true)
        yield* Effect.forEach(work, (fiber) => Fiber.join(fiber))
        assert.isAbove(yield* Ref.get(reads), 20)
        yield* current.catchUp()
        const [counted] = yield* sql<{ takings: bigint }>`select count(*) as takings from taking`
        const store = yield* EventStore
        assert.strictEqual(counted?.takings, (yield* store.head) - 6n)
      })),
    60_000
  )
})
