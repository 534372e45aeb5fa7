/**
 * Keeps limits in PostgreSQL, so that all processes share them.
 *
 * **Details**
 *
 * Tokens of a whole hierarchy are taken by one statement, by the database's clock, so neither the number of processes nor
 * their clocks change a decision. What it costs is a round trip, and that calls which pass wait for others of the same key;
 * those that are refused wait for nobody. A limit with one key for everybody and a high rate belongs into memory, each process
 * with its share.
 *
 * The tables are unlogged: nothing waits for a disk. After a crash of the server every key has its burst once more.
 *
 * A database that is silent is given up after `timeout`, without waiting for the connection to be cleared up.
 *
 * **Example** (Limits of all processes)
 *
 * ```ts
 * import * as Postgres from "@strata/postgres/Postgres"
 * import * as RateLimit from "@strata/resilience/limits/RateLimit"
 * import * as RateLimitPostgres from "@strata/resilience/limits/RateLimitPostgres"
 * import * as Layer from "effect/Layer"
 *
 * const Limits = RateLimit.layer.pipe(
 *   Layer.provide(RateLimitPostgres.layer()),
 *   Layer.provide(Postgres.layerConfig)
 * )
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type { SqlError } from "effect/sql/SqlError"
import * as RetryPolicy from "../retry/RetryPolicy.ts"
import * as Priority from "../scheduling/Priority.ts"
import * as Gcra from "./Gcra.ts"
import { RateLimitStore, RateLimitStoreError, remembered, type Taking } from "./RateLimitStore.ts"

/**
 * How the store uses its database.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** A database that takes longer counts as one that does not answer. Default: 1 second. */
  readonly timeout?: Duration.Input | undefined
  /** How often what has rested is removed, the first time after so long. Default: 1 minute. */
  readonly sweepInterval?: Duration.Input | undefined
}

/**
 * The store in the tables of `ResilienceMigrations`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<RateLimitStore, never, Postgres> =>
  Layer.effect(RateLimitStore, make(options))

const make = Effect.fnUntraced(function*({ sweepInterval = "1 minute", timeout = "1 second" }: Options = {}) {
  const postgres = yield* Postgres
  const within = yield* makeWithin(timeout)
  yield* sweep.pipe(
    Effect.provideService(Postgres, postgres),
    Effect.ignore({ log: "Warn", message: "Rate limits that have rested were not removed" }),
    Effect.schedule(Schedule.spaced(sweepInterval)),
    Effect.withTracerEnabled(false),
    Effect.forkScoped
  )
  return RateLimitStore.of({
    take: (taking) => within(take(postgres, taking)),
    size: within(Effect.map(
      postgres.sql<{ size: bigint }>`select count(*) as size from rate_limit`,
      (rows) => Number(rows[0]?.size ?? 0n)
    ))
  })
})

// Finds the keys by rate_limit_pkey and what was paid by rate_limit_payment_pkey. Locks the rows of the keys until the
// statement's end, unless they refuse. See take_rate_limits in 0002_rate_limit.sql.
const take = ({ sql }: Postgres["Service"], { buckets, priority, requestId, tokens }: Taking) =>
  sql<Gcra.Standing>`
    select owed, wait from take_rate_limits(
      ${Pg.textArray(buckets.map(({ key }) => key))},
      ${Pg.bigintArray(buckets.map(({ rule }) => Gcra.costOf(rule, tokens)))},
      ${Pg.bigintArray(buckets.map(({ rule }) => Gcra.tolerance(rule)))},
      ${Pg.int(Priority.all.indexOf(priority) + 1)},
      ${Pg.text(requestId ?? null)},
      ${Pg.bigint(null)}
    )`

const onceMore = RetryPolicy.make({ attempts: 2, kind: "fixed", base: "1 millis", total: "1 minute", jitter: "none" })

/**
 * Runs a statement, once more after a failure in which nothing was done, and gives up in time. It runs in a fiber of its own,
 * since its end, when it is interrupted, waits for a server that may be silent.
 */
const makeWithin = Effect.fnUntraced(function*(timeout: Duration.Input) {
  const scope = yield* Effect.scope
  const limit = Duration.fromInputUnsafe(timeout)
  const late = () => new RateLimitStoreError({ detail: `no answer within ${Duration.format(limit)}` })
  return Effect.fnUntraced(function*<A>(statement: Effect.Effect<A, SqlError>) {
    const fiber = yield* statement.pipe(
      RetryPolicy.retry({ policy: onceMore }),
      Effect.mapError((cause) => new RateLimitStoreError({ detail: detailOf(cause), cause })),
      Effect.forkIn(scope)
    )
    return yield* Fiber.join(fiber).pipe(
      Effect.timeoutOrElse({ duration: limit, orElse: () => Effect.fail(late()) }),
      Effect.onExit((exit) => Exit.isSuccess(exit) ? Effect.void : Effect.sync(() => fiber.interruptUnsafe()))
    )
  })
})

/** What the server said, where it said something. */
const detailOf = ({ message, reason }: SqlError): string =>
  reason.cause instanceof Error ? reason.cause.message : message

// ---------------------------------------------------------------------------------------------------------- sweep

/** Rows looked at by one statement. */
const page = 1000

/**
 * Removes what has rested, as the layer does again and again. Any number of processes may.
 *
 * @category maintenance
 * @since 0.1.0
 */
export const sweep: Effect.Effect<void, SqlError, Postgres> = Effect.gen(function*() {
  let after: string | null = ""
  while (after !== null) after = yield* sweepAccounts(after)
  let forgotten = page
  while (forgotten === page) forgotten = yield* forgetPayments
})

// Walks along rate_limit_pkey, since an index on the arrivals would have to be written by every call. It locks the rows it
// removes, and passes over those that a call has locked. The last key of the page, null behind the last.
const sweepAccounts = Effect.fnUntraced(function*(after: string) {
  const { sql } = yield* Postgres
  const rows = yield* sql<{ last: string | null }>`
    with page as materialized (
      select key from rate_limit where key > ${after} order by key limit ${Pg.int(page)}
    ), rested as materialized (
      select key from rate_limit
      where key in (select key from page) and arrivals[4] <= rate_limit_clock()
      for update skip locked
    ), removed as (
      delete from rate_limit where key in (select key from rested)
    )
    select max(key) as last from page`
  return rows[0]?.last ?? null
})

// Finds the oldest by rate_limit_payment_at, and locks what it removes, but nothing that another process is removing.
const forgetPayments = Effect.gen(function*() {
  const { sql } = yield* Postgres
  const rows = yield* sql`
    with old as materialized (
      select request, key from rate_limit_payment
      where at < (select rate_limit_clock()) - ${Pg.bigint(Duration.toNanosUnsafe(remembered))}
      order by at
      limit ${Pg.int(page)}
      for update skip locked
    )
    delete from rate_limit_payment where (request, key) in (select request, key from old) returning 1`
  return rows.length
})
