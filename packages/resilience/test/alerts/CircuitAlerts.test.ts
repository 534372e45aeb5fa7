import { assert, describe, it } from "@effect/vitest"
import * as Alert from "@strata/resilience/alerts/Alert"
import * as AlertChannel from "@strata/resilience/alerts/AlertChannel"
import * as Alerts from "@strata/resilience/alerts/Alerts"
import * as CircuitAlerts from "@strata/resilience/alerts/CircuitAlerts"
import { CircuitBreaker } from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitBreakers from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"

const policy = CircuitPolicy.make({
  minimumCalls: 2,
  halfOpenShare: 1,
  halfOpenCalls: 2,
  halfOpenMinimumCalls: 1,
  openDuration: "1 minute",
  openFactor: 1
})

const Breaker = CircuitBreakers.layer({ name: "payments", policy }).pipe(Layer.provide(CircuitStore.layerMemory()))

const watching = <E>(test: Effect.Effect<void, E, CircuitBreaker | Alerts.Alerts | AlertChannel.Memory>) =>
  Effect.provide(
    test,
    Layer.effectDiscard(Effect.flatMap(CircuitBreaker, CircuitAlerts.watch)).pipe(
      Layer.provideMerge(Layer.merge(Layer.fresh(Breaker), Layer.fresh(Alerts.layerMemory)))
    )
  )

const told = Effect.flatMap(
  AlertChannel.Memory,
  ({ notifications }) => Effect.map(notifications, (notifications) => notifications.map(Alert.format))
)

const call = (result: Effect.Effect<void, string>) =>
  Effect.flatMap(CircuitBreaker, ({ execute }) => Effect.exit(execute(result, { key: "bank" })))

/** So that who watches sees what happened. */
const seen = TestClock.adjust(0)

describe("the alert of a circuit", () => {
  it.effect("is there from its opening until it closes", () =>
    watching(Effect.gen(function*() {
      yield* call(Effect.fail("no"))
      yield* call(Effect.fail("no"))
      yield* seen
      yield* TestClock.adjust("1 minute")
      yield* call(Effect.void)
      const { active } = yield* Alerts.Alerts
      assert.strictEqual((yield* active).length, 1)
      yield* call(Effect.void)
      yield* seen
      assert.deepStrictEqual(yield* told, [
        "WARNING circuit_open: Calls to bank are refused for 1m: 2 of 2 failed, 0 of them by time-out, and 0 were slow",
        "RESOLVED circuit_open: Calls to bank are refused for 1m: 2 of 2 failed, 0 of them by time-out, and 0 were slow"
      ])
    })))

  it.effect("is critical when the circuit has opened four times in a row", () =>
    watching(Effect.gen(function*() {
      for (let opening = 0; opening < 4; opening++) {
        yield* call(Effect.fail("no"))
        yield* call(Effect.fail("no"))
        yield* TestClock.adjust("1 minute")
      }
      const { active } = yield* Alerts.Alerts
      assert.deepStrictEqual((yield* active).map(({ details, severity }) => [severity, details["openings"]]), [
        ["critical", 4]
      ])
    })))

  it.effect("is not raised by who forces the circuit open", () =>
    watching(Effect.gen(function*() {
      const { forceOpen } = yield* CircuitBreaker
      yield* forceOpen("bank", { actor: "ada" })
      yield* seen
      const { active } = yield* Alerts.Alerts
      assert.deepStrictEqual(yield* active, [])
    })))
})
