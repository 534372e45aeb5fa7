/**
 * What a circuit breaker measures, through `effect/Metric`.
 *
 * **Details**
 *
 * | name | kind | labels |
 * | --- | --- | --- |
 * | `strata_circuit_calls_total` | counter | `outcome`: success, failure, timed_out, ignored, late, rejected, unrecorded |
 * | `strata_circuit_call_seconds` | histogram: of calls that ran | |
 * | `strata_circuit_transitions_total` | counter | `from`, `to`, `reason` |
 * | `strata_circuit_thresholds_exceeded_total` | counter | `reason` |
 * | `strata_circuit_circuits` | gauge: circuits this breaker moved there and that are still there | `state`: all but Closed |
 *
 * Every series also has `breaker`, the name of the breaker. Keys are no labels, since there may be one for each tenant or host:
 * the state and the rates of one circuit are in `CircuitBreaker.status`.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type * as CircuitState from "./CircuitState.ts"

/**
 * What became of a call.
 *
 * @category models
 * @since 0.1.0
 */
export type CallOutcome = "success" | "failure" | "timed_out" | "ignored" | "late" | "rejected" | "unrecorded"

/**
 * Where one breaker records.
 *
 * @category models
 * @since 0.1.0
 */
export interface CircuitMetrics {
  readonly called: (outcome: CallOutcome) => void
  readonly took: (millis: number) => void
  readonly told: (event: CircuitState.Event) => void
}

const calls = Metric.counter("strata_circuit_calls_total", {
  description: "Calls through a circuit, and those it rejected",
  incremental: true
})
const callSeconds = Metric.histogram("strata_circuit_call_seconds", {
  description: "Time of the calls that ran",
  boundaries: Metric.exponentialBoundaries({ start: 0.0001, factor: 4, count: 10 })
})
const transitions = Metric.counter("strata_circuit_transitions_total", {
  description: "Changes of a circuit's state",
  incremental: true
})
const exceeded = Metric.counter("strata_circuit_thresholds_exceeded_total", {
  description: "Rates that were reached",
  incremental: true
})
const circuits = Metric.gauge("strata_circuit_circuits", {
  description: "Circuits in a state other than Closed"
})

/**
 * The series of one breaker.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (breaker: string, context: Context.Context<never>): CircuitMetrics => {
  const callsOf = (outcome: CallOutcome) => Metric.withAttributes(calls, { breaker, outcome })
  const byOutcome: Readonly<Record<CallOutcome, Metric.Counter<number>>> = {
    success: callsOf("success"),
    failure: callsOf("failure"),
    timed_out: callsOf("timed_out"),
    ignored: callsOf("ignored"),
    late: callsOf("late"),
    rejected: callsOf("rejected"),
    unrecorded: callsOf("unrecorded")
  }
  const seconds = Metric.withAttributes(callSeconds, { breaker })
  const inState = new Map<CircuitState.Phase["_tag"], number>()

  const move = (state: CircuitState.Phase["_tag"], by: 1 | -1) => {
    if (state === "Closed") return
    const count = Math.max(0, (inState.get(state) ?? 0) + by)
    inState.set(state, count)
    Metric.withAttributes(circuits, { breaker, state }).updateUnsafe(count, context)
  }

  return {
    called: (outcome) => byOutcome[outcome].updateUnsafe(1, context),
    took: (millis) => seconds.updateUnsafe(millis / 1000, context),
    told: (event) => {
      if (event._tag === "ThresholdExceeded") {
        Metric.withAttributes(exceeded, { breaker, reason: event.reason }).updateUnsafe(1, context)
        return
      }
      const { from, reason, to } = event
      Metric.withAttributes(transitions, { breaker, from, to, reason }).updateUnsafe(1, context)
      move(from, -1)
      move(to, 1)
    }
  }
}
