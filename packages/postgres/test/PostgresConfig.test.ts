import { assert, describe, it } from "@effect/vitest"
import * as PostgresConfig from "@strata/postgres/PostgresConfig"
import * as PostgresTarget from "@strata/postgres/PostgresTarget"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"

const resolve = (url: string, options: PostgresConfig.PostgresOptions = {}) =>
  PostgresTarget.resolve({ url: Redacted.make(url), ...options })

const problem = (options: PostgresConfig.PostgresOptions) =>
  Effect.map(Effect.flip(PostgresTarget.resolve(options)), (error) => error.message)

const fromEnv = (env: Record<string, string>) =>
  PostgresConfig.config.pipe(
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))
  )

describe("PostgresConfig", () => {
  it.effect("needs nothing", () =>
    Effect.gen(function*() {
      const target = yield* PostgresTarget.resolve({})
      assert.strictEqual(target.server, "localhost:5432")
      assert.strictEqual(target.schema, "strata")
      assert.strictEqual(target.maxConnections, 10)
      assert.strictEqual(target.tls.mode, "prefer")
      assert.strictEqual(Duration.toSeconds(target.statementTimeout), 15)
      assert.strictEqual(Duration.toSeconds(target.socketTimeout), 20)
      assert.isFalse(target.allowDataLossOnCrash)
    }))

  it.effect("reads a URL as libpq does", () =>
    Effect.gen(function*() {
      const target = yield* resolve(
        "postgres://us%40er:p%2Fw@db.example:6543/my%20db?sslmode=verify-full&sslrootcert=/ca.pem&application_name=app" +
          "&connect_timeout=7&options=-c%20geqo%3Doff"
      )
      assert.strictEqual(target.username, "us@er")
      assert.strictEqual(Redacted.isRedacted(target.password) && Redacted.value(target.password), "p/w")
      assert.strictEqual(target.server, "db.example:6543")
      assert.strictEqual(target.database, "my db")
      assert.deepStrictEqual([target.tls.mode, target.tls.ca], ["verify-full", "/ca.pem"])
      assert.strictEqual(target.applicationName, "app")
      assert.strictEqual(Duration.toSeconds(target.connectTimeout), 7)
      assert.strictEqual(target.startupOptions, "-c geqo=off")
    }))

  it.effect("reads IPv6 hosts and directories of sockets, which are never encrypted", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* resolve("postgresql://[::1]:5433/db")).host, "::1")
      const socket = yield* resolve("postgresql:///db?host=/run/postgresql&sslmode=require")
      assert.strictEqual(socket.path, "/run/postgresql/.s.PGSQL.5432")
      assert.strictEqual(socket.tls.mode, "disable")
    }))

  it.effect("an option wins over the URL", () =>
    Effect.gen(function*() {
      const target = yield* resolve("postgresql://a:b@one/db?sslmode=disable", { host: "two", tls: "require" })
      assert.strictEqual(target.host, "two")
      assert.strictEqual(target.tls.mode, "require")
      assert.strictEqual(target.database, "db")
    }))

  it.effect("require with an authority verifies it, and allow prefers encryption", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* resolve("postgresql://h/d?sslmode=require&sslrootcert=/ca")).tls.mode, "verify-ca")
      assert.strictEqual((yield* resolve("postgresql://h/d?sslmode=allow")).tls.mode, "prefer")
      assert.isUndefined((yield* resolve("postgresql://h/d?sslmode=verify-full&sslrootcert=system")).tls.ca)
    }))

  it.effect("a value that cannot be is refused by its name, and no message repeats the URL", () =>
    Effect.gen(function*() {
      const secret = "postgresql://user:secret@host:99999999/db"
      for (
        const [options, expected] of [
          [{ url: Redacted.make(secret) }, "DATABASE_URL"],
          [{ url: Redacted.make("mysql://user:secret@host/db") }, "DATABASE_URL"],
          [{ url: Redacted.make("postgresql://user:secret%zz@host/db") }, "DATABASE_URL"],
          [{ url: Redacted.make("postgresql://host/db?sslmode=maybe") }, "sslmode"],
          [{ maxConnections: 0 }, "STRATA_DATABASE_POOL"],
          [{ maxConnections: 2, minConnections: 3 }, "STRATA_DATABASE_POOL_MIN"],
          [{ schema: "x".repeat(64) }, "STRATA_DATABASE_SCHEMA"],
          [{ statementTimeout: "30 seconds", socketTimeout: "20 seconds" }, "STRATA_DATABASE_SOCKET_TIMEOUT"],
          [{ lockTimeout: Duration.infinity }, "STRATA_DATABASE_LOCK_TIMEOUT"],
          [{ tlsCert: "/cert.pem" }, "STRATA_DATABASE_TLS_KEY"],
          [{ transactionAttempts: 1.5 }, "STRATA_DATABASE_TRANSACTION_ATTEMPTS"]
        ] as const
      ) {
        const message = yield* problem(options)
        assert.include(message, expected)
        assert.notInclude(message, "secret")
      }
    }))

  it.effect("no limit of statements is no limit of silence", () =>
    Effect.gen(function*() {
      const target = yield* PostgresTarget.resolve({ statementTimeout: 0 })
      assert.isTrue(Duration.isZero(target.socketTimeout))
    }))

  it.effect("the environment gives every option, and a wrong value is named", () =>
    Effect.gen(function*() {
      const options = yield* fromEnv({
        DATABASE_URL: "postgresql://host/db",
        STRATA_DATABASE_SCHEMA: "mine",
        STRATA_DATABASE_POOL: "4",
        STRATA_DATABASE_TLS: "verify-ca",
        STRATA_DATABASE_STATEMENT_TIMEOUT: "2 seconds",
        STRATA_ALLOW_DATA_LOSS_ON_CRASH: "true"
      })
      const target = yield* PostgresTarget.resolve(options)
      assert.strictEqual(target.host, "host")
      assert.strictEqual(target.schema, "mine")
      assert.strictEqual(target.maxConnections, 4)
      assert.strictEqual(target.tls.mode, "verify-ca")
      assert.strictEqual(Duration.toSeconds(target.statementTimeout), 2)
      assert.isTrue(target.allowDataLossOnCrash)
      for (const name of ["STRATA_DATABASE_POOL", "STRATA_DATABASE_TLS", "STRATA_DATABASE_LOCK_TIMEOUT"]) {
        assert.include(String(yield* Effect.flip(fromEnv({ [name]: "nonsense" }))), name)
      }
    }))
})
