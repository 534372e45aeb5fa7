/**
 * What the projection runtime measures, by `projection`.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

const position = Metric.gauge("strata_projection_position", {
  description: "Position of the last fact applied"
})
const lag = Metric.gauge("strata_projection_lag", {
  description: "Facts in the log after the last one applied"
})
const lagSeconds = Metric.gauge("strata_projection_lag_seconds", {
  description: "Age of the oldest fact that is not applied"
})
const parked = Metric.gauge("strata_projection_parked", {
  description: "Keys that wait, since a fact of theirs cannot be applied"
})
const facts = Metric.counter("strata_projection_facts_total", {
  description: "Facts applied by this process",
  incremental: true
})
const failures = Metric.counter("strata_projection_failures_total", {
  description: "Batches that failed, those tried again included",
  incremental: true
})
const batchSize = Metric.histogram("strata_projection_batch_size", {
  description: "Facts in an applied batch",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
})
const applySeconds = Metric.histogram("strata_projection_apply_seconds", {
  description: "Time a batch took from its transaction's beginning to its end",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
})

/**
 * The metrics of one projection.
 *
 * @category constructors
 * @since 0.1.0
 */
export const of = (projection: string) => ({
  position: Metric.withAttributes(position, { projection }),
  lag: Metric.withAttributes(lag, { projection }),
  lagSeconds: Metric.withAttributes(lagSeconds, { projection }),
  parked: Metric.withAttributes(parked, { projection }),
  facts: Metric.withAttributes(facts, { projection }),
  failures: Metric.withAttributes(failures, { projection }),
  batchSize: Metric.withAttributes(batchSize, { projection }),
  applySeconds: Metric.withAttributes(applySeconds, { projection })
})
