/**
 * The write side of conversations: commands that are decided on the conversation's own history and appended to it.
 *
 * **Details**
 *
 * Every call is atomic, and safe to repeat: the same start, the same message, the same read mark again change nothing and
 * are answered like the first time, with `duplicate: true`. Tenants are apart: the same conversation id in two tenants is
 * two conversations.
 *
 * **Example** (Starting a conversation and sending the first message)
 *
 * ```ts
 * import { ConversationId, UserId } from "@strata/conversations/domain/Conversation"
 * import * as Conversations from "@strata/conversations/write/Conversations"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const conversations = yield* Conversations.Conversations
 *   const ada = UserId.make("ada")
 *   const { conversationId } = yield* conversations.start({
 *     participants: [{ userId: ada, role: "CUSTOMER" }, { userId: UserId.make("bob"), role: "SERVICE_PROVIDER" }]
 *   })
 *   return yield* conversations.send({ conversationId, senderId: ada, content: "Is it still free?" })
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as CommandHandler from "@strata/event-store/CommandHandler"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { EventDecodeError } from "@strata/event-store/EventDefinition"
import type { EventStore, EventStoreError, IdempotencyRecord } from "@strata/event-store/EventStore"
import type { Position } from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import type * as Arr from "effect/Array"
import * as EffectContext from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import {
  type Context,
  ConversationId,
  defaultTenant,
  generalContext,
  MessageId,
  type MessageType,
  type Metadata,
  type Participant,
  type Role,
  type Tenant,
  type UserId
} from "../domain/Conversation.ts"
import type { ConversationCommand, SendMessage } from "../domain/ConversationCommand.ts"
import * as ConversationDecider from "../domain/ConversationDecider.ts"
import type { ConversationError } from "../domain/ConversationError.ts"
import { type ConversationEvent, happenedAt } from "../domain/ConversationEvent.ts"
import { type ConversationState, recentDuplicate } from "../domain/ConversationState.ts"
import { announce } from "../notifications/Notification.ts"
import * as Identity from "./Identity.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * A conversation to start. Without an id it gets a UUIDv7; the context defaults to `GENERAL`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Start {
  readonly conversationId?: ConversationId | undefined
  readonly context?: Partial<Context> | undefined
  readonly participants: ReadonlyArray<Participant>
}

/**
 * Somebody to add.
 *
 * @category models
 * @since 0.1.0
 */
export interface Add {
  readonly conversationId: ConversationId
  readonly userId: UserId
  readonly role: Role
}

/**
 * A message to send. With an id it is idempotent by it; without, it gets a UUIDv7 and is compared with what the
 * same sender sent a short time before. The type defaults to `TEXT`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Send {
  readonly conversationId: ConversationId
  readonly messageId?: MessageId | undefined
  readonly senderId: UserId
  readonly content: string
  readonly type?: MessageType | undefined
  readonly replyTo?: MessageId | undefined
  readonly metadata?: Metadata | undefined
}

/**
 * What a participant has read: everything up to a message, or everything there is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Read {
  readonly conversationId: ConversationId
  readonly userId: UserId
  readonly upTo?: MessageId | undefined
}

/**
 * Whether a participant wants to hear of messages. `muted` defaults to true.
 *
 * @category models
 * @since 0.1.0
 */
export interface Mute {
  readonly conversationId: ConversationId
  readonly userId: UserId
  readonly muted?: boolean | undefined
}

/**
 * Any command, for `execute`. Each may say when it happened; that goes before the call's `at`.
 *
 * @category models
 * @since 0.1.0
 */
export type Command =
  | { readonly _tag: "Start"; readonly at?: Timestamp.Timestamp | undefined } & Omit<Start, "conversationId">
  | { readonly _tag: "Add"; readonly at?: Timestamp.Timestamp | undefined } & Omit<Add, "conversationId">
  | { readonly _tag: "Send"; readonly at?: Timestamp.Timestamp | undefined } & Omit<Send, "conversationId">
  | { readonly _tag: "Read"; readonly at?: Timestamp.Timestamp | undefined } & Omit<Read, "conversationId">
  | { readonly _tag: "Mute"; readonly at?: Timestamp.Timestamp | undefined } & Omit<Mute, "conversationId">
  | { readonly _tag: "Archive"; readonly at?: Timestamp.Timestamp | undefined }

/**
 * What goes with a call and is not part of the command.
 *
 * @category options
 * @since 0.1.0
 */
export interface CallOptions {
  /** Default: `default`. */
  readonly tenant?: Tenant | undefined
  /** Who does it. */
  readonly actor?: string | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  /** When it happened in the world, for importers and trusted callers. Default: now. */
  readonly at?: Timestamp.Timestamp | undefined
  /** False for importers of messages of which nobody is to hear any more. Default: true. */
  readonly announce?: boolean | undefined
  /**
   * A client's key, kept in the same transaction as the events. It is made from the ids of the answer, so that the
   * record can hold what a repeated request is to be answered with. Not kept when nothing happened.
   */
  readonly idempotency?: ((answer: AnswerIds) => IdempotencyRecord) | undefined
}

/**
 * The ids in an answer. `messageId` is there when a message was sent.
 *
 * @category models
 * @since 0.1.0
 */
export interface AnswerIds {
  readonly conversationId: ConversationId
  readonly messageId: MessageId | undefined
}

/**
 * What a call led to.
 *
 * @category models
 * @since 0.1.0
 */
export interface Outcome {
  readonly conversationId: ConversationId
  /** True when all of it had happened before. */
  readonly duplicate: boolean
  /** A position at which read models show it. */
  readonly position: Position
  /** The conversation's version: how many facts its stream holds. */
  readonly version: number
}

/**
 * What sending led to: the first message's id and time when it is a duplicate.
 *
 * @category models
 * @since 0.1.0
 */
export interface SendOutcome extends Outcome {
  readonly messageId: MessageId
  /** The place of the message in the conversation, by recording: 1, 2, 3 … */
  readonly ordinal: number
  readonly sentAt: Timestamp.Timestamp
}

/**
 * What many commands led to: how many events happened, and how many of the messages had been sent before.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExecuteOutcome extends Outcome {
  readonly events: number
  readonly duplicateMessages: number
}

/**
 * Why a call failed: refused by the domain, the store did not take it, or the history cannot be read.
 *
 * @category errors
 * @since 0.1.0
 */
export type CallError = ConversationError | EventStoreError | EventDecodeError

// -------------------------------------------------------------------------------------------------------- service

/**
 * Commands on conversations.
 *
 * @category services
 * @since 0.1.0
 */
export class Conversations extends EffectContext.Service<Conversations, {
  readonly start: (start: Start, options?: CallOptions) => Effect.Effect<Outcome, CallError>
  readonly addParticipant: (add: Add, options?: CallOptions) => Effect.Effect<Outcome, CallError>
  readonly send: (send: Send, options?: CallOptions) => Effect.Effect<SendOutcome, CallError>
  readonly markRead: (read: Read, options?: CallOptions) => Effect.Effect<Outcome, CallError>
  readonly mute: (mute: Mute, options?: CallOptions) => Effect.Effect<Outcome, CallError>
  readonly archive: (conversationId: ConversationId, options?: CallOptions) => Effect.Effect<Outcome, CallError>
  /**
   * Many commands on one conversation, decided in turn and appended as one: all of them or, when one is refused, none.
   * For importers.
   */
  readonly execute: (
    conversationId: ConversationId,
    commands: readonly [Command, ...Array<Command>],
    options?: CallOptions
  ) => Effect.Effect<ExecuteOutcome, CallError>
}>()("@strata/conversations/write/Conversations") {}

// ---------------------------------------------------------------------------------------------------------- layer

/**
 * Options of the write side.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** What a conversation takes. Defaults: `ConversationDecider.defaultLimits`. */
  readonly limits?: Partial<ConversationDecider.Limits> | undefined
  /** Whether messages are announced on their topic, for `Notifications`. Needs the tables of the outbox. Default: false. */
  readonly announce?: boolean | undefined
}

/**
 * Conversations in the store in scope.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Conversations, never, EventStore> =>
  Layer.effect(Conversations, make(options)).pipe(Layer.provide(SecureRandom.layerWebCrypto))

const make = Effect.fnUntraced(function*(options: Options) {
  const limits = { ...ConversationDecider.defaultLimits, ...options.limits }
  const window = ConversationDecider.windowMicros(limits)
  const random = yield* SecureRandom.SecureRandom
  // Somebody else sends the same message right now: what they stored answers this call, or refuses it.
  const handler = yield* CommandHandler.make(ConversationDecider.make(limits), {
    onEventIdTaken: "decideAgain",
    publish: options.announce === true ? announce : undefined
  })

  const run = Effect.fnUntraced(function*(
    conversationId: ConversationId,
    commands: Arr.NonEmptyReadonlyArray<ConversationCommand>,
    call: CallOptions
  ) {
    const { actor, announce: publish, causationId, correlationId, idempotency, tenant = defaultTenant } = call
    yield* Effect.annotateCurrentSpan({ "conversation.id": conversationId, "conversation.tenant": tenant })
    return yield* handler.execute(conversationId, commands, {
      actor,
      causationId,
      correlationId,
      validFrom: happenedAt,
      eventId: (event) => Identity.eventId(conversationId, event),
      idempotency: idempotency?.({ conversationId, messageId: lastMessageId(commands) }),
      publish
    }).pipe(Effect.provideService(CurrentTenant, tenant))
  })

  const runOne = Effect.fnUntraced(function*(conversationId: ConversationId, command: Command, call: CallOptions) {
    const result = yield* run(conversationId, [yield* complete(conversationId, command, call.at)], call)
    return outcome(conversationId, result)
  })

  const complete = Effect.fnUntraced(function*(
    conversationId: ConversationId,
    command: Command,
    at: Timestamp.Timestamp | undefined
  ) {
    const madeId = command._tag === "Send" && command.messageId === undefined ? yield* random.uuidV7() : ""
    return toDomain(conversationId, command, command.at ?? at ?? (yield* Timestamp.now), madeId)
  })

  const send = Effect.fn("Conversations.send")(function*(
    { conversationId, ...message }: Send,
    call: CallOptions = {}
  ): Effect.fn.Return<SendOutcome, CallError> {
    const command = yield* complete(conversationId, { _tag: "Send", ...message }, call.at)
    const result = yield* run(conversationId, [command], call)
    const sent = yield* Effect.orDie(Effect.fromOption(messageOf(command, result.state, window)))
    return { ...outcome(conversationId, result), ...sent }
  })

  return Conversations.of({
    start: Effect.fn("Conversations.start")(function*({ conversationId: given, ...start }, call = {}) {
      const conversationId = given ?? ConversationId.make(yield* random.uuidV7())
      return yield* runOne(conversationId, { _tag: "Start", ...start }, call)
    }),
    addParticipant: Effect.fn("Conversations.addParticipant")(({ conversationId, ...add }, call = {}) =>
      runOne(conversationId, { _tag: "Add", ...add }, call)
    ),
    send,
    markRead: Effect.fn("Conversations.markRead")(({ conversationId, ...read }, call = {}) =>
      runOne(conversationId, { _tag: "Read", ...read }, call)
    ),
    mute: Effect.fn("Conversations.mute")(({ conversationId, ...mute }, call = {}) =>
      runOne(conversationId, { _tag: "Mute", ...mute }, call)
    ),
    archive: Effect.fn("Conversations.archive")((conversationId, call = {}) =>
      runOne(conversationId, { _tag: "Archive" }, call)
    ),
    execute: Effect.fn("Conversations.execute")(function*(conversationId, commands, call = {}) {
      const completed = yield* Effect.forEach(commands, (command) => complete(conversationId, command, call.at))
      const result = yield* run(conversationId, completed, call)
      const happened = result.duplicate ? [] : result.events
      return {
        ...outcome(conversationId, result),
        events: happened.length,
        duplicateMessages: completed.filter(isSend).length -
          happened.filter(({ _tag }) => _tag === "MessageSent").length
      }
    })
  })
})

// ------------------------------------------------------------------------------------------------------- commands

const toDomain = (
  conversationId: ConversationId,
  command: Command,
  at: Timestamp.Timestamp,
  madeId: string
): ConversationCommand => {
  switch (command._tag) {
    case "Start":
      return {
        _tag: "StartConversation",
        conversationId,
        context: { ...generalContext, ...command.context },
        participants: command.participants,
        at
      }
    case "Add":
      return { _tag: "AddParticipant", conversationId, userId: command.userId, role: command.role, at }
    case "Send":
      return {
        _tag: "SendMessage",
        conversationId,
        messageId: command.messageId ?? MessageId.make(madeId),
        idGiven: command.messageId !== undefined,
        senderId: command.senderId,
        type: command.type ?? "TEXT",
        content: command.content,
        contentHash: Identity.sha256(command.content),
        replyTo: command.replyTo ?? null,
        metadata: command.metadata ?? null,
        at
      }
    case "Read":
      return { _tag: "MarkRead", conversationId, userId: command.userId, upTo: command.upTo ?? null, at }
    case "Mute":
      return { _tag: "SetMuted", conversationId, userId: command.userId, muted: command.muted ?? true, at }
    case "Archive":
      return { _tag: "ArchiveConversation", conversationId, at }
  }
}

const isSend = (command: ConversationCommand): command is SendMessage => command._tag === "SendMessage"

const lastMessageId = (commands: ReadonlyArray<ConversationCommand>): MessageId | undefined =>
  commands.findLast(isSend)?.messageId

// -------------------------------------------------------------------------------------------------------- answers

const outcome = (
  conversationId: ConversationId,
  result: CommandHandler.CommandResult<ConversationState, ConversationEvent>
): Outcome => ({
  conversationId,
  duplicate: result.duplicate || result.events.length === 0,
  position: result.position,
  version: result.version
})

/** The message a command led to: its own, or the one it repeats. */
const messageOf = (command: ConversationCommand, state: ConversationState, window: bigint) => {
  if (!isSend(command) || state._tag !== "Started") return Option.none()
  const messageId = HashMap.has(state.messages, command.messageId)
    ? Option.some(command.messageId)
    : recentDuplicate(state, command, window)
  return Option.flatMap(
    messageId,
    (messageId) =>
      Option.map(HashMap.get(state.messages, messageId), ({ ordinal, sentAt }) => ({ messageId, ordinal, sentAt }))
  )
}
