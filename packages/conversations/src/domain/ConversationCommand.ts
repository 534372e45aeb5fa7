/**
 * What can be asked of a conversation.
 *
 * **Details**
 *
 * A command carries everything the decision needs: ids, hashes and times are made before, so that deciding is pure.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import type {
  Context,
  ConversationId,
  MessageId,
  MessageType,
  Metadata,
  Participant,
  Role,
  UserId
} from "./Conversation.ts"

/**
 * Starts a conversation. The same start again changes nothing.
 *
 * @category models
 * @since 0.1.0
 */
export interface StartConversation {
  readonly _tag: "StartConversation"
  readonly conversationId: ConversationId
  readonly context: Context
  readonly participants: ReadonlyArray<Participant>
  readonly at: Timestamp.Timestamp
}

/**
 * Lets somebody take part. Again in the same role changes nothing.
 *
 * @category models
 * @since 0.1.0
 */
export interface AddParticipant {
  readonly _tag: "AddParticipant"
  readonly conversationId: ConversationId
  readonly userId: UserId
  readonly role: Role
  readonly at: Timestamp.Timestamp
}

/**
 * Sends a message.
 *
 * With `idGiven`, the id is the caller's own, and the same message again changes nothing. Without, the id was made for
 * the command, and the message changes nothing when the same sender sent the same content a short time before.
 *
 * @category models
 * @since 0.1.0
 */
export interface SendMessage {
  readonly _tag: "SendMessage"
  readonly conversationId: ConversationId
  readonly messageId: MessageId
  readonly idGiven: boolean
  readonly senderId: UserId
  readonly type: MessageType
  readonly content: string
  /** SHA-256 of the content's UTF-8 in hexadecimal. */
  readonly contentHash: string
  readonly replyTo: MessageId | null
  readonly metadata: Metadata | null
  readonly at: Timestamp.Timestamp
}

/**
 * A participant has read everything recorded up to a message: to the last one when `upTo` is null. What was read before
 * stays read.
 *
 * @category models
 * @since 0.1.0
 */
export interface MarkRead {
  readonly _tag: "MarkRead"
  readonly conversationId: ConversationId
  readonly userId: UserId
  readonly upTo: MessageId | null
  readonly at: Timestamp.Timestamp
}

/**
 * A participant wants to hear of messages, or of none. Again changes nothing.
 *
 * @category models
 * @since 0.1.0
 */
export interface SetMuted {
  readonly _tag: "SetMuted"
  readonly conversationId: ConversationId
  readonly userId: UserId
  readonly muted: boolean
  readonly at: Timestamp.Timestamp
}

/**
 * Closes the conversation. Again changes nothing.
 *
 * @category models
 * @since 0.1.0
 */
export interface ArchiveConversation {
  readonly _tag: "ArchiveConversation"
  readonly conversationId: ConversationId
  readonly at: Timestamp.Timestamp
}

/**
 * Any of them.
 *
 * @category models
 * @since 0.1.0
 */
export type ConversationCommand =
  | StartConversation
  | AddParticipant
  | SendMessage
  | MarkRead
  | SetMuted
  | ArchiveConversation
