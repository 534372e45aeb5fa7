/**
 * The HTTP contract of Strata: one value that the server, the OpenAPI document and the typed client are derived from.
 *
 * @since 0.1.0
 */
import * as HttpApi from "effect/http-api/HttpApi"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import { AnalyticsApi } from "./AnalyticsApi.ts"
import { ConversationsApi } from "./ConversationsApi.ts"
import { EventStoreApi } from "./EventStoreApi.ts"
import { readable } from "./OpenApiDocument.ts"
import { ProjectionsApi } from "./ProjectionsApi.ts"
import { Requests } from "./Requests.ts"
import { StreamsApi } from "./StreamsApi.ts"
import { SystemApi } from "./SystemApi.ts"

/**
 * Every endpoint.
 *
 * @category apis
 * @since 0.1.0
 */
export class Api extends HttpApi.make("strata")
  .add(SystemApi, ConversationsApi, AnalyticsApi, EventStoreApi, StreamsApi, ProjectionsApi)
  .middleware(Requests)
  .annotate(HttpApi.ParseOptions, { errors: "all" })
  .annotate(HttpApi.QueryParseOptions, { errors: "all", onExcessProperty: "error" })
  .annotate(HttpApi.PayloadParseOptions, { errors: "all", onExcessProperty: "error" })
  .annotateMerge(OpenApi.annotations({
    title: "Strata",
    version: "0.1.0",
    description: "Event-sourced messaging. Positions are text, times are ISO-8601 in UTC with microseconds. "
      + "Errors are problems (RFC 9457). A query parameter or a field of a body that an endpoint does not have is "
      + "refused. A write answers with `Strata-Position`; a read waits for a position given as `minPosition`. A write repeated under its `Idempotency-Key` gets the first answer.",
    license: { name: "MIT" },
    transform: readable
  }))
{}

/**
 * The contract as an OpenAPI 3.1 document.
 *
 * @category constructors
 * @since 0.1.0
 */
export const openApi = (): OpenApi.OpenAPISpec => OpenApi.fromApi(Api)

const encodeJson = Schema.encodeUnknownSync(Schema.fromJsonString(Schema.Unknown, { space: 2 }))

/**
 * The same as text, as it is committed in `openapi.json`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const openApiJson = (): string => `${encodeJson(openApi())}\n`
