/**
 * What happens in a conversation. The stream `conversation-<id>` holds one conversation's events.
 *
 * **Details**
 *
 * Times in events are valid time: when it happened in the world, as far as the caller may say so. When it was recorded is
 * on the fact.
 *
 * @since 0.1.0
 */
import * as EventDefinition from "@strata/event-store/EventDefinition"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Schema from "effect/Schema"
import { Context, ConversationId, MessageId, MessageType, Metadata, Participant, Role, UserId } from "./Conversation.ts"

/**
 * A conversation begins, with those who take part from the start, ordered by user id.
 *
 * @category events
 * @since 0.1.0
 */
export const ConversationStarted = EventDefinition.make("ConversationStarted", {
  fields: {
    conversationId: ConversationId,
    context: Context,
    participants: Schema.Array(Participant),
    startedAt: Timestamp.Timestamp
  }
})

/**
 * Somebody joins.
 *
 * @category events
 * @since 0.1.0
 */
export const ParticipantJoined = EventDefinition.make("ParticipantJoined", {
  fields: { conversationId: ConversationId, userId: UserId, role: Role, joinedAt: Timestamp.Timestamp }
})

/**
 * A message is sent. `ordinal` counts the conversation's messages 1, 2, 3 … in the order they were recorded; `size` is
 * the content's length in bytes of UTF-8, and `contentHash` its SHA-256 in hexadecimal.
 *
 * @category events
 * @since 0.1.0
 */
export const MessageSent = EventDefinition.make("MessageSent", {
  fields: {
    conversationId: ConversationId,
    messageId: MessageId,
    ordinal: Schema.Int,
    senderId: UserId,
    senderRole: Role,
    type: MessageType,
    content: Schema.String,
    contentHash: Schema.String,
    size: Schema.Int,
    replyTo: Schema.NullOr(MessageId),
    metadata: Schema.NullOr(Metadata),
    sentAt: Timestamp.Timestamp
  }
})

/**
 * A participant has read everything recorded up to a message, whose `ordinal` comes with it.
 *
 * @category events
 * @since 0.1.0
 */
export const MessagesRead = EventDefinition.make("MessagesRead", {
  fields: {
    conversationId: ConversationId,
    userId: UserId,
    upTo: MessageId,
    ordinal: Schema.Int,
    readAt: Timestamp.Timestamp
  }
})

/**
 * A participant wants to hear of no more messages; they still take part, and can read them.
 *
 * @category events
 * @since 0.1.0
 */
export const ParticipantMuted = EventDefinition.make("ParticipantMuted", {
  fields: { conversationId: ConversationId, userId: UserId, mutedAt: Timestamp.Timestamp }
})

/**
 * A participant wants to hear of messages again.
 *
 * @category events
 * @since 0.1.0
 */
export const ParticipantUnmuted = EventDefinition.make("ParticipantUnmuted", {
  fields: { conversationId: ConversationId, userId: UserId, unmutedAt: Timestamp.Timestamp }
})

/**
 * The conversation is closed: it is kept and read, and takes no more messages.
 *
 * @category events
 * @since 0.1.0
 */
export const ConversationArchived = EventDefinition.make("ConversationArchived", {
  fields: { conversationId: ConversationId, archivedAt: Timestamp.Timestamp }
})

/**
 * All of them.
 *
 * @category events
 * @since 0.1.0
 */
export const ConversationEvents = EventDefinition.set([
  ConversationStarted,
  ParticipantJoined,
  MessageSent,
  MessagesRead,
  ParticipantMuted,
  ParticipantUnmuted,
  ConversationArchived
])
export type ConversationEvent = EventDefinition.Event<typeof ConversationEvents>

/**
 * One kind of them.
 *
 * @category models
 * @since 0.1.0
 */
export type EventOf<Tag extends ConversationEvent["_tag"]> = Extract<ConversationEvent, { readonly _tag: Tag }>

/**
 * When an event happened in the world.
 *
 * @category getters
 * @since 0.1.0
 */
export const happenedAt = (event: ConversationEvent): Timestamp.Timestamp => {
  switch (event._tag) {
    case "ConversationStarted":
      return event.startedAt
    case "ParticipantJoined":
      return event.joinedAt
    case "MessageSent":
      return event.sentAt
    case "MessagesRead":
      return event.readAt
    case "ParticipantMuted":
      return event.mutedAt
    case "ParticipantUnmuted":
      return event.unmutedAt
    case "ConversationArchived":
      return event.archivedAt
  }
}
