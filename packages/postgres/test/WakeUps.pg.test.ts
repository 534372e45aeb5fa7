import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
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

  it.effect("of a burst are one for a subscriber that is busy", () =>
    Effect.gen(function*() {
      const { sql, wakeups } = yield* Postgres
      const end = yield* subscribe("burst_end")
      const seen = yield* Ref.make(0)
      const busy = yield* Latch.make()
      const connected = yield* Latch.make()
      yield* Effect.forkScoped(Stream.runForEach(wakeups("burst"), () =>
        Ref.update(seen, (n) =>
          n + 1).pipe(Effect.andThen(connected.open), Effect.andThen(busy.await))))
      yield* connected.await
      const notify = (channel: string, payload: string) =>
        sql`select pg_notify(${channel}, ${payload})`
      yield* Effect.forEach(Array.from({ length: 100 }, (_, index) => String(index)), (index) => notify("burst", index))
      // One connection gets all notifications in the order of their commits, so the burst has arrived as well.
      const settled = Effect.andThen(notify("burst_end", ""), next(end))
      yield* settled
      yield* busy.open
      yield* Effect.replicateEffect(settled, 20)
      // The connection, one that was handed over already, and one for the rest.
      assert.isAtLeast(yield* Ref.get(seen), 2)
      assert.isAtMost(yield* Ref.get(seen), 3)
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

  it.effect("are left to a commit that notifies their channel itself, unless others wait or one has just done so", () =>
    Effect.gen(function*() {
      const { mayNotify, sql, wake } = yield* Postgres
      const woken = yield* subscribe("carried")
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.replicateEffect(sql.reserve, 3)
        // The first waits for a connection, those after it for the first.
        yield* wake("carried")
        yield* Effect.sleep("50 millis")
        yield* wake("carried")
        assert.strictEqual(yield* mayNotify(), false)
        assert.strictEqual(yield* mayNotify("others"), false)
        assert.strictEqual(yield* mayNotify("others", "carried"), true)
        assert.strictEqual(yield* mayNotify("carried"), false)
      }))
      yield* next(woken)
      // Nothing was left of the second.
      yield* sql`select pg_notify('carried', '')`
      yield* next(woken)
      assert.strictEqual(yield* Queue.size(woken), 0)
    }))

  it.effect("of this process are heard once by who hears them here, and those of others as ever", () =>
    Effect.gen(function*() {
      const { origin, sql, wake, wakeHere, wakeups } = yield* Postgres
      const woken = yield* Queue.unbounded<string>()
      yield* Effect.forkScoped(
        Stream.runForEach(wakeups("near", { here: true }), (text) => Queue.offer(woken, text))
      )
      yield* next(woken)
      const far = yield* subscribe("near")
      const heard: Array<string> = []
      for (let n = 0; n < 20; n++) {
        yield* wake("near", String(n))
        yield* next(far)
        heard.push(...yield* Queue.clear(woken))
      }
      yield* sql`select pg_notify('near', ${yield* origin})`
      yield* wakeHere("near")
      yield* next(far)
      // Another process's, after which nothing of before can come.
      yield* sql`select pg_notify('near', 'last')`
      yield* Effect.repeat(Effect.flatMap(Queue.take(woken), (text) => Effect.sync(() => heard.push(text))), {
        until: () => heard.includes("last")
      })
      assert.deepStrictEqual(heard, [...Array.from({ length: 20 }, (_, n) => String(n)), "", "last"])
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
