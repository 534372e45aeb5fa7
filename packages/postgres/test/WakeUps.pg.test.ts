import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"

/** The wake-ups of a channel as a queue; the one of the connection is taken already. */
const subscribe = Effect.fnUntraced(function*(channel: string) {
  const { wakeups } = yield* Postgres
  const woken = yield* Queue.unbounded<void>()
  yield* Effect.forkScoped(Stream.runForEach(wakeups(channel), () => Queue.offer(woken, undefined)))
  yield* next(woken)
  return woken
})

const next = (woken: Queue.Dequeue<void>) => Effect.timeout(Queue.take(woken), "10 seconds")

const listeners = Effect.flatMap(
  Postgres,
  ({ sql }) =>
    sql<{ readonly pid: number }>`
      select pid from pg_stat_activity
      where datname = current_database() and application_name like '% wake-ups'
    `
)

layer(PostgresTest.layer({ options: { maxConnections: 3 } }), { excludeTestServices: true })("Wake-ups", (it) => {
  it.effect("come at once on a connection and then for each notification", () =>
    Effect.gen(function*() {
      const { wake } = yield* Postgres
      const woken = yield* subscribe("orders")
      yield* wake("orders")
      yield* next(woken)
      yield* wake("others")
      yield* wake("orders")
      yield* next(woken)
    }))

  it.effect("of a transaction come after its commit only", () =>
    Effect.gen(function*() {
      const { sql, transact } = yield* Postgres
      const woken = yield* subscribe("committed")
      yield* transact(Effect.gen(function*() {
        yield* sql`select pg_notify('committed', '')`
        // The server has answered this on another connection after the notification was queued.
        yield* Effect.scoped(Effect.flatMap(sql.reserve, (other) => other.execute("select 1", [], undefined)))
        assert.strictEqual(yield* Queue.size(woken), 0)
      }))
      yield* next(woken)
      yield* Effect.ignore(
        transact(Effect.andThen(sql`select pg_notify('committed', '')`, Effect.fail("rolled back" as const)))
      )
      yield* sql`select pg_notify('committed', 'after')`
      yield* next(woken)
      assert.strictEqual(yield* Queue.size(woken), 0)
    }))

  it.effect("share one connection that is closed with the last subscriber", () =>
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        yield* subscribe("left")
        yield* subscribe("right")
        yield* subscribe("left")
        assert.lengthOf(yield* listeners, 1)
      }))
      yield* listeners.pipe(
        Effect.repeat({ until: (rows) => rows.length === 0, schedule: Schedule.spaced("10 millis"), times: 500 })
      )
    }))

  it.effect("come again when the listening session was terminated", () =>
    Effect.gen(function*() {
      const { sql, wake } = yield* Postgres
      const left = yield* subscribe("left")
      const right = yield* subscribe("right")
      for (const round of [1, 2]) {
        const [listener] = yield* listeners
        yield* sql`select pg_terminate_backend(${listener?.pid ?? 0})`
        // One for the new connection, so that nobody misses what was sent in between.
        yield* next(left)
        yield* next(right)
        yield* wake("left")
        yield* wake("right")
        yield* next(left)
        yield* next(right)
        assert.lengthOf(yield* listeners, 1, `round ${round}`)
      }
    }))

  it.effect("of a burst are a few, and the last one is not lost", () =>
    Effect.gen(function*() {
      const { sql, wakeups } = yield* Postgres
      const seen = yield* Ref.make(0)
      yield* sql`create table burst (id int)`
      const reads = yield* Effect.forkScoped(
        wakeups("burst").pipe(
          Stream.tap(() => Ref.update(seen, (n) => n + 1)),
          Stream.mapEffect(() => sql<{ readonly count: number }>`select count(*)::int4 as count from burst`),
          Stream.takeUntil(([row]) => row?.count === 300),
          Stream.runDrain
        )
      )
      yield* Effect.forEach(
        Array.from({ length: 300 }, (_, id) => id),
        (id) => sql`with written as (insert into burst values (${id})) select pg_notify('burst', ${String(id)})`,
        { concurrency: 2, discard: true }
      )
      yield* Effect.timeout(Fiber.join(reads), "10 seconds")
      assert.isBelow(yield* Ref.get(seen), 300)
    }))

  it.effect("are sent without waiting for the database, and coalesced", () =>
    Effect.gen(function*() {
      const { sql, wake } = yield* Postgres
      const woken = yield* subscribe("coalesced")
      // Every connection is taken, and the calls return all the same.
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.replicateEffect(sql.reserve, 3)
        yield* Effect.replicateEffect(wake("coalesced"), 1_000, { discard: true })
      }))
      yield* next(woken)
      // A second one for those that came while the first was sent; never a thousand.
      yield* sql`select pg_notify('coalesced', '')`
      yield* next(woken)
      assert.isBelow(yield* Queue.size(woken), 3)
    }))

  it.effect("channels are quoted, and longer names than PostgreSQL keeps are a bug", () =>
    Effect.gen(function*() {
      const { wake, wakeups } = yield* Postgres
      const woken = yield* subscribe("Order \"lines\"; é")
      yield* wake("Order \"lines\"; é")
      yield* next(woken)
      const tooLong = "x".repeat(64)
      assert.strictEqual((yield* Effect.exit(wake(tooLong)))._tag, "Failure")
      assert.strictEqual((yield* Effect.exit(Stream.runHead(wakeups(tooLong))))._tag, "Failure")
    }))
})
