/**
 * What rate limits measure, by `limit` and `decision`. Keys are no label: there is no bound on them.
 *
 * **Details**
 *
 * | name | kind | labels |
 * | --- | --- | --- |
 * | `strata_rate_limit_decisions_total` | counter | `limit`: its name; `decision`: see `Decision` |
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * What became of a request at one limit.
 *
 * - `allowed`: its tokens were taken.
 * - `refused`: it was this limit that made the request wait. Limits beside it that would have let it pass count nothing.
 * - `allowed-unchecked`, `refused-unchecked`: the store did not answer, and the limit says what happens then.
 *
 * @category models
 * @since 0.1.0
 */
export type Decision = "allowed" | "refused" | "allowed-unchecked" | "refused-unchecked"

const decisions = Metric.counter("strata_rate_limit_decisions_total", {
  description: "Requests that a rate limit let pass or refused",
  incremental: true
})

/**
 * The counters of one limit.
 *
 * @category constructors
 * @since 0.1.0
 */
export const of = (limit: string): Readonly<Record<Decision, Metric.Counter<number>>> => {
  const counter = (decision: Decision) => Metric.withAttributes(decisions, { limit, decision })
  return {
    "allowed": counter("allowed"),
    "refused": counter("refused"),
    "allowed-unchecked": counter("allowed-unchecked"),
    "refused-unchecked": counter("refused-unchecked")
  }
}
