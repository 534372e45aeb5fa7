/**
 * What consumer groups and the relay measure in this process.
 *
 * | name | kind | what |
 * | --- | --- | --- |
 * | `strata_group_messages_total` | counter | messages that are done or put aside, by `group` |
 * | `strata_group_failures_total` | counter | messages whose handler failed, by `group` |
 * | `strata_group_fenced_total` | counter | batches that came too late: there was a zombie, by `group` |
 * | `strata_group_batch_seconds` | histogram | time a batch took, its positions included, by `group` |
 * | `strata_group_partitions_owned` | gauge | partitions of this process, by `group` |
 * | `strata_group_revocation_seconds` | histogram | from the news that a partition is another's to its release, by `group` |
 * | `strata_relay_messages_total` | counter | messages that were moved out of the outbox |
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

const messages = Metric.counter("strata_group_messages_total", { incremental: true })
const failures = Metric.counter("strata_group_failures_total", { incremental: true })
const fenced = Metric.counter("strata_group_fenced_total", { incremental: true })
const expired = Metric.counter("strata_group_members_expired_total", { incremental: true })
const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const batch = Metric.histogram("strata_group_batch_seconds", { boundaries: seconds })
const owned = Metric.gauge("strata_group_partitions_owned")
const revocation = Metric.histogram("strata_group_revocation_seconds", { boundaries: seconds })

/**
 * Messages that were moved out of the outbox.
 *
 * @category metrics
 * @since 0.1.0
 */
export const relayed = Metric.counter("strata_relay_messages_total", { incremental: true })

/**
 * What a group measures.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ofGroup = (group: string) => {
  const labels = { group }
  return {
    messages: Metric.withAttributes(messages, labels),
    failures: Metric.withAttributes(failures, labels),
    fenced: Metric.withAttributes(fenced, labels),
    expired: Metric.withAttributes(expired, labels),
    batch: Metric.withAttributes(batch, labels),
    owned: Metric.withAttributes(owned, labels),
    revocation: Metric.withAttributes(revocation, labels)
  }
}

/**
 * What a group measures.
 *
 * @category models
 * @since 0.1.0
 */
export type GroupMetrics = ReturnType<typeof ofGroup>
