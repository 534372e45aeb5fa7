/**
 * Periods, put together of whole months and of days.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Tenant } from "../domain/Conversation.ts"

/**
 * A period of sent times: from `from` (included) to `to` (excluded). An end that is not given is open.
 *
 * @category models
 * @since 0.1.0
 */
export interface Period {
  readonly tenant?: Tenant | undefined
  readonly from?: Timestamp.Timestamp | undefined
  readonly to?: Timestamp.Timestamp | undefined
}

/**
 * The days that a period touches, of UTC and as PostgreSQL writes dates, and the whole months among them. The later end of each is
 * not in it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Days {
  readonly from: string
  readonly monthsFrom: string
  readonly monthsTo: string
  readonly to: string
}

/**
 * The ends of a period as instants.
 *
 * @category conversions
 * @since 0.1.0
 */
export const ends = ({ from = Timestamp.negativeInfinity, to = Timestamp.infinity }: Period) => ({
  from: Pg.timestamptz(from),
  to: Pg.timestamptz(to)
})

/**
 * The days of a period. Reads no table.
 *
 * @category conversions
 * @since 0.1.0
 */
export const daysOf = (sql: SqlClient.SqlClient, period: Period): Effect.Effect<Days, SqlError> => {
  const { from, to } = ends(period)
  return Effect.map(
    sql<Days>`
      with days as (
        select (${from} at time zone 'UTC')::date as a, ((${to} - interval '1 microsecond') at time zone 'UTC')::date + 1 as b
      ),
      months as (
        select a, b,
          case when isfinite(a) then (date_trunc('month', (a - 1)::timestamp) + interval '1 month')::date else a end as first,
          case when isfinite(b) then date_trunc('month', b::timestamp)::date else b end as last
        from days
      )
      select a::text as "from", b::text as "to",
        (case when first < last then first else b end)::text as "monthsFrom",
        (case when first < last then last else b end)::text as "monthsTo"
      from months`,
    ([row]) => row!
  )
}

/**
 * The parts of a period, `r(grain, a, b)`: each is a range of an index.
 *
 * @category fragments
 * @since 0.1.0
 */
export const parts = (sql: SqlClient.SqlClient, { from, monthsFrom, monthsTo, to }: Days) => {
  const all = [["day", from, monthsFrom], ["month", monthsFrom, monthsTo], ["day", monthsTo, to]] as const
  const column = (place: 0 | 1 | 2) => Pg.textArray(Arr.map(all, (part) => part[place]))
  return sql`
    (select grain, a::date, b::date from unnest(${column(0)}, ${column(1)}, ${column(2)}) as p(grain, a, b)
      where a::date < b::date) as r(grain, a, b)`
}
