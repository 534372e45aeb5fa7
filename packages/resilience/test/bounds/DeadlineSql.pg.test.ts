import { assert, layer } from "@effect/vitest"
import { Postgres } from "@strata/postgres/Postgres"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as DeadlineSql from "@strata/resilience/bounds/DeadlineSql"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"

layer(PostgresTest.layer(), { excludeTestServices: true })("A transaction under a deadline", (it) => {
  it.effect("has its statements ended by the server in time, whatever the fiber does", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const slow = DeadlineSql.transact(sql`select pg_sleep(20)`, { reserve: "4800 millis" })
      const error = yield* Effect.flip(Deadline.within("5 seconds")(Effect.uninterruptible(slow)))
      assert.include(String(error), "SqlError")
      assert.strictEqual(error._tag === "SqlError" ? error.reason._tag : error._tag, "StatementTimeoutError")
    }))

  it.effect("leaves the time-out of the next transaction as it was, and is not begun too late", () =>
    Effect.gen(function*() {
      const { sql, transact } = yield* Postgres
      const timeout = sql<{ ms: string }>`select current_setting('statement_timeout') as ms`
      const [before] = yield* timeout
      const [during] = yield* Deadline.within("1500.5 millis")(DeadlineSql.transact(timeout))
      assert.match(during!.ms, /^(?:1500|14\d\d)ms$/)
      assert.deepStrictEqual(yield* transact(timeout), [before!])
      const late = Deadline.within("10 millis")(DeadlineSql.transact(timeout, { reserve: "1 second" }))
      assert.strictEqual((yield* Effect.flip(late))._tag, "DeadlineExceeded")
    }))
})
