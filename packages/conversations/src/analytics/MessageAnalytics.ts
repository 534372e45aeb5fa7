/**
 * The projection `message-analytics`: messages, bytes, people and conversations by day.
 *
 * **Details**
 *
 * The table `message_analytics` has rows of four kinds. A dimension that a row does not tell apart is `''`, which is no id and no
 * name of anything:
 *
 * | rows of                | `grain`      | told apart                                             |
 * | ---------------------- | ------------ | ------------------------------------------------------ |
 * | a conversation's day   | `day`        | `conversation_id`, context, role of the sender, type   |
 * | a day                  | `day`        | context, role of the sender, type                      |
 * | volume                 | `day, month` | context, type, category                                |
 * | activity               | `day, month` | nothing else                                           |
 *
 * With `''` for what is null elsewhere, the first two are unique by date, conversation, context, role and type. Rows of a
 * month have its first day as their date; a period is put together of months and of the days at its ends.
 *
 * The category is what the context's metadata says: its `category`, a text, or texts by language, of which it is the English one.
 * It and the context are those of the conversation's start, and change with its corrections.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as ContributionsProjection from "@strata/projections/ContributionsProjection"
import * as Measure from "@strata/projections/Measure"
import type * as Projection from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { Metadata } from "../domain/Conversation.ts"
import { ConversationEvents } from "../domain/ConversationEvent.ts"

/** What is known of a conversation when a message is sent. */
const About = Schema.Struct({ contextType: Schema.String, category: Schema.String })

/**
 * The day of UTC, as PostgreSQL reads dates.
 *
 * @category conversions
 * @since 0.1.0
 */
export const dayOf = (time: Timestamp.Timestamp): string => {
  const text = Timestamp.format(time)
  const end = text.indexOf("-", 1)
  const year = Number(text.slice(0, end))
  const rest = text.slice(end, end + 6)
  return year > 0 ? `${String(year).padStart(4, "0")}${rest}` : `${String(1 - year).padStart(4, "0")}${rest} BC`
}

const categoryOf = (metadata: Metadata | null): string => {
  const category = metadata?.["category"]
  const name = Predicate.hasProperty(category, "en") ? category.en : category
  return typeof name === "string" ? name : ""
}

const fresh = ContributionsProjection.make({
  name: "message-analytics",
  version: 1,
  events: ConversationEvents,
  categories: ["conversation"],
  key: ProjectionKey.streamId("conversation_id"),
  table: "message_analytics",
  dimensions: {
    tenant: "text",
    grain: "text",
    conversation_id: "text",
    sender_role: "text",
    context_type: "text",
    message_type: "text",
    date: "date",
    category: "text"
  },
  measures: {
    messages: Measure.count,
    bytes: Measure.sum,
    senders: Measure.distinct,
    conversations: Measure.distinct
  },
  state: {
    schema: About,
    initial: { contextType: "UNKNOWN", category: "" },
    evolve: (about, { event }) =>
      event._tag === "ConversationStarted"
        ? { contextType: event.context.type, category: categoryOf(event.context.metadata) }
        : about
  },
  contribute: ({ event, fact: { tenant } }, { category, contextType }) => {
    if (event._tag !== "MessageSent") return []
    const { conversationId, senderId, senderRole, size, type } = event
    const day = dayOf(event.sentAt)
    const month = day.replace(/-\d\d(?= BC$|$)/, "-01")
    const values = { bytes: size, senders: senderId, conversations: conversationId }
    const none = { conversation_id: "", sender_role: "", context_type: "", message_type: "", category: "" }
    const byRole = { ...none, sender_role: senderRole, context_type: contextType, message_type: type }
    const byCategory = { ...none, context_type: contextType, message_type: type, category }
    return [
      {
        dimensions: { ...byRole, tenant, grain: "day", date: day, conversation_id: conversationId },
        values: { bytes: size, senders: senderId }
      },
      { dimensions: { ...byRole, tenant, grain: "day", date: day }, values },
      { dimensions: { ...byCategory, tenant, grain: "day", date: day }, values },
      { dimensions: { ...byCategory, tenant, grain: "month", date: month }, values },
      { dimensions: { ...none, tenant, grain: "day", date: day }, values },
      { dimensions: { ...none, tenant, grain: "month", date: month }, values }
    ]
  }
})

/**
 * Fills `message_analytics`, `message_analytics_senders`, `message_analytics_conversations` and `message_analytics_state`.
 *
 * @category projections
 * @since 0.1.0
 */
export const MessageAnalytics: Projection.Projection = {
  ...fresh,
  tables: [
    ...fresh.tables,
    // Serves what a day came to, by conversation.
    `create index message_analytics_date on message_analytics (tenant, date, conversation_id)
      where grain = 'day' and sender_role <> ''`
  ]
}
