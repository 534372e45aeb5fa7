/**
 * Figures over conversations: response times, activity by day, totals.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type ContextType, defaultTenant, type Tenant, type UserId } from "../domain/Conversation.ts"
import type { Period } from "../read/ConversationQueries.ts"
import type { DailyActivity, ResponseTimes, Totals } from "../read/ConversationReadModel.ts"

/** An end that is not given is open; `infinity` itself is no sent time. */
const ends = ({ from = Timestamp.negativeInfinity, to = Timestamp.infinity }: Period) => ({
  from: Pg.timestamptz(from),
  to: Pg.timestamptz(to)
})

/**
 * Response times of a period. Served by response_time_period, or the whole of it.
 *
 * @category queries
 * @since 0.1.0
 */
export const responseTimes = (sql: SqlClient.SqlClient) =>
(
  options: Period & { readonly provider?: UserId | undefined; readonly contextType?: ContextType | undefined }
): Effect.Effect<ResponseTimes, SqlError> => {
  const { from, to } = ends(options)
  const { contextType, provider, tenant = defaultTenant } = options
  return Effect.map(
    sql<Omit<ResponseTimes, "p50" | "p90" | "p95"> & { readonly percentiles: ReadonlyArray<number> | null }>`
      select
        count(*)::integer as count, avg(minutes) as mean, min(minutes), max(minutes),
        percentile_cont(array[0.5, 0.9, 0.95]) within group (order by minutes) as percentiles,
        (count(*) filter (where minutes <= 5))::integer as "within5Minutes",
        (count(*) filter (where minutes <= 15))::integer as "within15Minutes",
        (count(*) filter (where minutes <= 60))::integer as "within60Minutes"
      from response_time
      where ${
      sql.and([
        sql`tenant = ${tenant} and responded_at is not null and sent_at >= ${from} and sent_at < ${to}`,
        ...provider === undefined ? [] : [sql`responder_id = ${provider}`],
        ...contextType === undefined ? [] : [sql`exists (
          select 1 from conversation as c
          where c.tenant = response_time.tenant and c.conversation_id = response_time.conversation_id
            and c.context_type = ${contextType}
        )`]
      ])
    }`,
    ([row]) => {
      const { percentiles, ...figures } = row!
      const [p50 = null, p90 = null, p95 = null] = percentiles ?? []
      return { ...figures, p50, p90, p95 }
    }
  )
}

/**
 * Activity by day of UTC. Served by conversation_message_period, without a look at the table.
 *
 * @category queries
 * @since 0.1.0
 */
export const daily = (sql: SqlClient.SqlClient) => (options: Period): Effect.Effect<DailyActivity, SqlError> => {
  const { from, to } = ends(options)
  return Effect.map(
    sql<DailyActivity["days"][number] & { readonly isTotal: boolean }>`
      select
        to_char(day, 'YYYY-MM-DD') as date, grouping(day) = 1 as "isTotal",
        count(*)::integer as messages,
        count(distinct conversation_id)::integer as "activeConversations",
        count(distinct sender_id)::integer as "activeUsers"
      from (
        select (sent_at at time zone 'UTC')::date as day, conversation_id, sender_id
        from conversation_message
        where tenant = ${options.tenant ?? defaultTenant} and sent_at >= ${from} and sent_at < ${to}
      ) as sent
      group by grouping sets ((day), ())
      order by day nulls last`,
    (rows) => {
      const total = rows.find(({ isTotal }) => isTotal)
      return {
        days: rows.flatMap(({ isTotal, ...day }) => isTotal ? [] : [day]),
        totals: {
          conversations: total?.activeConversations ?? 0,
          messages: total?.messages ?? 0,
          participants: total?.activeUsers ?? 0
        }
      }
    }
  )
}

/**
 * Everything a tenant has: reads all of its conversations and participants, not its messages.
 *
 * @category queries
 * @since 0.1.0
 */
export const totals =
  (sql: SqlClient.SqlClient) =>
  ({ tenant = defaultTenant }: { readonly tenant?: Tenant | undefined }): Effect.Effect<Totals, SqlError> =>
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
