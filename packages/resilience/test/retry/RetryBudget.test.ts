import { assert, describe, it } from "@effect/vitest"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryBudget from "@strata/resilience/retry/RetryBudget"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"

const policy = RetryPolicy.make({ attempts: 100, kind: "fixed", base: "1 milli", total: "1 hour" })

/** A destination that answers as it is told, and counts its calls. */
const destination = (answer: { failure: FailureClass.FailureClass | undefined }) => {
  const counted = { calls: 0 }
  const call = Effect.suspend(() => {
    counted.calls++
    return answer.failure === undefined ? Effect.void : Effect.fail(answer.failure)
  })
  return { answer, counted, call }
}

const retry = (budget: RetryBudget.RetryBudget) =>
  RetryPolicy.retry<FailureClass.FailureClass>({ policy, budget, classify: (failure) => failure })

const finish = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    yield* TestClock.adjust("10 minutes")
    return yield* Fiber.join(fiber)
  })

describe("a retry budget", () => {
  it.effect("of ten tokens lets five failures be repeated, then none, and fifty successes give five tokens back", () =>
    Effect.gen(function*() {
      const budget = yield* RetryBudget.make()
      const { answer, call, counted } = destination({ failure: FailureClass.transient })
      yield* finish(retry(budget)(call))
      assert.strictEqual(counted.calls, 1 + 5)
      yield* finish(retry(budget)(call))
      assert.strictEqual(counted.calls, 1 + 5 + 1)

      const before = yield* budget.tokens
      assert.strictEqual(before, 3)
      answer.failure = undefined
      yield* Effect.forEach(Arr.range(1, 50), () => retry(budget)(call))
      assert.strictEqual(yield* budget.tokens, before + 5)

      answer.failure = FailureClass.transient
      counted.calls = 0
      yield* finish(retry(budget)(call))
      assert.strictEqual(counted.calls, 1 + 3)
    }))

  it.effect("is shared by all who call the destination", () =>
    Effect.gen(function*() {
      const budget = yield* RetryBudget.make()
      const { call, counted } = destination({ failure: FailureClass.transient })
      yield* finish(Effect.all(Arr.makeBy(100, () => Effect.exit(retry(budget)(call))), { concurrency: "unbounded" }))
      assert.strictEqual(counted.calls, 100 + 5)
    }))

  it.effect("pays for what may pass, and for nothing else", () =>
    Effect.gen(function*() {
      for (
        const [failure, tokens] of [
          [FailureClass.transient, 9],
          [FailureClass.throttled("2 hours"), 9],
          [FailureClass.conflict, 9],
          [FailureClass.unknownOutcome, 9],
          [FailureClass.permanent, 10],
          [FailureClass.fatal, 10]
        ] as const
      ) {
        const budget = yield* RetryBudget.make()
        const { call } = destination({ failure })
        yield* finish(RetryPolicy.retry(call, { policy: { ...policy, attempts: 1 }, budget, classify: () => failure }))
        assert.strictEqual(yield* budget.tokens, tokens, failure._tag)
      }
    }))

  it.effect("pays for the failures of a layer that does not retry, since one above does", () =>
    Effect.gen(function*() {
      const budget = yield* RetryBudget.make()
      const { answer, call, counted } = destination({ failure: FailureClass.transient })
      const above = RetryPolicy.retry<FailureClass.FailureClass>({
        policy: { ...policy, attempts: 3 },
        classify: (failure) => failure
      })
      yield* finish(above(retry(budget)(call)))
      assert.deepStrictEqual([counted.calls, yield* budget.tokens], [3, 7])
      answer.failure = undefined
      yield* finish(above(retry(budget)(call)))
      assert.strictEqual(yield* budget.tokens, 7.1)
    }))

  it.effect("is what its definition says, whatever comes in which order", () =>
    Effect.gen(function*() {
      const budget = yield* RetryBudget.make(RetryBudget.allowance({ max: 7, ratio: 0.25 }))
      let tokens = 7
      for (let n = 0; n < 10_000; n++) {
        if (yield* Random.nextBoolean) {
          yield* budget.succeeded
          tokens = Math.min(7, tokens + 0.25)
        } else {
          assert.strictEqual(yield* budget.failed, tokens > 3.5)
          tokens = Math.max(0, tokens - 1)
        }
        assert.strictEqual(yield* budget.tokens, tokens)
      }
    }).pipe(Random.withSeed("a retry budget")))

  for (const [field, value] of [["max", 0], ["max", 1001], ["max", 2.5], ["ratio", 0], ["ratio", 1.1]] as const) {
    it.effect(`with ${field} = ${value} is refused by the name of the field`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Schema.decodeEffect(RetryBudget.Allowance)({ [field]: value }))
        assert.include(error.message, `["${field}"]`)
      }))
  }
})

describe("the retry budgets of a process", () => {
  it.effect("are one for each destination", () =>
    Effect.gen(function*() {
      const budgets = yield* RetryBudget.RetryBudgets
      yield* (yield* budgets.of("rates")).failed
      assert.strictEqual(yield* (yield* budgets.of("rates")).tokens, 9)
      assert.strictEqual(yield* (yield* budgets.of("mail")).tokens, 10)
    }).pipe(Effect.provide(RetryBudget.RetryBudgets.layer())))

  it.effect("are no more than there is room for: the one not asked for the longest starts again", () =>
    Effect.gen(function*() {
      const budgets = yield* RetryBudget.RetryBudgets
      for (const name of ["a", "b"]) yield* (yield* budgets.of(name)).failed
      yield* budgets.of("a")
      yield* budgets.of("c")
      assert.strictEqual(yield* (yield* budgets.of("a")).tokens, 9)
      assert.strictEqual(yield* (yield* budgets.of("b")).tokens, 10)
    }).pipe(Effect.provide(RetryBudget.RetryBudgets.layer({ capacity: 2 }))))
})
