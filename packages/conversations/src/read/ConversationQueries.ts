/**
 * The read side of conversations: lists, messages, unread counts and figures, from the read models.
 *
 * **Details**
 *
 * Read models follow the log; to read one's own write, wait for its position with `Projections.waitFor` first. Every
 * query is bounded: pages hold at most 500 entries. A page's `next` is the cursor of the next one, null on the last.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as EffectContext from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import {
  Context,
  ContextType,
  ConversationId,
  MessageId,
  MessageType,
  Metadata,
  Role,
  Status,
  Tenant,
  UserId
} from "../domain/Conversation.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * A conversation as a list shows it.
 *
 * @category models
 * @since 0.1.0
 */
export const ConversationSummary = Schema.Struct({
  conversationId: ConversationId,
  status: Status,
  context: Context,
  participantCount: Schema.Int,
  messageCount: Schema.Int,
  /** The message sent last, by sent time. */
  lastMessage: Schema.NullOr(Schema.Struct({
    messageId: MessageId,
    senderId: UserId,
    type: MessageType,
    /** The first 200 characters. */
    preview: Schema.String,
    sentAt: Timestamp.Timestamp
  })),
  startedAt: Timestamp.Timestamp,
  archivedAt: Schema.NullOr(Timestamp.Timestamp),
  /** When something last happened: a message was sent, or the conversation started. */
  lastActivityAt: Timestamp.Timestamp,
  /** Unread messages of the participant the list was asked for; null without one. */
  unreadCount: Schema.NullOr(Schema.Int)
}).pipe(Schema.annotate({ identifier: "ConversationSummary" }))
export type ConversationSummary = typeof ConversationSummary.Type

/**
 * Somebody who takes part, and what they have read.
 *
 * @category models
 * @since 0.1.0
 */
export const ParticipantState = Schema.Struct({
  userId: UserId,
  role: Role,
  joinedAt: Timestamp.Timestamp,
  unreadCount: Schema.Int,
  lastReadMessageId: Schema.NullOr(MessageId),
  lastReadAt: Schema.NullOr(Timestamp.Timestamp)
}).pipe(Schema.annotate({ identifier: "ParticipantState" }))
export type ParticipantState = typeof ParticipantState.Type

/**
 * A conversation with those who take part: the first 1,000, by user id.
 *
 * @category models
 * @since 0.1.0
 */
export const ConversationDetail = Schema.Struct({
  ...ConversationSummary.fields,
  participants: Schema.Array(ParticipantState)
}).pipe(Schema.annotate({ identifier: "ConversationDetail" }))
export type ConversationDetail = typeof ConversationDetail.Type

/**
 * A message.
 *
 * @category models
 * @since 0.1.0
 */
export const Message = Schema.Struct({
  conversationId: ConversationId,
  messageId: MessageId,
  /** Its place in the conversation, by recording: 1, 2, 3 … */
  ordinal: Schema.Int,
  senderId: UserId,
  senderRole: Role,
  type: MessageType,
  content: Schema.String,
  contentHash: Schema.String,
  /** Bytes of UTF-8. */
  size: Schema.Int,
  replyTo: Schema.NullOr(MessageId),
  metadata: Schema.NullOr(Metadata),
  sentAt: Timestamp.Timestamp,
  recordedAt: Timestamp.Timestamp,
  correlationId: Schema.String
}).pipe(Schema.annotate({ identifier: "Message" }))
export type Message = typeof Message.Type

/**
 * What a participant has not read in a conversation.
 *
 * @category models
 * @since 0.1.0
 */
export const Unread = Schema.Struct({ conversationId: ConversationId, unreadCount: Schema.Int }).pipe(
  Schema.annotate({ identifier: "UnreadCount" })
)
export type Unread = typeof Unread.Type

/**
 * Response times in minutes. A response time is the time from a CUSTOMER's message to the first message of a
 * SERVICE_PROVIDER in the same conversation that was sent strictly later and less than 24 hours later. Percentiles are
 * continuous. Everything but the counts is null when there is none.
 *
 * @category models
 * @since 0.1.0
 */
export const ResponseTimes = Schema.Struct({
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
}).pipe(Schema.annotate({ identifier: "ResponseTimes" }))
export type ResponseTimes = typeof ResponseTimes.Type

/**
 * Totals over a tenant, or over a period of it.
 *
 * @category models
 * @since 0.1.0
 */
export const Totals = Schema.Struct({
  conversations: Schema.Int,
  messages: Schema.Int,
  /** Different people. */
  participants: Schema.Int
}).pipe(Schema.annotate({ identifier: "Totals" }))
export type Totals = typeof Totals.Type

/**
 * What happened day by day, by sent time. Days without messages are left out.
 *
 * @category models
 * @since 0.1.0
 */
export const DailyActivity = Schema.Struct({
  days: Schema.Array(Schema.Struct({
    /** `YYYY-MM-DD`, a day of UTC. */
    date: Schema.String,
    messages: Schema.Int,
    /** Conversations with a message on that day. */
    activeConversations: Schema.Int,
    /** People who sent a message on that day. */
    activeUsers: Schema.Int
  })),
  /** Of the period: conversations with a message in it, its messages, and the people who sent them. */
  totals: Totals
}).pipe(Schema.annotate({ identifier: "DailyActivity" }))
export type DailyActivity = typeof DailyActivity.Type

/**
 * Which conversations, and how many. `cursor` is the `next` of the page before.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListOptions {
  readonly tenant?: Tenant | undefined
  readonly participant?: UserId | undefined
  readonly status?: Status | undefined
  readonly contextType?: ContextType | undefined
  readonly contextId?: string | undefined
  /** Only those with unread messages of `participant`; needs one. */
  readonly unreadOnly?: boolean | undefined
  /** 1 to 500. Default: 50. */
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}

/**
 * Which messages of a conversation, and how many. Messages are ordered by sent time, then by recording.
 *
 * @category models
 * @since 0.1.0
 */
export interface MessagesOptions {
  readonly tenant?: Tenant | undefined
  readonly conversationId: ConversationId
  /** Where the page lies from the cursor. Default: `older`, and without a cursor that is the newest page. */
  readonly direction?: "older" | "newer" | undefined
  readonly cursor?: string | undefined
  /** A page with this message in its middle; `direction` and `cursor` are not used then. */
  readonly around?: MessageId | undefined
  /** 1 to 500. Default: 50. */
  readonly limit?: number | undefined
}

/**
 * A page of conversations, last activity first.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConversationPage {
  readonly conversations: ReadonlyArray<ConversationSummary>
  readonly next: string | null
}

/**
 * A page of messages, always in the order they were sent. `older` and `newer` are the cursors of the pages on either
 * side; null where there is nothing more. `newer` of the newest page is not null: it finds what is sent later.
 *
 * @category models
 * @since 0.1.0
 */
export interface MessagePage {
  readonly messages: ReadonlyArray<Message>
  readonly older: string | null
  readonly newer: string | null
}

/**
 * A period of sent times: from `from` (included) to `to` (excluded). An end that is not given is open.
 *
 * @category models
 * @since 0.1.0
 */
export interface Period {
  readonly tenant?: Tenant | undefined
  readonly from?: Timestamp.Timestamp | undefined
  readonly to?: Timestamp.Timestamp | undefined
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * The cursor was not made by the same query.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidCursor extends Schema.TaggedError<InvalidCursor>("@strata/conversations/InvalidCursor")(
  "InvalidCursor",
  { cursor: Schema.String }
) {
  override get message() {
    return "The cursor does not belong to this list: start again without one"
  }
}

/**
 * The read models could not be read.
 *
 * @category errors
 * @since 0.1.0
 */
export class ReadModelUnavailable
  extends Schema.TaggedError<ReadModelUnavailable>("@strata/conversations/ReadModelUnavailable")(
    "ReadModelUnavailable",
    { query: Schema.String, cause: Schema.Defect() }
  )
{
  override get message() {
    return `The read models did not answer: ${this.query}`
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * Queries on conversations.
 *
 * @category services
 * @since 0.1.0
 */
export class ConversationQueries extends EffectContext.Service<ConversationQueries, {
  readonly list: (options: ListOptions) => Effect.Effect<ConversationPage, InvalidCursor | ReadModelUnavailable>
  /** `unreadCount` is that of `participant`, if one is given. */
  readonly get: (options: {
    readonly tenant?: Tenant | undefined
    readonly conversationId: ConversationId
    readonly participant?: UserId | undefined
  }) => Effect.Effect<Option.Option<ConversationDetail>, ReadModelUnavailable>
  /** None when there is no such conversation, or none with the message to look around. */
  readonly messages: (
    options: MessagesOptions
  ) => Effect.Effect<Option.Option<MessagePage>, InvalidCursor | ReadModelUnavailable>
  readonly message: (options: {
    readonly tenant?: Tenant | undefined
    readonly conversationId: ConversationId
    readonly messageId: MessageId
  }) => Effect.Effect<Option.Option<Message>, ReadModelUnavailable>
  /** A participant's unread messages: the sum, and the conversations that have any (at most 500, most unread first). */
  readonly unread: (options: {
    readonly tenant?: Tenant | undefined
    readonly userId: UserId
  }) => Effect.Effect<
    { readonly total: number; readonly conversations: ReadonlyArray<Unread> },
    ReadModelUnavailable
  >
  /** By sent time of the customer's message. `provider` is who responded, `contextType` the conversation's. */
  readonly responseTimes: (
    options: Period & { readonly provider?: UserId | undefined; readonly contextType?: ContextType | undefined }
  ) => Effect.Effect<ResponseTimes, ReadModelUnavailable>
  readonly daily: (options: Period) => Effect.Effect<DailyActivity, ReadModelUnavailable>
  /** Everything the tenant has: conversations started, messages, different people who take part. */
  readonly totals: (options: {
    readonly tenant?: Tenant | undefined
  }) => Effect.Effect<Totals, ReadModelUnavailable>
}>()("@strata/conversations/read/ConversationQueries") {}
