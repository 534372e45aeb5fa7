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
import type { EventDecodeError } from "@strata/event-store/EventDefinition"
import type { EventStoreError, IdempotencyRecord } from "@strata/event-store/EventStore"
import type { Position } from "@strata/event-store/Fact"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as EffectContext from "effect/Context"
import type * as Effect from "effect/Effect"
import type {
  Context,
  ConversationId,
  MessageId,
  MessageType,
  Metadata,
  Participant,
  Role,
  Tenant,
  UserId
} from "../domain/Conversation.ts"
import type { ConversationError } from "../domain/ConversationError.ts"

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
  /** True when nothing happened, since all of it had happened before. */
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
