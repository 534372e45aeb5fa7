/**
 * Messages of a conversation: pages in both directions, a page around one, and one alone.
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
import { type ConversationId, defaultTenant, type MessageId, type Tenant } from "../domain/Conversation.ts"
import type { MessagePage, MessagesOptions } from "./ConversationQueries.ts"
import type { Message } from "./ConversationReadModel.ts"
import * as Cursor from "./Cursor.ts"
import type { InvalidCursor } from "./Cursor.ts"
import { pageLimit } from "./Paging.ts"

/** Where a message stands: by sent time, then by recording. */
const Key = Schema.Tuple([
  Timestamp.Timestamp,
  Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2_147_483_647 }))
])
type Key = typeof Key.Type
const cursors = Cursor.make(Key)

interface Place {
  readonly tenant: Tenant
  readonly conversationId: ConversationId
}

/**
 * A page of messages.
 *
 * @category queries
 * @since 0.1.0
 */
export const messages = (sql: SqlClient.SqlClient) =>
  Effect.fnUntraced(function*(
    options: MessagesOptions
  ): Effect.fn.Return<Option.Option<MessagePage>, InvalidCursor | SqlError> {
    const { conversationId, direction = "older", tenant = defaultTenant } = options
    const place = { tenant, conversationId }
    const limit = pageLimit(options.limit)
    if (options.around !== undefined) return yield* around(sql, place, options.around, limit)

    const cursor = options.cursor === undefined ? undefined : yield* cursors.decode(options.cursor)
    const rows = yield* direction === "older"
      ? Effect.map(before(sql, place, cursor, limit + 1), cut(limit))
      : Effect.map(after(sql, place, cursor, limit + 1), cut(limit))
    if (rows.found.length === 0 && !(yield* exists(sql, place))) return Option.none()
    return Option.some(
      direction === "older"
        ? pageOf(rows.found.toReversed(), { older: rows.more, newer: options.cursor ?? null })
        : pageOf(rows.found, { older: cursor !== undefined, newer: options.cursor ?? null })
    )
  })

/**
 * One message, by primary key.
 *
 * @category queries
 * @since 0.1.0
 */
export const message = (sql: SqlClient.SqlClient) =>
(options: {
  readonly tenant?: Tenant | undefined
  readonly conversationId: ConversationId
  readonly messageId: MessageId
}): Effect.Effect<Option.Option<Message>, SqlError> =>
  Effect.map(
    sql<Message>`
      select ${columns(sql)} from conversation_message
      where tenant = ${options.tenant ?? defaultTenant} and conversation_id = ${options.conversationId}
        and message_id = ${options.messageId}`,
    ([row]) => Option.fromNullishOr(row)
  )

const around = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  place: Place,
  messageId: MessageId,
  limit: number
) {
  const middle = yield* message(sql)({ ...place, messageId })
  if (Option.isNone(middle)) return Option.none()
  const key: Key = [middle.value.sentAt, middle.value.ordinal]
  const half = Math.floor((limit - 1) / 2)
  const older = cut(half)(yield* before(sql, place, key, half + 1))
  const newer = yield* after(sql, place, key, limit - 1 - older.found.length)
  return Option.some(
    pageOf([...older.found.toReversed(), middle.value, ...newer], { older: older.more, newer: null })
  )
})

/** `newer` is the cursor to keep when the page is empty. */
const pageOf = (
  found: ReadonlyArray<Message>,
  beyond: { readonly older: boolean; readonly newer: string | null }
): MessagePage => {
  const [first] = found
  const last = found.at(-1)
  return {
    messages: found,
    older: beyond.older && first !== undefined ? cursors.encode([first.sentAt, first.ordinal]) : null,
    newer: last === undefined ? beyond.newer : cursors.encode([last.sentAt, last.ordinal])
  }
}

/** A row more than asked for says that there is more. */
const cut = (limit: number) => (rows: ReadonlyArray<Message>) => ({
  found: rows.slice(0, limit),
  more: rows.length > limit
})

// Served by conversation_message_sent, backwards.
const before = (sql: SqlClient.SqlClient, place: Place, key: Key | undefined, limit: number) =>
  sql<Message>`
    select ${columns(sql)} from conversation_message
    where tenant = ${place.tenant} and conversation_id = ${place.conversationId}
      and (sent_at, ordinal) < (${Pg.timestamptz(key?.[0] ?? Timestamp.infinity)}, ${Pg.int(key?.[1] ?? 0)})
    order by sent_at desc, ordinal desc
    limit ${limit}`

// Served by conversation_message_sent.
const after = (sql: SqlClient.SqlClient, place: Place, key: Key | undefined, limit: number) =>
  sql<Message>`
    select ${columns(sql)} from conversation_message
    where tenant = ${place.tenant} and conversation_id = ${place.conversationId}
      and (sent_at, ordinal) > (${Pg.timestamptz(key?.[0] ?? Timestamp.negativeInfinity)}, ${Pg.int(key?.[1] ?? 0)})
    order by sent_at, ordinal
    limit ${limit}`

// By primary key.
const exists = (sql: SqlClient.SqlClient, place: Place) =>
  Effect.map(
    sql`
      select 1 from conversation where tenant = ${place.tenant} and conversation_id = ${place.conversationId}`,
    (rows) => rows.length > 0
  )

const columns = (sql: SqlClient.SqlClient) =>
  sql`
    conversation_id as "conversationId", message_id as "messageId", ordinal, sender_id as "senderId",
    sender_role as "senderRole", type, content, content_hash as "contentHash", size, reply_to as "replyTo", metadata,
    sent_at as "sentAt", recorded_at as "recordedAt", correlation_id as "correlationId"`
