/**
 * Conversations over HTTP: starting them, sending and reading messages.
 *
 * **Details**
 *
 * A write is answered with the ids it led to and its position, 201 when it happened and 200 with `duplicate: true` when all of
 * it had happened before. What was written is read back with `minPosition`.
 *
 * @since 0.1.0
 */
import * as Conversation from "@strata/conversations/domain/Conversation"
import * as Queries from "@strata/conversations/read/ConversationQueries"
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import { Admission } from "./Admission.ts"
import { Authorization, RoleCheck } from "./Authorization.ts"
import * as Consistency from "./Consistency.ts"
import * as IdempotencyKey from "./IdempotencyKey.ts"
import * as Paging from "./Paging.ts"
import { RequiredRole } from "./Principal.ts"
import { Conflict, NotFound, RuleViolated } from "./Problem.ts"
import { JsonObject, Text } from "./Text.ts"

/** The application's own data; looked through by a walk that is bounded before anything else reads it. */
const Metadata = JsonObject.pipe(Schema.decodeTo(Conversation.Metadata))

/**
 * A conversation to start. Without an id it gets one; the context defaults to `GENERAL`.
 *
 * @category models
 * @since 0.1.0
 */
export const StartConversation = Schema.Struct({
  conversationId: Schema.optionalKey(Conversation.ConversationId),
  context: Schema.optionalKey(Schema.Struct({
    type: Schema.optionalKey(Conversation.ContextType),
    id: Schema.optionalKey(Conversation.Context.fields.id),
    metadata: Schema.optionalKey(Schema.NullOr(Metadata))
  })),
  participants: Schema.Array(Conversation.Participant)
}).annotate({ identifier: "StartConversation" })

/**
 * A message to send. With a `messageId` it is idempotent by it. Without, the same content of the same sender a
 * short time later is the same message.
 *
 * @category models
 * @since 0.1.0
 */
export const SendMessage = Schema.Struct({
  messageId: Schema.optionalKey(Conversation.MessageId),
  senderId: Conversation.UserId,
  content: Text.annotate({ description: "At most 256 KiB of UTF-8, unless the server is set otherwise" }),
  type: Schema.optionalKey(Conversation.MessageType),
  replyTo: Schema.optionalKey(Conversation.MessageId),
  metadata: Schema.optionalKey(Metadata)
}).annotate({ identifier: "SendMessage" })

/**
 * What a participant has read: up to a message, or everything there is.
 *
 * @category models
 * @since 0.1.0
 */
export const MarkRead = Schema.Struct({
  userId: Conversation.UserId,
  upTo: Schema.optionalKey(Conversation.MessageId)
}).annotate({ identifier: "MarkRead" })

/**
 * Whether a participant wants to be notified of messages.
 *
 * @category models
 * @since 0.1.0
 */
export const Mute = Schema.Struct({
  userId: Conversation.UserId,
  muted: Schema.optionalKey(Schema.Boolean).annotate({ description: "False to hear of messages again. Default: true" })
}).annotate({ identifier: "Mute" })

const ids = { conversationId: Conversation.ConversationId, position: Consistency.Position }
const messageIds = { ...ids, messageId: Conversation.MessageId }

/** A write's answer: `happened` with 201, or the same with 200 when it had happened before. */
const written = <const Fields extends Schema.Struct.Fields>(identifier: string, fields: Fields) => ({
  happened: HttpApiSchema.WithHeaders(
    Schema.Struct({ ...fields, duplicate: Schema.Literal(false) }).annotate({ identifier, httpApiStatus: 201 }),
    Consistency.answerHeaders
  ),
  before: HttpApiSchema.WithHeaders(
    Schema.Struct({ ...fields, duplicate: Schema.Literal(true) }).annotate({ identifier: `${identifier}Before` }),
    Consistency.answerHeaders
  )
})

const conversationWritten = written("ConversationWritten", ids)
const messageWritten = written("MessageWritten", messageIds)

/**
 * A page of conversations, the last active first.
 *
 * @category models
 * @since 0.1.0
 */
export const ConversationList = Schema.Struct({
  conversations: Schema.Array(Queries.ConversationSummary),
  ...Paging.fields
}).annotate({ identifier: "ConversationList" })

/**
 * A page of messages in the order they were sent. `nextCursor` goes on in the direction asked for.
 *
 * @category models
 * @since 0.1.0
 */
export const MessageList = Schema.Struct({
  messages: Schema.Array(Queries.Message),
  ...Paging.fields,
  olderCursor: Schema.NullOr(Schema.String).annotate({ description: "Null when nothing is older" }),
  newerCursor: Schema.NullOr(Schema.String).annotate({ description: "Also finds what is sent later" })
}).annotate({ identifier: "MessageList" })

const params = { id: Conversation.ConversationId }

const read = HttpApiGroup.make("conversations").add(
  HttpApiEndpoint.get("list", "/", {
    query: {
      participant: Schema.optionalKey(Conversation.UserId),
      status: Schema.optionalKey(Conversation.Status),
      contextType: Schema.optionalKey(Conversation.ContextType),
      contextId: Schema.optionalKey(Conversation.ConversationId),
      unread: Schema.optionalKey(Schema.Boolean),
      ...Paging.query,
      ...Consistency.query
    },
    headers: Consistency.headers,
    success: ConversationList
  }).annotateMerge(OpenApi.annotations({
    summary: "List conversations",
    description: "The last active first. `unread=true` keeps those with unread messages of `participant`."
  })),
  HttpApiEndpoint.get("get", "/:id", {
    params,
    query: { participant: Schema.optionalKey(Conversation.UserId), ...Consistency.query },
    headers: Consistency.headers,
    success: Queries.ConversationDetail,
    error: NotFound
  }).annotateMerge(OpenApi.annotations({ summary: "Get a conversation", description: "With those who take part." })),
  HttpApiEndpoint.get("messages", "/:id/messages", {
    params,
    query: {
      direction: Schema.optionalKey(Schema.Literals(["older", "newer"])),
      around: Schema.optionalKey(Conversation.MessageId),
      ...Paging.query,
      ...Consistency.query
    },
    headers: Consistency.headers,
    success: MessageList,
    error: NotFound
  }).annotateMerge(OpenApi.annotations({
    summary: "List messages",
    description: "In the order they were sent; the newest page when no cursor is given. `around` gives a page with "
      + "that message in its middle."
  }))
)

const errors = [NotFound, Conflict, RuleViolated] as const

/**
 * Conversations.
 *
 * @category groups
 * @since 0.1.0
 */
export class ConversationsApi extends read.add(
  HttpApiEndpoint.post("start", "/", {
    headers: IdempotencyKey.headers,
    payload: StartConversation,
    success: [conversationWritten.happened, conversationWritten.before],
    error: errors
  }).annotate(RequiredRole, "operator").annotateMerge(OpenApi.annotations({
    summary: "Start a conversation",
    description: "The same start again changes nothing."
  })),
  HttpApiEndpoint.post("send", "/:id/messages", {
    params,
    headers: IdempotencyKey.headers,
    payload: SendMessage,
    success: [messageWritten.happened, messageWritten.before],
    error: errors
  }).annotate(RequiredRole, "operator").annotateMerge(OpenApi.annotations({
    summary: "Send a message",
    description: "A message that was sent before is answered with the first one's id."
  })),
  HttpApiEndpoint.post("markRead", "/:id/read", {
    params,
    headers: IdempotencyKey.headers,
    payload: MarkRead,
    success: [conversationWritten.happened, conversationWritten.before],
    error: errors
  }).annotate(RequiredRole, "operator").annotateMerge(OpenApi.annotations({
    summary: "Mark as read",
    description: "Everything up to a message, or everything there is. What was read before stays read."
  })),
  HttpApiEndpoint.post("addParticipant", "/:id/participants", {
    params,
    headers: IdempotencyKey.headers,
    payload: Conversation.Participant,
    success: [conversationWritten.happened, conversationWritten.before],
    error: errors
  }).annotate(RequiredRole, "operator").annotateMerge(OpenApi.annotations({ summary: "Add a participant" })),
  HttpApiEndpoint.post("mute", "/:id/mute", {
    params,
    headers: IdempotencyKey.headers,
    payload: Mute,
    success: [conversationWritten.happened, conversationWritten.before],
    error: errors
  }).annotate(RequiredRole, "operator").annotateMerge(OpenApi.annotations({
    summary: "Mute or unmute",
    description: "A participant who has muted a conversation takes part as before, and is notified of no message."
  })),
  HttpApiEndpoint.post("archive", "/:id/archive", {
    params,
    headers: IdempotencyKey.headers,
    success: [conversationWritten.happened, conversationWritten.before],
    error: errors
  }).annotate(RequiredRole, "operator").annotateMerge(OpenApi.annotations({
    summary: "Archive a conversation",
    description: "It is kept and read, and takes no more messages."
  }))
)
  .middleware(RoleCheck)
  .middleware(Admission)
  .middleware(Authorization)
  .prefix("/api/v1/conversations")
  .annotateMerge(OpenApi.annotations({
    title: "Conversations",
    description: "Conversations, their participants and messages."
  }))
{}
