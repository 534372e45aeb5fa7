/**
 * Tells people when the server fails, is slow, or is short of something.
 *
 * **Details**
 *
 * Every ten seconds, by the rules of `AlertRules.config`:
 *
 * | signal | of | |
 * | --- | --- | --- |
 * | `error_rate` | requests | the share that was answered with 500 or worse, but for what was shed |
 * | `processing_delay` | `database_pool` | how long the one who waits longest for a connection has waited |
 * | | `projections` | how far the one that is furthest behind is behind |
 * | `resource_usage` | `event_loop`, `cpu`, `memory` | the pressure that load shedding goes by |
 *
 * Alerts go to the log, and to `STRATA_ALERTS_WEBHOOK`: see `Alerts.layerConfig`.
 *
 * @since 0.1.0
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Postgres } from "@strata/postgres/Postgres"
import { Projections } from "@strata/projections/Projections"
import * as AlertRules from "@strata/resilience/alerts/AlertRules"
import * as Alerts from "@strata/resilience/alerts/Alerts"
import * as AlertWatch from "@strata/resilience/alerts/AlertWatch"
import { LoadShedding } from "@strata/resilience/shedding/LoadShedding"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as RequestLog from "./RequestLog.ts"

/**
 * Watches the server it is built beside.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = Layer.unwrap(Effect.gen(function*() {
  const rules = yield* AlertRules.config()
  const { sample } = yield* makeSampler
  return AlertWatch.layer(rules, sample)
})).pipe(
  Layer.provide(Alerts.layerConfig),
  Layer.provide(NodeHttpClient.layerUndici)
)

const makeSampler = Effect.gen(function*() {
  const { longestWait } = yield* Postgres
  const projections = yield* Projections
  const shedding = yield* LoadShedding
  const errorRate = makeErrorRate()
  const sample = Effect.gen(function*() {
    const { sensors } = yield* shedding.state
    const behind = yield* projections.status
    const samples: Array<AlertRules.Sample> = [
      { signal: "error_rate", subject: "requests", value: yield* errorRate },
      { signal: "processing_delay", subject: "database_pool", value: Duration.toMillis(yield* longestWait) },
      {
        signal: "processing_delay",
        subject: "projections",
        value: 1000 * Math.max(0, ...behind.map(({ lagSeconds }) => lagSeconds))
      }
    ]
    for (const [subject, { pressure }] of sensors) {
      if (subject !== "pool_wait") samples.push({ signal: "resource_usage", subject, value: pressure })
    }
    return samples
  })
  return { sample }
})

/** The share of requests that failed since the last time; `undefined` when there was none. */
const makeErrorRate = () => {
  let before = { answered: 0, failed: 0 }
  return Effect.map(Metric.snapshot, (metrics) => {
    const now = { answered: 0, failed: 0 }
    for (const metric of metrics) {
      if (metric.type !== "Histogram" || metric.id !== RequestLog.duration.id) continue
      const status = Number(metric.attributes?.["http_response_status_code"])
      now.answered += metric.state.count
      // 503 is what is shed, and what comes while the database is away: that shows as its own alert.
      if (status >= 500 && status !== 503) now.failed += metric.state.count
    }
    const answered = now.answered - before.answered
    const failed = now.failed - before.failed
    before = now
    return answered === 0 ? undefined : failed / answered
  })
}
