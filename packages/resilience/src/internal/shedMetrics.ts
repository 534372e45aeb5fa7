/** What load shedding measures. Offered and shed stand side by side, since what was shed is not seen in what was done. */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Priority from "../scheduling/Priority.ts"
import type * as Pressure from "../shedding/Pressure.ts"
import type * as ShedLadder from "../shedding/ShedLadder.ts"
import * as Observed from "./observed.ts"

/** A counter for each class. */
type Counters = Readonly<Record<Priority.Priority, Metric.Counter<number>>>

const counters = (name: string, description: string): Counters => {
  const counter = Metric.counter(name, { description, incremental: true })
  const of = (priority: Priority.Priority) => Metric.withAttributes(counter, { class: priority })
  return { P0: of("P0"), P1: of("P1"), P2: of("P2"), P3: of("P3") }
}

/** Registers the gauges until the scope closes. */
export const make = Effect.fnUntraced(function*(
  sensors: ReadonlyArray<string>,
  read: { readonly load: () => Pressure.Load; readonly stand: () => ShedLadder.State }
) {
  const { gauge } = Observed
  yield* gauge("strata_load", { description: "Load: 1 is saturation" }, () => read.load().value)
  yield* gauge("strata_shed_level", { description: "Step of the ladder" }, () => read.stand().level)
  for (const sensor of sensors) {
    yield* gauge(
      "strata_load_pressure",
      { description: "Pressure: 1 is saturation", attributes: { sensor } },
      () => read.load().readings.get(sensor)?.pressure ?? NaN
    )
  }
  for (const priority of Priority.all) {
    yield* gauge(
      "strata_shed_percent",
      { description: "Share that is refused", attributes: { class: priority } },
      () => read.stand().shares[priority]
    )
  }
  return {
    offered: counters("strata_shed_offered_total", "Requests that asked to be let in"),
    shed: counters("strata_shed_refused_total", "Requests that were refused"),
    completed: counters("strata_shed_completed_total", "Requests that were let in and succeeded")
  }
})
