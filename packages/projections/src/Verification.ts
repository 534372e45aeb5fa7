/**
 * Holds a generation against the one that readers see, at exactly the same facts, while that one goes on.
 *
 * **Details**
 *
 * The generation is paused. A transaction that keeps its snapshot reads the checkpoints and the tables of the live one; the
 * facts up to those checkpoints are applied to the paused one here, partition by partition. Then both are read in the order of
 * their keys, page by page, as a count and a hash of the rows of each key: the sum of the rows' hashes, so their order does not
 * matter. Columns that only one of them has are left aside.
 *
 * @since 0.1.0
 */
import * as DurableSubscription from "@strata/event-store/DurableSubscription"
import * as Checkpoints from "@strata/event-store/DurableSubscriptionCheckpoints"
import type { PartitionFenced, SubscriptionError } from "@strata/event-store/DurableSubscriptionError"
import { EventStore } from "@strata/event-store/EventStore"
import type { Position } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { SqlError } from "effect/sql/SqlError"
import * as Erasures from "./Erasures.ts"
import * as Folding from "./Folding.ts"
import { type Generation, missing, type NoSuchGeneration, sharing, subscriptionOf } from "./Generation.ts"
import type { Projection } from "./Projection.ts"
import * as ProjectionKey from "./ProjectionKey.ts"
import * as SqlText from "./SqlText.ts"

/**
 * What was found in one table.
 *
 * @category models
 * @since 0.1.0
 */
export interface TableReport {
  readonly table: string
  readonly rows: { readonly live: bigint; readonly other: bigint }
  /** Keys whose rows differ. */
  readonly differing: bigint
  /** The first 20 of them, their columns with `/` between. */
  readonly keys: ReadonlyArray<string>
}

/**
 * What was found. Equal when no table differs and both have the same tables.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly projection: string
  readonly live: number
  readonly other: number
  readonly equal: boolean
  readonly tables: ReadonlyArray<TableReport>
  /** Tables that one of the two does not have. */
  readonly unmatched: ReadonlyArray<string>
}

/**
 * Why it could not be verified.
 *
 * @category errors
 * @since 0.1.0
 */
export type VerificationError =
  | NoSuchGeneration
  | Folding.FoldError
  | SubscriptionError
  | PartitionFenced
  | SqlError
  | TransactionError

/**
 * Compares a generation with the live one. It needs as many partitions as that.
 *
 * @category constructors
 * @since 0.1.0
 */
export const verify = Effect.fn("Verification.verify")(function*(projection: Projection, options: {
  readonly live: Generation
  readonly other: Generation
  readonly patience: Duration.Input
}): Effect.fn.Return<Report, VerificationError, EventStore | Postgres> {
  const { live, other } = options
  const { name } = projection
  if (live.partitions !== other.partitions) {
    return yield* missing(name, `generation ${other.number} has another number of partitions than the live one`)
  }
  const postgres = yield* Postgres
  const store = yield* EventStore
  const subscription = yield* DurableSubscription.open(subscriptionOf(other))
  const wasPaused = (yield* subscription.status).paused
  const settled = Effect.gen(function*() {
    yield* subscription.pause
    const paused = yield* until(
      Checkpoints.read(postgres.sql, store.name, [subscriptionOf(other)]),
      (rows) => rows.every(({ owner }) => owner === null),
      options.patience
    )
    // The live one is ahead in every partition before it is looked at.
    yield* until(
      Checkpoints.read(postgres.sql, store.name, [subscriptionOf(live)]),
      (rows) => rows.every(({ partition, position }) => position >= positionIn(paused, partition)),
      options.patience
    )
  })
  const compared = Effect.gen(function*() {
    yield* settled
    const targets = yield* Deferred.make<ReadonlyArray<{ readonly partition: number; readonly position: Position }>>()
    const there = yield* Deferred.make<void>()
    // Holds the snapshot, on a connection of its own, while the other generation is brought to where it was taken.
    const comparing = yield* Effect.forkChild(postgres.transact(Effect.gen(function*() {
      const { sql } = postgres
      yield* sql`set transaction isolation level repeatable read`
      yield* sql`select set_config('idle_in_transaction_session_timeout', '0', true)`
      yield* Deferred.succeed(targets, yield* Checkpoints.read(sql, store.name, [subscriptionOf(live)]))
      yield* Deferred.await(there)
      return yield* compare(postgres, projection, live, other)
    })))
    const positions = yield* Effect.raceFirst(
      Deferred.await(targets),
      Effect.andThen(Fiber.join(comparing), Effect.never)
    )
    const folding = Folding.make(projection, other, { postgres, store })
    yield* Erasures.refreshKeys
    yield* subscription.handleUpTo(positions, { ...sharing(projection), handler: folding.apply })
    yield* Deferred.succeed(there, undefined)
    return yield* Fiber.join(comparing)
  })
  return yield* Effect.ensuring(compared, wasPaused ? Effect.void : Effect.ignore(subscription.resume))
})

const positionIn = (rows: ReadonlyArray<Checkpoints.NamedRow>, partition: number): bigint =>
  rows.find((row) => row.partition === partition)?.position ?? 0n

const until = <A, E, R>(look: Effect.Effect<A, E, R>, holds: (value: A) => boolean, patience: Duration.Input) =>
  Effect.repeat(Pace.after("20 millis")(look), { until: holds }).pipe(
    Deadline.within(patience),
    Effect.catchTag("DeadlineExceeded", () => Effect.die(new Error("The partitions did not settle in time")))
  )

// -------------------------------------------------------------------------------------------------------- comparing

/** Rows of one key: how many, and the sum of their hashes. */
interface KeyRows {
  readonly key: ReadonlyArray<string>
  readonly rows: bigint
  readonly hash: string
}

interface Column {
  readonly name: string
  readonly type: string
}

/** Keys between two others, the first left out; an end that is not given is open. */
type Read = (range: {
  readonly after: ReadonlyArray<string> | undefined
  readonly upTo: ReadonlyArray<string> | undefined
  readonly limit: number | null
}) => Effect.Effect<ReadonlyArray<KeyRows>, SqlError>

const compare = Effect.fnUntraced(function*(
  postgres: Postgres["Service"],
  projection: Projection,
  live: Generation,
  other: Generation
) {
  const reports = yield* Effect.forEach(
    live.tables.filter((table) => other.tables.includes(table)),
    (table) =>
      Effect.gen(function*() {
        const columns = yield* commonColumns(postgres.sql, placeOf(live, table), placeOf(other, table))
        const keys = projection.replace === undefined
          ? projection.key.columns.flatMap((key) => columns.filter(({ name }) => name === key))
          : yield* primaryKey(postgres.sql, placeOf(live, table))
        // The other one is read as it is now, outside of the snapshot.
        return yield* merge(
          table,
          reading(postgres.sql, placeOf(live, table), columns, keys),
          reading(postgres.aside, placeOf(other, table), columns, keys)
        )
      })
  )
  const unmatched = [
    ...live.tables.filter((table) => !other.tables.includes(table)),
    ...other.tables.filter((table) => !live.tables.includes(table))
  ]
  return {
    projection: projection.name,
    live: live.number,
    other: other.number,
    equal: unmatched.length === 0 && reports.every(({ differing }) => differing === 0n),
    tables: reports,
    unmatched
  } satisfies Report
})

const placeOf = ({ schema }: Generation, table: string) => `${SqlText.identifier(schema)}.${SqlText.identifier(table)}`

/** Page by page of the live one's keys, and what the other one has between the same ends. */
const merge = Effect.fnUntraced(function*(table: string, live: Read, other: Read) {
  const rows = { live: 0n, other: 0n }
  const keys: Array<string> = []
  let differing = 0n
  let after: ReadonlyArray<string> | undefined
  let isLast = false
  while (!isLast) {
    const here = yield* live({ after, upTo: undefined, limit: pageSize })
    isLast = here.length < pageSize
    const upTo = isLast ? undefined : here.at(-1)?.key
    const there = new Map(
      (yield* other({ after, upTo, limit: null })).map((each) => [ProjectionKey.format(each.key), each])
    )
    for (const each of here) {
      const key = ProjectionKey.format(each.key)
      const twin = there.get(key)
      there.delete(key)
      rows.live += each.rows
      rows.other += twin?.rows ?? 0n
      if (twin?.rows === each.rows && twin.hash === each.hash) continue
      differing++
      if (keys.length < 20) keys.push(key)
    }
    for (const [key, each] of there) {
      rows.other += each.rows
      differing++
      if (keys.length < 20) keys.push(key)
    }
    after = upTo
  }
  return { table, rows, differing, keys } satisfies TableReport
})

const pageSize = 2000

/** A range of the index that begins with the key's columns. */
const reading = (
  sql: Postgres["Service"]["sql"],
  place: string,
  columns: ReadonlyArray<Column>,
  keys: ReadonlyArray<Column>
): Read => {
  const names = SqlText.list(keys.map(({ name }) => name))
  const key = keys.map(({ name }) => `${SqlText.identifier(name)}::text`).join(", ")
  const tuple = (from: number) => keys.map(({ type }, place) => `$${from + place}::text::${type}`).join(", ")
  return ({ after, limit, upTo }) => {
    const bounds = [
      ...after === undefined ? [] : [`(${names}) > (${tuple(1)})`],
      ...upTo === undefined ? [] : [`(${names}) <= (${tuple(1 + (after?.length ?? 0))})`]
    ]
    return sql.unsafe<KeyRows>(
      `
      select array[${key}] as key, count(*) as rows,
        sum(hashtextextended(row(${SqlText.list(columns.map(({ name }) => name))})::text, 0)::numeric)::text as hash
      from ${place}
      ${bounds.length === 0 ? "" : `where ${bounds.join(" and ")}`}
      group by ${names}
      order by ${names}
      ${limit === null ? "" : `limit ${limit}`}`,
      [...after ?? [], ...upTo ?? []].map((value) => Pg.text(value))
    )
  }
}

// From the catalog.
const commonColumns = (sql: Postgres["Service"]["sql"], live: string, other: string) =>
  sql<Column>`
    select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type
    from pg_attribute a
    join pg_attribute b on b.attname = a.attname and b.attrelid = to_regclass(${other})
    where a.attrelid = to_regclass(${live}) and a.attnum > 0 and b.attnum > 0
      and not a.attisdropped and not b.attisdropped
    order by a.attname`

const primaryKey = (sql: Postgres["Service"]["sql"], table: string) =>
  sql<Column>`
    select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type
    from pg_index i
    cross join unnest(i.indkey) with ordinality as k(attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = to_regclass(${table}) and i.indisprimary
    order by k.place`
