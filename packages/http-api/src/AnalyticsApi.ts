/**
 * Figures about conversations over HTTP.
 *
 * @since 0.1.0
 */
import * as Conversation from "@strata/conversations/domain/Conversation"
import * as Queries from "@strata/conversations/read/ConversationQueries"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import { Admission, Urgency } from "./Admission.ts"
import { Authorization, RoleCheck } from "./Authorization.ts"
import * as Consistency from "./Consistency.ts"

/** Sent times from `from` (included) to `to` (excluded); an end that is not given is open. */
const period = {
  from: Schema.optionalKey(Timestamp.Timestamp),
  to: Schema.optionalKey(Timestamp.Timestamp),
  ...Consistency.query
}

/**
 * Figures from the read models.
 *
 * @category groups
 * @since 0.1.0
 */
export class AnalyticsApi extends HttpApiGroup.make("analytics")
  .add(
    HttpApiEndpoint.get("responseTimes", "/response-times", {
      query: {
        provider: Schema.optionalKey(Conversation.UserId),
        contextType: Schema.optionalKey(Conversation.ContextType),
        ...period
      },
      headers: Consistency.headers,
      success: Queries.ResponseTimes
    }).annotateMerge(OpenApi.annotations({
      summary: "Response times",
      description: "In minutes, from a CUSTOMER's message to the first later one of a SERVICE_PROVIDER within 24 hours."
    })),
    HttpApiEndpoint.get("conversations", "/conversations", {
      query: period,
      headers: Consistency.headers,
      success: Queries.DailyActivity
    }).annotateMerge(OpenApi.annotations({
      summary: "Daily activity",
      description: "Messages, active conversations and active users by day of UTC, and their totals."
    }))
  )
  .annotate(Urgency, "P3")
  .middleware(RoleCheck)
  .middleware(Admission)
  .middleware(Authorization)
  .prefix("/api/v1/analytics")
  .annotateMerge(OpenApi.annotations({ title: "Analytics", description: "Figures about conversations." }))
{}
