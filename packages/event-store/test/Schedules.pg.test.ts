import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import type { EventStore } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Postgres from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arr from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"

const Database = Layer.merge(PostgresTest.layer({ migrations: [migrations] }), SecureRandom.layerWebCrypto)
type Store = EventStore["Service"]

class ChangedMind extends Data.TaggedError("ChangedMind") {}

const stream = Fact.streamId("counter", "1")
const fact = (n: number, options: Partial<Fact.NewFact> = {}): Fact.NewFact => ({
  stream,
  type: "Counted",
  data: n,
  ...options
})

let stores = 0
const open = Effect.suspend(() => EventStorePostgres.make({ name: `schedule ${++stores}`, pollInterval: "50 millis" }))

/**
 * An append of another process, held where its place is taken and its commit is still to come. What the transaction
 * wrote before, and when, is the test's.
 */
const holding = Effect.fnUntraced(function*(name: string, facts: ReadonlyArray<Fact.NewFact>) {
  const url = yield* PostgresTest.url
  const elsewhere = yield* Layer.build(Postgres.layer({ url, applicationName: "elsewhere", maxConnections: 2 }))
  const written = yield* Latch.make()
  const outcome = yield* Deferred.make<void, ChangedMind>()
  const fiber = yield* Effect.gen(function*() {
    const store = yield* EventStorePostgres.make({ name })
    const { beforeCommit, transact } = yield* Postgres.Postgres
    yield* transact(Effect.gen(function*() {
      yield* Effect.asVoid(store.appendInTransaction({ facts }))
      yield* beforeCommit(Effect.andThen(written.open, Deferred.await(outcome)))
    }))
  }).pipe(Effect.provideContext(elsewhere), Effect.exit, Effect.forkScoped({ startImmediately: true }))
  yield* written.await
  return {
    commit: Effect.andThen(Deferred.succeed(outcome, undefined), Fiber.join(fiber)),
    rollBack: Effect.andThen(Deferred.fail(outcome, new ChangedMind()), Fiber.join(fiber))
  }
})

/** Until this many sessions of the test's database wait for a lock in an append. */
const untilWaiting = Effect.fnUntraced(function*(count: number) {
  const { sql } = yield* Postgres.Postgres
  yield* sql<{ readonly waiting: bigint }>`
    select count(*) as waiting from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and query like '%append_fact%'
  `.pipe(Effect.repeat({ until: (rows) => rows[0]!.waiting === BigInt(count) }))
})

/** What a subscriber from the beginning has been brought, as it comes. */
const follow = Effect.fnUntraced(function*(store: Store) {
  const seen = yield* Ref.make<ReadonlyArray<Fact.Fact>>([])
  yield* store.subscribe({ after: Fact.beginning }).pipe(
    Stream.runForEach((facts) => Ref.update(seen, (before) => [...before, ...facts])),
    Effect.forkScoped({ startImmediately: true })
  )
  return {
    seen: Effect.map(Ref.get(seen), (facts) => facts.map((each) => [Number(each.position), each.version, each.data])),
    until: (count: number) =>
      Effect.repeat(Ref.get(seen), {
        until: (facts) => facts.length >= count,
        schedule: Schedule.spaced("2 millis")
      })
  }
})

layer(Database, { excludeTestServices: true })("schedules that lose or reorder facts elsewhere", (it) => {
  it.effect("an older transaction does not overtake an append in flight, and a subscriber meets both in order", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { sql, transact } = yield* Postgres.Postgres
      yield* sql`create table older (n integer)`
      const subscriber = yield* follow(store)
      const begun = yield* Latch.make()
      const goOn = yield* Latch.make()
      // It has the older transaction id, since it wrote first, and comes to its append last.
      const older = yield* transact(Effect.gen(function*() {
        yield* sql`insert into older values (1)`
        yield* begun.open
        yield* goOn.await
        return yield* Effect.asVoid(store.appendInTransaction({ facts: [fact(2)] }))
      })).pipe(Effect.forkChild({ startImmediately: true }))
      yield* begun.await
      const younger = yield* holding(store.name, [fact(1)])
      yield* goOn.open
      yield* untilWaiting(1)
      deepStrictEqual([yield* store.head, yield* subscriber.seen], [0n, []])
      yield* younger.commit
      yield* Fiber.join(older)
      yield* subscriber.until(2)
      deepStrictEqual(yield* subscriber.seen, [[1, 1, 1], [2, 2, 2]])
    }))

  it.effect("an append that is rolled back after it took its place leaves no hole and stops nobody", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [fact(1)] })
      const subscriber = yield* follow(store)
      const held = yield* holding(store.name, [fact(97), fact(98)])
      const waiting = yield* store.append({ facts: [fact(2)], expect: { [stream]: 1 } }).pipe(
        Effect.forkChild({ startImmediately: true })
      )
      yield* untilWaiting(1)
      yield* held.rollBack
      const appended = yield* Fiber.join(waiting)
      deepStrictEqual([appended.position, appended.facts[0]!.version], [2n, 2])
      yield* store.append({ facts: [fact(3)] })
      yield* subscriber.until(3)
      deepStrictEqual(yield* subscriber.seen, [[1, 1, 1], [2, 2, 2], [3, 3, 3]])
      deepStrictEqual(yield* store.streams.categories, [{ category: "counter", streams: 1n, facts: 3n }])
    }))

  it.effect("a version that an append in flight takes is refused to the one that waits for it", () =>
    Effect.gen(function*() {
      const store = yield* open
      const held = yield* holding(store.name, [fact(1)])
      const waiting = yield* store.append({ facts: [fact(2)], expect: { [stream]: "noStream" } }).pipe(
        Effect.flip,
        Effect.forkChild({ startImmediately: true })
      )
      yield* untilWaiting(1)
      yield* held.commit
      const { reason } = yield* Fiber.join(waiting)
      deepStrictEqual(reason._tag === "VersionConflict" ? reason.actual : reason._tag, 1)
    }))

  it.effect("a condition sees the match of an append that was in flight when the caller looked", () =>
    Effect.gen(function*() {
      const store = yield* open
      const seat = { metadata: { seat: "a1" } }
      const claim = Effect.gen(function*() {
        const { facts, knownAt } = yield* store.read(seat)
        deepStrictEqual([facts, knownAt], [[], 1n])
        return yield* store.append({
          facts: [fact(2, { stream: Fact.streamId("claim", "late"), ...seat })],
          condition: { after: knownAt, noneOf: [seat] }
        })
      })
      yield* store.append({ facts: [fact(0)] })
      const given = yield* holding(store.name, [fact(1, { stream: Fact.streamId("claim", "early"), ...seat })])
      const refused = yield* claim.pipe(Effect.flip, Effect.forkChild({ startImmediately: true }))
      yield* untilWaiting(1)
      yield* given.commit
      const { reason } = yield* Fiber.join(refused)
      deepStrictEqual(reason._tag === "ConditionFailed" ? [reason.after, reason.position].map(Number) : reason._tag, [
        1,
        2
      ])
    }))

  it.effect("a condition is not bound by the match of an append in flight that is rolled back", () =>
    Effect.gen(function*() {
      const store = yield* open
      const seat = { metadata: { seat: "a1" } }
      const given = yield* holding(store.name, [fact(1, seat)])
      const accepted = yield* store.append({
        facts: [fact(2, seat)],
        condition: { after: Fact.beginning, noneOf: [seat] }
      }).pipe(Effect.forkChild({ startImmediately: true }))
      yield* untilWaiting(1)
      yield* given.rollBack
      deepStrictEqual((yield* Fiber.join(accepted)).position, 1n)
    }))

  it.effect("a transaction that waited too long for the log is done again, be it for a fact or for a revision of one", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { facts } = yield* store.append({ facts: [fact(1)] })
      const revision = {
        _tag: "Retraction",
        revises: facts[0]!.eventId,
        reason: "never happened",
        actor: "ada"
      } as const
      const url = yield* PostgresTest.url
      const hasty = yield* Layer.build(
        Postgres.layer({ url, applicationName: "hasty", lockTimeout: "20 millis", transactionAttempts: 20 })
      )
      const writings = {
        append: (store: Store) => Effect.asVoid(store.appendInTransaction({ facts: [fact(2)] })),
        revise: (store: Store) => Effect.asVoid(store.reviseInTransaction(revision))
      }
      for (const [name, write] of Object.entries(writings)) {
        const held = yield* holding(store.name, [fact(3)])
        let runs = 0
        const again = yield* Latch.make()
        const writing = yield* Effect.gen(function*() {
          const other = yield* EventStorePostgres.make({ name: store.name })
          const { transact } = yield* Postgres.Postgres
          yield* transact(Effect.gen(function*() {
            if (++runs === 2) yield* again.open
            yield* write(other)
          }))
        }).pipe(Effect.provideContext(hasty), Effect.forkChild({ startImmediately: true }))
        yield* Effect.raceFirst(again.await, Fiber.join(writing))
        yield* held.commit
        yield* Fiber.join(writing)
        assert.isAbove(runs, 1, name)
      }
      const log = yield* store.readLog({ after: Fact.beginning })
      deepStrictEqual(log.map(({ data, revision }) => [data, revision]), [[1, 0], [3, 0], [2, 0], [3, 0], [1, 1]])
    }))

  it.effect("rows and facts of one transaction are seen together or not at all, and fail together", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { sql, transact } = yield* Postgres.Postgres
      yield* sql`create table sale (n integer not null check (n <> 13))`
      /** A row and three facts, by two appends. */
      const sell = (n: number) =>
        transact(Effect.gen(function*() {
          yield* Effect.asVoid(store.appendInTransaction({ facts: [fact(n), fact(n)] }))
          yield* sql`insert into sale values (${n})`
          yield* Effect.asVoid(store.appendInTransaction({ facts: [fact(n)] }))
        }))
      const look = Effect.map(
        sql<{ readonly sales: bigint; readonly facts: bigint }>`
          select (select count(*) from sale) as sales, (
            select count(*) from fact join store on store.id = fact.store where store.name = ${store.name}
          ) as facts`,
        (rows) => rows[0]!
      )
      const looks = yield* Effect.forkChild(
        Effect.repeat(
          look.pipe(Effect.tap(({ facts, sales }) => Effect.sync(() => assert.strictEqual(facts, sales * 3n)))),
          {
            until: ({ sales }) => sales === 19n
          }
        ),
        { startImmediately: true }
      )
      const results = yield* Effect.forEach(Arr.range(1, 20), (n) => Effect.exit(sell(n)), { concurrency: 4 })
      deepStrictEqual(results.map(({ _tag }) => _tag === "Success"), Arr.range(1, 20).map((n) => n !== 13))
      yield* Fiber.join(looks)
      const log = yield* store.readLog({ after: Fact.beginning })
      deepStrictEqual(
        log.map(({ position, version }) => [Number(position), version]),
        Arr.range(1, 57).map((n) => [n, n])
      )
      deepStrictEqual(log.filter(({ data }) => data === 13), [])
    }))
})
