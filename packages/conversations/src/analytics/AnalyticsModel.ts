/**
 * What the analytics of conversations answer with. Schemas only: clients may use it as well.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { ContextType, ConversationId, MessageType, Role } from "../domain/Conversation.ts"

/** `YYYY-MM-DD`, a day of UTC. */
const Day = Schema.String.annotate({ description: "A day of UTC", examples: ["2026-01-31"] })

/** Null where the conversation's start is not known. */
const AboutContext = Schema.NullOr(ContextType)

/**
 * What happened day by day, by sent time. Days without messages are left out.
 *
 * @category models
 * @since 0.1.0
 */
export const DailyActivity = Schema.Struct({
  days: Schema.Array(Schema.Struct({
    date: Day,
    messages: Schema.Int,
    /** Conversations with a message on that day. */
    activeConversations: Schema.Int,
    /** People who sent a message on that day. */
    activeUsers: Schema.Int,
    /** Of the messages' contents, in UTF-8. */
    bytes: Schema.Int,
    averageBytes: Schema.Finite,
    /** On the day before, whether that was asked for or not. */
    previousMessages: Schema.Int,
    /** Percent more than on the day before; null where that had none. */
    growthRate: Schema.NullOr(Schema.Finite)
  })),
  /** Of the period: conversations with a message in it, its messages, their bytes, and the people who sent them. */
  totals: Schema.Struct({
    conversations: Schema.Int,
    messages: Schema.Int,
    bytes: Schema.Int,
    participants: Schema.Int
  })
}).pipe(Schema.annotate({ identifier: "DailyActivity" }))
export type DailyActivity = typeof DailyActivity.Type

const figures = {
  count: Schema.Int,
  mean: Schema.NullOr(Schema.Finite),
  p50: Schema.NullOr(Schema.Finite),
  p90: Schema.NullOr(Schema.Finite),
  p95: Schema.NullOr(Schema.Finite),
  min: Schema.NullOr(Schema.Finite),
  max: Schema.NullOr(Schema.Finite),
  /** How many took at most 5, 15 and 60 minutes. */
  within5Minutes: Schema.Int,
  within15Minutes: Schema.Int,
  within60Minutes: Schema.Int
}

/**
 * Response times in minutes. A response time is the time from a CUSTOMER's message to the first message of a
 * SERVICE_PROVIDER in the same conversation that was sent strictly later and less than 24 hours later. Percentiles are
 * continuous. Everything but the counts is null when there is none.
 *
 * @category models
 * @since 0.1.0
 */
export const ResponseTimes = Schema.Struct({
  ...figures,
  /** How far percentiles may be off, as a part of them: 0 up to 20,000 response times, 0.02 of more. All else is exact. */
  relativeError: Schema.Finite,
  /** The same in each context that has any, in the order of their names. */
  contexts: Schema.Array(Schema.Struct({ contextType: AboutContext, ...figures }))
}).pipe(Schema.annotate({ identifier: "ResponseTimes" }))
export type ResponseTimes = typeof ResponseTimes.Type

const volume = {
  messages: Schema.Int,
  uniqueUsers: Schema.Int,
  bytes: Schema.Int,
  averageBytes: Schema.Finite
}

/**
 * Messages of a period by what their conversations are about: context and category, those with the most messages first.
 *
 * @category models
 * @since 0.1.0
 */
export const Volume = Schema.Struct({
  groups: Schema.Array(Schema.Struct({
    contextType: AboutContext,
    /** Null where the context has none. */
    category: Schema.NullOr(Schema.String),
    /** Conversations with a message in the period. */
    conversations: Schema.Int,
    ...volume,
    /** The same by type of message, those that there are. */
    types: Schema.Array(Schema.Struct({ type: MessageType, ...volume }))
  }))
}).pipe(Schema.annotate({ identifier: "MessageVolume" }))
export type Volume = typeof Volume.Type

/**
 * What one day came to. Unique by date, conversation, context, role and type.
 *
 * @category models
 * @since 0.1.0
 */
export const DailyRow = Schema.Struct({
  date: Day,
  /** Null of the rows of all conversations. */
  conversationId: Schema.NullOr(ConversationId),
  contextType: AboutContext,
  senderRole: Role,
  messageType: MessageType,
  totalMessages: Schema.Int,
  totalConversations: Schema.Int,
  uniqueSenders: Schema.Int,
  /** Minutes until the first response, of those messages that were answered; null where none was, or they wait for none. */
  averageResponseTime: Schema.NullOr(Schema.Finite),
  /** Bytes. */
  totalSize: Schema.Int
}).pipe(Schema.annotate({ identifier: "DailyAnalyticsRow" }))
export type DailyRow = typeof DailyRow.Type

/**
 * One day: rows of all conversations, and a page of the rows of each.
 *
 * @category models
 * @since 0.1.0
 */
export const DailyAnalytics = Schema.Struct({
  totals: Schema.Array(DailyRow),
  conversations: Schema.Array(DailyRow),
  /** The conversation to go on after; null on the last page. */
  next: Schema.NullOr(ConversationId)
}).pipe(Schema.annotate({ identifier: "DailyAnalytics" }))
export type DailyAnalytics = typeof DailyAnalytics.Type
