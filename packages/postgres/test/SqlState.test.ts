import { assert, describe, it } from "@effect/vitest"
import * as SqlState from "@strata/postgres/SqlState"
import { CommitRefused, TransactionError } from "@strata/postgres/TransactionError"
import * as Cause from "effect/Cause"
import * as SqlError from "effect/sql/SqlError"

const server = (code: string, message = "refused") =>
  new SqlError.SqlError({
    reason: new SqlError.UnknownError({ cause: Object.assign(new Error(message), { code }), operation: "query" })
  })

const client = (operation: string, code = "ECONNRESET") =>
  new SqlError.SqlError({
    reason: new SqlError.ConnectionError({ cause: Object.assign(new Error("reset"), { code }), operation })
  })

const table: ReadonlyArray<readonly [code: string, SqlState.ErrorClass]> = [
  ["40001", "retryable"],
  ["40P01", "retryable"],
  ["55P03", "retryable"],
  ["57P01", "retryable"],
  ["57P02", "retryable"],
  ["57P03", "retryable"],
  ["53200", "retryable"],
  ["53300", "retryable"],
  ["53400", "retryable"],
  ["25P03", "retryable"],
  ["25006", "retryable"],
  ["26000", "retryable"],
  ["08001", "retryable"],
  ["08004", "retryable"],
  ["08000", "unknown-outcome"],
  ["08003", "unknown-outcome"],
  ["08006", "unknown-outcome"],
  ["08007", "unknown-outcome"],
  ["40003", "unknown-outcome"],
  ["53100", "disk-full"],
  ["23505", "conflict"],
  ["23P01", "conflict"],
  ["23503", "permanent"],
  ["23514", "permanent"],
  ["22001", "permanent"],
  ["42601", "permanent"],
  ["42501", "permanent"],
  ["28P01", "permanent"],
  ["57014", "permanent"],
  ["08P01", "permanent"],
  ["0A000", "permanent"],
  ["XX000", "permanent"]
]

describe("SqlState", () => {
  for (const [code, expected] of table) {
    it(`${code} is ${expected}`, () => {
      assert.strictEqual(SqlState.classify(server(code)), expected)
      assert.strictEqual(SqlState.codeOf(server(code)), code)
    })
  }

  it("a stale plan is retryable", () => {
    assert.strictEqual(SqlState.classify(server("0A000", "cached plan must not change result type")), "retryable")
    assert.strictEqual(
      SqlState.classify(server("0A000", "cannot access temporary or unlogged relations during recovery")),
      "retryable"
    )
  })

  it("a connection that was never made or had sent nothing is retryable, a broken one is unknown", () => {
    assert.strictEqual(SqlState.classify(client("connect", "ECONNREFUSED")), "retryable")
    assert.strictEqual(SqlState.classify(client("acquire")), "retryable")
    assert.strictEqual(SqlState.classify(client("query")), "unknown-outcome")
  })

  it("Node's codes are no SQLSTATE", () => {
    assert.isUndefined(SqlState.codeOf(client("query", "EPIPE")))
    assert.isUndefined(SqlState.codeOf(client("query", "ECONNRESET")))
  })

  it("the database error is found in what wraps it", () => {
    const error = server("40001")
    const wrapped = new TransactionError({ reason: new CommitRefused({ cause: { reason: { cause: error } } }) })
    assert.strictEqual(SqlState.sqlErrorOf(wrapped), error)
    assert.strictEqual(SqlState.classify(wrapped), "retryable")
    assert.strictEqual(SqlState.classify(new Error("none")), "permanent")
    assert.strictEqual(SqlState.classify(undefined), "permanent")
  })

  it("a cycle of causes ends", () => {
    const error: { cause?: unknown } = {}
    error.cause = error
    assert.strictEqual(SqlState.classify(error), "permanent")
  })

  it("a cause is transient when each of its failures and defects is", () => {
    const both = Cause.combine(Cause.fail(server("40001")), Cause.die(client("query")))
    assert.isTrue(SqlState.isTransient(both))
    assert.isFalse(SqlState.isTransient(Cause.combine(both, Cause.die(new Error("bug")))))
    assert.isFalse(SqlState.isTransient(Cause.interrupt()))
  })
})
