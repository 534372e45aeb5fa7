import { assert, layer } from "@effect/vitest"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { beginning, type EventId, streamId } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as ContributionsProjection from "@strata/projections/ContributionsProjection"
import * as KeyedProjection from "@strata/projections/KeyedProjection"
import * as Measure from "@strata/projections/Measure"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import * as Replay from "@strata/projections/Replay"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as ProjectionTest from "@strata/testing/ProjectionTest"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

const Visited = EventDefinition.make("Visited", {
  fields: { day: Schema.String, visitor: Schema.String, seconds: Schema.Int }
})
const Left = EventDefinition.make("Left", { fields: { day: Schema.String } })
const Visits = EventDefinition.set([Visited, Left])
type Visit = EventDefinition.Event<typeof Visits>

/** The last visitor of each page, and how many visits it had. */
const Pages = KeyedProjection.make({
  name: "pages",
  events: Visits,
  categories: ["page"],
  key: ProjectionKey.streamId("page"),
  table: "page",
  state: Schema.Struct({ visits: Schema.Int, last: Schema.NullOr(Schema.String) }),
  initial: { visits: 0, last: null },
  evolve: (state, event) =>
    event._tag === "Visited" ? { visits: state.visits + 1, last: event.visitor } : { ...state, last: null },
  columns: { visits: { type: "integer", of: ({ visits }) => visits } },
  indexes: "create index page_visits on page (tenant, visits desc)"
})

/** Visits by day; how long they were; and how many followed one of the same visitor, which the page's facts before tell. */
const Daily = ContributionsProjection.make({
  name: "daily-visits",
  events: Visits,
  table: "daily",
  dimensions: { tenant: "text", day: "date" },
  measures: {
    visits: Measure.count,
    returns: Measure.count,
    seconds: Measure.sum,
    visitors: Measure.distinct,
    lengths: Measure.histogram([10, 60])
  },
  state: {
    schema: Schema.Struct({ last: Schema.NullOr(Schema.String) }),
    initial: { last: null },
    evolve: (state, { event }) => event._tag === "Visited" ? { last: event.visitor } : state
  },
  contribute: ({ event, fact }, { last }) =>
    event._tag === "Left" ? [] : [{
      dimensions: { tenant: fact.tenant, day: event.day },
      values: {
        returns: event.visitor === last,
        seconds: event.seconds,
        visitors: event.visitor,
        lengths: event.seconds
      }
    }]
})

/** Seconds by visitor, whose facts are in many streams. */
const Visitors = KeyedProjection.make({
  name: "visitors",
  events: EventDefinition.set([Visited]),
  key: ProjectionKey.make({ columns: ["visitor"], of: ({ visitor }: { readonly visitor: string }) => [visitor] }),
  table: "visitor",
  state: Schema.Struct({ seconds: Schema.Int, days: Schema.Array(Schema.String) }),
  initial: { seconds: 0, days: [] },
  evolve: (state, event) => ({ seconds: state.seconds + event.seconds, days: [...state.days, event.day] })
})

const Store = EventStorePostgres.layer().pipe(Layer.provideMerge(PostgresTest.layer({
  migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations]
})))
const inFreshStore = <A, E>(test: Effect.Effect<A, E, EventStore | Postgres | PostgresTest | Scope.Scope>) =>
  Effect.scoped(test).pipe(Effect.provide(Layer.fresh(Store)))

const visit = (day: number, visitor: string, seconds: number) =>
  Visited.make({ day: `2026-01-0${day}`, visitor, seconds })
const on = (page: number, event: Visit) => Visits.encode(event, { stream: streamId("page", String(page)) })

const correct = (eventId: EventId, event: Visit) =>
  Effect.flatMap(
    EventStore,
    (store) =>
      store.revise(Visits.encodeCorrection(event, { revises: eventId, reason: "counted wrongly", actor: "ada" }))
  )

const below = (end: number) => Random.nextIntBetween(0, end, { halfOpen: true })
const someVisit = Effect.gen(function*() {
  const day = (yield* below(4)) + 1
  if ((yield* below(6)) === 0) return Left.make({ day: `2026-01-0${day}` })
  return visit(day, `v${yield* below(4)}`, yield* below(100))
})

/** Visits of one page, corrected and retracted now and then. A fact keeps its type. */
const history = Effect.fnUntraced(function*(page: number) {
  const store = yield* EventStore
  const written: Array<{ readonly eventId: EventId; readonly tag: string; retracted: boolean }> = []
  for (let index = 0; index < 8; index++) {
    const event = yield* someVisit
    const { facts } = yield* store.append({ facts: [on(page, event)] })
    written.push({ eventId: facts[0]!.eventId, tag: event._tag, retracted: false })
    const one = written[yield* below(written.length)]!
    const other = yield* someVisit
    const choice = yield* below(6)
    if (one.retracted || choice > 2) continue
    if (choice === 0) {
      one.retracted = true
      yield* store.revise({ _tag: "Retraction", revises: one.eventId, reason: "a robot", actor: "ada" })
    } else if (other._tag === one.tag) yield* correct(one.eventId, other)
  }
})

layer(Layer.empty, { excludeTestServices: true })("kinds of projections", (it) => {
  it.effect("a keyed one has a row for each key, and none where nothing is believed", () =>
    inFreshStore(Effect.gen(function*() {
      const facts = [on(1, visit(1, "ada", 5)), on(1, visit(1, "bob", 7)), on(2, visit(2, "ada", 1))]
      assert.deepStrictEqual(yield* ProjectionTest.project(Pages, facts, "page"), [
        { tenant: "default", page: "1", state: { visits: 2, last: "bob" }, visits: 2 },
        { tenant: "default", page: "2", state: { visits: 1, last: "ada" }, visits: 1 }
      ])
      const store = yield* EventStore
      const [, , third] = yield* store.readLog({ after: beginning })
      yield* store.revise({ _tag: "Retraction", revises: third!.eventId, reason: "a robot", actor: "ada" })
      assert.deepStrictEqual((yield* ProjectionTest.project(Pages, [], "page")).length, 1)
    })))

  it.effect("contributions are exact after corrections and retractions", () =>
    inFreshStore(Effect.gen(function*() {
      const { sql } = yield* Postgres
      const store = yield* EventStore
      const context = yield* Layer.build(Projections.layer([Daily]))
      const projections = Context.get(context, Projections.Projections)
      const { facts } = yield* store.append({
        facts: [
          on(1, visit(1, "ada", 5)),
          on(1, visit(1, "ada", 70)),
          on(2, visit(1, "ada", 20)),
          on(2, visit(2, "bob", 10))
        ]
      })
      const daily = sql`
        select to_char(day, 'DD') as day, visits, returns, seconds, visitors from daily order by day`
      const lengths = sql`select to_char(day, 'DD') as day, bucket, refs from daily_lengths order by day, bucket`
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* daily, [
        { day: "01", visits: 3n, returns: 1n, seconds: "95", visitors: 1n },
        { day: "02", visits: 1n, returns: 0n, seconds: "10", visitors: 1n }
      ])
      yield* correct(facts[0]!.eventId, visit(2, "eve", 5))
      yield* store.revise({ _tag: "Retraction", revises: facts[2]!.eventId, reason: "a robot", actor: "ada" })
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* daily, [
        { day: "01", visits: 1n, returns: 0n, seconds: "70", visitors: 1n },
        { day: "02", visits: 2n, returns: 0n, seconds: "15", visitors: 2n }
      ])
      assert.deepStrictEqual(yield* lengths, [
        { day: "01", bucket: 2, refs: 1n },
        { day: "02", bucket: 0, refs: 2n }
      ])
      yield* store.revise({ _tag: "Retraction", revises: facts[1]!.eventId, reason: "a robot", actor: "ada" })
      yield* projections.catchUp()
      assert.deepStrictEqual(yield* daily, [{ day: "02", visits: 2n, returns: 0n, seconds: "15", visitors: 2n }])
    })))

  const histories = (pages: number) =>
    Effect.forEach(Arr.range(1, pages), (page) => Random.withSeed(history(page), 7000 + page), {
      concurrency: 8,
      discard: true
    })

  it.effect(
    "those with a row or contributions for each stream keep the law while their facts are corrected",
    () =>
      inFreshStore(Effect.gen(function*() {
        const { sql } = yield* Postgres
        const deadlocks = sql`select deadlocks from pg_stat_database where datname = current_database()`
        const before = yield* deadlocks
        yield* ProjectionTest.law([Pages, Daily], histories(300), { batchSize: 20 })
        // Partitions add to the same rows, all of them in one order.
        assert.deepStrictEqual(yield* deadlocks, before)
      })),
    120_000
  )

  it.effect(
    "one with keys of its own keeps the law while its facts move from key to key",
    () => inFreshStore(ProjectionTest.law([Visitors], histories(15))),
    120_000
  )

  it.effect("a replay shows what was known at a position, and goes on where it was broken off", () =>
    inFreshStore(Effect.gen(function*() {
      const { sql } = yield* Postgres
      const store = yield* EventStore
      const { facts } = yield* store.append({ facts: [on(1, visit(1, "ada", 5)), on(1, visit(2, "bob", 7))] })
      const before = yield* store.head
      yield* correct(facts[0]!.eventId, visit(3, "eve", 50))
      const read = sql<
        { day: string; seconds: string }
      >`select to_char(day, 'DD') as day, seconds from daily order by day`
      const replayed = yield* Replay.run(Daily, { into: "as_known", knownAt: { position: before } })
      assert.deepInclude(replayed, { knownAt: before, position: before, facts: 2n })
      assert.deepStrictEqual(yield* Replay.within("as_known")(read), [
        { day: "01", seconds: "5" },
        { day: "02", seconds: "7" }
      ])
      yield* Replay.run(Daily, { into: "as_known_now" })
      assert.deepStrictEqual(yield* Replay.within("as_known_now")(read), [
        { day: "02", seconds: "7" },
        { day: "03", seconds: "50" }
      ])
      // The same again has nothing left to do, another question is refused.
      assert.deepStrictEqual(yield* Replay.run(Daily, { into: "as_known", knownAt: { position: before } }), replayed)
      assert.instanceOf(yield* Effect.flip(Replay.run(Daily, { into: "as_known" })), Replay.SchemaTaken)

      const dry = yield* Replay.run(Daily, { into: "dry", dryRun: true, from: facts[1]!.position })
      assert.strictEqual(dry.facts, 1n)
      assert.deepStrictEqual(yield* sql`select from pg_namespace where nspname = 'dry'`, [])

      const broken = yield* Effect.exit(
        Replay.run(Pages, { into: "broken", knownAt: { position: before }, onProgress: () => Effect.die("broken off") })
      )
      assert.strictEqual(broken._tag, "Failure")
      yield* Replay.run(Pages, { into: "broken", knownAt: { position: before } })
      const pages = sql`select page, visits from page`
      assert.deepStrictEqual(yield* Replay.within("broken")(pages), [{ page: "1", visits: 2 }])
      yield* Replay.drop("broken")
    })))

  it.effect(
    "verifying finds the rows that differ, and none where none does, while the live one goes on",
    () =>
      inFreshStore(Effect.gen(function*() {
        const { sql } = yield* Postgres
        const context = yield* Layer.build(Projections.layer([Pages, Daily]))
        const { catchUp, operate, status } = Context.get(context, Projections.Projections)
        yield* Effect.forEach(Arr.range(1, 30), (page) => Random.withSeed(history(page), page), { discard: true })
        yield* catchUp()
        for (const name of ["pages", "daily-visits"]) yield* operate.rebuild(name, { switch: "manual" })
        yield* Effect.repeat(status, {
          until: (all) => all.every(({ generations }) => generations.length === 2 && generations[1]!.lag === 0n),
          schedule: Schedule.spaced("20 millis")
        })
        const writing = yield* Effect.forkScoped(
          Effect.forever(Effect.andThen(Random.withSeed(history(1), 99), Effect.sleep("1 millis")))
        )
        for (const name of ["pages", "daily-visits"]) {
          const report = yield* operate.verify(name)
          assert.deepStrictEqual(report.tables.flatMap(({ keys }) => keys), [])
          assert.isTrue(report.equal)
        }
        yield* Effect.sync(() => writing.interruptUnsafe())
        yield* sql`update strata_pages_2.page set visits = visits + 1 where page = '7'`
        yield* sql`delete from strata_pages_2.page where page = '9'`
        const report = yield* operate.verify("pages")
        assert.isFalse(report.equal)
        assert.deepStrictEqual(report.tables.map(({ differing, keys }) => [differing, keys.toSorted()]), [
          [2n, ["default/7", "default/9"]]
        ])
      })),
    60_000
  )
})
