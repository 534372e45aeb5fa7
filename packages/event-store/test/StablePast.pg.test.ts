import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import type { EventStore } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Postgres from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Array from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"

const Database = Layer.merge(PostgresTest.layer({ migrations: [migrations] }), SecureRandom.layerWebCrypto)
type Store = EventStore["Service"]

const counter = Fact.streamId("counter", "1")
const fact = (n: number): Fact.NewFact => ({ stream: counter, type: "Counted", data: n })
const seconds = (n: number) => Timestamp.fromMicros(1_700_000_000_000_000n + BigInt(n) * 1_000_000n)
/** Asks through an opening of its own, which has kept no answer. */
const knownAt = (store: Store, time: Timestamp.Timestamp) =>
  EventStorePostgres.make({ name: store.name }).pipe(
    Effect.flatMap((fresh) => fresh.read({ knownAt: { time } })),
    Effect.map(({ facts }) => facts.map((each) => each.data)),
    Effect.scoped
  )
/** What was believed last at a moment, and how far the log was, asked in the same way. */
const lastKnownAt = (store: Store, time: Timestamp.Timestamp) =>
  EventStorePostgres.make({ name: store.name }).pipe(
    Effect.flatMap((fresh) =>
      Effect.all([
        fresh.positionAt({ time }),
        fresh.read({ stream: counter, knownAt: { time }, direction: "backwards", limit: 50 }),
        fresh.read({ knownAt: { time }, revisions: "all", direction: "backwards", limit: 50 })
      ])
    ),
    Effect.map(([position, ...pages]) => [position, ...pages.map(({ facts }) => facts)] as const),
    Effect.scoped
  )
const problem = <A>(effect: Effect.Effect<A, { readonly reason: { readonly _tag: string } }>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason._tag)

/**
 * Gives the server a clock that the test sets: the statements that ask for the time find this function before
 * PostgreSQL's own.
 */
const fakeClock = Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  yield* sql`create table fake_clock (now timestamptz not null)`
  yield* sql`insert into fake_clock values ('epoch')`
  yield* sql`create function clock_timestamp() returns timestamptz language sql volatile as 'select now from strata.fake_clock'`
  const functions = yield* sql<{ readonly name: string }>`
    select p.oid::regprocedure::text as name from pg_proc p
    where p.pronamespace = 'strata'::regnamespace and p.prosrc like '%clock_timestamp()%'`
  assert.isAtLeast(functions.length, 3)
  for (const { name } of functions) {
    yield* sql.unsafe(`alter function ${name} set search_path = strata, pg_catalog`)
  }
  return (time: Timestamp.Timestamp) => Effect.asVoid(sql`update fake_clock set now = ${Pg.timestamptz(time)}`)
})

layer(Database, { excludeTestServices: true })("a clock that the test sets", (it) => {
  it.effect("neither bends the order nor changes the past when it jumps back", () =>
    Effect.gen(function*() {
      const setClock = yield* fakeClock
      const store = yield* EventStorePostgres.make({ name: "jumping" })
      yield* setClock(seconds(0))
      const first = yield* store.append({ facts: [fact(1)] })
      deepStrictEqual(first.recordedAt, seconds(0))
      deepStrictEqual(yield* problem(store.read({ knownAt: { time: seconds(5) } })), "InvalidQuery")

      yield* setClock(seconds(10))
      deepStrictEqual(yield* knownAt(store, seconds(5)), [1])
      yield* setClock(seconds(-3600))
      const second = yield* store.append({ facts: [fact(2)] })
      assert.isTrue(second.recordedAt > seconds(5))
      assert.isTrue(second.recordedAt < seconds(6))
      deepStrictEqual(yield* knownAt(store, seconds(5)), [1])
      // What the log has recorded has passed, whatever the clock says now.
      deepStrictEqual(yield* knownAt(store, second.recordedAt), [1, 2])
      deepStrictEqual(yield* problem(store.read({ knownAt: { time: seconds(6) } })), "InvalidQuery")

      const third = yield* store.append({ facts: [fact(3)] })
      assert.isTrue(third.recordedAt > second.recordedAt)
      yield* setClock(seconds(20))
      const fourth = yield* store.append({ facts: [fact(4)] })
      deepStrictEqual(fourth.recordedAt, seconds(20))
      deepStrictEqual(yield* knownAt(store, seconds(5)), [1])
      deepStrictEqual(yield* knownAt(store, seconds(15)), [1, 2, 3])
    }))
})

layer(Database, { excludeTestServices: true })("a clock that the test sets, for whatever is written", (it) => {
  it.effect("does not bend the order of batches, revisions and what is said of streams", () =>
    Effect.gen(function*() {
      const setClock = yield* fakeClock
      const store = yield* EventStorePostgres.make({ name: "jumping" })
      const revision = { reason: "r", actor: "a" }
      const write = Effect.fnUntraced(function*(n: number) {
        const { facts: [first, second] } = yield* store.append({ facts: [fact(n), fact(n + 1)] })
        yield* store.revise({ _tag: "Correction", revises: first!.eventId, data: n + 2, ...revision })
        yield* store.revise({ _tag: "Retraction", revises: second!.eventId, ...revision })
        yield* store.streams.setMetadata(counter, { n }, revision)
      })
      yield* setClock(seconds(0))
      yield* write(10)
      yield* setClock(seconds(10))
      const before = yield* knownAt(store, seconds(5))
      assert.deepStrictEqual(before.length, 2)
      // The way back.
      yield* setClock(seconds(-3600))
      yield* write(20)
      deepStrictEqual(yield* knownAt(store, seconds(5)), before)
      yield* setClock(seconds(20))
      yield* write(30)
      deepStrictEqual(yield* knownAt(store, seconds(5)), before)
      const log = yield* store.readLog({ after: Fact.beginning })
      const recorded = log.map(({ recordedAt }) => recordedAt)
      assert.strictEqual(recorded.length, 15)
      deepStrictEqual(recorded, recorded.toSorted((a, b) => a < b ? -1 : a > b ? 1 : 0))
      // Of what was asked about nothing is written later.
      deepStrictEqual(recorded.filter((time) => time > seconds(5)).length, 10)
    }))
})

layer(Database, { excludeTestServices: true })("a moment that has passed", (it) => {
  it.effect("waits for an append in flight that may still be recorded before it", () =>
    Effect.gen(function*() {
      const store = yield* EventStorePostgres.make({ name: "in flight" })
      const { sql } = yield* Postgres.Postgres
      const url = yield* PostgresTest.url
      yield* store.append({ facts: [fact(1)] })
      yield* Effect.gen(function*() {
        // Another process, in the middle of its commit: it has taken its recorded time, and nobody sees its fact.
        const other = yield* EventStorePostgres.make({ name: "in flight" })
        const { sql: otherSql, transact } = yield* Postgres.Postgres
        const written = yield* Latch.make()
        const commit = yield* Latch.make()
        const appending = yield* transact(Effect.gen(function*() {
          yield* Effect.asVoid(other.appendInTransaction({ facts: [fact(2)] }))
          const { beforeCommit } = yield* Postgres.Postgres
          yield* beforeCommit(Effect.andThen(written.open, commit.await))
        })).pipe(Effect.forkChild({ startImmediately: true }))
        yield* written.await
        const [{ now }] = yield* otherSql<{ readonly now: Timestamp.Timestamp }>`select clock_timestamp() as now`.pipe(
          Effect.map((rows) => [rows[0]!] as const)
        )
        const reading = yield* knownAt(store, now).pipe(Effect.forkChild({ startImmediately: true }))
        yield* sql<{ readonly waiting: boolean }>`
          select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%position_at%') as waiting
        `.pipe(Effect.repeat({ until: (rows) => rows[0]!.waiting }))
        yield* commit.open
        yield* Fiber.join(appending)
        const answer = yield* Fiber.join(reading)
        deepStrictEqual(answer, [1, 2])
        deepStrictEqual(yield* knownAt(store, now), answer)
      }).pipe(Effect.provide(Postgres.layer({ url, applicationName: "other" })))
    }))

  it.effect("is answered alike for ever, whatever is written meanwhile", () =>
    Effect.gen(function*() {
      const store = yield* EventStorePostgres.make({ name: "busy" })
      const answers = new Map<Timestamp.Timestamp, Effect.Success<ReturnType<typeof lastKnownAt>>>()
      const revision = { reason: "r", actor: "a" }
      const writer = (n: number) =>
        Effect.repeat(
          Effect.gen(function*() {
            const { facts: [first, second] } = yield* store.append({ facts: [fact(n), fact(n)] })
            yield* store.revise({ _tag: "Correction", revises: first!.eventId, data: -n, ...revision })
            yield* store.revise({ _tag: "Retraction", revises: second!.eventId, ...revision })
          }),
          { until: () => answers.size >= 20 }
        )
      const writing = yield* Effect.forkChild(
        Effect.forEach(Array.range(1, 4), writer, { concurrency: "unbounded", discard: true }),
        { startImmediately: true }
      )
      const { sql } = yield* Postgres.Postgres
      while (answers.size < 20) {
        const rows = yield* sql<{ readonly now: Timestamp.Timestamp }>`select clock_timestamp() as now`
        const now = rows[0]!.now
        answers.set(now, yield* lastKnownAt(store, now))
      }
      yield* Fiber.join(writing)
      assert.isAbove(new Set([...answers.values()].map(([position]) => position)).size, 3)
      for (const [time, answer] of answers) deepStrictEqual(yield* lastKnownAt(store, time), answer)
    }))
})
