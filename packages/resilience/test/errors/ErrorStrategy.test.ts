import { assert, describe, it } from "@effect/vitest"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as ErrorAction from "@strata/resilience/errors/ErrorAction"
import type * as ErrorDecision from "@strata/resilience/errors/ErrorDecision"
import * as ErrorStrategy from "@strata/resilience/errors/ErrorStrategy"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

const { alert, andThen, circuitBreaker, deadLetter, ignore, retry, stop } = ErrorAction

const policy = RetryPolicy.make({ attempts: 3, base: "1 second", total: "1 minute", jitter: "none" })

const classes: ReadonlyArray<FailureClass.FailureClass> = [
  FailureClass.transient,
  FailureClass.throttled("2 seconds"),
  FailureClass.conflict,
  FailureClass.unknownOutcome,
  FailureClass.permanent,
  FailureClass.fatal
]

const at = Timestamp.fromMillis(1_000_000)

const decide = (
  strategy: ErrorStrategy.ErrorStrategy,
  failure: FailureClass.FailureClass,
  failed: Partial<ErrorDecision.Failed> = {}
) => ErrorStrategy.decide(strategy, { failure, attempt: 1, random: 1, firstAt: at, now: at, ...failed })

/** The standard strategy, with another action for one class. */
const withAction = (field: keyof ErrorStrategy.Actions, action: ErrorAction.ErrorAction) =>
  ErrorStrategy.make({ ...ErrorStrategy.standard, [field]: action })

describe("a strategy is refused", () => {
  const table: ReadonlyArray<
    readonly [what: string, field: keyof ErrorStrategy.Actions, action: ErrorAction.ErrorAction, message: string]
  > = [
    [
      "when something follows ignore",
      "permanent",
      pipe(ignore, andThen(deadLetter())),
      "step 2 of permanent: deadLetter comes after ignore, after which only alert may come"
    ],
    [
      "when something follows deadLetter, behind an alert too",
      "permanent",
      pipe(deadLetter(), andThen(alert("info")), andThen(circuitBreaker("a"))),
      "step 3 of permanent: circuitBreaker comes after deadLetter, after which only alert may come"
    ],
    [
      "when retry is not its first step",
      "transient",
      pipe(alert("info"), andThen(retry(policy))),
      "step 2 of transient: retry comes after alert: it must come first"
    ],
    [
      "when it has two retries",
      "transient",
      pipe(retry(policy), andThen(retry(policy))),
      "step 2 of transient: retry comes after retry: it must come first"
    ],
    [
      "when it tries again what is permanent",
      "permanent",
      retry(policy),
      "step 1 of permanent: retry does nothing about what fails the same way every time"
    ],
    [
      "when it tries again what is fatal",
      "fatal",
      retry(policy),
      "step 1 of fatal: retry does nothing about what fails the same way every time"
    ],
    [
      "when a class has no step",
      "conflict",
      [],
      "step 1 of conflict: there is no step: say ignore where nothing is to be done"
    ],
    [
      "when a failure would count in two circuits",
      "transient",
      pipe(circuitBreaker("a"), andThen(circuitBreaker("b"))),
      "step 2 of transient: circuitBreaker is there already: a failure counts in one circuit"
    ],
    ["when a circuit has no key", "throttled", circuitBreaker(""), "step 1 of throttled: circuitBreaker has no key"],
    [
      "when it alerts twice",
      "unknownOutcome",
      pipe(alert("info"), andThen(alert("critical"))),
      "step 2 of unknownOutcome: alert is there already: one is enough"
    ]
  ]
  for (const [what, field, action, message] of table) {
    it(what, () => {
      const found = withAction(field, action)
      assert.strictEqual(
        Result.isFailure(found) ? found.failure.message : "no error",
        `The error strategy cannot be used: ${message}`
      )
    })
  }
})

describe("a strategy", () => {
  it("has an action for every class by default, and is one line to read", () => {
    assert.strictEqual(
      ErrorStrategy.format(ErrorStrategy.standard),
      "transient, throttled, conflict, unknownOutcome: retry (5 tries, waits 1s × 2, full jitter, 30s in total), " +
        "then dead letter, then alert (warning); permanent: dead letter, then alert (warning); " +
        "fatal: stop, then alert (critical)"
    )
  })

  it("writes its circuits, reasons and everything else down", () => {
    const action = pipe(circuitBreaker("payments"), andThen(deadLetter("refused")))
    assert.strictEqual(ErrorAction.format(action), "circuit \"payments\", then dead letter (refused)")
    assert.strictEqual(ErrorAction.format(ignore), "ignore")
  })
})

describe("what is decided", () => {
  it("is another try as long as the policy has one, at the time it gives", () => {
    const strategy = Result.getOrThrow(withAction("transient", retry(policy)))
    for (const attempt of [1, 2, 3, 4]) {
      const failed = { failure: FailureClass.transient, attempt, random: 1, firstAt: at, now: at }
      const decision = ErrorStrategy.decide(strategy, failed)
      const next = RetryPolicy.nextAttempt(policy, failed)
      assert.strictEqual(
        decision._tag === "Retry" ? Duration.toMillis(decision.delay) : undefined,
        {
          1: 1000,
          2: 2000
        }[attempt]
      )
      assert.strictEqual(decision._tag === "Retry", Option.isSome(next))
      if (decision._tag === "Retry") {
        assert.strictEqual(decision.at, at + BigInt(1000 * Duration.toMillis(decision.delay)))
      }
    }
  })

  it("is no try that would begin too late for the policy or for a deadline", () => {
    const now = Timestamp.fromMicros(at + 59_500_000n)
    const strategy = Result.getOrThrow(withAction("transient", retry(policy)))
    assert.strictEqual(decide(strategy, FailureClass.transient, { now })._tag, "Stop")
    assert.strictEqual(decide(strategy, FailureClass.transient, { remaining: Duration.millis(900) })._tag, "Stop")
    assert.strictEqual(decide(strategy, FailureClass.transient, { remaining: Duration.millis(1100) })._tag, "Retry")
  })

  it("by default is a dead letter with a warning after the last try", () => {
    assert.deepStrictEqual(decide(ErrorStrategy.standard, FailureClass.transient, { attempt: 5 }), {
      _tag: "DeadLetter",
      reason: "transient, after 5 tries",
      alerts: ["warning"]
    })
  })

  it("by default is a dead letter at once for what is permanent, and to stop for what is fatal", () => {
    assert.deepStrictEqual(decide(ErrorStrategy.standard, FailureClass.permanent), {
      _tag: "DeadLetter",
      reason: "permanent, after 1 try",
      alerts: ["warning"]
    })
    assert.deepStrictEqual(decide(ErrorStrategy.standard, FailureClass.fatal), { _tag: "Stop", alerts: ["critical"] })
  })

  it("is another try of an unknown outcome only for what is idempotent", () => {
    const { unknownOutcome } = FailureClass
    assert.strictEqual(decide(ErrorStrategy.standard, unknownOutcome)._tag, "DeadLetter")
    assert.strictEqual(decide(ErrorStrategy.standard, unknownOutcome, { idempotent: true })._tag, "Retry")
  })

  it("is to go on where an alert is the last step, and to give back where there is no end at all", () => {
    const told = Result.getOrThrow(withAction("permanent", alert("info")))
    assert.deepStrictEqual(decide(told, FailureClass.permanent), { _tag: "Ignore", alerts: ["info"] })
    const counted = Result.getOrThrow(withAction("permanent", circuitBreaker("a")))
    assert.deepStrictEqual(decide(counted, FailureClass.permanent), { _tag: "Stop", alerts: [] })
  })

  it("is to postpone what was refused before it began, up to half as long again as was asked, for ever", () => {
    for (const [random, millis] of [[0, 2000], [1, 3000]] as const) {
      const decision = decide(ErrorStrategy.standard, FailureClass.throttled("2 seconds"), {
        begun: false,
        attempt: 1_000_000,
        random
      })
      assert.strictEqual(decision._tag, "Postpone")
      assert.strictEqual("delay" in decision ? Duration.toMillis(decision.delay) : undefined, millis)
    }
  })

  it("is that of any failure for a refusal that never ends", () => {
    const decision = decide(ErrorStrategy.standard, FailureClass.throttled(Duration.infinity), { begun: false })
    assert.strictEqual(decision._tag, "DeadLetter")
  })

  it("is to put poison aside whatever its class, unless it is ignored anyway", () => {
    const poison = { _tag: "TooManyAttempts", attempts: 3 } as const
    const strategy = Result.getOrThrow(
      ErrorStrategy.make({ ...ErrorStrategy.standard, permanent: ignore, conflict: stop })
    )
    const reason = "poison: 3 attempts began and none succeeded"
    for (const failure of classes) {
      const decision = decide(strategy, failure, { poison })
      if (failure._tag === "Permanent") assert.strictEqual(decision._tag, "Ignore")
      else assert.strictEqual(decision._tag === "DeadLetter" ? decision.reason : decision._tag, reason)
    }
  })

  it("names the reason that was asked for", () => {
    const strategy = Result.getOrThrow(withAction("permanent", deadLetter("card refused")))
    const decision = decide(strategy, FailureClass.permanent)
    assert.strictEqual(decision._tag === "DeadLetter" ? decision.reason : undefined, "card refused")
  })

  const Attempt = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 12 })))
  const Random = Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1 })))
  const Micros = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 60_000_000 })))
  it.effect.prop(
    "is an end once the tries or the time of the policy are over, for every class",
    [Attempt, Random, Micros],
    ([attempt, random, elapsed]) =>
      Effect.sync(() => {
        for (const failure of classes) {
          const now = Timestamp.fromMicros(at + BigInt(elapsed))
          const decision = decide(ErrorStrategy.standard, failure, { attempt, random, now, idempotent: true })
          if (decision._tag !== "Retry") continue
          assert.isBelow(attempt, RetryPolicy.standard.attempts)
          assert.isBelow(elapsed / 1000 + Duration.toMillis(decision.delay), 30_000)
          assert.isTrue(decision.at >= now)
        }
      }),
    { arbitrary: { runs: 500 } }
  )

  it("is made of the same waits for what is stored as for what waits in the process", () => {
    let now = at
    const waits = Arr.unfold(1, (attempt) => {
      const decision = decide(ErrorStrategy.standard, FailureClass.transient, { attempt, now, random: 0.5 })
      if (decision._tag !== "Retry") return Option.none()
      now = decision.at
      return Option.some([Duration.toMillis(decision.delay), attempt + 1] as const)
    })
    assert.deepStrictEqual(waits, [500, 1000, 2000, 4000])
  })
})
