/** What a fair scheduler measures. Tenants and keys are no labels: there is no bound on them. */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Priority from "../scheduling/Priority.ts"
import * as Observed from "./observed.ts"

/** What may become of work, by the name of its counter. */
const counted = {
  dispatched: ["strata_fair_dispatched_total", "Work that was given a slot"],
  aged: ["strata_fair_aged_total", "Of that, what its age brought forward"],
  refused: ["strata_fair_refused_total", "Work that was refused before it waited"],
  handedBack: ["strata_fair_handed_back_total", "Work that was handed back before it began"],
  preempted: ["strata_fair_preempted_total", "Work that was interrupted for P0 and is begun again"],
  overrun: ["strata_fair_overrun_total", "Work that ran for more than twice its average"]
} as const

export type Event = keyof typeof counted

export interface FairMetrics {
  readonly count: (event: Event, priority: Priority.Priority) => void
  readonly waited: (millis: number, priority: Priority.Priority) => void
}

const waits = Metric.histogram("strata_fair_wait_seconds", {
  description: "Time from when work came until it was given a slot",
  boundaries: Metric.exponentialBoundaries({ start: 0.0001, factor: 4, count: 12 })
})

/** Registers the gauges until the scope closes. */
export const make = Effect.fnUntraced(function*(
  scheduler: string,
  read: { readonly waiting: (of: Priority.Priority) => number; readonly running: (of: Priority.Priority) => number }
) {
  const context = yield* Effect.context<never>()
  const byClass = <A>(of: (priority: Priority.Priority) => A): Readonly<Record<Priority.Priority, A>> => ({
    P0: of("P0"),
    P1: of("P1"),
    P2: of("P2"),
    P3: of("P3")
  })
  const attributesOf = (priority: Priority.Priority) => ({ scheduler, class: priority })
  const counters = (event: Event) => {
    const [name, description] = counted[event]
    const counter = Metric.counter(name, { description, incremental: true })
    return byClass((priority) => Metric.withAttributes(counter, attributesOf(priority)))
  }
  const all: Readonly<Record<Event, ReturnType<typeof counters>>> = {
    dispatched: counters("dispatched"),
    aged: counters("aged"),
    refused: counters("refused"),
    handedBack: counters("handedBack"),
    preempted: counters("preempted"),
    overrun: counters("overrun")
  }
  const waitsOf = byClass((priority) => Metric.withAttributes(waits, attributesOf(priority)))
  for (const priority of Priority.all) {
    const attributes = attributesOf(priority)
    yield* Observed.gauge(
      "strata_fair_waiting",
      { description: "Work that waits", attributes },
      () => read.waiting(priority)
    )
    yield* Observed.gauge(
      "strata_fair_running",
      { description: "Work that has a slot", attributes },
      () => read.running(priority)
    )
  }
  const metrics: FairMetrics = {
    count: (event, priority) => all[event][priority].updateUnsafe(1, context),
    waited: (millis, priority) => waitsOf[priority].updateUnsafe(millis / 1000, context)
  }
  return metrics
})
