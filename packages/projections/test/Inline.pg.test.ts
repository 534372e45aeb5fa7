import { assert, layer } from "@effect/vitest"
import { ProjectionRefused } from "@strata/event-store/CommitWork"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore, EventStoreError } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { type EventId, streamId } from "@strata/event-store/Fact"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import { TransactionError } from "@strata/postgres/TransactionError"
import * as ContributionsProjection from "@strata/projections/ContributionsProjection"
import * as KeyedProjection from "@strata/projections/KeyedProjection"
import * as Measure from "@strata/projections/Measure"
import { AppliedInline } from "@strata/projections/Operations"
import type { Projection } from "@strata/projections/Projection"
import * as ProjectionModule from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as ProjectionTest from "@strata/testing/ProjectionTest"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"

const Deposited = EventDefinition.make("Deposited", { fields: { owner: Schema.String, cents: Schema.Int } })
const Events = EventDefinition.set([Deposited])

/** What each account holds: a negative one is refused by the database. `factor` tells versions apart. */
const balances = (
  options: {
    readonly version?: number
    readonly factor?: number
    readonly inline?: boolean
    readonly constraint?: string
  } = {}
) =>
  KeyedProjection.make({
    name: "balances",
    version: options.version,
    events: Events,
    inline: options.inline ?? true,
    table: "balance",
    state: Schema.Struct({ cents: Schema.Int, deposits: Schema.Int }),
    initial: { cents: 0, deposits: 0 },
    evolve: (state, { cents }) => ({
      cents: state.cents + cents * (options.factor ?? 1),
      deposits: state.deposits + 1
    }),
    columns: { cents: { type: "bigint", of: ({ cents }) => cents } },
    indexes: options.constraint ?? "alter table balance add constraint balance_covered check (cents >= 0)"
  })

/** The same by owner, whose deposits are on several accounts. */
const Owners = ContributionsProjection.make({
  name: "owners",
  events: Events,
  inline: true,
  table: "owner_total",
  dimensions: { tenant: "text", owner: "text" },
  measures: { deposits: Measure.count, cents: Measure.sum },
  contribute: ({ event, fact }) => [{
    dimensions: { tenant: fact.tenant, owner: event.owner },
    values: { cents: event.cents }
  }]
})

/** A row for each fact, by owner: one that is applied twice fails or is there twice. */
const Ledger = ProjectionModule.make({
  name: "ledger",
  events: Events,
  inline: true,
  key: ProjectionKey.make({ columns: ["owner"], of: ({ owner }: { readonly owner: string }) => [owner] }),
  tables: `
    create table ledger (owner text not null, position bigint not null, cents integer not null, primary key (owner, position))`,
  apply: Effect.fnUntraced(function*(batch) {
    const sql = yield* SqlClient.SqlClient
    yield* sql`
      insert into ledger (owner, position, cents)
      select * from unnest(
        ${Pg.textArray(batch.map(({ event }) => event.owner))},
        ${Pg.bigintArray(batch.map(({ fact }) => fact.origin))}, ${Pg.intArray(batch.map(({ event }) => event.cents))}
      )`
  })
})

const Store = EventStorePostgres.layer().pipe(Layer.provideMerge(PostgresTest.layer({
  migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations],
  options: { role: applicationRole }
})))
const inFreshStore = <A, E>(test: Effect.Effect<A, E, EventStore | Postgres | PostgresTest | Scope.Scope>) =>
  Effect.scoped(test).pipe(Effect.provide(Layer.fresh(Store)))

const start = (projections: ReadonlyArray<Projection>, options?: Projections.Options) =>
  Effect.map(
    Layer.build(Projections.layer(projections, options)),
    (context) => Context.get(context, Projections.Projections)
  )

const account = (number: number) => streamId("account", String(number))
const deposited = (number: number, cents: number, owner = "ada") =>
  Events.encode(Deposited.make({ owner, cents }), { stream: account(number) })
const deposit = Effect.fnUntraced(function*(number: number, cents: number, owner?: string) {
  const store = yield* EventStore
  return yield* store.append({ facts: [deposited(number, cents, owner)] })
})
const correct = Effect.fnUntraced(function*(eventId: EventId, cents: number, owner = "ada") {
  const store = yield* EventStore
  const event = Deposited.make({ owner, cents })
  return yield* store.revise(Events.encodeCorrection(event, { revises: eventId, reason: "typing error", actor: "ada" }))
})
const retract = Effect.fnUntraced(function*(eventId: EventId) {
  const store = yield* EventStore
  return yield* store.revise({ _tag: "Retraction", revises: eventId, reason: "never happened", actor: "ada" })
})

const balancesNow = Effect.gen(function*() {
  const { sql } = yield* Postgres
  const rows = yield* sql<{ row: string }>`select concat_ws(' ', stream, cents) as row from balance order by stream`
  return rows.map(({ row }) => row)
})
const ownersNow = Effect.gen(function*() {
  const { sql } = yield* Postgres
  const rows = yield* sql<{ row: string }>`
    select concat_ws(' ', owner, deposits, cents) as row from owner_total order by owner`
  return rows.map(({ row }) => row)
})

const statusWhere = (
  projections: Projections.Projections["Service"],
  holds: (status: Projections.Status) => boolean
) =>
  Effect.repeat(Effect.map(projections.status, (all) => all[0]!), {
    until: (status) => holds(status),
    schedule: Schedule.spaced("10 millis")
  }).pipe(Effect.timeout("30 seconds"))
const isInline = (number: number) => ({ generations }: Projections.Status) =>
  generations.some((each) => each.number === number && each.state === "live" && each.applied === "inline")

/** A writer that knows nothing of projections, as another program would be. */
const stranger = Effect.map(
  Layer.build(Layer.fresh(EventStorePostgres.layer())),
  (context) => Context.get(context, EventStore)
)

layer(Layer.empty, { excludeTestServices: true })("inline projections", (it) => {
  it.effect("who reads after an append, a correction or a retraction sees it", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([balances(), Owners, Ledger])
      const { facts: [first], position } = yield* deposit(1, 100)
      assert.deepStrictEqual(yield* balancesNow, ["account-1 100"])
      assert.deepStrictEqual(yield* ownersNow, ["ada 1 100"])
      yield* projections.waitFor({ position, timeout: 0 })

      yield* deposit(2, 50, "bob")
      const { position: corrected } = yield* correct(first!.eventId, 10, "bob")
      assert.deepStrictEqual(yield* balancesNow, ["account-1 10", "account-2 50"])
      assert.deepStrictEqual(yield* ownersNow, ["bob 2 60"])
      yield* projections.waitFor({ position: corrected, timeout: 0 })

      yield* retract(first!.eventId)
      assert.deepStrictEqual(yield* balancesNow, ["account-2 50"])
      assert.deepStrictEqual(yield* ownersNow, ["bob 1 50"])
      const { sql } = yield* Postgres
      assert.deepStrictEqual(yield* sql`select owner, position, cents from ledger`, [
        { owner: "bob", position: 2n, cents: 50 }
      ])
      for (const { generations, lag, state } of yield* projections.status) {
        assert.deepStrictEqual([lag, state, generations[0]?.applied], [0n, "running", "inline"])
      }
    })))

  it.effect("a fact and what it comes to are written by one transaction", () =>
    inFreshStore(Effect.gen(function*() {
      const { sql, transact } = yield* Postgres
      yield* start([balances()])
      yield* deposit(1, 100)
      const store = yield* EventStore
      yield* transact(Effect.asVoid(store.appendInTransaction({ facts: [deposited(2, 50)] })))
      // Rows of both tables tell the transaction that wrote them.
      const shared = yield* transact(Effect.andThen(
        sql`select set_config('strata.all_tenants', 'on', true)`,
        sql`
          select b.stream from strata_balances_1.balance b
          join stream s on s.id = b.stream
          join fact f on f.stream = s.number and f.xmin = b.xmin
          order by b.stream`
      ))
      assert.deepStrictEqual(shared, [{ stream: "account-1" }, { stream: "account-2" }])
    })))

  it.effect("a fact that a projection cannot take is refused by name, and nothing of its append is left", () =>
    inFreshStore(Effect.gen(function*() {
      yield* start([Owners, balances()])
      const store = yield* EventStore
      yield* deposit(1, 100)
      const facts = [deposited(1, 5), deposited(1, -1000), deposited(1, 7)]
      const refused = yield* Effect.flip(store.append({ facts }))
      assert.instanceOf(refused, EventStoreError)
      assert.instanceOf(refused.reason, ProjectionRefused)
      assert.match(
        refused.message,
        /^Projection balances cannot take fact [0-9a-f-]{36} of stream account-1: .*"balance_covered"$/
      )
      assert.deepStrictEqual(yield* ownersNow, ["ada 1 100"])
      assert.strictEqual(yield* store.head, 1n)

      const { facts: [more] } = yield* deposit(1, 10)
      const worse = yield* Effect.flip(correct(more!.eventId, -500))
      assert.strictEqual(worse.reason._tag, "ProjectionRefused")
      assert.deepStrictEqual(yield* balancesNow, ["account-1 110"])
      assert.strictEqual(yield* store.head, 2n)
    })))

  it.effect("a row that a projection has already is no conflict of versions and no fact that was there", () =>
    inFreshStore(Effect.gen(function*() {
      yield* start([balances({ constraint: "alter table balance add constraint balance_once unique (cents)" })])
      const store = yield* EventStore
      yield* deposit(1, 100)
      const refused = yield* Effect.flip(store.append({
        facts: [deposited(2, 100)],
        expect: { [account(2)]: "noStream" },
        idempotency: { key: "deposit 2", fingerprint: "f", answer: null }
      }))
      assert.strictEqual(refused.reason._tag, "ProjectionRefused")
      assert.match(refused.message, /"balance_once"$/)
      assert.strictEqual(yield* store.head, 1n)
      assert.strictEqual(yield* store.streamVersion(account(2)), 0)
      assert.deepStrictEqual(yield* balancesNow, ["account-1 100"])
      // Nothing of it is left, its key neither.
      const { duplicate } = yield* store.append({
        facts: [deposited(2, 50)],
        expect: { [account(2)]: "noStream" },
        idempotency: { key: "deposit 2", fingerprint: "other", answer: null }
      })
      assert.isFalse(duplicate)
      assert.deepStrictEqual(yield* balancesNow, ["account-1 100", "account-2 50"])
    })))

  it.effect("of appends that are written together, only the one with the fact is refused", () =>
    inFreshStore(Effect.gen(function*() {
      yield* start([balances()])
      const written = yield* Effect.forEach(
        Arr.range(1, 60),
        (number) => Effect.result(deposit(number, number % 20 === 0 ? -1 : 1)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(written.flatMap(({ _tag }, index) => _tag === "Failure" ? [index + 1] : []), [20, 40, 60])
      assert.strictEqual((yield* balancesNow).length, 57)
      const store = yield* EventStore
      assert.strictEqual(yield* store.head, 57n)
    })))

  it.effect("a transaction that is rolled back leaves nothing, and one whose fact is refused commits nothing else", () =>
    inFreshStore(Effect.gen(function*() {
      const { sql, transact } = yield* Postgres
      yield* start([balances()])
      yield* sql`create table note (text text not null)`
      const store = yield* EventStore
      yield* deposit(1, 100)
      const write = (cents: number) =>
        Effect.andThen(
          sql`insert into note values ('written')`,
          Effect.asVoid(store.appendInTransaction({ facts: [deposited(1, cents), deposited(2, cents)] }))
        )
      yield* Effect.flip(transact(Effect.andThen(write(5), Effect.fail("changed my mind"))))
      assert.deepStrictEqual(yield* balancesNow, ["account-1 100"])

      const refused = yield* Effect.flip(transact(write(-5)))
      assert.instanceOf(refused, TransactionError)
      assert.strictEqual(refused.reason._tag, "CommitRefused")
      assert.match(refused.message, /Projection balances cannot take fact .* of stream account-2/)
      assert.deepStrictEqual(yield* balancesNow, ["account-1 100"])
      assert.deepStrictEqual(yield* sql`select * from note`, [])

      yield* transact(Effect.andThen(write(5), write(1)))
      assert.deepStrictEqual(yield* balancesNow, ["account-1 106", "account-2 6"])
      assert.strictEqual((yield* sql`select * from note`).length, 2)
    })))

  it.effect("what a caller has set for its transaction is as it was after the work", () =>
    inFreshStore(Effect.gen(function*() {
      const { beforeCommit, sql, transact } = yield* Postgres
      yield* start([balances()])
      const store = yield* EventStore
      const settings = sql`
        select current_setting('search_path') as path, current_setting('strata.tenant', true) as tenant,
          current_setting('strata.all_tenants', true) as all`
      const seen = yield* Ref.make<ReadonlyArray<unknown>>([])
      yield* transact(Effect.gen(function*() {
        yield* sql`select set_config('strata.tenant', 'ours', true), set_config('strata.all_tenants', '', true)`
        yield* Ref.set(seen, yield* settings)
        yield* Effect.asVoid(store.appendInTransaction({ facts: [deposited(1, 5)] }))
        yield* beforeCommit(
          Effect.gen(function*() {
            assert.deepStrictEqual(yield* balancesNow, ["account-1 5"])
            assert.deepStrictEqual(yield* settings, yield* Ref.get(seen))
          }).pipe(Effect.provideService(Postgres, yield* Postgres))
        )
      }))
    })))

  it.effect(
    "under eight writers that correct and retract, tables are those of a rebuild and of a replay",
    () =>
      inFreshStore(ProjectionTest.law(
        [balances(), Owners, Ledger],
        Effect.forEach(Arr.range(1, 8), (writer) =>
          Effect.gen(function*() {
            for (let round = 0; round < 12; round++) {
              const owner = `owner ${yield* Random.nextIntBetween(0, 3)}`
              // Some accounts are the writer's own, and some are everybody's.
              const { facts } = yield* deposit(round % 2 === 0 ? writer : 9, 10 + round, owner)
              if (round % 3 === 0) yield* correct(facts[0]!.eventId, 5, `owner ${yield* Random.nextIntBetween(0, 3)}`)
              if (round % 5 === 0) yield* retract(facts[0]!.eventId)
            }
          }), { concurrency: "unbounded" })
      )),
    60_000
  )

  it.effect(
    "one that comes to a log with facts catches up beside the appends, and joins them",
    () =>
      inFreshStore(Effect.gen(function*() {
        const store = yield* EventStore
        yield* store.append({ facts: Arr.makeBy(1500, (index) => deposited(index % 7, 1)) })
        const stop = yield* Ref.make(false)
        const writer = yield* Effect.forkChild(
          Effect.repeat(Effect.andThen(deposit(8, 1), Ref.get(stop)), { until: (stopped) => stopped })
        )
        const projections = yield* start([balances(), Ledger])
        yield* statusWhere(projections, isInline(1))
        yield* Ref.set(stop, true)
        yield* Fiber.join(writer)
        yield* statusWhere(projections, isInline(1))
        yield* deposit(8, 1)
        const { sql } = yield* Postgres
        const head = yield* store.head
        const [counted] = yield* sql`select sum(cents)::bigint as cents from balance`
        assert.deepStrictEqual(counted, { cents: head })
      })),
    60_000
  )

  it.effect(
    "another version joins the appends as readers are switched to it: no fact is left out, none is applied twice",
    () =>
      inFreshStore(Effect.gen(function*() {
        const { sql } = yield* Postgres
        const old = yield* start([balances()])
        yield* Effect.forEach(Arr.range(1, 300), (number) => deposit(number % 5, 1), { concurrency: 8 })
        const stop = yield* Ref.make(false)
        // Whoever has just written finds it in what readers see, of either version.
        const writeAndRead = (number: number) =>
          Effect.gen(function*() {
            let mine = 0
            while (!(yield* Ref.get(stop))) {
              yield* deposit(number, 1)
              mine++
              const [row] = yield* sql<{ deposits: number }>`
              select (state->>'deposits')::integer as deposits from balance where stream = ${account(number)}`
              assert.strictEqual(row?.deposits, mine)
            }
          })
        const writers = yield* Effect.forEach([11, 12, 13, 14], (number) => Effect.forkChild(writeAndRead(number)))
        const current = yield* start([balances({ version: 2, factor: 10 })])
        yield* statusWhere(current, isInline(2))
        yield* deposit(1, 1)
        yield* current.operate.rollback("balances")
        assert.isTrue(isInline(1)((yield* current.status)[0]!))
        yield* deposit(1, 1)
        yield* current.operate.switchTo("balances", 2)
        assert.isTrue(isInline(2)((yield* current.status)[0]!))
        yield* Ref.set(stop, true)
        yield* Effect.forEach(writers, (fiber) => Fiber.join(fiber))
        const store = yield* EventStore
        const [sums] = yield* sql`select sum(cents)::bigint as cents from balance`
        assert.deepStrictEqual(sums, { cents: 10n * (yield* store.head) })
        const rebuilt = yield* current.operate.rebuild("balances", { switch: "manual" })
        yield* statusWhere(current, ({ generations }) => generations.at(-1)?.lag === 0n)
        assert.isTrue((yield* current.operate.verify("balances", rebuilt.number)).equal)
        yield* old.status
      })),
    60_000
  )

  it.effect("what a program writes that knows nothing of it is applied before the next append, and without one soon after", () =>
    inFreshStore(Effect.gen(function*() {
      const projections = yield* start([balances(), Owners])
      const other = yield* stranger
      yield* deposit(1, 1)
      yield* other.append({ facts: [deposited(1, 10), deposited(2, 10)] })
      yield* deposit(1, 100)
      assert.deepStrictEqual(yield* balancesNow, ["account-1 111", "account-2 10"])
      const { facts: [late], position } = yield* other.append({ facts: [deposited(3, 7)] })
      yield* projections.waitFor({ position })
      assert.deepStrictEqual(yield* balancesNow, ["account-1 111", "account-2 10", "account-3 7"])
      const { position: gone } = yield* other.revise({
        _tag: "Retraction",
        revises: late!.eventId,
        reason: "never happened",
        actor: "ada"
      })
      yield* projections.waitFor({ position: gone })
      assert.deepStrictEqual(yield* balancesNow, ["account-1 111", "account-2 10"])
      assert.deepStrictEqual(yield* ownersNow, ["ada 4 121"])
      assert.isTrue(isInline(1)((yield* projections.status)[0]!))
    })))

  it.effect(
    "a fact of such a program that cannot be taken is put aside, and refuses nobody else's",
    () =>
      inFreshStore(Effect.gen(function*() {
        const projections = yield* start([balances()])
        const other = yield* stranger
        const { facts } = yield* deposit(1, 10)
        yield* other.append({ facts: [deposited(2, -5)] })
        yield* deposit(3, 10)
        const waiting = yield* statusWhere(projections, (status) => status.parked === 1 && isInline(1)(status))
        assert.match(waiting.error ?? "", /^Fact 2: .*"balance_covered"$/)
        yield* deposit(2, 20)
        yield* correct(facts[0]!.eventId, 11)
        assert.deepStrictEqual(yield* balancesNow, ["account-1 11", "account-3 10"])
        yield* projections.operate.skip("balances", "default/account-2")
        yield* deposit(2, 1)
        assert.deepStrictEqual(yield* balancesNow, ["account-1 11", "account-2 21", "account-3 10"])
      })),
    60_000
  )

  it.effect("it is not paused while appends apply it, and becomes asynchronous and inline again without another version", () =>
    inFreshStore(Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const projections = yield* start([balances()])
        yield* deposit(1, 1)
        const refused = yield* Effect.flip(projections.operate.pause("balances"))
        assert.instanceOf(refused, AppliedInline)
        assert.include(refused.message, "balances")
        yield* projections.operate.resume("balances")
        yield* deposit(1, 1)
        assert.deepStrictEqual(yield* balancesNow, ["account-1 2"])
      }))
      yield* Effect.scoped(Effect.gen(function*() {
        const projections = yield* start([balances({ inline: false })])
        assert.strictEqual((yield* projections.status)[0]?.generations[0]?.applied, "subscription")
        yield* deposit(1, 1)
        yield* projections.catchUp()
        yield* projections.operate.pause("balances")
        yield* projections.operate.resume("balances")
      }))
      const projections = yield* start([balances()])
      yield* statusWhere(projections, isInline(1))
      yield* deposit(1, 1)
      assert.deepStrictEqual(yield* balancesNow, ["account-1 4"])
    })))
})
