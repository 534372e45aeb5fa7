/**
 * Lists of conversations, and one with those who take part.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import {
  type ContextType,
  ConversationId,
  defaultTenant,
  type MessageId,
  type MessageType,
  type Metadata,
  type Status,
  type Tenant,
  type UserId
} from "../domain/Conversation.ts"
import type { ConversationPage, ListOptions } from "./ConversationQueries.ts"
import type { ConversationDetail, ConversationSummary, ParticipantState, Unread } from "./ConversationReadModel.ts"
import * as Cursor from "./Cursor.ts"
import type { InvalidCursor } from "./Cursor.ts"
import { pageLimit } from "./Paging.ts"

const cursors = Cursor.make(Schema.Tuple([Timestamp.Timestamp, ConversationId]))

/**
 * A page of conversations. Served by conversation_activity; for a participant by conversation_participant_user, whose
 * conversations are sorted.
 *
 * @category queries
 * @since 0.1.0
 */
export const list = (sql: SqlClient.SqlClient) =>
  Effect.fnUntraced(function*(
    options: ListOptions
  ): Effect.fn.Return<ConversationPage, InvalidCursor | SqlError> {
    const { contextId, contextType, participant, status, tenant = defaultTenant } = options
    const limit = pageLimit(options.limit)
    const after = options.cursor === undefined ? undefined : yield* cursors.decode(options.cursor)
    const rows = yield* sql<ConversationRow>`
      select ${columns(sql, participant)}
      from conversation as c ${participation(sql, participant)}
      where ${
      sql.and([
        sql`c.tenant = ${tenant}`,
        ...status === undefined ? [] : [sql`c.status = ${status}`],
        ...contextType === undefined ? [] : [sql`c.context_type = ${contextType}`],
        ...contextId === undefined ? [] : [sql`c.context_id = ${contextId}`],
        ...participant !== undefined && options.unreadOnly === true ? [sql`p.unread_count > 0`] : [],
        ...after === undefined
          ? []
          : [sql`(c.last_activity_at, c.conversation_id) < (${Pg.timestamptz(after[0])}, ${after[1]})`]
      ])
    }
      order by c.last_activity_at desc, c.conversation_id desc
      limit ${limit + 1}`
    const conversations = rows.slice(0, limit).map(summaryOf)
    const last = conversations.at(-1)
    return {
      conversations,
      next: rows.length > limit && last !== undefined
        ? cursors.encode([last.lastActivityAt, last.conversationId])
        : null
    }
  })

/**
 * One conversation, by primary key, and its participants, by the first two columns of theirs.
 *
 * @category queries
 * @since 0.1.0
 */
export const get = (sql: SqlClient.SqlClient) =>
  Effect.fnUntraced(function*({ conversationId, participant, tenant = defaultTenant }: {
    readonly tenant?: Tenant | undefined
    readonly conversationId: ConversationId
    readonly participant?: UserId | undefined
  }): Effect.fn.Return<Option.Option<ConversationDetail>, SqlError> {
    const [row] = yield* sql<ConversationRow>`
      select ${columns(sql, undefined)} from conversation as c
      where c.tenant = ${tenant} and c.conversation_id = ${conversationId}`
    if (row === undefined) return Option.none()
    const participants = yield* sql<ParticipantState>`
      select user_id as "userId", role, joined_at as "joinedAt", unread_count as "unreadCount",
        last_read_message_id as "lastReadMessageId", last_read_at as "lastReadAt",
        muted
      from conversation_participant
      where tenant = ${tenant} and conversation_id = ${conversationId}
      order by user_id
      limit 1000`
    const unreadCount = participant === undefined ? null : yield* unreadIn(sql, tenant, conversationId, participant)
    return Option.some({ ...summaryOf(row), unreadCount, participants })
  })

// One row, by primary key.
const unreadIn = (sql: SqlClient.SqlClient, tenant: Tenant, conversationId: ConversationId, userId: UserId) =>
  Effect.map(
    sql<{ unreadCount: number }>`
      select unread_count as "unreadCount" from conversation_participant
      where tenant = ${tenant} and conversation_id = ${conversationId} and user_id = ${userId}`,
    ([row]) => row?.unreadCount ?? null
  )

/**
 * A participant's unread messages, by conversation_participant_user.
 *
 * @category queries
 * @since 0.1.0
 */
export const unread = (sql: SqlClient.SqlClient) =>
  Effect.fnUntraced(function*({ tenant = defaultTenant, userId }: {
    readonly tenant?: Tenant | undefined
    readonly userId: UserId
  }): Effect.fn.Return<{ readonly total: number; readonly conversations: ReadonlyArray<Unread> }, SqlError> {
    const rows = yield* sql<Unread & { readonly total: bigint }>`
      select conversation_id as "conversationId", unread_count as "unreadCount", sum(unread_count) over () as total
      from conversation_participant
      where tenant = ${tenant} and user_id = ${userId} and unread_count > 0
      order by unread_count desc, conversation_id
      limit 500`
    return {
      total: Number(rows[0]?.total ?? 0n),
      conversations: rows.map(({ conversationId, unreadCount }) => ({ conversationId, unreadCount }))
    }
  })

// ----------------------------------------------------------------------------------------------------------- rows

interface ConversationRow {
  readonly conversationId: ConversationId
  readonly status: Status
  readonly contextType: ContextType
  readonly contextId: string | null
  readonly contextMetadata: Metadata | null
  readonly participantCount: number
  readonly messageCount: number
  readonly lastMessageId: MessageId | null
  readonly lastMessageAt: Timestamp.Timestamp
  readonly lastMessageSender: UserId
  readonly lastMessageType: MessageType
  readonly lastMessagePreview: string
  readonly startedAt: Timestamp.Timestamp
  readonly archivedAt: Timestamp.Timestamp | null
  readonly lastActivityAt: Timestamp.Timestamp
  readonly unreadCount: number | null
}

const columns = (sql: SqlClient.SqlClient, participant: UserId | undefined) =>
  sql`
    c.conversation_id as "conversationId", c.status, c.context_type as "contextType", c.context_id as "contextId",
    c.context_metadata as "contextMetadata", c.participant_count as "participantCount",
    c.message_count as "messageCount", c.last_message_id as "lastMessageId", c.last_message_at as "lastMessageAt",
    c.last_message_sender as "lastMessageSender", c.last_message_type as "lastMessageType",
    c.last_message_preview as "lastMessagePreview", c.started_at as "startedAt", c.archived_at as "archivedAt",
    c.last_activity_at as "lastActivityAt",
    ${participant === undefined ? sql`null::integer` : sql`p.unread_count`} as "unreadCount"`

const participation = (sql: SqlClient.SqlClient, participant: UserId | undefined) =>
  participant === undefined ? sql`` : sql`
    join conversation_participant as p
      on p.tenant = c.tenant and p.conversation_id = c.conversation_id and p.user_id = ${participant}`

const summaryOf = (row: ConversationRow): ConversationSummary => ({
  conversationId: row.conversationId,
  status: row.status,
  context: { type: row.contextType, id: row.contextId, metadata: row.contextMetadata },
  participantCount: row.participantCount,
  messageCount: row.messageCount,
  lastMessage: row.lastMessageId === null ? null : {
    messageId: row.lastMessageId,
    senderId: row.lastMessageSender,
    type: row.lastMessageType,
    preview: row.lastMessagePreview,
    sentAt: row.lastMessageAt
  },
  startedAt: row.startedAt,
  archivedAt: row.archivedAt,
  lastActivityAt: row.lastActivityAt,
  unreadCount: row.unreadCount
})
