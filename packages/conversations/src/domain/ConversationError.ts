/**
 * What conversations refuse, and why.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { ConversationId, MessageId, Role, UserId } from "./Conversation.ts"

const id = (name: string) => `@strata/conversations/ConversationError/${name}`

/**
 * No such conversation was started.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConversationNotFound extends Schema.TaggedError<ConversationNotFound>(id("ConversationNotFound"))(
  "ConversationNotFound",
  { conversationId: ConversationId }
) {
  override get message() {
    return `There is no conversation ${this.conversationId}`
  }
}

/**
 * The conversation was started before, with another context or other participants.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConversationExists extends Schema.TaggedError<ConversationExists>(id("ConversationExists"))(
  "ConversationExists",
  { conversationId: ConversationId }
) {
  override get message() {
    return `Conversation ${this.conversationId} was started before, with another context or other participants`
  }
}

/**
 * The conversation is archived: it takes neither messages nor participants.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConversationArchived extends Schema.TaggedError<ConversationArchived>(id("ConversationArchived"))(
  "ConversationArchived",
  { conversationId: ConversationId }
) {
  override get message() {
    return `Conversation ${this.conversationId} is archived`
  }
}

/**
 * A conversation needs somebody who takes part.
 *
 * @category errors
 * @since 0.1.0
 */
export class NoParticipants extends Schema.TaggedError<NoParticipants>(id("NoParticipants"))(
  "NoParticipants",
  { conversationId: ConversationId }
) {
  override get message() {
    return `Conversation ${this.conversationId} needs at least one participant`
  }
}

/**
 * More people than a conversation takes.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooManyParticipants extends Schema.TaggedError<TooManyParticipants>(id("TooManyParticipants"))(
  "TooManyParticipants",
  { conversationId: ConversationId, limit: Schema.Int }
) {
  override get message() {
    return `Conversation ${this.conversationId} takes at most ${this.limit} participants`
  }
}

/**
 * The user takes part already, in another role; or is named twice at the start with different roles.
 *
 * @category errors
 * @since 0.1.0
 */
export class ParticipantHasOtherRole extends Schema.TaggedError<ParticipantHasOtherRole>(id("ParticipantHasOtherRole"))(
  "ParticipantHasOtherRole",
  { conversationId: ConversationId, userId: UserId, role: Role }
) {
  override get message() {
    return `${this.userId} takes part in conversation ${this.conversationId} as ${this.role}`
  }
}

/**
 * Only those who take part can send and read.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotAParticipant extends Schema.TaggedError<NotAParticipant>(id("NotAParticipant"))(
  "NotAParticipant",
  { conversationId: ConversationId, userId: UserId }
) {
  override get message() {
    return `${this.userId} does not take part in conversation ${this.conversationId}`
  }
}

/**
 * A message needs content other than white space.
 *
 * @category errors
 * @since 0.1.0
 */
export class ContentEmpty extends Schema.TaggedError<ContentEmpty>(id("ContentEmpty"))(
  "ContentEmpty",
  { conversationId: ConversationId }
) {
  override get message() {
    return "The message has no content"
  }
}

/**
 * The content has more bytes of UTF-8 than a message may have.
 *
 * @category errors
 * @since 0.1.0
 */
export class ContentTooLong extends Schema.TaggedError<ContentTooLong>(id("ContentTooLong"))(
  "ContentTooLong",
  { conversationId: ConversationId, size: Schema.Int, limit: Schema.Int }
) {
  override get message() {
    return `The message has ${this.size} bytes, at most ${this.limit} are allowed`
  }
}

/**
 * The content holds a NUL or half of a surrogate pair, which is not text.
 *
 * @category errors
 * @since 0.1.0
 */
export class ContentNotText extends Schema.TaggedError<ContentNotText>(id("ContentNotText"))(
  "ContentNotText",
  { conversationId: ConversationId }
) {
  override get message() {
    return "The message holds a NUL or half of a surrogate pair"
  }
}

/**
 * The message answered is not in the conversation.
 *
 * @category errors
 * @since 0.1.0
 */
export class ReplyToUnknownMessage extends Schema.TaggedError<ReplyToUnknownMessage>(id("ReplyToUnknownMessage"))(
  "ReplyToUnknownMessage",
  { conversationId: ConversationId, replyTo: MessageId }
) {
  override get message() {
    return `Conversation ${this.conversationId} has no message ${this.replyTo} to reply to`
  }
}

/**
 * The message id belongs to a message with other content, another sender, type or reply.
 *
 * @category errors
 * @since 0.1.0
 */
export class MessageIdTaken extends Schema.TaggedError<MessageIdTaken>(id("MessageIdTaken"))(
  "MessageIdTaken",
  { conversationId: ConversationId, messageId: MessageId }
) {
  override get message() {
    return `Message id ${this.messageId} belongs to another message of conversation ${this.conversationId}`
  }
}

/**
 * The conversation has no such message.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownMessage extends Schema.TaggedError<UnknownMessage>(id("UnknownMessage"))(
  "UnknownMessage",
  { conversationId: ConversationId, messageId: MessageId }
) {
  override get message() {
    return `Conversation ${this.conversationId} has no message ${this.messageId}`
  }
}

/**
 * Why a command was refused.
 *
 * @category errors
 * @since 0.1.0
 */
export const Reason = Schema.Union([
  ConversationNotFound,
  ConversationExists,
  ConversationArchived,
  NoParticipants,
  TooManyParticipants,
  ParticipantHasOtherRole,
  NotAParticipant,
  ContentEmpty,
  ContentTooLong,
  ContentNotText,
  ReplyToUnknownMessage,
  MessageIdTaken,
  UnknownMessage
])
export type Reason = typeof Reason.Type

/**
 * A command was refused. Nothing happened.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConversationError extends Schema.TaggedError<ConversationError>("@strata/conversations/ConversationError")(
  "ConversationError",
  { reason: Reason }
) {
  override get message(): string {
    return this.reason.message
  }
}
