/**
 * A log and an offset in plain SQL, through the driver that Strata uses: what PostgreSQL itself can do for one consumer.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import type * as Redacted from "effect/Redacted"
import * as Server from "../event-store/Server.ts"
import { BenchmarkError, failure } from "../Suite.ts"
import { batchSize, type Consumer, payloads } from "./Work.ts"

const tables = [
  `create table log (
    position bigint generated always as identity primary key, key text, data json not null
  )`,
  "create table reader (one boolean primary key default true, position bigint not null)",
  "create table effect (n integer not null)",
  "insert into reader (position) values (0)"
]

const read = `
  select l.position, l.key, l.data from log l
  where l.position > (select r.position from reader r) order by l.position limit ${batchSize}`

/**
 * Opens one in a database, for the time of the scope: with an effect in the transaction of the offset, and without.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(url: Redacted.Redacted) {
  const { rows, transact } = yield* Server.connect({ url, schema: "public", maxConnections: 4, statementTimeout: 0 })
  yield* Effect.forEach(tables, (table) => rows(table, []), { discard: true }).pipe(
    Effect.mapError(failure("Making the log"))
  )

  const fill: Consumer["fill"] = (count) =>
    Effect.forEach(
      payloads(count),
      (some) =>
        rows("insert into log (key, data) select k, d::json from unnest($1::text[], $2::text[]) as m (k, d)", [
          Pg.textArray(some.map(({ key }) => key)),
          Pg.textArray(some.map(({ payload }) => JSON.stringify(payload)))
        ]),
      { discard: true }
    ).pipe(Effect.mapError(failure("Filling the log")))

  const consume = (hasEffect: boolean): Consumer["consume"] => (count) =>
    Effect.gen(function*() {
      yield* rows("update reader set position = 0", [])
      yield* rows("truncate effect", [])
      let seen = 0
      const batch = Effect.gen(function*() {
        const found = yield* rows(read, [])
        const numbers = found.map(([, , data]) => numberOf(data))
        if (hasEffect) yield* rows("insert into effect select * from unnest($1::integer[])", [Pg.intArray(numbers)])
        yield* rows("update reader set position = $1", [Pg.bigint(cast(found[found.length - 1]![0]))])
        return numbers.length
      })
      while (seen < count) seen += yield* transact(batch)
      if (seen !== count) return yield* new BenchmarkError({ message: `The log gave ${seen} of ${count} messages` })
    }).pipe(Effect.mapError(failure("Reading the log")))

  const check: Consumer["check"] = (count) =>
    rows("select count(*)::integer, count(distinct n)::integer from effect", []).pipe(
      Effect.mapError(failure("Counting effects")),
      Effect.flatMap(([row]) =>
        row?.[0] === count && row[1] === count
          ? Effect.void
          : Effect.fail(new BenchmarkError({ message: `The log had the effect of ${row?.[0]} of ${count} messages` }))
      )
    )
  const withEffect: Consumer = { name: "plain SQL, effect and offset", fill, consume: consume(true), check }
  const offset: Consumer = {
    ...withEffect,
    name: "plain SQL, offset",
    consume: consume(false),
    check: () => Effect.void
  }
  return { withEffect, offset }
})

const numberOf = (data: unknown): number => {
  const { n }: { readonly n: number } = cast(data)
  return n
}
