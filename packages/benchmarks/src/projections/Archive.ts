/**
 * Facts of the shape that an archive of a real chat has: conversations of 18 messages, a few people each, most answers within the hour.
 *
 * @since 0.1.0
 */
import { ConversationId, MessageId, UserId } from "@strata/conversations/domain/Conversation"
import {
  type ConversationEvent,
  ConversationEvents,
  ConversationStarted,
  MessageSent
} from "@strata/conversations/domain/ConversationEvent"
import { type NewFact, streamId } from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"

/**
 * Messages of a conversation.
 *
 * @category constants
 * @since 0.1.0
 */
export const messagesEach = 18

/**
 * Facts of a conversation: its start, and its messages.
 *
 * @category constants
 * @since 0.1.0
 */
export const factsEach = messagesEach + 1

const minute = 60_000_000n
const begin = 1_600_000_000_000_000n
const content =
  "<p>I think that the second lemma follows from the first one by induction; see the file about lists.</p>"

/** So many conversations begin on one day. */
const perDay = 50

const sentAt = (conversation: number, ordinal: number): Timestamp.Timestamp =>
  Timestamp.fromMicros(
    begin + BigInt(Math.floor(conversation / perDay)) * 1440n * minute
      + BigInt((conversation * 7919) % 1_200 + ((ordinal * (1 + conversation % 37)) ** 1.3 | 0)) * minute
      + BigInt(conversation * 31 + ordinal * 17) % minute
  )

/**
 * What happens in the nth conversation, from 0.
 *
 * @category constructors
 * @since 0.1.0
 */
export const events = (conversation: number): ReadonlyArray<ConversationEvent> => {
  const conversationId = ConversationId.make(`c${conversation}`)
  const customer = UserId.make(`person ${conversation % 1369}`)
  const provider = UserId.make(`helper ${conversation % 41}`)
  return [
    ConversationStarted.make({
      conversationId,
      context: { type: "GENERAL", id: null, metadata: { category: `stream ${conversation % 7}` } },
      participants: [{ userId: customer, role: "CUSTOMER" }, { userId: provider, role: "SERVICE_PROVIDER" }],
      startedAt: sentAt(conversation, 1)
    }),
    ...Array.from({ length: messagesEach }, (_, index) => {
      const byCustomer = index === 0 || (index * 5 + conversation) % 3 === 0
      return MessageSent.make({
        conversationId,
        messageId: MessageId.make(`m${index + 1}`),
        ordinal: index + 1,
        senderId: byCustomer ? customer : provider,
        senderRole: byCustomer ? "CUSTOMER" : "SERVICE_PROVIDER",
        type: "TEXT",
        content,
        contentHash: "0".repeat(64),
        size: content.length,
        replyTo: null,
        metadata: null,
        sentAt: sentAt(conversation, index + 1)
      })
    })
  ]
}

/**
 * The same as facts to append.
 *
 * @category constructors
 * @since 0.1.0
 */
export const facts = (conversation: number): ReadonlyArray<NewFact> =>
  events(conversation).map((event) =>
    ConversationEvents.encode(event, { stream: streamId("conversation", event.conversationId) })
  )
