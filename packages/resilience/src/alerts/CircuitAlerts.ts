/**
 * Alerts of circuits that are open, until they close.
 *
 * **When to use**
 *
 * Beside every breaker whose circuits somebody should know of: what it protects from has stopped to work, and calls are refused.
 *
 * **Details**
 *
 * One alert, `circuit_open`, for each circuit: a warning, and critical from the fourth opening in a row on, when half-open
 * probes have shown three times that nothing has become better. A circuit that is half-open still has its alert. One that somebody has
 * forced open has none: whoever did it knows.
 *
 * **Example** (Payments)
 *
 * ```ts
 * import * as Alerts from "@strata/resilience/alerts/Alerts"
 * import * as CircuitAlerts from "@strata/resilience/alerts/CircuitAlerts"
 * import { CircuitBreaker } from "@strata/resilience/breaker/CircuitBreaker"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * const layer = Layer.effectDiscard(Effect.flatMap(CircuitBreaker, CircuitAlerts.watch)).pipe(
 *   Layer.provide(Alerts.layerLog)
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { CircuitBreaker, Transition } from "../breaker/CircuitBreaker.ts"
import type * as Alert from "./Alert.ts"
import { Alerts } from "./Alerts.ts"

/**
 * Raises and resolves the alerts of a breaker's circuits, until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const watch = (breaker: CircuitBreaker["Service"]): Effect.Effect<void, never, Alerts | Scope.Scope> =>
  Effect.flatMap(Alerts, (alerts) =>
    breaker.transitions.pipe(
      Stream.runForEach((transition) => {
        switch (transition.to) {
          case "Open":
            return alerts.raise(alertOf(breaker.name, transition))
          case "HalfOpen":
            return Effect.void
          case "Closed":
          case "Disabled":
          case "ForcedOpen":
          case "MetricsOnly":
            return alerts.resolve(keyOf(breaker.name, transition.key))
        }
      }),
      Effect.forkScoped({ startImmediately: true }),
      Effect.asVoid
    ))

/** Openings in a row from which on an alert is critical. */
const critical = 3

const alertOf = (breaker: string, { attempt, counts, key, openFor, reason }: Transition): Alert.Alert => ({
  name: "circuit_open",
  key: keyOf(breaker, key),
  severity: attempt >= critical ? "critical" : "warning",
  summary: `Calls to ${key} are refused${openFor === undefined ? "" : ` for ${Duration.format(openFor)}`}: ` +
    `${counts.failures} of ${counts.calls} failed, ${counts.timeouts} of them by time-out, and ${counts.slow} were slow`,
  details: { breaker, circuit: key, reason, openings: attempt + 1 }
})

const keyOf = (breaker: string, circuit: string): string => `circuit_open/${breaker}/${circuit}`
