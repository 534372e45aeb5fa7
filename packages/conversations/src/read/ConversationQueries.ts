/**
 * The read side of conversations: lists, messages, unread counts and totals, from the read models. Figures over time are
 * `Analytics`.
 *
 * **Details**
 *
 * Read models follow the log; to read one's own write, wait for its position with `Projections.waitFor` first. Every
 * query is bounded: pages hold at most 500 entries. A page's `next` is the cursor of the next one, null on the last.
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as EffectContext from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import {
  type ContextType,
  type ConversationId,
  defaultTenant,
  type MessageId,
  type Status,
  type Tenant,
  type UserId
} from "../domain/Conversation.ts"
import * as ConversationPages from "./ConversationPages.ts"
import type { ConversationDetail, ConversationSummary, Message, Totals, Unread } from "./ConversationReadModel.ts"
import type { InvalidCursor } from "./Cursor.ts"
import * as MessagePages from "./MessagePages.ts"

export * from "./ConversationReadModel.ts"
export { InvalidCursor } from "./Cursor.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * Which conversations, and how many. `cursor` is the `next` of the page before.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListOptions {
  readonly tenant?: Tenant | undefined
  readonly participant?: UserId | undefined
  readonly status?: Status | undefined
  readonly contextType?: ContextType | undefined
  readonly contextId?: string | undefined
  /** Only those with unread messages of `participant`; needs one. */
  readonly unreadOnly?: boolean | undefined
  /** 1 to 500. Default: 50. */
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}

/**
 * Which messages of a conversation, and how many. Messages are ordered by sent time, then by recording.
 *
 * @category models
 * @since 0.1.0
 */
export interface MessagesOptions {
  readonly tenant?: Tenant | undefined
  readonly conversationId: ConversationId
  /** Where the page lies from the cursor. Default: `older`, and without a cursor that is the newest page. */
  readonly direction?: "older" | "newer" | undefined
  readonly cursor?: string | undefined
  /** A page with this message in its middle; `direction` and `cursor` are not used then. */
  readonly around?: MessageId | undefined
  /** 1 to 500. Default: 50. */
  readonly limit?: number | undefined
}

/**
 * A page of conversations, last activity first.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConversationPage {
  readonly conversations: ReadonlyArray<ConversationSummary>
  readonly next: string | null
}

/**
 * A page of messages, always in the order they were sent. `older` and `newer` are the cursors of the pages on either
 * side; null where there is nothing more. `newer` of the newest page is not null: it finds what is sent later.
 *
 * @category models
 * @since 0.1.0
 */
export interface MessagePage {
  readonly messages: ReadonlyArray<Message>
  readonly older: string | null
  readonly newer: string | null
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * The read models could not be read.
 *
 * @category errors
 * @since 0.1.0
 */
export class ReadModelUnavailable
  extends Schema.TaggedError<ReadModelUnavailable>("@strata/conversations/ReadModelUnavailable")(
    "ReadModelUnavailable",
    { query: Schema.String, cause: Schema.Defect() }
  )
{
  override get message() {
    return `The read models did not answer: ${this.query}`
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * Queries on conversations.
 *
 * @category services
 * @since 0.1.0
 */
export class ConversationQueries extends EffectContext.Service<ConversationQueries, {
  readonly list: (options: ListOptions) => Effect.Effect<ConversationPage, InvalidCursor | ReadModelUnavailable>
  /** `unreadCount` is that of `participant`, if one is given. */
  readonly get: (options: {
    readonly tenant?: Tenant | undefined
    readonly conversationId: ConversationId
    readonly participant?: UserId | undefined
  }) => Effect.Effect<Option.Option<ConversationDetail>, ReadModelUnavailable>
  /** None when there is no such conversation, or none with the message to look around. */
  readonly messages: (
    options: MessagesOptions
  ) => Effect.Effect<Option.Option<MessagePage>, InvalidCursor | ReadModelUnavailable>
  readonly message: (options: {
    readonly tenant?: Tenant | undefined
    readonly conversationId: ConversationId
    readonly messageId: MessageId
  }) => Effect.Effect<Option.Option<Message>, ReadModelUnavailable>
  /** A participant's unread messages: the sum, and the conversations that have any (at most 500, most unread first). */
  readonly unread: (options: {
    readonly tenant?: Tenant | undefined
    readonly userId: UserId
  }) => Effect.Effect<
    { readonly total: number; readonly conversations: ReadonlyArray<Unread> },
    ReadModelUnavailable
  >
  /** Everything the tenant has: conversations started, messages, different people who take part. */
  readonly totals: (options: {
    readonly tenant?: Tenant | undefined
  }) => Effect.Effect<Totals, ReadModelUnavailable>
}>()("@strata/conversations/read/ConversationQueries") {}

// ---------------------------------------------------------------------------------------------------------- layer

/**
 * Queries on the read models in the database in scope.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<ConversationQueries, never, Postgres> = Layer.effect(
  ConversationQueries,
  Effect.map(Postgres, ({ sql }) => {
    const query = <Options, A, E>(name: string, run: (options: Options) => Effect.Effect<A, E | SqlError>) =>
      Effect.fn(`ConversationQueries.${name}`)((options: Options) =>
        Effect.catchIf(
          run(options),
          isSqlError,
          (cause) => Effect.fail(new ReadModelUnavailable({ query: name, cause }))
        )
      )
    return ConversationQueries.of({
      list: query("list", ConversationPages.list(sql)),
      get: query("get", ConversationPages.get(sql)),
      unread: query("unread", ConversationPages.unread(sql)),
      messages: query("messages", MessagePages.messages(sql)),
      message: query("message", MessagePages.message(sql)),
      totals: query("totals", totals(sql))
    })
  })
)

// Reads all of the tenant's conversations and participants, not its messages.
const totals = (sql: SqlClient.SqlClient) => ({ tenant = defaultTenant }: { readonly tenant?: Tenant | undefined }) =>
  Effect.map(
    sql<Totals>`
      select
        count(*)::integer as conversations,
        coalesce(sum(message_count), 0)::integer as messages,
        (select count(distinct user_id)::integer from conversation_participant where tenant = ${tenant}) as participants
      from conversation
      where tenant = ${tenant}`,
    ([row]) => row!
  )
