import { assert, describe, it } from "@effect/vitest"
import * as Fallback from "@strata/resilience/bounds/Fallback"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as Policy from "@strata/resilience/Policy"
import * as RetryBudget from "@strata/resilience/retry/RetryBudget"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"

const whole = Policy.make({
  name: "payments",
  deadline: "3 seconds",
  limits: [RateLimit.perUser],
  bulkhead: { limit: 20, queue: 5, maxWait: "200 millis", reserved: { acme: 2 } },
  breaker: { policy: CircuitPolicy.standard },
  retry: { policy: RetryPolicy.realtime, idempotent: true, budget: RetryBudget.allowance({}) },
  attempt: "1 second",
  fallback: { answer: Fallback.value(0) }
})

describe("a policy", () => {
  it("is one line, its parts in the order in which they apply", () => {
    assert.strictEqual(
      Policy.format(whole),
      "payments: deadline 3s → limit per-user: 100 in 1s, 200 at once, each user → " +
        "bulkhead 20 at once, 5 wait up to 200ms, 2 for acme → " +
        `breaker ${CircuitPolicy.format(CircuitPolicy.standard)} → ` +
        `retry ${RetryPolicy.format(RetryPolicy.realtime)}, idempotent, budget 10 and 0.1 for each success → ` +
        "each try 1s → or else a value"
    )
    assert.strictEqual(Policy.format(Policy.make({ name: "bare" })), "bare: nothing")
  })

  const contradictions: ReadonlyArray<[string, Policy.Parts<unknown, unknown, unknown, never>, string]> = [
    ["whose name is no label", { name: "Pay ments" }, "name: expected 1 to 64"],
    ["whose deadline never comes", { name: "p", deadline: "Infinity" }, "deadline: expected a finite time"],
    ["whose try has no time", { name: "p", attempt: 0 }, "attempt: expected a finite time"],
    [
      "whose try takes longer than all tries may",
      { name: "p", deadline: "1 second", attempt: "2 seconds" },
      "attempt: one try has 2s, all have 1s"
    ],
    [
      "that would wait for a place until the deadline",
      { name: "p", deadline: "1 second", bulkhead: {} },
      "bulkhead: maxWait is 1s, which leaves nothing of the deadline of 1s"
    ],
    ["whose bulkhead has no place", { name: "p", bulkhead: { limit: 0 } }, "bulkhead: limit must be"],
    [
      "whose probes are given up before a call may be",
      { name: "p", deadline: "1 minute", breaker: { policy: CircuitPolicy.standard } },
      "breaker: probeLease is 10s, but a call may take 1m"
    ],
    ["that asks one limit twice", { name: "p", limits: [RateLimit.global, RateLimit.global] }, "limits: one is named"],
    [
      "with a budget of retries it never makes",
      {
        name: "p",
        retry: {
          policy: RetryPolicy.make({ attempts: 1, base: "1 second", total: "1 second" }),
          budget: RetryBudget.allowance({})
        }
      },
      "retry: a budget of retries is given"
    ]
  ]
  for (const [what, parts, problem] of contradictions) {
    it(`${what} is refused, and the part is named`, () => {
      const result = Policy.makeResult(parts)
      assert.isTrue(Result.isFailure(result))
      if (Result.isFailure(result)) assert.include(result.failure.message, `cannot be used: ${problem}`)
      assert.throws(() => Policy.make(parts))
    })
  }
})

describe("the configuration of a policy", () => {
  const read = (env: Record<string, string>) =>
    Effect.provideService(
      Policy.config("PAYMENTS", whole),
      ConfigProvider.ConfigProvider,
      ConfigProvider.fromEnv({ env })
    )

  it.effect("leaves what is not set as it is", () =>
    Effect.gen(function*() {
      assert.strictEqual(Policy.format(yield* read({})), Policy.format(whole))
    }))

  it.effect("sets numbers of the parts there are", () =>
    Effect.gen(function*() {
      const policy = yield* read({
        PAYMENTS_DEADLINE: "2 seconds",
        PAYMENTS_ATTEMPT: "500 millis",
        PAYMENTS_BULKHEAD_LIMIT: "7",
        PAYMENTS_BULKHEAD_MAX_WAIT: "100 millis",
        PAYMENTS_BREAKER: `{"failureRate":0.25,"openDuration":"5 seconds"}`,
        PAYMENTS_RETRY_ATTEMPTS: "2"
      })
      assert.deepStrictEqual(policy.deadline, Duration.seconds(2))
      assert.deepStrictEqual(policy.bulkhead, {
        limit: 7,
        queue: 5,
        maxWait: Duration.millis(100),
        reserved: { acme: 2 }
      })
      assert.deepStrictEqual(
        [policy.breaker?.policy.failureRate, policy.breaker?.policy.openDuration, policy.breaker?.policy.timeoutRate],
        [0.25, Duration.seconds(5), 0.1]
      )
      assert.deepStrictEqual([policy.retry?.policy.attempts, policy.retry?.idempotent], [2, true])
    }))

  const nonsense: ReadonlyArray<[string, string, string]> = [
    ["PAYMENTS_DEADLINE", "100 millis", "attempt: one try has 1s, all have 100ms"],
    ["PAYMENTS_BULKHEAD_LIMIT", "1", "limit must be a whole number from 1 and not below 2"],
    ["PAYMENTS_BREAKER", `{"failureRat":0.25}`, "failureRat"],
    ["PAYMENTS_BREAKER", `{"failureRate":2}`, "failureRate"],
    ["PAYMENTS_RETRY_ATTEMPTS", "0", "PAYMENTS_RETRY"]
  ]
  for (const [variable, value, problem] of nonsense) {
    it.effect(`refuses ${variable}=${value}`, () =>
      Effect.gen(function*() {
        assert.include((yield* Effect.flip(read({ [variable]: value }))).message, problem)
      }))
  }
})
