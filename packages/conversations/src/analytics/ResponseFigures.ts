/**
 * Figures about response times, of one provider or of all, in one context or in all.
 *
 * **Details**
 *
 * Up to `exactUpTo` of them are sorted, and percentiles are exact. Of more, percentiles come from the counts of `ResponseSketch`:
 * those of the days that the period touches, less those that lie outside of it. Number, mean and what was within bounds are sums, and
 * fastest and slowest are looked up: these are exact of any number.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { ContextType, defaultTenant, type UserId } from "../domain/Conversation.ts"
import type { ResponseTimes } from "./AnalyticsModel.ts"
import { type Days, daysOf, ends, parts, type Period } from "./AnalyticsPeriod.ts"
import * as ResponseSketch from "./ResponseSketch.ts"

/**
 * So many response times are sorted at most.
 *
 * @category constants
 * @since 0.1.0
 */
export const exactUpTo = 20_000

/**
 * Which response times: by sent time of the request, by who responded, by what the conversation is about.
 *
 * @category models
 * @since 0.1.0
 */
export interface ResponseOptions extends Period {
  readonly provider?: UserId | undefined
  readonly contextType?: ContextType | undefined
}

/** The same, with what is not known of a conversation among the contexts. */
interface Which extends Omit<ResponseOptions, "contextType"> {
  readonly contextType?: string | undefined
}

/** Figures of one context; `""` is of all that were asked for. */
type Figures = Omit<ResponseTimes, "contexts" | "relativeError">

/**
 * The figures.
 *
 * @category queries
 * @since 0.1.0
 */
export const responseTimes = (sql: SqlClient.SqlClient) =>
  Effect.fnUntraced(function*(options: ResponseOptions): Effect.fn.Return<ResponseTimes, SqlError> {
    const period = yield* daysOf(sql, options)
    const isExact = (yield* countOf(sql, options, period)) <= exactUpTo
    const figures = yield* isExact ? exact(sql, options) : sketched(sql, options, period)
    return {
      ...figures.get(options.contextType ?? "") ?? none,
      relativeError: isExact ? 0 : ResponseSketch.relativeError,
      contexts: [...figures].filter(([context]) => context !== "").toSorted(([a], [b]) => a < b ? -1 : 1)
        .map(([context, each]) => ({ contextType: isContext(context) ? context : null, ...each }))
    }
  })

const isContext = Schema.is(ContextType)

const none: Figures = {
  count: 0,
  mean: null,
  p50: null,
  p90: null,
  p95: null,
  min: null,
  max: null,
  within5Minutes: 0,
  within15Minutes: 0,
  within60Minutes: 0
}

/** Rows of sums: of one context, or of all and of each. */
const contextsOf = ({ contextType }: ResponseOptions) =>
  Pg.textArray(contextType === undefined ? ["", "BOOKING", "SERVICE", "GENERAL", "SUPPORT", "UNKNOWN"] : [contextType])

// A few ranges of the primary key.
const rowsOf = (sql: SqlClient.SqlClient, options: ResponseOptions, period: Days, table: string) =>
  sql`
  from ${parts(sql, period)}
  cross join lateral (
    select * from ${sql(table)} as s
    where s.tenant = ${options.tenant ?? defaultTenant} and s.grain = r.grain and s.provider = ${options.provider ?? ""}
      and s.context_type = any(${contextsOf(options)}) and s.date >= r.a and s.date < r.b
    offset 0
  ) as s`

const countOf = (sql: SqlClient.SqlClient, options: ResponseOptions, period: Days) =>
  Effect.map(
    sql<{ count: number }>`
      select coalesce(sum(contributions), 0)::integer as count
      ${rowsOf(sql, options, period, "response_sums")}
      where s.context_type = ${options.contextType ?? ""}`,
    ([row]) => row!.count
  )

/** Which rows of response_time, whatever their sent times. */
const wanted = (sql: SqlClient.SqlClient, { contextType, provider, tenant = defaultTenant }: Which) =>
  sql.and([
    sql`tenant = ${tenant} and responded_at is not null`,
    ...provider === undefined ? [] : [sql`responder_id = ${provider}`],
    ...contextType === undefined ? [] : [sql`context_type = ${contextType}`]
  ])

// A range of response_time_provider or of response_time_period. Microseconds are summed up, so that the order of the rows is nothing to
// the mean.
const exact = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, options: ResponseOptions) {
  const { from, to } = ends(options)
  const rows = yield* sql<
    Omit<Figures, "p50" | "p90" | "p95"> & {
      readonly context: string
      readonly percentiles: ReadonlyArray<number> | null
    }
  >`
    select
      coalesce(context_type, '') as context, count(*)::integer as count, sum(round(minutes * 60000000)::bigint)::double precision / (count(*) * 60000000) as mean, min(minutes), max(minutes),
      percentile_cont(array[0.5, 0.9, 0.95]) within group (order by minutes) as percentiles,
      (count(*) filter (where minutes <= 5))::integer as "within5Minutes",
      (count(*) filter (where minutes <= 15))::integer as "within15Minutes",
      (count(*) filter (where minutes <= 60))::integer as "within60Minutes"
    from response_time
    where ${wanted(sql, options)} and sent_at >= ${from} and sent_at < ${to}
    group by grouping sets ((context_type), ())`
  return new Map(
    rows.filter(({ context, count }) => count > 0 && (context !== "" || options.contextType === undefined))
      .map(({ context, percentiles, ...figures }) => {
        const [p50 = null, p90 = null, p95 = null] = percentiles ?? []
        return [context, { ...figures, p50, p90, p95 } satisfies Figures] as const
      })
  )
})

/** Sums, and counts of buckets, of one context. */
interface Sums {
  count: number
  micros: number
  within5: number
  within15: number
  within60: number
  readonly buckets: Map<number, number>
}

const sketched = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, options: ResponseOptions, period: Days) {
  const sums = yield* sumsOf(sql, options, period)
  const figures = new Map<string, Figures>()
  for (const [context, { buckets, count, micros, within15, within5, within60 }] of sums) {
    if (count === 0) continue
    const [p50 = null, p90 = null, p95 = null] = ResponseSketch.percentiles(buckets, [0.5, 0.9, 0.95])
    const filled = [...buckets].filter(([, count]) => count > 0).map(([bucket]) => bucket)
    const within = context === "" ? options : { ...options, contextType: context }
    figures.set(context, {
      count,
      mean: micros / (count * 60_000_000),
      p50,
      p90,
      p95,
      min: yield* extreme(sql, within, Math.min(...filled), "asc"),
      max: yield* extreme(sql, within, Math.max(...filled), "desc"),
      within5Minutes: within5,
      within15Minutes: within15,
      within60Minutes: within60
    })
  }
  return figures
})

/** Of the days that the period touches, less what lies outside of it. */
const sumsOf = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, options: ResponseOptions, period: Days) {
  const sums = new Map<string, Sums>()
  const totals = yield* sql<Omit<Sums, "buckets"> & { readonly context: string }>`
    select s.context_type as context, sum(contributions)::double precision as count, sum(micros)::double precision as micros,
      sum(within5)::integer as within5, sum(within15)::integer as within15, sum(within60)::integer as within60
    ${rowsOf(sql, options, period, "response_sums")}
    group by s.context_type`
  for (const { context, ...each } of totals) sums.set(context, { ...each, buckets: new Map() })
  const counts = yield* sql<{ readonly context: string; readonly bucket: number; readonly count: number }>`
    select s.context_type as context, s.bucket, sum(refs)::integer as count
    ${rowsOf(sql, options, period, "response_sums_minutes")}
    group by s.context_type, s.bucket`
  for (const { bucket, context, count } of counts) sums.get(context)?.buckets.set(bucket, count)
  for (const { context, ...out } of yield* outside(sql, options, period)) {
    for (const each of options.contextType === undefined ? ["", context] : [context]) {
      const sum = sums.get(each)
      if (sum === undefined) continue
      sum.count -= out.count
      sum.micros -= out.micros
      sum.within5 -= out.within5
      sum.within15 -= out.within15
      sum.within60 -= out.within60
      sum.buckets.set(out.bucket, (sum.buckets.get(out.bucket) ?? 0) - out.count)
    }
  }
  return sums
})

// Less than two days of response_time_period or of response_time_provider. A value on a bound is in the bucket below it.
const outside = (sql: SqlClient.SqlClient, options: ResponseOptions, period: Days) => {
  const { from, to } = ends(options)
  const { bounds } = ResponseSketch.buckets
  const thresholds = Pg.doubleArray(bounds.map((bound) => -bound).toReversed())
  return sql<Omit<Sums, "buckets"> & { readonly context: string; readonly bucket: number }>`
    select context_type as context, ${bounds.length}::integer - width_bucket(-minutes, ${thresholds}) as bucket,
      count(*)::integer as count, sum(round(minutes * 60000000)::bigint)::double precision as micros,
      (count(*) filter (where minutes <= 5))::integer as within5,
      (count(*) filter (where minutes <= 15))::integer as within15,
      (count(*) filter (where minutes <= 60))::integer as within60
    from response_time
    where ${wanted(sql, options)} and (
      sent_at >= ${period.from}::timestamp at time zone 'UTC' and sent_at < ${from}
      or sent_at >= ${to} and sent_at < ${period.to}::timestamp at time zone 'UTC'
    )
    group by 1, 2`
}

// From one end of a bucket in response_time_minutes: the first that lies in the period.
const extreme = (sql: SqlClient.SqlClient, options: Which, bucket: number, direction: "asc" | "desc") => {
  const { from, to } = ends(options)
  const bounds = ResponseSketch.endsOf(bucket)
  return Effect.map(
    sql<{ readonly minutes: number }>`
      select minutes from response_time
      where ${wanted(sql, options)} and sent_at >= ${from} and sent_at < ${to}
        and minutes >= ${Pg.double(bounds.from)} and minutes <= ${Pg.double(bounds.to)}
      order by minutes ${sql.literal(direction)}
      limit 1`,
    ([row]) => row?.minutes ?? null
  )
}
