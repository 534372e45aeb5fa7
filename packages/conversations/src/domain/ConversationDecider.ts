/**
 * Decides commands on a conversation. Pure: it reads no clock, no database and makes no ids.
 *
 * @since 0.1.0
 */
import * as Decider from "@strata/event-store/Decider"
import * as Duration from "effect/Duration"
import * as Equal from "effect/Equal"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { Participant } from "./Conversation.ts"
import type {
  AddParticipant,
  ArchiveConversation,
  ConversationCommand,
  MarkRead,
  SendMessage,
  SetMuted,
  StartConversation
} from "./ConversationCommand.ts"
import * as Refused from "./ConversationError.ts"
import * as Event from "./ConversationEvent.ts"
import * as State from "./ConversationState.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * The limits of a conversation.
 *
 * @category options
 * @since 0.1.0
 */
export interface Limits {
  /** Bytes of UTF-8 in a message. Default: 262,144. */
  readonly contentBytes: number
  /** Participants of a conversation. Default: 10,000. */
  readonly participants: number
  /**
   * A message without an id of its own is a duplicate when its sender sent the same content at most this long before or
   * after it: exactly this long still is one. `0` compares only messages sent at the same microsecond. Default: 5 minutes.
   */
  readonly duplicateWindow: Duration.Duration
}

/**
 * The limits that hold unless others are given.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultLimits: Limits = {
  contentBytes: 262_144,
  participants: 10_000,
  duplicateWindow: Duration.minutes(5)
}

/**
 * The decider of conversations.
 *
 * @category models
 * @since 0.1.0
 */
export type ConversationDecider = Decider.Decider<
  State.ConversationState,
  ConversationCommand,
  Event.ConversationEvent,
  Refused.ConversationError
>

type Decision = Result.Result<ReadonlyArray<Event.ConversationEvent>, Refused.Reason>

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Makes the decider for some limits.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (limits: Limits = defaultLimits): ConversationDecider => {
  const window = windowMicros(limits)
  return Decider.make({
    category: "conversation",
    events: Event.ConversationEvents,
    initial: State.initial,
    evolve: State.evolve(window),
    decide: (command, state) =>
      Result.mapError(decide(command, state), (reason) => new Refused.ConversationError({ reason })),
    snapshot: { schema: State.ConversationState, version: 2, every: 500 }
  })

  function decide(command: ConversationCommand, state: State.ConversationState): Decision {
    if (command._tag === "StartConversation") return startConversation(command, state, limits)
    if (state._tag === "NotStarted") {
      return Result.fail(new Refused.ConversationNotFound({ conversationId: command.conversationId }))
    }
    switch (command._tag) {
      case "AddParticipant":
        return addParticipant(command, state, limits)
      case "SendMessage":
        return sendMessage(command, state, limits, window)
      case "MarkRead":
        return markRead(command, state)
      case "SetMuted":
        return setMuted(command, state)
      case "ArchiveConversation":
        return archive(command, state)
    }
  }
}

/**
 * The duplicate window in microseconds.
 *
 * @category getters
 * @since 0.1.0
 */
export const windowMicros = (limits: Limits): bigint =>
  Option.getOrThrow(Duration.toNanos(limits.duplicateWindow)) / 1000n

// ------------------------------------------------------------------------------------------------------ decisions

const nothing: Decision = Result.succeed([])

const startConversation = (
  { at, context, conversationId, participants: given }: StartConversation,
  state: State.ConversationState,
  limits: Limits
): Decision => {
  const roles = new Map<Participant["userId"], Participant["role"]>()
  for (const { role, userId } of given) {
    const other = roles.get(userId)
    if (other !== undefined && other !== role) {
      return Result.fail(new Refused.ParticipantHasOtherRole({ conversationId, userId, role: other }))
    }
    roles.set(userId, role)
  }
  const participants = [...roles]
    .map(([userId, role]) => ({ userId, role }))
    .sort((a, b) => a.userId < b.userId ? -1 : 1)
  if (state._tag === "Started") {
    return Equal.equals(state.context, context) && Equal.equals(state.founders, participants)
      ? nothing
      : Result.fail(new Refused.ConversationExists({ conversationId }))
  }
  if (participants.length === 0) return Result.fail(new Refused.NoParticipants({ conversationId }))
  if (participants.length > limits.participants) {
    return Result.fail(new Refused.TooManyParticipants({ conversationId, limit: limits.participants }))
  }
  return Result.succeed([Event.ConversationStarted.make({ conversationId, context, participants, startedAt: at })])
}

const addParticipant = (
  { at, conversationId, role, userId }: AddParticipant,
  state: State.Started,
  limits: Limits
): Decision => {
  const other = HashMap.get(state.participants, userId)
  if (Option.isSome(other)) {
    return other.value === role
      ? nothing
      : Result.fail(new Refused.ParticipantHasOtherRole({ conversationId, userId, role: other.value }))
  }
  if (state.archived) return Result.fail(new Refused.ConversationArchived({ conversationId }))
  if (HashMap.size(state.participants) >= limits.participants) {
    return Result.fail(new Refused.TooManyParticipants({ conversationId, limit: limits.participants }))
  }
  return Result.succeed([Event.ParticipantJoined.make({ conversationId, userId, role, joinedAt: at })])
}

/** What was sent before is answered before anything else is judged, so that a repeated call never begins to fail. */
const sendMessage = (command: SendMessage, state: State.Started, limits: Limits, window: bigint): Decision => {
  const { content, conversationId, messageId, replyTo, senderId } = command
  const senderRole = HashMap.get(state.participants, senderId)
  if (Option.isNone(senderRole)) return Result.fail(new Refused.NotAParticipant({ conversationId, userId: senderId }))

  const known = HashMap.get(state.messages, messageId)
  if (Option.isSome(known)) {
    return isSame(command, known.value)
      ? nothing
      : Result.fail(new Refused.MessageIdTaken({ conversationId, messageId }))
  }
  if (!command.idGiven && Option.isSome(State.recentDuplicate(state, command, window))) return nothing

  if (state.archived) return Result.fail(new Refused.ConversationArchived({ conversationId }))
  if (content.trim() === "") return Result.fail(new Refused.ContentEmpty({ conversationId }))
  const size = Buffer.byteLength(content, "utf8")
  if (size > limits.contentBytes) {
    return Result.fail(new Refused.ContentTooLong({ conversationId, size, limit: limits.contentBytes }))
  }
  if (content.includes("\0") || !content.isWellFormed()) {
    return Result.fail(new Refused.ContentNotText({ conversationId }))
  }
  if (replyTo !== null && !HashMap.has(state.messages, replyTo)) {
    return Result.fail(new Refused.ReplyToUnknownMessage({ conversationId, replyTo }))
  }
  return Result.succeed([
    Event.MessageSent.make({
      conversationId,
      messageId,
      ordinal: HashMap.size(state.messages) + 1,
      senderId,
      senderRole: senderRole.value,
      type: command.type,
      content,
      contentHash: command.contentHash,
      size,
      replyTo,
      metadata: command.metadata,
      sentAt: command.at
    })
  ])
}

const isSame = (command: SendMessage, known: State.KnownMessage): boolean =>
  known.contentHash === command.contentHash && known.senderId === command.senderId && known.type === command.type &&
  known.replyTo === command.replyTo

const markRead = ({ at, conversationId, upTo: given, userId }: MarkRead, state: State.Started): Decision => {
  if (!HashMap.has(state.participants, userId)) {
    return Result.fail(new Refused.NotAParticipant({ conversationId, userId }))
  }
  const upTo = given ?? state.lastMessageId
  if (upTo === null) return nothing
  const message = HashMap.get(state.messages, upTo)
  if (Option.isNone(message)) return Result.fail(new Refused.UnknownMessage({ conversationId, messageId: upTo }))
  const { ordinal } = message.value
  const before = Option.getOrElse(HashMap.get(state.readUpTo, userId), () => 0)
  return ordinal <= before
    ? nothing
    : Result.succeed([Event.MessagesRead.make({ conversationId, userId, upTo, ordinal, readAt: at })])
}

const setMuted = ({ at, conversationId, muted, userId }: SetMuted, state: State.Started): Decision => {
  if (!HashMap.has(state.participants, userId)) {
    return Result.fail(new Refused.NotAParticipant({ conversationId, userId }))
  }
  if (HashSet.has(state.muted, userId) === muted) return nothing
  return Result.succeed([
    muted
      ? Event.ParticipantMuted.make({ conversationId, userId, mutedAt: at })
      : Event.ParticipantUnmuted.make({ conversationId, userId, unmutedAt: at })
  ])
}

const archive = ({ at, conversationId }: ArchiveConversation, state: State.Started): Decision =>
  state.archived
    ? nothing
    : Result.succeed([Event.ConversationArchived.make({ conversationId, archivedAt: at })])
