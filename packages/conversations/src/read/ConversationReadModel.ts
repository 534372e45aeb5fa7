/**
 * What the read side of conversations answers with. Schemas only: clients may use it as well.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Schema from "effect/Schema"
import {
  Context,
  ConversationId,
  MessageId,
  MessageType,
  Metadata,
  Role,
  Status,
  UserId
} from "../domain/Conversation.ts"

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
  lastReadAt: Schema.NullOr(Timestamp.Timestamp),
  /** They want to hear of no message. */
  muted: Schema.Boolean
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
 * Totals over a tenant.
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
