/**
 * The system's own endpoints: health, and what the caller may do.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import { Admission } from "./Admission.ts"
import { Authorization } from "./Authorization.ts"
import { Principal } from "./Principal.ts"
import { Text } from "./Text.ts"

/**
 * `UP`, `DEGRADED` (it answers, and something is wrong) or `DOWN`.
 *
 * @category models
 * @since 0.1.0
 */
export const HealthStatus = Schema.Literals(["UP", "DEGRADED", "DOWN"]).annotate({ identifier: "HealthStatus" })
export type HealthStatus = typeof HealthStatus.Type

/**
 * One thing that was looked at.
 *
 * @category models
 * @since 0.1.0
 */
export const HealthCheck = Schema.Struct({
  name: Schema.String,
  status: HealthStatus,
  responseTimeMs: Schema.Finite,
  details: Schema.Record(Schema.String, Schema.Json)
}).annotate({ identifier: "HealthCheck" })
export type HealthCheck = typeof HealthCheck.Type

const report = {
  checks: Schema.Array(HealthCheck),
  version: Schema.String,
  uptime: Schema.Finite.annotate({ description: "Seconds since the process started" }),
  timestamp: Timestamp.Timestamp
}

/**
 * The health of a server that answers.
 *
 * @category models
 * @since 0.1.0
 */
export const Health = Schema.Struct({ status: Schema.Literals(["UP", "DEGRADED"]), ...report }).annotate({
  identifier: "Health",
  description: "The server answers"
})
export type Health = typeof Health.Type

/**
 * The health of a server that cannot answer requests.
 *
 * @category models
 * @since 0.1.0
 */
export const HealthDown = Schema.Struct({ status: Schema.Literal("DOWN"), ...report }).annotate({
  identifier: "HealthDown",
  description: "The server cannot answer requests",
  httpApiStatus: 503
})
export type HealthDown = typeof HealthDown.Type

/**
 * The process runs, or takes requests.
 *
 * @category models
 * @since 0.1.0
 */
export const Up = Schema.Struct({ status: Schema.Literal("UP") }).annotate({ identifier: "Up" })

/**
 * The caller, as the server knows them.
 *
 * @category models
 * @since 0.1.0
 */
export const Session = Schema.Struct({
  ...Principal.fields,
  version: Schema.String.annotate({ description: "The server's version" })
}).annotate({ identifier: "Session" })

const health = { success: Health, error: HealthDown }

/**
 * Health and session.
 *
 * @category groups
 * @since 0.1.0
 */
export class SystemApi extends HttpApiGroup.make("system", { topLevel: true })
  .add(
    HttpApiEndpoint.get("health", "/health", health).annotateMerge(OpenApi.annotations({
      summary: "Health",
      description:
        "The server's parts, each looked at within a bound of time. 503 when one it cannot do without is down."
    })),
    HttpApiEndpoint.get("healthV1", "/api/v1/health", health).annotateMerge(OpenApi.annotations({
      summary: "Health, under the API's prefix"
    })),
    HttpApiEndpoint.get("live", "/health/live", { success: Up }).annotateMerge(OpenApi.annotations({
      summary: "Liveness",
      description: "The process runs. It says so from its first moment."
    })),
    HttpApiEndpoint.get("ready", "/health/ready", { success: Up }).annotateMerge(OpenApi.annotations({
      summary: "Readiness",
      description: "The database is migrated and answers, and read models are not far behind; 503 otherwise."
    })),
    HttpApiEndpoint.get("metrics", "/metrics", {
      success: Text.pipe(HttpApiSchema.asText({ contentType: "text/plain; version=0.0.4; charset=utf-8" }))
    }).annotateMerge(OpenApi.annotations({
      summary: "Metrics",
      description: "In Prometheus' text format."
    })),
    HttpApiEndpoint.get("session", "/api/v1/session", { success: Session })
      .middleware(Admission)
      .middleware(Authorization)
      .annotateMerge(
        OpenApi.annotations({ summary: "Session", description: "Who the caller is and what they may do." })
      )
  )
  .annotateMerge(OpenApi.annotations({ title: "System", description: "Health, metrics and the caller's session." }))
{}
