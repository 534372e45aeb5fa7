/**
 * Handlers of the group `conversations`.
 *
 * @since 0.1.0
 */
import { ConversationId, MessageId, Tenant } from "@strata/conversations/domain/Conversation"
import { ConversationQueries, type MessagePage } from "@strata/conversations/read/ConversationQueries"
import {
  type AnswerIds,
  type CallError,
  type CallOptions,
  Conversations,
  type Outcome
} from "@strata/conversations/write/Conversations"
import type * as Fact from "@strata/event-store/Fact"
import { Api } from "@strata/http-api/Api"
import { defaultLimit } from "@strata/http-api/Paging"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import { BadRequest, NotFound } from "@strata/http-api/Problem"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as Schema from "effect/Schema"
import * as Idempotency from "./Idempotency.ts"
import * as Reads from "./Reads.ts"
import * as Refusals from "./Refusals.ts"

/**
 * The handlers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = HttpApiBuilder.group(
  Api,
  "conversations",
  Effect.fnUntraced(function*(handlers) {
    const queries = yield* ConversationQueries
    const waitForPosition = yield* Reads.make(["conversation-list", "messages", "unread"])
    const commands = yield* makeCommands

    return handlers.handleAll({
      list: Effect.fnUntraced(function*({ headers, query }) {
        if (query.unread === true && query.participant === undefined) {
          return yield* missing("query.participant", "Expected the participant whose unread messages count")
        }
        yield* waitForPosition({ query, headers })
        const { minPosition: _, unread, ...options } = query
        const page = yield* queries.list({ ...options, unreadOnly: unread, tenant: yield* tenant }).pipe(
          Effect.catchTags({ InvalidCursor: invalidCursor, ReadModelUnavailable: Effect.die })
        )
        return { conversations: page.conversations, nextCursor: page.next, hasMore: page.next !== null }
      }),
      get: Effect.fnUntraced(function*({ headers, params, query }) {
        yield* waitForPosition({ query, headers })
        const found = yield* queries.get({
          conversationId: params.id,
          participant: query.participant,
          tenant: yield* tenant
        }).pipe(Effect.orDie)
        return yield* Effect.fromOption(found).pipe(Effect.mapError(() => noConversation(params.id)))
      }),
      messages: Effect.fnUntraced(function*({ headers, params, query }) {
        yield* waitForPosition({ query, headers })
        const { minPosition: _, ...options } = query
        const found = yield* queries.messages({ ...options, conversationId: params.id, tenant: yield* tenant }).pipe(
          Effect.catchTags({ InvalidCursor: invalidCursor, ReadModelUnavailable: Effect.die })
        )
        const page = yield* Effect.fromOption(found).pipe(
          Effect.mapError(() => noConversation(params.id, query.around))
        )
        return messageList(page, query.direction ?? "older", query.limit ?? defaultLimit)
      }),
      start: ({ headers, payload }) =>
        commands.write(headers, (options) => commands.conversations.start(payload, options)),
      send: ({ headers, params, payload }) =>
        commands.writeMessage(
          headers,
          (options) => commands.conversations.send({ ...payload, conversationId: params.id }, options)
        ),
      markRead: ({ headers, params, payload }) =>
        commands.write(
          headers,
          (options) => commands.conversations.markRead({ ...payload, conversationId: params.id }, options)
        ),
      addParticipant: ({ headers, params, payload }) =>
        commands.write(
          headers,
          (options) => commands.conversations.addParticipant({ ...payload, conversationId: params.id }, options)
        ),
      mute: ({ headers, params, payload }) =>
        commands.write(
          headers,
          (options) => commands.conversations.mute({ ...payload, conversationId: params.id }, options)
        ),
      archive: ({ headers, params }) =>
        commands.write(headers, (options) => commands.conversations.archive(params.id, options))
    })
  })
)

// ------------------------------------------------------------------------------------------------------- commands

/** What is kept with an idempotency key, and enough to give the answer again. */
const Kept = Schema.Struct({ conversationId: ConversationId, messageId: Schema.optionalKey(MessageId) })
type Kept = typeof Kept.Type

interface WriteHeaders {
  readonly "idempotency-key"?: string | undefined
}

type Run<A> = (options: CallOptions) => Effect.Effect<A, CallError>

const makeCommands = Effect.gen(function*() {
  const conversations = yield* Conversations
  const once = yield* Idempotency.make

  const execute = <A extends Outcome, B>(
    headers: WriteHeaders,
    run: Run<A>,
    answer: (outcome: A) => B,
    replay: (kept: Kept, position: Fact.Position) => B
  ) =>
    Effect.flatMap(CurrentPrincipal, (principal) =>
      Refusals.answer(once({
        key: headers["idempotency-key"],
        kept: Kept,
        run: (record) =>
          Effect.map(
            run({
              tenant: Tenant.make(principal.tenant),
              actor: principal.subject,
              idempotency: record && ((ids) => record(keptOf(ids)))
            }),
            answer
          ),
        replay
      })))

  return {
    conversations,
    write: (headers: WriteHeaders, run: Run<Outcome>) =>
      execute(headers, run, written, (kept, position) => written({ ...kept, position, duplicate: false })),
    writeMessage: (headers: WriteHeaders, run: Run<Outcome & { readonly messageId: MessageId }>) =>
      execute(
        headers,
        run,
        messageWritten,
        ({ conversationId, messageId }, position) =>
          messageWritten({ conversationId, messageId: messageId!, position, duplicate: false })
      )
  }
})

const keptOf = ({ conversationId, messageId }: AnswerIds): Schema.Json =>
  messageId === undefined ? { conversationId } : { conversationId, messageId }

type Written = Pick<Outcome, "conversationId" | "position" | "duplicate">

const written = ({ conversationId, duplicate, position }: Written) =>
  duplicate
    ? withPosition({ conversationId, position, duplicate: true as const })
    : withPosition({ conversationId, position, duplicate: false as const })

const messageWritten = (
  { conversationId, duplicate, messageId, position }: Written & { readonly messageId: MessageId }
) =>
  duplicate
    ? withPosition({ conversationId, messageId, position, duplicate: true as const })
    : withPosition({ conversationId, messageId, position, duplicate: false as const })

const withPosition = <A extends { readonly position: Fact.Position }>(body: A) =>
  HttpApiSchema.withHeaders({ body, headers: { "strata-position": body.position } })

// -------------------------------------------------------------------------------------------------------- queries

const tenant = Effect.map(CurrentPrincipal, (principal) => Tenant.make(principal.tenant))

const missing = (path: string, message: string) =>
  new BadRequest({ detail: `${path}: ${message}`, errors: [{ path, message }] })

const invalidCursor = (error: { readonly message: string }) => Effect.fail(missing("query.cursor", error.message))

const noConversation = (id: ConversationId, around?: MessageId) =>
  new NotFound({
    detail: around === undefined
      ? `There is no conversation ${id}`
      : `There is no conversation ${id} with a message ${around}`
  })

/** `newer` is never null: it also finds what is sent later, so a full page is the sign that more is there. */
const messageList = (page: MessagePage, direction: "older" | "newer", limit: number) => ({
  messages: page.messages,
  nextCursor: page[direction],
  hasMore: direction === "older" ? page.older !== null : page.newer !== null && page.messages.length === limit,
  olderCursor: page.older,
  newerCursor: page.newer
})
