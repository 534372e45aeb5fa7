/**
 * What participants are told of a message, and the topic on which the world is told of it.
 *
 * **Details**
 *
 * A message that is sent is announced on the topic `conversation-messages`, by the statement that stores it: `announce` makes what is
 * published. An announcement names those who are to hear of the message: who took part when it was sent, but the sender and those who had
 * muted the conversation. Anybody may read that topic with a group of their own.
 *
 * @since 0.1.0
 */
import type { EventId } from "@strata/event-store/Fact"
import * as Publication from "@strata/outbox/Publication"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Topic from "@strata/queues/topics/Topic"
import * as Arr from "effect/Array"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Schema from "effect/Schema"
import { ConversationId, MessageId, MessageType, Role, UserId } from "../domain/Conversation.ts"
import type { ConversationEvent, EventOf } from "../domain/ConversationEvent.ts"
import type { ConversationState, Started } from "../domain/ConversationState.ts"
import { preview } from "../domain/Preview.ts"
import * as Identity from "../write/Identity.ts"

// --------------------------------------------------------------------------------------------------------- models

const message = {
  conversationId: ConversationId,
  messageId: MessageId,
  /** Its place in the conversation, by recording: 1, 2, 3 … */
  ordinal: Schema.Int,
  senderId: UserId,
  senderRole: Role,
  type: MessageType,
  /** The first 200 characters. */
  preview: Schema.String,
  sentAt: Timestamp.Timestamp
}

/**
 * A message that was sent, and some of those who are to hear of it: 500 at most, so that a large conversation makes several of one message.
 *
 * @category models
 * @since 0.1.0
 */
export const Announcement = Schema.Struct({ ...message, recipients: Schema.Array(UserId) })
export type Announcement = typeof Announcement.Type

/**
 * What one participant is told.
 *
 * @category models
 * @since 0.1.0
 */
export const Notification = Schema.Struct({
  /** A UUID that follows from the message and its recipient: who gets two with one id got one. */
  notificationId: Schema.String,
  tenant: Schema.String,
  recipientId: UserId,
  ...message
}).pipe(Schema.annotate({ identifier: "Notification" }))
export type Notification = typeof Notification.Type

/**
 * Where messages are announced, each under the key of its conversation. Kept for a day, and until every group has read it.
 *
 * @category topics
 * @since 0.1.0
 */
export const Announcements: Topic.Topic<Announcement> = Topic.make({
  name: "conversation-messages",
  payload: Announcement,
  settings: { keepFor: "1 day" }
})

// --------------------------------------------------------------------------------------------------- constructors

/** Recipients of one announcement: with ids of the longest kind it stays below the bytes that a message may have. */
const mostRecipients = 500

/**
 * What is published with events: an announcement of each message that somebody is to hear of.
 *
 * @category constructors
 * @since 0.1.0
 */
export const announce = (
  { events, state }: { readonly events: ReadonlyArray<ConversationEvent>; readonly state: ConversationState }
): ReadonlyArray<Publication.Publication> => {
  if (state._tag === "NotStarted" || !events.some(isMessage)) return []
  const messages = events.flatMap((event, index) =>
    isMessage(event) ? announcementsOf(event, state, events.slice(index + 1)) : []
  )
  return messages.length === 0 ? [] : [Publication.make(Announcements, messages)]
}

const isMessage = (event: ConversationEvent): event is EventOf<"MessageSent"> => event._tag === "MessageSent"

const announcementsOf = (
  event: EventOf<"MessageSent">,
  state: Started,
  later: ReadonlyArray<ConversationEvent>
): ReadonlyArray<Publication.NewMessage<Announcement>> =>
  Arr.chunksOf(recipientsOf(event.senderId, state, later), mostRecipients).map((recipients) => ({
    key: event.conversationId,
    payload: {
      conversationId: event.conversationId,
      messageId: event.messageId,
      ordinal: event.ordinal,
      senderId: event.senderId,
      senderRole: event.senderRole,
      type: event.type,
      preview: preview(event.content),
      sentAt: event.sentAt,
      recipients
    }
  }))

/** Who takes part and has not muted, before some later events that the state knows of. */
const recipientsOf = (
  sender: UserId,
  { muted, participants }: Started,
  later: ReadonlyArray<ConversationEvent>
): ReadonlyArray<UserId> => {
  let silent = HashSet.add(muted, sender)
  for (const event of later.toReversed()) {
    if (event._tag === "ParticipantJoined" || event._tag === "ParticipantUnmuted") {
      silent = HashSet.add(silent, event.userId)
    }
    if (event._tag === "ParticipantMuted" && event.userId !== sender) silent = HashSet.remove(silent, event.userId)
  }
  return Array.from(HashMap.keys(participants)).filter((userId) => !HashSet.has(silent, userId)).toSorted()
}

/**
 * What each recipient of an announcement is told.
 *
 * @category constructors
 * @since 0.1.0
 */
export const notificationsOf = (
  { recipients, ...message }: Announcement,
  tenant: string
): ReadonlyArray<Notification> =>
  recipients.map((recipientId) => ({
    notificationId: notificationId(tenant, message, recipientId),
    tenant,
    recipientId,
    ...message
  }))

const notificationId = (
  tenant: string,
  { conversationId, messageId }: Omit<Announcement, "recipients">,
  recipient: UserId
): EventId => Identity.uuidOf(`${tenant}\0${conversationId}\0notified\0${messageId}\0${recipient}`)
