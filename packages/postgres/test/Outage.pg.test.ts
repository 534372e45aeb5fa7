import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as PostgresLayer from "@strata/postgres/Postgres"
import type { PostgresOptions } from "@strata/postgres/PostgresConfig"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"

const connect = Effect.fnUntraced(function*(options: PostgresOptions) {
  return Context.get(yield* Layer.build(PostgresLayer.layer(options)), Postgres)
})

layer(NodeServices.layer, { excludeTestServices: true })("A server that fails", (it) => {
  it.effect("is waited for at the start, and found again after a crash", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      yield* server.stop
      const connecting = yield* Effect.forkChild(connect({ url: server.url }), { startImmediately: true })
      yield* server.start()
      const { sql, transact, wake, wakeups } = yield* Fiber.join(connecting)

      yield* sql`create table kept (id int primary key)`
      const woken = yield* Queue.unbounded<void>()
      yield* Effect.forkScoped(Stream.runForEach(wakeups("crash"), () => Queue.offer(woken, undefined)))
      yield* Queue.take(woken)
      yield* transact(sql`insert into kept values (1)`)

      yield* server.kill9
      const [down] = yield* Effect.all([Effect.flip(transact(sql`insert into kept values (2)`)), server.start()])
      assert.strictEqual(down._tag, "TransactionError")
      yield* transact(sql`insert into kept values (3)`).pipe(
        Effect.retry({ times: 50, schedule: Schedule.spaced("100 millis") })
      )
      assert.deepStrictEqual(yield* sql`select id from kept order by id`, [{ id: 1 }, { id: 3 }])
      yield* Effect.timeout(Queue.take(woken), "20 seconds")
      yield* wake("crash")
      yield* Effect.timeout(Queue.take(woken), "20 seconds")
    }), 60_000)

  it.effect("is reported while it is waited for", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      yield* server.stop
      const messages = yield* Queue.unbounded<string>()
      const recorder = Logger.make(({ message }) => Queue.offerUnsafe(messages, String(message)))
      const connecting = yield* connect({ url: server.url, startupTimeout: "20 seconds" }).pipe(
        Effect.provide(Logger.layer([recorder])),
        Effect.forkChild({ startImmediately: true })
      )
      const first = yield* Effect.timeout(Queue.take(messages), "3 seconds")
      assert.include(first, `No connection to PostgreSQL at 127.0.0.1:${server.port}`)
      assert.include(first, "ECONNREFUSED")
      assert.include(first, "Waiting 20s at most (STRATA_DATABASE_STARTUP_TIMEOUT)")
      assert.match(yield* Effect.timeout(Queue.take(messages), "10 seconds"), /, [56]s so far$/)
      yield* server.start()
      yield* Fiber.join(connecting)
    }), 60_000)

  it.effect("a crash of one backend resets all sessions, and transact runs again", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      const { sql, transact } = yield* connect({ url: server.url, transactionAttempts: 20 })
      yield* sql`create table once (id int)`
      let runs = 0
      yield* transact(Effect.gen(function*() {
        yield* sql`insert into once values (1)`
        if (runs++ > 0) return
        const [other] = yield* Effect.scoped(Effect.flatMap(
          sql.reserve,
          (connection) => connection.execute("select pg_backend_pid() as pid", [], undefined)
        ))
        yield* server.kill9Backend(other.pid)
        yield* Effect.orDie(sql`select pg_sleep(10)`)
      }))
      assert.isAtLeast(runs, 2)
      assert.deepStrictEqual(yield* sql`select id from once`, [{ id: 1 }])
    }), 60_000)

  it.effect("is refused without fsync or full page writes, which are named", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make({ settings: { fsync: "off", full_page_writes: "off" } })
      const error = yield* Effect.flip(Effect.scoped(connect({ url: server.url })))
      assert.strictEqual(error.reason._tag, "UnsafeDurability")
      assert.include(error.message, "fsync = off, full_page_writes = off")
      yield* connect({ url: server.url, allowDataLossOnCrash: true })
    }))
})
