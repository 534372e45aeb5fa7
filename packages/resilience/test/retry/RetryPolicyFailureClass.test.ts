import { assert, describe, it } from "@effect/vitest"
import {
  CommitRefused,
  ConnectionLost,
  OutcomeUnknown,
  TransactionError,
  Unavailable
} from "@strata/postgres/TransactionError"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as CircuitBreaker from "effect/persistence/CircuitBreaker"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as SqlError from "effect/sql/SqlError"

const server = (code: string) =>
  new SqlError.SqlError({
    reason: new SqlError.UnknownError({ cause: Object.assign(new Error("refused"), { code }), operation: "query" })
  })

const client = (operation: string) =>
  new SqlError.SqlError({
    reason: new SqlError.ConnectionError({
      cause: Object.assign(new Error("reset"), { code: "ECONNRESET" }),
      operation
    })
  })

class Wrapper extends Data.TaggedError("Wrapper")<{ readonly reason: object }> {}

describe("the class of", () => {
  const table: ReadonlyArray<readonly [what: string, error: unknown, expected: string]> = [
    ["a serialization failure", server("40001"), "transient"],
    ["a server that shuts down", server("57P01"), "transient"],
    ["a connection that could not be made", client("connect"), "transient"],
    ["a connection that broke under a statement", client("query"), "unknown outcome"],
    ["a unique violation", server("23505"), "conflict"],
    ["a full disk", server("53100"), "fatal"],
    ["a syntax error", server("42601"), "permanent"],
    [
      "a transaction without a connection",
      new TransactionError({ reason: new Unavailable({ cause: client("connect") }) }),
      "transient"
    ],
    [
      "a transaction that lost its connection before the commit",
      new TransactionError({ reason: new ConnectionLost({ cause: client("query") }) }),
      "transient"
    ],
    [
      "a commit without an answer, though the server said it shuts down",
      new TransactionError({ reason: new OutcomeUnknown({ cause: server("57P01") }) }),
      "unknown outcome"
    ],
    [
      "a commit that a time-out of ours refused",
      new TransactionError({ reason: new CommitRefused({ cause: new Cause.TimeoutError() }) }),
      "unknown outcome"
    ],
    [
      "a deadline that has passed",
      new Deadline.DeadlineExceeded({ allowed: Duration.seconds(1) }),
      "unknown outcome"
    ],
    ["a time-out", new Cause.TimeoutError("too late"), "unknown outcome"],
    [
      "a refusal by effect's rate limiter",
      new RateLimiter.RateLimiterError({
        reason: new RateLimiter.RateLimitExceeded({ retryAfter: Duration.seconds(2), key: "k", limit: 1, remaining: 0 })
      }),
      "throttled for 2s"
    ],
    [
      "a refusal by effect's circuit breaker",
      new CircuitBreaker.CircuitBreakerError({
        reason: new CircuitBreaker.CircuitOpen({ key: "k", retryAfter: Duration.minutes(1) })
      }),
      "throttled for 1m"
    ],
    ["a wrapper of a wrapper", new Wrapper({ reason: new Wrapper({ reason: server("40P01") }) }), "transient"],
    ["a number that is called retryAfter", { retryAfter: 5 }, "permanent"],
    ["an error nobody knows", new Error("?"), "permanent"],
    ["nothing at all", undefined, "permanent"]
  ]
  for (const [what, error, expected] of table) {
    it(`${what} is ${expected}`, () => assert.strictEqual(FailureClass.format(FailureClass.classify(error)), expected))
  }

  it("an error that is its own cause is permanent", () => {
    const error: { cause?: unknown } = {}
    error.cause = error
    assert.strictEqual(FailureClass.classify(error), FailureClass.permanent)
  })

  it("a negative time to wait is none", () => {
    assert.strictEqual(FailureClass.format(FailureClass.throttled("-1 seconds")), "throttled for 0")
  })

  it("a caller's own error is what the caller says, and of others what the default says", () => {
    const classify = FailureClass.extend<unknown>((error) => error === "busy" ? FailureClass.transient : undefined)
    assert.strictEqual(classify("busy"), FailureClass.transient)
    assert.strictEqual(classify("no"), FailureClass.permanent)
    assert.strictEqual(classify(server("23505")), FailureClass.conflict)
    const both = FailureClass.extend<unknown>((error) => error === "no" ? FailureClass.conflict : undefined, classify)
    assert.deepStrictEqual([both("no"), both("busy")], [FailureClass.conflict, FailureClass.transient])
  })

  it.effect("several failures is that of the worst, of a defect fatal, and an interruption has none", () =>
    Effect.sync(() => {
      const several = Cause.fromReasons<unknown>([
        ...Cause.fail(server("40001")).reasons,
        ...Cause.fail(server("23505")).reasons
      ])
      assert.strictEqual(FailureClass.classifyCause(several), FailureClass.conflict)
      const died = Cause.fromReasons<unknown>([...several.reasons, ...Cause.die(server("40001")).reasons])
      assert.strictEqual(FailureClass.classifyCause(died), FailureClass.fatal)
      assert.isUndefined(FailureClass.classifyCause(Cause.interrupt(1)))
    }))
})
