import * as NodeServices from "@effect/platform-node/NodeServices"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { assert, layer } from "@effect/vitest"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"

const query = (url: Redacted.Redacted, sql: string) =>
  Effect.scoped(
    Effect.flatMap(PgConnection.make({ url }), (connection) =>
      Effect.map(connection.query(sql), ({ rows }) => rows.map((row) => ({ ...row }))))
  )

/** The server refuses connections for a moment while it recovers. */
const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.retry(effect, { schedule: Schedule.spaced("20 millis"), times: 250 })

layer(NodeServices.layer, { excludeTestServices: true })("PrivatePostgres", (it) => {
  it.effect("takes settings, and others after a restart, on the same port", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make({ settings: { max_connections: "17" } })
      assert.deepStrictEqual(yield* query(server.url, "show max_connections"), [{ max_connections: "17" }])
      yield* server.stop
      yield* Effect.flip(query(server.url, "select 1"))
      yield* server.start({ max_connections: "19" })
      assert.deepStrictEqual(yield* query(server.url, "show max_connections"), [{ max_connections: "19" }])
    }))

  it.effect("is there again, with what was committed, after its postmaster was killed", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      yield* query(server.url, "create table kept as select 7 as n")
      const before = yield* server.pid
      yield* server.kill9
      yield* Effect.flip(query(server.url, "select 1"))
      yield* server.start()
      assert.notStrictEqual(yield* server.pid, before)
      assert.deepStrictEqual(yield* query(server.url, "select n from kept"), [{ n: 7 }])
    }))

  it.effect("recovers by itself when a backend is killed", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      const victim = yield* PgConnection.make({ url: server.url })
      const bystander = yield* PgConnection.make({ url: server.url })
      yield* server.kill9Backend(victim.processId)
      // The server takes a moment to notice.
      yield* Effect.flip(Effect.forever(bystander.query("select 1")))
      assert.deepStrictEqual(yield* eventually(query(server.url, "select 1 as one")), [{ one: 1 }])
    }))

  it.effect("commits although a proxy cuts the connection after COMMIT was sent", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      const proxy = yield* TcpProxy.make({ host: "127.0.0.1", port: server.port })
      yield* query(server.url, "create table event (n int)")
      yield* Effect.forkChild(
        proxy.cutWhen({ from: "client", matches: TcpProxy.contains("commit") }),
        { startImmediately: true }
      )
      const connection = yield* PgConnection.make({ url: proxy.through(server.url) })
      yield* connection.query("begin")
      yield* connection.query("insert into event values (1)")
      yield* Effect.flip(connection.query("commit"))
      const count = query(server.url, "select n from event").pipe(
        Effect.repeat({ until: (rows) => rows.length === 1, schedule: Schedule.spaced("20 millis") }),
        Effect.timeout("5 seconds")
      )
      assert.deepStrictEqual(yield* count, [{ n: 1 }])
    }))
})
