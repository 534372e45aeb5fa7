import { assert, layer } from "@effect/vitest"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { type EventId, type Fact, streamId } from "@strata/event-store/Fact"
import * as PersonalData from "@strata/event-store/PersonalData"
import * as SealingCrypto from "@strata/event-store/SealingCrypto"
import { SubjectKeys } from "@strata/event-store/SubjectKeys"
import * as Keys from "@strata/event-store/SubjectKeys"
import * as SubjectKeysPostgres from "@strata/event-store/SubjectKeysPostgres"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as ContributionsProjection from "@strata/projections/ContributionsProjection"
import * as KeyedProjection from "@strata/projections/KeyedProjection"
import * as Measure from "@strata/projections/Measure"
import * as Projection from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as ProjectionTest from "@strata/testing/ProjectionTest"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"

// ------------------------------------------------------------------------------------------------------ projections

/** A guest is known by a number; what is personal is the name and how much was spent. */
const Dined = EventDefinition.make("Dined", {
  fields: { guest: Schema.Int, day: Schema.String, name: Schema.String, cents: Schema.Int },
  personal: { subject: ({ guest }) => `guest ${guest}`, fields: ["name", "cents"] }
})
const Cleaned = EventDefinition.make("Cleaned", { fields: { day: Schema.String } })
const Events = EventDefinition.set([Dined, Cleaned])
type Event = EventDefinition.Event<typeof Events>

const nameOf = ({ name }: typeof Dined.schema.Type) => PersonalData.isErased(name) ? "nobody" : name
const centsOf = ({ cents }: typeof Dined.schema.Type) => PersonalData.isErased(cents) ? null : cents

/** Who sat at a table last, and how often somebody did. */
const Tables = KeyedProjection.make({
  name: "tables",
  events: Events,
  categories: ["table"],
  key: ProjectionKey.streamId("dining_table"),
  table: "dining_table",
  state: Schema.Struct({ visits: Schema.Int, names: Schema.Array(Schema.String) }),
  initial: { visits: 0, names: [] },
  evolve: (state, event) =>
    event._tag === "Dined"
      ? { visits: state.visits + 1, names: [...state.names, nameOf(event)] }
      : { ...state, names: [] }
})

/** Guests by day, and how many sat where one of the same name had sat right before. */
const Daily = ContributionsProjection.make({
  name: "daily",
  events: Events,
  table: "daily",
  dimensions: { tenant: "text", day: "date", named: "boolean" },
  measures: {
    visits: Measure.count,
    returns: Measure.count,
    cents: Measure.sum,
    names: Measure.distinct,
    bills: Measure.histogram([1000, 5000])
  },
  state: {
    schema: Schema.Struct({ last: Schema.NullOr(Schema.String) }),
    initial: { last: null },
    evolve: (state, { event }) => event._tag === "Dined" ? { last: nameOf(event) } : state
  },
  contribute: ({ event, fact }, { last }) =>
    event._tag === "Cleaned" ? [] : [{
      dimensions: { tenant: fact.tenant, day: event.day, named: nameOf(event) !== "nobody" },
      values: {
        returns: nameOf(event) === last,
        cents: centsOf(event),
        names: nameOf(event),
        bills: centsOf(event)
      }
    }]
})

/** Takings by name, each fact by itself. */
const Takings = ContributionsProjection.make({
  name: "takings",
  events: EventDefinition.set([Dined]),
  table: "taking",
  dimensions: { name: "text" },
  measures: { visits: Measure.count, cents: Measure.sum },
  contribute: ({ event }) => [{ dimensions: { name: nameOf(event) }, values: { cents: BigInt(centsOf(event) ?? 0) } }]
})

/** A row for each visit, by SQL; what is erased is refused where `strict`. */
const bills = (options: { readonly strict: () => boolean } = { strict: () => false }) =>
  Projection.make({
    name: "bills",
    events: EventDefinition.set([Dined]),
    tables: `
      create table bill (
        tenant text not null, stream text not null, origin bigint not null, name text not null, cents integer,
        primary key (tenant, stream, origin)
      )`,
    apply: Effect.fnUntraced(function*(batch) {
      const sql = yield* SqlClient.SqlClient
      for (const { event, fact } of batch) {
        if (nameOf(event) === "nobody" && options.strict()) {
          return yield* new Projection.FactRefused({ position: fact.position, detail: "nobody has dined" })
        }
        yield* sql`
          insert into bill (tenant, stream, origin, name, cents) values (
            ${fact.tenant}, ${fact.stream}, ${Pg.bigint(fact.origin)}, ${nameOf(event)}, ${centsOf(event)}
          )`
      }
    })
  })

/** Days by name: a key that is personal itself. */
const Names = KeyedProjection.make({
  name: "names",
  events: EventDefinition.set([Dined]),
  key: ProjectionKey.make({ columns: ["name"], of: (event: typeof Dined.schema.Type) => [nameOf(event)] }),
  table: "guest_name",
  state: Schema.Struct({ days: Schema.Array(Schema.String) }),
  initial: { days: [] },
  evolve: (state, event) => ({ days: [...state.days, event.day] })
})

const all = [Tables, Daily, Takings, bills(), Names]

// ------------------------------------------------------------------------------------------------------------ stores

const masterKey = { id: "test", key: Redacted.make(Base64.encode(new Uint8Array(32).fill(7))) }
const SubjectKeysTest = Keys.layer({ masterKey })
const Store = EventStorePostgres.layer().pipe(
  Layer.provideMerge(SubjectKeysTest),
  Layer.provideMerge(PostgresTest.layer({
    migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations],
    options: { role: applicationRole }
  }))
)
type Services = EventStore | SubjectKeys | Postgres | PostgresTest | Scope.Scope
const inFreshStore = <A, E>(test: Effect.Effect<A, E, Services>) =>
  Effect.scoped(test).pipe(Effect.provide(Layer.fresh(Store)))

const start = (projections: ReadonlyArray<Projection.Projection>, options?: Projections.Options) =>
  Effect.map(
    Layer.build(Projections.layer(projections, options)),
    (context) => Context.get(context, Projections.Projections)
  )

const dined = (guest: number, name: string, cents: number, day = 1) =>
  Dined.make({ guest, day: `2026-01-0${day}`, name, cents })
const at = (table: number, event: Event | typeof Dined.written.Type) =>
  Events.encode(event, { stream: streamId("table", String(table)) })

const append = Effect.fnUntraced(function*(...facts: ReadonlyArray<ReturnType<typeof at>>) {
  const store = yield* EventStore
  return (yield* store.append({ facts })).facts.map(({ eventId }) => eventId)
})
const correct = Effect.fnUntraced(function*(eventId: EventId, event: Event) {
  const store = yield* EventStore
  yield* store.revise(Events.encodeCorrection(event, { revises: eventId, reason: "typing error", actor: "ada" }))
})
const retract = Effect.fnUntraced(function*(eventId: EventId) {
  const store = yield* EventStore
  yield* store.revise({ _tag: "Retraction", revises: eventId, reason: "never came", actor: "ada" })
})
const erase = Effect.fnUntraced(function*(guest: number) {
  const keys = yield* SubjectKeys
  yield* keys.erase({ subject: `guest ${guest}`, reason: "asked for it by letter", actor: "ada" })
})

const erased = { _tag: "Erased", subject: "0".repeat(32) } as const

/** Rows of tables of projections, and of the runtime's own, that hold a text. */
const rowsWith = Effect.fnUntraced(function*(text: string) {
  const { sql } = yield* Postgres
  const tables = yield* sql<{ table: string }>`
    select format('%I.%I', schemaname, tablename) as table from pg_tables
    where schemaname like 'strata\\_%' or tablename like 'projection\\_%'`
  const rows = yield* Effect.forEach(
    tables,
    ({ table }) =>
      sql.unsafe<{ row: string }>(`select '${table} ' || t::text as row from ${table} as t where t::text like $1`, [
        `%${text}%`
      ])
  )
  return rows.flat().map(({ row }) => row)
})

const read = Effect.gen(function*() {
  const { sql } = yield* Postgres
  const lines = (yield* sql<{ row: string }>`
    select concat_ws(' ', 'table', dining_table, state ->> 'visits', state ->> 'names') as row from dining_table
    union all
    select concat_ws(' ', 'day', to_char(day, 'DD'), named, visits, returns, cents, names) from daily
    union all
    select concat_ws(' ', 'bills', named, bucket, sum(refs)) from daily_bills group by named, bucket
    union all
    select concat_ws(' ', 'taking', name, visits, cents) from taking
    union all
    select concat_ws(' ', 'bill', stream, name, cents) from bill
    union all
    select concat_ws(' ', 'name', name, jsonb_array_length(state -> 'days')) from guest_name`).map(({ row }) => row)
  return lines.toSorted()
})

const before = [
  "bill table-1 Hedwig 1200",
  "bill table-1 Hedwig 700",
  "bill table-1 Oskar 9000",
  "bill table-2 Hedwig 100",
  "bill table-3 Oskar 50",
  "bills t 0 3",
  "bills t 1 1",
  "bills t 2 1",
  "day 01 t 4 1 10950 2",
  "day 02 t 1 0 100 1",
  "name Hedwig 3",
  "name Oskar 2",
  "table 1 3 [\"Hedwig\", \"Hedwig\", \"Oskar\"]",
  "table 2 1 [\"Hedwig\"]",
  "table 3 1 [\"Oskar\"]",
  "taking Hedwig 3 2000",
  "taking Oskar 2 9050"
]
const after = [
  "bill table-1 Oskar 9000",
  "bill table-1 nobody",
  "bill table-1 nobody",
  "bill table-2 nobody",
  "bill table-3 Oskar 50",
  "bills t 0 1",
  "bills t 2 1",
  "day 01 f 2 1 0 1",
  "day 01 t 2 0 9050 1",
  "day 02 f 1 0 0 1",
  "name Oskar 2",
  "name nobody 3",
  "table 1 3 [\"nobody\", \"nobody\", \"Oskar\"]",
  "table 2 1 [\"nobody\"]",
  "table 3 1 [\"Oskar\"]",
  "taking Oskar 2 9050",
  "taking nobody 3 0"
]

/** Hedwig is guest 1, Oskar is guest 2. */
const anEvening = append(
  at(1, dined(1, "Hedwig", 700)),
  at(1, dined(1, "Hedwig", 1200)),
  at(1, dined(2, "Oskar", 9000)),
  at(2, dined(1, "Hedwig", 100, 2)),
  at(3, dined(2, "Oskar", 50))
)

const statusWhere = (
  projections: Projections.Projections["Service"],
  holds: (status: Projections.Status) => boolean
) =>
  Effect.repeat(projections.status, {
    until: (all) => all.every(holds),
    schedule: Schedule.spaced("10 millis")
  }).pipe(Effect.timeout("30 seconds"))

// ------------------------------------------------------------------------------------------------------------- tests

layer(Layer.empty, { excludeTestServices: true })("erasures", (it) => {
  it.effect("what was projected of a subject is projected again without it, by every kind of projection", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start(all, { partitions: 4 })
      yield* anEvening
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* read, before)
      yield* erase(1)
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* read, after)
      assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
      // Who comes back is known again; what was erased stays so.
      yield* append(at(2, dined(1, "Hedwig", 400, 2)))
      yield* projections.catchUp()
      const shown = yield* read
      assert.includeMembers([...shown], ["table 2 2 [\"nobody\", \"Hedwig\"]", "taking Hedwig 1 400", "name Hedwig 1"])
      yield* erase(1)
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
    })))

  it.effect("what is projected in the appends themselves is so too, by the next append or without one", () =>
    inFreshStore(Effect.gen(function*() {
      const inline = all.map((projection) => ({ ...projection, inline: true }))
      const projections = yield* start(inline, { partitions: 4 })
      yield* anEvening
      assert.deepStrictEqual(yield* read, before)
      yield* erase(1)
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* read, after)
      yield* append(at(2, dined(1, "Hedwig", 400, 2)))
      assert.includeMembers([...yield* read], ["table 2 2 [\"nobody\", \"Hedwig\"]", "taking Hedwig 1 400"])
      yield* erase(1)
      yield* append(at(3, dined(2, "Oskar", 60)))
      assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
    })))

  it.effect("an erasure while nothing runs is followed when it runs again", () =>
    inFreshStore(Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const projections = yield* start(all)
        yield* anEvening
        yield* projections.catchUp()
      }))
      yield* erase(1)
      assert.deepStrictEqual(yield* read, before)
      yield* Effect.scoped(Effect.flatMap(start(all), ({ catchUp }) => catchUp()))
      assert.deepStrictEqual(yield* read, after)
      assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
    })))

  it.effect("sums are exact when facts are corrected between an erasure and its being followed", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start(all)
      const ids = yield* anEvening
      yield* projections.catchUp()
      for (const { name } of all) yield* projections.operate.pause(name)
      yield* correct(ids[1]!, dined(1, "Hedwig", 1300))
      yield* erase(1)
      // Of an erased fact, what is left can be corrected.
      yield* correct(ids[0]!, { ...dined(1, "", 0, 3), name: erased, cents: erased })
      yield* retract(ids[3]!)
      yield* retract(ids[4]!)
      for (const { name } of all) yield* projections.operate.resume(name)
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* read, [
        "bill table-1 Oskar 9000",
        "bill table-1 nobody",
        "bill table-1 nobody",
        "bills t 2 1",
        "day 01 f 1 1 0 1",
        "day 01 t 1 0 9000 1",
        "day 03 f 1 0 0 1",
        "name Oskar 1",
        "name nobody 2",
        "table 1 3 [\"nobody\", \"nobody\", \"Oskar\"]",
        "taking Oskar 1 9000",
        "taking nobody 2 0"
      ])
      assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
    })))

  it.effect(
    "a generation that is being built follows an erasure as the live one does, and so does the one before",
    () =>
      inFreshStore(Effect.gen(function*() {
        const projections = yield* start(all, { batchSize: 5 })
        yield* anEvening
        yield* Effect.forEach(Arr.range(10, 99), (table) => append(at(table, dined(table, "Oskar", table))))
        yield* projections.catchUp()
        yield* Effect.forEach(all, ({ name }) => projections.operate.rebuild(name, { rate: 50, switch: "manual" }))
        yield* statusWhere(projections, ({ generations }) => (generations[1]?.position ?? 0n) > 5n)
        yield* erase(1)
        yield* append(at(1, dined(3, "Wilma", 5)))
        const isBuilt = ({ generations }: Projections.Status) => generations.at(-1)?.lag === 0n
        yield* statusWhere(projections, isBuilt)
        for (const { name } of all) {
          const report = yield* projections.operate.verify(name)
          assert.deepStrictEqual([name, report.equal], [name, true])
        }
        assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
        for (const { name } of all) yield* projections.operate.switchTo(name)
        yield* erase(3)
        yield* projections.catchUp()
        yield* statusWhere(projections, ({ generations }) => generations.every(({ lag }) => lag === 0n))
        assert.deepStrictEqual(yield* rowsWith("Wilma"), [])
      })),
    60_000
  )

  it.effect(
    "an erasure that cannot be followed is put aside by itself, and is followed when it is let go on",
    () =>
      inFreshStore(Effect.gen(function*() {
        let strict = true
        const projections = yield* start([bills({ strict: () => strict })], { partitions: 3 })
        yield* anEvening
        yield* projections.catchUp()
        yield* erase(1)
        yield* append(at(1, dined(2, "Oskar", 1)), at(9, dined(3, "Wilma", 2)))
        yield* statusWhere(projections, ({ parked }) => parked > 0)
        yield* projections.catchUp()
        assert.isAbove((yield* rowsWith("Hedwig")).length, 0)
        assert.strictEqual((yield* rowsWith("Wilma")).length, 1)
        const parked = yield* projections.operate.parked("bills")
        assert.isAbove(parked.length, 0)
        for (const { error, stream } of parked) {
          assert.include(error, "nobody has dined")
          assert.isTrue(stream.startsWith("$subject-"))
        }
        const still = yield* Effect.flip(projections.operate.retry("bills", parked[0]!.key))
        assert.strictEqual(still._tag, "StillParked")
        strict = false
        for (const { key } of parked) yield* projections.operate.retry("bills", key)
        assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
        const { sql } = yield* Postgres
        assert.deepStrictEqual(
          (yield* sql<{ row: string }>`select concat_ws(' ', stream, name, cents) as row from bill order by origin`)
            .map(({ row }) => row),
          [
            "table-1 nobody",
            "table-1 nobody",
            "table-1 Oskar 9000",
            "table-2 nobody",
            "table-3 Oskar 50",
            "table-1 Oskar 1",
            "table-9 Wilma 2"
          ]
        )
        assert.deepStrictEqual(yield* projections.operate.parked("bills"), [])
      })),
    60_000
  )

  it.effect(
    "a key that waits holds nothing of an erased subject either, and goes on waiting",
    () =>
      inFreshStore(Effect.gen(function*() {
        let isRight = false
        const picky = Projection.make({
          name: "bills",
          events: EventDefinition.set([Dined]),
          tables: `
          create table bill (
            tenant text not null, stream text not null, origin bigint not null, name text not null,
            primary key (tenant, stream, origin)
          )`,
          apply: Effect.fnUntraced(function*(batch) {
            const sql = yield* SqlClient.SqlClient
            for (const { event, fact } of batch) {
              if (event.day === "2026-01-09" && !isRight) {
                return yield* new Projection.FactRefused({
                  position: fact.position,
                  detail: `${nameOf(event)} came too late`
                })
              }
              yield* sql`
              insert into bill (tenant, stream, origin, name)
              values (${fact.tenant}, ${fact.stream}, ${Pg.bigint(fact.origin)}, ${nameOf(event)})`
            }
          })
        })
        const projections = yield* start([picky])
        yield* append(at(1, dined(1, "Hedwig", 1)), at(1, dined(1, "Hedwig", 1, 9)), at(1, dined(2, "Oskar", 1)))
        yield* statusWhere(projections, ({ parked }) => parked > 0)
        yield* erase(1)
        yield* projections.catchUp()
        assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
        const [parked] = yield* projections.operate.parked("bills")
        assert.strictEqual(parked?.held, 1n)
        isRight = true
        yield* projections.operate.retry("bills", parked!.key)
        const { sql } = yield* Postgres
        assert.deepStrictEqual(
          (yield* sql<{ name: string }>`select name from bill order by origin`).map(({ name }) => name),
          ["nobody", "nobody", "Oskar"]
        )
      })),
    60_000
  )

  it.effect("who takes over past an erasure uses no key from before it, however long keys are kept in memory", () =>
    inFreshStore(
      Effect.gen(function*() {
        // A process of its own, as far as keys go.
        const process = Effect.gen(function*() {
          const table = yield* SubjectKeysPostgres.make(yield* Postgres)
          const keys = yield* Effect.provide(Keys.make({ masterKey, timeToLive: "1 hour" }, table), SealingCrypto.layer)
          const store = yield* Effect.provideService(EventStorePostgres.make(), SubjectKeys, keys)
          return <A, E, R>(work: Effect.Effect<A, E, R>) =>
            work.pipe(Effect.provideService(SubjectKeys, keys), Effect.provideService(EventStore, store))
        })
        const here = yield* process
        const there = yield* process
        const ids = yield* here(anEvening)
        const readThere = there(Effect.flatMap(EventStore, (store) => store.readStream(streamId("table", "1"))))
        const isOpen = (facts: ReadonlyArray<Fact>) => JSON.stringify(facts.map(({ data }) => data)).includes("Hedwig")
        assert.isTrue(isOpen(yield* readThere))
        yield* Effect.scoped(here(Effect.gen(function*() {
          const projections = yield* start(all)
          yield* erase(1)
          yield* projections.catchUp()
        })))
        assert.isTrue(isOpen(yield* readThere))
        yield* Effect.scoped(there(Effect.gen(function*() {
          const projections = yield* start(all)
          yield* correct(ids[2]!, dined(2, "Oskar", 8000))
          yield* projections.catchUp()
        })))
        assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
      }).pipe(Effect.provide(SecureRandom.layerWebCrypto))
    ))

  it.effect("a generation that was made after an erasure does nothing about it, and the one before follows it", () =>
    inFreshStore(Effect.gen(function*() {
      let applied = 0
      const plain = bills()
      const counted = {
        ...plain,
        apply: (facts: Parameters<typeof plain.apply>[0]) =>
          Effect.andThen(Effect.sync(() => applied += facts.length), plain.apply(facts))
      }
      yield* Effect.scoped(Effect.flatMap(start([counted]), ({ catchUp }) => Effect.andThen(anEvening, catchUp())))
      assert.strictEqual(applied, 5)
      yield* erase(1)
      const { sql } = yield* Postgres
      const { operate } = yield* start([counted], { run: false })
      yield* operate.rebuild("bills", { switch: "manual" })
      yield* sql`update projection_generation set made_at = made_at + interval '2 minutes' where number = 2`
      yield* Effect.scoped(Effect.gen(function*() {
        const projections = yield* start([counted], { batchSize: 2 })
        yield* statusWhere(
          projections,
          ({ generations }) => generations.length === 2 && generations.every(({ lag }) => lag === 0n)
        )
      }))
      // Four facts of two streams once more by the first one, and five by the second.
      assert.strictEqual(applied, 14)
      assert.deepStrictEqual(yield* rowsWith("Hedwig"), [])
    })))

  it.effect("a subject of the same name of another tenant stays", () =>
    inFreshStore(Effect.gen(function*() {
      const ofTenant = Effect.provideService(CurrentTenant, "acme")
      const projections = yield* start([Tables, Daily])
      yield* append(at(1, dined(1, "Hedwig", 5)))
      yield* ofTenant(append(at(1, dined(1, "Hedwig", 7))))
      yield* ofTenant(erase(1))
      yield* projections.catchUp()
      const { sql } = yield* Postgres
      assert.deepStrictEqual(
        yield* sql`select tenant, state -> 'names' ->> 0 as name from dining_table order by tenant`,
        [{ tenant: "acme", name: "nobody" }, { tenant: "default", name: "Hedwig" }]
      )
      assert.deepStrictEqual(
        yield* sql`select tenant, visits, cents from daily order by tenant`,
        [{ tenant: "acme", visits: 1n, cents: "0" }, { tenant: "default", visits: 1n, cents: "5" }]
      )
    })))

  // ---------------------------------------------------------------------------------------------------------- the law

  const below = (end: number) => Random.nextIntBetween(0, end, { halfOpen: true })
  const names = ["Hedwig", "Oskar", "Wilma", "Ida"]
  const someVisit = Effect.gen(function*() {
    const guest = yield* below(5)
    return dined(guest, names[yield* below(4)]!, yield* below(9000), (yield* below(3)) + 1)
  })

  /** Visits at one table, corrected and retracted now and then; and now and then, a guest of all tables is erased. */
  const history = Effect.fnUntraced(function*(table: number) {
    const written: Array<{ readonly eventId: EventId; readonly guest: number | undefined; retracted: boolean }> = []
    for (let index = 0; index < 8; index++) {
      const event = (yield* below(6)) === 0
        ? Cleaned.make({ day: "2026-01-01" })
        : yield* someVisit
      const [eventId] = yield* append(at(table, event))
      written.push({ eventId: eventId!, guest: event._tag === "Dined" ? event.guest : undefined, retracted: false })
      const one = written[yield* below(written.length)]!
      const other = yield* someVisit
      const choice = yield* below(12)
      if (choice === 11) yield* erase(yield* below(5))
      if (one.retracted || choice > 4) continue
      if (choice === 0) {
        one.retracted = true
        yield* retract(one.eventId)
      } else if (one.guest !== undefined) {
        yield* correct(
          one.eventId,
          choice === 1 ? { ...other, name: erased, cents: erased } : { ...other, guest: one.guest }
        )
      }
    }
  })
  const histories = (tables: number) =>
    Effect.forEach(Arr.range(1, tables), (table) => Random.withSeed(history(table), 4000 + table), {
      concurrency: 4,
      discard: true
    })

  it.effect(
    "those with rows or contributions for each stream keep the law while facts are corrected and subjects erased",
    () => inFreshStore(ProjectionTest.law([Tables, Daily, Takings, bills()], histories(60), { batchSize: 10 })),
    120_000
  )

  it.effect(
    "one with personal keys keeps the law while facts are corrected and subjects erased",
    () => inFreshStore(ProjectionTest.law([Names], histories(15))),
    120_000
  )
})
