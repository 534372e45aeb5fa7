import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as PostgresLayer from "@strata/postgres/Postgres"
import type { PostgresOptions } from "@strata/postgres/PostgresConfig"
import type { PostgresError } from "@strata/postgres/PostgresError"
import * as SqlState from "@strata/postgres/SqlState"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Redacted from "effect/Redacted"

/** The service of another pool on the database of the test. */
const connect = Effect.fnUntraced(function*(options: PostgresOptions) {
  const url = yield* PostgresTest.url
  return Context.get(yield* Layer.build(PostgresLayer.layer({ url, ...options })), Postgres)
})

const refusal = (options: PostgresOptions) =>
  Effect.map(Effect.flip(Effect.scoped(connect(options))), (error: PostgresError) => error.reason)

layer(PostgresTest.layer(), { excludeTestServices: true })("Postgres.layer", (it) => {
  it.effect("gives every session its search path, time zone, isolation level, timeouts and name", () =>
    Effect.gen(function*() {
      yield* (yield* Postgres).sql`
        do $$ begin
          execute format('alter database %I set default_transaction_isolation = ''serializable''', current_database());
        end $$`
      const { schema, sql } = yield* connect({
        schema: "Odd \"name",
        statementTimeout: "7 seconds",
        lockTimeout: "2 seconds",
        idleInTransactionTimeout: "3 seconds",
        applicationName: "named"
      })
      yield* sql`create schema ${sql(schema)}`
      assert.deepStrictEqual(
        yield* sql`
          select
            current_schema() as schema, current_setting('search_path') as path, current_setting('timezone') as zone,
            current_setting('transaction_isolation') as isolation,
            current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock,
            current_setting('idle_in_transaction_session_timeout') as idle, current_setting('application_name') as name
        `,
        [{
          schema: "Odd \"name",
          path: "\"Odd \"\"name\", public",
          zone: "UTC",
          isolation: "read committed",
          statement: "7s",
          lock: "2s",
          idle: "3s",
          name: "named"
        }]
      )
    }))

  it.effect("an exhausted pool fails in bounded time, and says why", () =>
    Effect.gen(function*() {
      const { sql, transact } = yield* connect({ maxConnections: 2, acquireTimeout: "200 millis" })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Effect.replicateEffect(sql.reserve, 2)
        const [took, error] = yield* Effect.timed(Effect.flip(sql`select 1`))
        assert.isBelow(Duration.toMillis(took), 1_000)
        assert.include(error.message, "all 2 of the pool are in use")
        assert.strictEqual(SqlState.classify(error), "retryable")
        const [tookToBegin, refused] = yield* Effect.timed(Effect.flip(transact(sql`select 1`)))
        assert.isBelow(Duration.toMillis(tookToBegin), 1_000)
        assert.isTrue(refused._tag === "TransactionError" && refused.reason._tag === "Unavailable")
      }))
      yield* sql`select 1`
    }))

  it.effect("who waits for a connection gets the next one, and an interrupted waiter takes none", () =>
    Effect.gen(function*() {
      const { sql } = yield* connect({ maxConnections: 1, acquireTimeout: "10 seconds" })
      const held = yield* Deferred.make<void>()
      const release = yield* Deferred.make<void>()
      const holder = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
        yield* sql.reserve
        yield* Deferred.succeed(held, undefined)
        yield* Deferred.await(release)
      })))
      yield* Deferred.await(held)
      const interrupted = yield* Effect.forkChild(sql`select 1`, { startImmediately: true })
      const waiting = yield* Effect.forkChild(sql`select 2 as two`, { startImmediately: true })
      yield* Fiber.interrupt(interrupted)
      yield* Deferred.succeed(release, undefined)
      assert.deepStrictEqual(yield* Fiber.join(waiting), [{ two: 2 }])
      yield* Fiber.join(holder)
      yield* Effect.replicateEffect(sql`select 1`, 3, { concurrency: 3 })
    }))

  it.effect("connections are replaced after their time to live and after a loss", () =>
    Effect.gen(function*() {
      const { sql } = yield* connect({ maxConnections: 1, connectionTTL: "1 millis" })
      const pid = Effect.map(sql<{ readonly pid: number }>`select pg_backend_pid() as pid`, (rows) => rows[0]?.pid)
      const first = yield* pid
      yield* Effect.sleep("5 millis")
      assert.notStrictEqual(yield* pid, first)
      const lost = yield* Effect.flip(sql`select pg_terminate_backend(pg_backend_pid())`)
      assert.strictEqual(SqlState.classify(lost), "unknown-outcome")
      yield* sql`select 1`
    }))

  it.effect("a role without synchronous commits is refused, unless the loss is accepted", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const { database } = yield* PostgresTest
      const role = `${database}_lossy`
      yield* Effect.acquireRelease(
        sql`create role ${sql(role)} login superuser password 'lossy'`,
        () => Effect.orDie(sql`drop role ${sql(role)}`)
      )
      yield* sql`alter role ${sql(role)} set synchronous_commit = off`
      const login = { username: role, password: Redacted.make("lossy") }
      const reason = yield* refusal(login)
      assert.strictEqual(reason._tag, "UnsafeDurability")
      assert.include(reason.message, "synchronous_commit = off")
      assert.include(reason.message, "STRATA_ALLOW_DATA_LOSS_ON_CRASH")
      yield* Effect.scoped(connect({ ...login, allowDataLossOnCrash: true }))
    }))

  it.effect("refuses a wrong password at once, and waits for a server only as long as it may", () =>
    Effect.gen(function*() {
      const wrong = yield* refusal({ password: Redacted.make("wrong") })
      assert.strictEqual(wrong._tag, "NotReachable")
      assert.include(wrong.message, "password authentication failed")
      const [took, absent] = yield* Effect.timed(
        refusal({ host: "127.0.0.1", port: 1, startupTimeout: "300 millis" })
      )
      assert.strictEqual(absent._tag, "NotReachable")
      assert.include(absent.message, "127.0.0.1:1")
      assert.isBelow(Duration.toMillis(took), 3_000)
    }))

  it.effect("takes its options from the environment", () =>
    Effect.gen(function*() {
      const url = Redacted.value(yield* PostgresTest.url)
      const build = (env: Record<string, string>) =>
        Layer.build(Layer.fresh(PostgresLayer.layerConfig)).pipe(
          Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))
        )
      const context = yield* build({ DATABASE_URL: url, STRATA_DATABASE_SCHEMA: "other", STRATA_DATABASE_POOL: "2" })
      assert.strictEqual(Context.get(context, Postgres).schema, "other")
      const error = yield* Effect.flip(build({ DATABASE_URL: url, STRATA_DATABASE_TLS: "maybe" }))
      assert.include(String(error), "STRATA_DATABASE_TLS")
    }))

  it.effect("measures its pool, its statements and its transactions", () =>
    Effect.gen(function*() {
      const registry: Metric.MetricRegistry = new Map()
      yield* Effect.gen(function*() {
        const { sql, transact } = yield* connect({ applicationName: "measured", maxConnections: 3 })
        yield* sql`create table measured (id int primary key)`
        yield* transact(sql`insert into measured values (1)`)
        yield* Effect.ignore(transact(sql`insert into measured values (1)`))
        yield* Effect.scoped(Effect.andThen(
          sql.reserve,
          Effect.sync(() => {
            const values = Object.fromEntries(
              Metric.snapshotUnsafe(Context.make(Metric.MetricRegistry, registry)).map((series) => {
                const { pool, ...labels } = series.attributes ?? {}
                assert.strictEqual(pool, "measured")
                const state = series.state
                return [
                  `${series.id}${Object.values(labels).map((label) => `:${label}`).join("")}`,
                  "value" in state ? Number(state.value) : "count" in state ? Number(state.count) : undefined
                ]
              })
            )
            assert.strictEqual(values["strata_postgres_pool_connections_max"], 3)
            assert.strictEqual(values["strata_postgres_pool_connections_in_use"], 1)
            assert.strictEqual(values["strata_postgres_pool_waiting"], 0)
            assert.isAtLeast(values["strata_postgres_pool_connections_open"] ?? 0, 1)
            assert.strictEqual(values["strata_postgres_transactions_total:committed"], 1)
            assert.strictEqual(values["strata_postgres_transactions_total:rolled_back"], 1)
            assert.strictEqual(values["strata_postgres_query_errors_total:conflict"], 1)
            assert.strictEqual(values["strata_postgres_query_seconds"], 7)
            assert.strictEqual(values["strata_postgres_pool_acquire_seconds"], 4)
          })
        ))
      }).pipe(Effect.scoped, Effect.provideService(Metric.MetricRegistry, registry))
    }))
})
