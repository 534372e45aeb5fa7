/**
 * What durable subscriptions measure, by `subscription` and `partition`.
 *
 * **Details**
 *
 * | name | kind |
 * | --- | --- |
 * | `strata_subscription_position` | gauge |
 * | `strata_subscription_lag` | gauge: facts |
 * | `strata_subscription_lag_seconds` | gauge |
 * | `strata_subscription_facts_total` | counter |
 * | `strata_subscription_failures_total` | counter |
 * | `strata_subscription_fenced_total` | counter |
 * | `strata_subscription_batch_size` | histogram, by `subscription` only |
 * | `strata_subscription_handle_seconds` | histogram, by `subscription` only |
 * | `strata_subscription_partitions_owned` | gauge, by `subscription` only |
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

const position = Metric.gauge("strata_subscription_position", {
  description: "Position of the last fact handled or passed over"
})
const lag = Metric.gauge("strata_subscription_lag", {
  description: "Facts in the log after the checkpoint"
})
const lagSeconds = Metric.gauge("strata_subscription_lag_seconds", {
  description: "Age of the oldest fact after the checkpoint"
})
const facts = Metric.counter("strata_subscription_facts_total", {
  description: "Facts handled by this process",
  incremental: true
})
const failures = Metric.counter("strata_subscription_failures_total", {
  description: "Batches that failed, those tried again included",
  incremental: true
})
const fenced = Metric.counter("strata_subscription_fenced_total", {
  description: "Batches refused because the partition had another owner by then",
  incremental: true
})
const batchSize = Metric.histogram("strata_subscription_batch_size", {
  description: "Facts in a handled batch",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
})
const handleSeconds = Metric.histogram("strata_subscription_handle_seconds", {
  description: "Time a batch took, its checkpoint included",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
})
const owned = Metric.gauge("strata_subscription_partitions_owned", {
  description: "Partitions owned by this process"
})

/**
 * The metrics of one partition.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ofPartition = (subscription: string, partition: number) => {
  const labels = { subscription, partition: String(partition) }
  return {
    position: Metric.withAttributes(position, labels),
    lag: Metric.withAttributes(lag, labels),
    lagSeconds: Metric.withAttributes(lagSeconds, labels),
    facts: Metric.withAttributes(facts, labels),
    failures: Metric.withAttributes(failures, labels),
    fenced: Metric.withAttributes(fenced, labels),
    batchSize: Metric.withAttributes(batchSize, { subscription }),
    handleSeconds: Metric.withAttributes(handleSeconds, { subscription })
  }
}

/**
 * How many partitions of a subscription this process owns.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ownedOf = (subscription: string) => Metric.withAttributes(owned, { subscription })
