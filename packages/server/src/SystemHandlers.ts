/**
 * Handlers of the group `system`.
 *
 * @since 0.1.0
 */
import { Api } from "@strata/http-api/Api"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import { ServiceUnavailable } from "@strata/http-api/Problem"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Option from "effect/Option"
import { Health } from "./Health.ts"
import { version } from "./Version.ts"

const up = { status: "UP" } as const

/**
 * The handlers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = HttpApiBuilder.group(
  Api,
  "system",
  Effect.fnUntraced(function*(handlers) {
    const health = yield* Health
    const report = Effect.fnUntraced(function*() {
      const report = yield* health.report
      return report.status === "DOWN" ? yield* Effect.fail(report) : report
    })
    return handlers.handleAll({
      health: report,
      healthV1: report,
      live: () => Effect.succeed(up),
      ready: () =>
        Effect.flatMap(
          health.notReady,
          Option.match({
            onNone: () => Effect.succeed(up),
            onSome: (detail) => Effect.fail(new ServiceUnavailable({ detail, retryAfter: 1 }))
          })
        ),
      metrics: () => PrometheusMetrics.format(),
      session: () => Effect.map(CurrentPrincipal, (principal) => ({ ...principal, version }))
    })
  })
)
