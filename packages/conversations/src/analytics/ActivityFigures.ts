/**
 * Figures about messages: activity by day, volume, what one day came to. All are read from `message_analytics` and what belongs to it.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type ContextType, type ConversationId, defaultTenant, type Tenant } from "../domain/Conversation.ts"
import type { DailyActivity, DailyAnalytics, DailyRow, Volume } from "./AnalyticsModel.ts"
import { type Days, daysOf, parts, type Period } from "./AnalyticsPeriod.ts"
import { dayOf } from "./MessageAnalytics.ts"

/**
 * Activity by day. Days are whole: a period that begins or ends within one has all of it.
 *
 * @category queries
 * @since 0.1.0
 */
export const activity = (sql: SqlClient.SqlClient) =>
  Effect.fnUntraced(function*(options: Period): Effect.fn.Return<DailyActivity, SqlError> {
    const { tenant = defaultTenant } = options
    const period = yield* daysOf(sql, options)
    // A range of the primary key, and an entry of it for each day before.
    const days = yield* sql<DailyActivity["days"][number]>`
      select
        d.date::text as date, d.messages::integer as messages, d.conversations::integer as "activeConversations",
        d.senders::integer as "activeUsers", d.bytes::double precision as bytes,
        (d.bytes / d.messages)::double precision as "averageBytes",
        coalesce(p.messages, 0)::integer as "previousMessages",
        ((d.messages - p.messages) * 100.0 / p.messages)::double precision as "growthRate"
      from message_analytics as d
      left join message_analytics as p
        on p.tenant = d.tenant and p.grain = 'day' and p.conversation_id = '' and p.sender_role = '' and p.context_type = ''
        and p.message_type = '' and p.date = d.date - 1 and p.category = ''
      where d.tenant = ${tenant} and d.grain = 'day' and d.conversation_id = '' and d.sender_role = ''
        and d.context_type = '' and d.message_type = '' and d.category = ''
        and d.date >= ${period.from}::date and d.date < ${period.to}::date
      order by d.date`
    return {
      days,
      totals: {
        conversations: yield* distinctOf(sql, tenant, period, "conversations"),
        messages: days.reduce((sum, { messages }) => sum + messages, 0),
        bytes: days.reduce((sum, { bytes }) => sum + bytes, 0),
        participants: yield* distinctOf(sql, tenant, period, "senders")
      }
    }
  })

// Ranges of the primary key.
const distinctOf = (
  sql: SqlClient.SqlClient,
  tenant: string,
  period: Days,
  what: "conversations" | "senders"
) =>
  Effect.map(
    sql<{ count: number }>`
      select count(*)::integer as count from (
        select distinct s.value
        from ${parts(sql, period)}
        cross join lateral (
          select value from ${sql(`message_analytics_${what}`)} as s
          where s.tenant = ${tenant} and s.grain = r.grain and s.conversation_id = '' and s.sender_role = ''
            and s.context_type = '' and s.message_type = '' and s.date >= r.a and s.date < r.b
          offset 0
        ) as s
      ) as different`,
    ([row]) => row!.count
  )

/** A group of volume, and one of its types. */
interface Group {
  readonly contextType: ContextType | null
  readonly category: string | null
}

/**
 * Volume by context, category and type. Days are whole, as in `activity`.
 *
 * @category queries
 * @since 0.1.0
 */
export const volume = (sql: SqlClient.SqlClient) =>
  Effect.fnUntraced(function*(options: Period): Effect.fn.Return<Volume, SqlError> {
    const { tenant = defaultTenant } = options
    const period = yield* daysOf(sql, options)
    /** The rows of volume in a period: for each context and type a few ranges of the primary key. */
    const rows = (table: string) =>
      sql`
      from ${parts(sql, period)}
      cross join lateral (
        select * from ${sql(table)} as s
        where s.tenant = ${tenant} and s.grain = r.grain and s.conversation_id = '' and s.sender_role = ''
          and s.context_type = any(${Pg.textArray(contexts)}) and s.message_type = any(${Pg.textArray(types)})
          and s.date >= r.a and s.date < r.b
        offset 0
      ) as s`
    const about = sql`nullif(context_type, 'UNKNOWN') as "contextType", nullif(category, '') as category`
    const sums = yield* sql<
      Group & { type: Volume["groups"][number]["types"][number]["type"]; messages: number; bytes: number }
    >`
      select ${about}, message_type as type, sum(messages)::integer as messages, sum(bytes)::double precision as bytes
      ${rows("message_analytics")}
      group by context_type, s.category, message_type`
    const users = yield* sql<Group & { type: string | null; users: number }>`
      select ${about}, message_type as type, count(distinct value)::integer as users
      from (select distinct context_type, category, message_type, value ${rows("message_analytics_senders")}) as s
      group by grouping sets ((context_type, category), (context_type, category, message_type))`
    const conversations = yield* sql<Group & { conversations: number }>`
      select ${about}, count(*)::integer as conversations
      from (select distinct context_type, category, value ${rows("message_analytics_conversations")}) as s
      group by context_type, category`

    const keyOf = ({ category, contextType }: Group) => `${contextType}\0${category}`
    const usersOf = new Map(users.map((each) => [`${keyOf(each)}\0${each.type}`, each.users]))
    const conversationsOf = new Map(conversations.map((each) => [keyOf(each), each.conversations]))
    const figures = (part: ReadonlyArray<{ messages: number; bytes: number }>, key: string) => {
      const messages = part.reduce((sum, each) => sum + each.messages, 0)
      const bytes = part.reduce((sum, each) => sum + each.bytes, 0)
      return { messages, uniqueUsers: usersOf.get(key) ?? 0, bytes, averageBytes: bytes / messages }
    }
    const groups = Map.groupBy(sums, keyOf)
    return {
      groups: [...groups].map(([key, part]) => ({
        contextType: part[0]!.contextType,
        category: part[0]!.category,
        conversations: conversationsOf.get(key) ?? 0,
        ...figures(part, `${key}\0null`),
        types: part.map((each) => ({ type: each.type, ...figures([each], `${key}\0${each.type}`) }))
          .toSorted(mostFirst)
      })).toSorted(mostFirst)
    }
  })

const mostFirst = (a: { readonly messages: number }, b: { readonly messages: number }) => b.messages - a.messages
const contexts = ["BOOKING", "SERVICE", "GENERAL", "SUPPORT", "UNKNOWN"]
const types = ["TEXT", "IMAGE", "FILE", "SYSTEM", "BOOKING_UPDATE", "PAYMENT_UPDATE"]

/**
 * Which day, and which page of its conversations.
 *
 * @category models
 * @since 0.1.0
 */
export interface DayOptions {
  readonly tenant?: Tenant | undefined
  /** Any moment of it. */
  readonly day: Timestamp.Timestamp
  /** The `next` of the page before. */
  readonly after?: ConversationId | undefined
  /** Conversations, 1 to 500. Default: 50. */
  readonly limit?: number | undefined
}

/**
 * What one day came to, in all and by conversation.
 *
 * @category queries
 * @since 0.1.0
 */
export const day = (sql: SqlClient.SqlClient) =>
  Effect.fnUntraced(function*(options: DayOptions): Effect.fn.Return<DailyAnalytics, SqlError> {
    const { after, limit = 50, tenant = defaultTenant } = options
    const date = dayOf(options.day)
    // Entries of message_analytics_date.
    const conversations = yield* sql<{ id: ConversationId }>`
      select distinct conversation_id as id from message_analytics
      where tenant = ${tenant} and date = ${date}::date and grain = 'day' and sender_role <> ''
        and conversation_id > ${after ?? ""}
      order by conversation_id
      limit ${limit + 1}`
    const page = conversations.slice(0, limit).map(({ id }) => id)
    return {
      totals: yield* rowsOf(sql, { tenant, date, from: options.day }, [""]),
      conversations: page.length === 0 ? [] : yield* rowsOf(sql, { tenant, date, from: options.day }, page),
      next: conversations.length > limit ? page.at(-1)! : null
    }
  })

const dayMicros = 86_400_000_000n

// Entries of message_analytics_date; response times by the primary key, or those of the day by response_time_period.
const rowsOf = (
  sql: SqlClient.SqlClient,
  { date, from, tenant }: { readonly tenant: string; readonly date: string; readonly from: Timestamp.Timestamp },
  conversations: ReadonlyArray<string>
) => {
  const begin = Timestamp.fromMicros(from - ((from % dayMicros) + dayMicros) % dayMicros)
  const [all] = conversations
  const who = all === "" ? sql`''` : sql`conversation_id`
  const which = all === "" ? sql`true` : sql`conversation_id = any(${Pg.textArray(conversations)})`
  return sql<DailyRow>`
    select
      date::text as date, nullif(conversation_id, '') as "conversationId",
      nullif(context_type, 'UNKNOWN') as "contextType", sender_role as "senderRole", message_type as "messageType",
      messages::integer as "totalMessages",
      (case when conversation_id = '' then conversations else 1 end)::integer as "totalConversations",
      senders::integer as "uniqueSenders", minutes as "averageResponseTime", bytes::double precision as "totalSize"
    from message_analytics
    left join (
      select ${who} as conversation_id, context_type, message_type, 'CUSTOMER' as sender_role,
        sum(round(minutes * 60000000)::bigint)::double precision / (count(*) * 60000000) as minutes
      from response_time
      where tenant = ${tenant} and responded_at is not null and ${which}
        and sent_at >= ${Pg.timestamptz(begin)} and sent_at < ${Pg.timestamptz(Timestamp.fromMicros(begin + dayMicros))}
      group by 1, 2, 3
    ) as responses using (conversation_id, context_type, message_type, sender_role)
    where tenant = ${tenant} and date = ${date}::date and grain = 'day' and sender_role <> ''
      and conversation_id = any(${Pg.textArray(conversations)})
    order by conversation_id, context_type, sender_role, message_type`
}
