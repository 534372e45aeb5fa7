/**
 * Figures about conversations over HTTP.
 *
 * @since 0.1.0
 */
import * as Analytics from "@strata/conversations/analytics/AnalyticsModel"
import * as Conversation from "@strata/conversations/domain/Conversation"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { Admission, Urgency } from "./Admission.ts"
import { Authorization, RoleCheck } from "./Authorization.ts"
import * as Consistency from "./Consistency.ts"
import * as EventStoreQuery from "./EventStoreQuery.ts"
import * as Paging from "./Paging.ts"
import { RuleViolated, TooManyRequests } from "./Problem.ts"

/** Sent times from `from` (included) to `to` (excluded); an end that is not given is open. */
const period = {
  from: Schema.optionalKey(Timestamp.Timestamp),
  to: Schema.optionalKey(Timestamp.Timestamp)
}

const asKnown = { knownAt: Schema.optionalKey(EventStoreQuery.KnownAt), ...Consistency.query }

/** A past moment may be one with too many facts, and another question about the past may be answered just now. */
const error = [RuleViolated, TooManyRequests] as const

const past =
  "With `knownAt`, as they were known then: up to 10,000 facts are replayed for it, or a replay that was made by hand is asked."

/**
 * A day of UTC, `YYYY-MM-DD`: its first moment.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Day: Schema.Codec<Timestamp.Timestamp, string> = Schema.String.pipe(
  Schema.decodeTo(
    Schema.toType(Timestamp.Timestamp),
    SchemaTransformation.transformEffect({
      decode: (text: string, options) =>
        Effect.mapError(
          Effect.fromOption(/^\d{4}-\d\d-\d\d$/.test(text) ? Timestamp.parse(`${text}T00:00:00Z`) : Option.none()),
          () => new SchemaIssue.InvalidValue({ message: "Expected a day, YYYY-MM-DD" }, text, options)
        ),
      encode: (day) => Effect.succeed(Timestamp.format(day).slice(0, 10))
    })
  ),
  Schema.annotateEncoded({ identifier: "Day", description: "A day of UTC", examples: ["2026-01-31"] })
)

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
        ...period,
        ...asKnown
      },
      headers: Consistency.headers,
      success: Analytics.ResponseTimes,
      error
    }).annotateMerge(OpenApi.annotations({
      summary: "Response times",
      description:
        "In minutes, from a CUSTOMER's message to the first later one of a SERVICE_PROVIDER within 24 hours. Percentiles are exact up to "
        + `20,000 of them, and at most 2 % off above. ${past}`
    })),
    HttpApiEndpoint.get("conversations", "/conversations", {
      query: { ...period, ...asKnown },
      headers: Consistency.headers,
      success: Analytics.DailyActivity,
      error
    }).annotateMerge(OpenApi.annotations({
      summary: "Daily activity",
      description:
        "Messages, active conversations, active users and bytes by whole day of UTC, growth, and the totals of the period. "
        + past
    })),
    HttpApiEndpoint.get("volume", "/volume", {
      query: { ...period, ...asKnown },
      headers: Consistency.headers,
      success: Analytics.Volume,
      error
    }).annotateMerge(OpenApi.annotations({
      summary: "Message volume",
      description: `Messages, users and bytes of whole days by context, category and type. ${past}`
    })),
    HttpApiEndpoint.get("daily", "/daily/:date", {
      params: { date: Day },
      query: {
        after: Schema.optionalKey(Conversation.ConversationId),
        limit: Schema.optionalKey(Paging.Limit),
        ...asKnown
      },
      headers: Consistency.headers,
      success: Analytics.DailyAnalytics,
      error
    }).annotateMerge(OpenApi.annotations({
      summary: "One day",
      description:
        `What a day came to by context, role and type: in all, and page by page of each conversation. ${past}`
    }))
  )
  .annotate(Urgency, "P3")
  .middleware(RoleCheck)
  .middleware(Admission)
  .middleware(Authorization)
  .prefix("/api/v1/analytics")
  .annotateMerge(OpenApi.annotations({ title: "Analytics", description: "Figures about conversations." }))
{}
