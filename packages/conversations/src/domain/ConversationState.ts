/**
 * What a decision on a conversation needs to know of its history.
 *
 * **Details**
 *
 * All collections are persistent: an event adds to them without copying them, so a conversation of ten thousand
 * messages folds as fast per event as one of ten. Hashes are looked up in two generations of `recent` messages: when
 * the newest message is more than the duplicate window later than the first of the current generation, the current one
 * becomes the previous one and a new one begins. So every message sent within the window before the newest one is in
 * one of the two, and nothing older than two windows is kept.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Context, MessageId, MessageType, Participant, Role, UserId } from "./Conversation.ts"
import type { ConversationEvent, EventOf } from "./ConversationEvent.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What is known of a message: its place, and what makes it the same message when it is sent again.
 *
 * @category models
 * @since 0.1.0
 */
export const KnownMessage = Schema.Struct({
  ordinal: Schema.Int,
  sentAt: Timestamp.Timestamp,
  senderId: UserId,
  type: MessageType,
  replyTo: Schema.NullOr(MessageId),
  contentHash: Schema.String
})
export type KnownMessage = typeof KnownMessage.Type

/** The newest message by sender and content hash. */
const Recent = Schema.HashMap(Schema.String, MessageId)

/**
 * A conversation that was started.
 *
 * @category models
 * @since 0.1.0
 */
export const Started = Schema.TaggedStruct("Started", {
  archived: Schema.Boolean,
  /** What it was started with, to tell the same start from another one. */
  context: Context,
  founders: Schema.Array(Participant),
  participants: Schema.HashMap(UserId, Role),
  /** Participants who want to hear of no message. */
  muted: Schema.HashSet(UserId),
  messages: Schema.HashMap(MessageId, KnownMessage),
  lastMessageId: Schema.NullOr(MessageId),
  /** Ordinals of the messages up to which participants have read. */
  readUpTo: Schema.HashMap(UserId, Schema.Int),
  recent: Schema.Struct({
    /** Sent time of the first message of the current generation. */
    since: Timestamp.Timestamp,
    current: Recent,
    previous: Recent
  })
})
export type Started = typeof Started.Type

/**
 * A conversation's state: not started, or started.
 *
 * @category models
 * @since 0.1.0
 */
export const ConversationState = Schema.Union([Schema.TaggedStruct("NotStarted", {}), Started])
export type ConversationState = typeof ConversationState.Type

/**
 * Before the first event.
 *
 * @category constants
 * @since 0.1.0
 */
export const initial: ConversationState = { _tag: "NotStarted" }

// ---------------------------------------------------------------------------------------------------------- folds

/**
 * Folds an event into the state. `window` is the duplicate window in microseconds.
 *
 * @category folds
 * @since 0.1.0
 */
export const evolve = (window: bigint) => (state: ConversationState, event: ConversationEvent): ConversationState => {
  if (event._tag === "ConversationStarted") return start(event)
  if (state._tag === "NotStarted") return state
  switch (event._tag) {
    case "ParticipantJoined":
      return { ...state, participants: HashMap.set(state.participants, event.userId, event.role) }
    case "MessageSent":
      return {
        ...state,
        messages: HashMap.set(state.messages, event.messageId, {
          ordinal: event.ordinal,
          sentAt: event.sentAt,
          senderId: event.senderId,
          type: event.type,
          replyTo: event.replyTo,
          contentHash: event.contentHash
        }),
        lastMessageId: event.messageId,
        recent: remember(state.recent, event, window)
      }
    case "MessagesRead":
      return { ...state, readUpTo: HashMap.set(state.readUpTo, event.userId, event.ordinal) }
    case "ParticipantMuted":
      return { ...state, muted: HashSet.add(state.muted, event.userId) }
    case "ParticipantUnmuted":
      return { ...state, muted: HashSet.remove(state.muted, event.userId) }
    case "ConversationArchived":
      return { ...state, archived: true }
  }
}

const start = (event: EventOf<"ConversationStarted">): Started => ({
  _tag: "Started",
  archived: false,
  context: event.context,
  founders: event.participants,
  participants: HashMap.fromIterable(event.participants.map(({ role, userId }) => [userId, role] as const)),
  muted: HashSet.empty(),
  messages: HashMap.empty(),
  lastMessageId: null,
  readUpTo: HashMap.empty(),
  recent: { since: Timestamp.negativeInfinity, current: HashMap.empty(), previous: HashMap.empty() }
})

const recentKey = (senderId: UserId, contentHash: string) => `${contentHash} ${senderId}`

const remember = (recent: Started["recent"], event: EventOf<"MessageSent">, window: bigint): Started["recent"] => {
  const key = recentKey(event.senderId, event.contentHash)
  return event.sentAt - recent.since <= window
    ? { ...recent, current: HashMap.set(recent.current, key, event.messageId) }
    : { since: event.sentAt, current: HashMap.make([key, event.messageId]), previous: recent.current }
}

// -------------------------------------------------------------------------------------------------------- getters

/**
 * The message that the same sender sent with the same content at most `window` microseconds before or after a time.
 *
 * @category getters
 * @since 0.1.0
 */
export const recentDuplicate = (
  state: Started,
  message: { readonly senderId: UserId; readonly contentHash: string; readonly at: Timestamp.Timestamp },
  window: bigint
): Option.Option<MessageId> => {
  const key = recentKey(message.senderId, message.contentHash)
  const isNear = (id: MessageId) =>
    HashMap.get(state.messages, id).pipe(
      Option.exists(({ sentAt }) => message.at - sentAt <= window && sentAt - message.at <= window)
    )
  return HashMap.get(state.recent.current, key).pipe(
    Option.filter(isNear),
    Option.orElse(() => Option.filter(HashMap.get(state.recent.previous, key), isNear))
  )
}
