/**
 * Projections over HTTP: how far each read model is.
 *
 * @since 0.1.0
 */
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import { Admission } from "./Admission.ts"
import { Authorization, RoleCheck } from "./Authorization.ts"
import { Position } from "./Consistency.ts"

/**
 * How far a projection is.
 *
 * @category models
 * @since 0.1.0
 */
export const ProjectionStatus = Schema.Struct({
  name: Schema.String,
  version: Schema.Int,
  position: Position.annotate({ description: "The last fact applied" }),
  head: Position.annotate({ description: "The last fact of the log" }),
  lag: Position.annotate({ description: "Facts between the two" }),
  lagSeconds: Schema.Finite.annotate({ description: "Age of the oldest fact that is not applied" }),
  state: Schema.Literals(["new", "running", "parked", "paused", "failed"]),
  error: Schema.NullOr(Schema.String).annotate({
    description: "Why it failed, or the error of the first key that is parked"
  }),
  parked: Schema.Int.annotate({ description: "Keys that wait, since a fact of theirs cannot be applied" })
}).annotate({ identifier: "ProjectionStatus" })
export type ProjectionStatus = typeof ProjectionStatus.Type

/**
 * The state of the read models.
 *
 * @category groups
 * @since 0.1.0
 */
export class ProjectionsApi extends HttpApiGroup.make("projections")
  .add(
    HttpApiEndpoint.get("list", "/", {
      success: Schema.Struct({ projections: Schema.Array(ProjectionStatus) }).annotate({ identifier: "ProjectionList" })
    }).annotateMerge(OpenApi.annotations({
      summary: "List projections",
      description: "How far each read model is, in facts and in seconds."
    }))
  )
  .middleware(RoleCheck)
  .middleware(Admission)
  .middleware(Authorization)
  .prefix("/api/v1/projections")
  .annotateMerge(OpenApi.annotations({ title: "Projections", description: "The state of the read models." }))
{}
