/**
 * Whether the summaries of a log still say what the log says, and making them anew.
 *
 * **Details**
 *
 * Reads over all streams look only where the summaries say that facts may be, and the catalog tells numbers from them. They are
 * made once of facts that never change, so they drift only by a mistake: of a program, of a disk, or of a hand. `verify`
 * makes them again by other means, and compares.
 *
 * **Example** (Finding drift, and mending it)
 *
 * ```ts
 * import * as FactSummaries from "@strata/event-store/FactSummaries"
 * import * as Effect from "effect/Effect"
 *
 * const mend = Effect.gen(function*() {
 *   const { chunks, counts } = yield* FactSummaries.verify()
 *   if (chunks.length + counts.length > 0) yield* FactSummaries.rebuild()
 * })
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import { EventStorePolicies } from "./EventStorePolicies.ts"
import * as FactChunks from "./FactChunks.ts"

/**
 * Which log.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Name of the store. Default: `default`. */
  readonly store?: string | undefined
}

/**
 * There is no store of that name.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownStore extends Schema.TaggedError<UnknownStore>()("UnknownStore", { store: Schema.String }) {
  override get message() {
    return `There is no store ${this.store}`
  }
}

/**
 * What summaries say otherwise than the log.
 *
 * @category models
 * @since 0.1.0
 */
export interface Drift {
  /** The log was looked at up to this position, which is as far as it is summarized. */
  readonly upTo: bigint
  /** Chunks of 256 positions: the nth one, from 0, ends at position 256 × (n + 1). */
  readonly chunks: ReadonlyArray<ChunkDrift>
  /** Numbers of facts and streams. */
  readonly counts: ReadonlyArray<CountDrift>
}

/**
 * A chunk that is not there, that there are no facts of, or that has other labels or other bounds of validity than its facts.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChunkDrift {
  readonly number: bigint
  readonly what: "missing" | "without facts" | "labels" | "validity"
}

/**
 * Facts of a type in a category of a tenant, and the streams that begin with one, that are not as many as was counted.
 *
 * @category models
 * @since 0.1.0
 */
export interface CountDrift {
  readonly tenant: string
  readonly category: string
  readonly type: string
  readonly summarized: Counted
  readonly found: Counted
}

/**
 * How many there are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Counted {
  readonly facts: bigint
  readonly streams: bigint
}

interface CountRow extends Counted {
  readonly tenant: string
  readonly category: string
  readonly type: string
}

/** All of it is null where nothing is counted. */
type NullableCountRow = { readonly [Field in keyof CountRow]: CountRow[Field] | null }

const isCounted = <Row extends NullableCountRow>(row: Row): row is Row & CountRow => row.tenant !== null

/** Chunks that one statement looks at. */
const step = 64n

const nothing: Counted = { facts: 0n, streams: 0n }

/**
 * Compares the summaries of a log with the log, while it is written. Reads every summarized fact twice; holds no lock.
 *
 * @category constructors
 * @since 0.1.0
 */
export const verify = Effect.fn("FactSummaries.verify")(function*(
  options: Options = {}
): Effect.fn.Return<Drift, UnknownStore | SqlError, Postgres> {
  const { sql } = yield* Postgres
  const store = yield* storeOf(options)
  const ofAllTenants = sql`
    select set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)`

  // How far the log is summarized and what is counted, of one moment.
  const summary = yield* sql<NullableCountRow & { readonly upTo: bigint }>`
    select fact_summarized(${store}::integer) as "upTo", c.tenant, c.category, c.type, c.facts, c.streams
    from (${ofAllTenants}) as scope(tenant, every)
    left join lateral (
      select * from fact_count where store = ${store} and scope.every is not null
    ) as c on true`
  const upTo = summary[0]?.upTo ?? 0n
  const counted = new Map(
    summary.filter(isCounted).map((row) => [keyOf(row.tenant, row.category, row.type), row] as const)
  )

  const chunks: Array<ChunkDrift> = []
  const found = new Map<string, CountRow>()
  for (let first = 0n; first < upTo / 256n; first += step) {
    const past = first + step < upTo / 256n ? first + step : upTo / 256n
    chunks.push(
      ...yield* sql<ChunkDrift>`
        select drift.* from (${ofAllTenants}) as scope(tenant, every), lateral (
          select number, what from fact_chunk_drift(${store}::integer, ${Pg.bigint(first)}, ${Pg.bigint(past)})
          where scope.every is not null
          order by number
          limit all
        ) as drift`
    )
    // By the primary key of fact, each with one look at its stream.
    const rows = yield* sql<CountRow>`
      select counted.* from (${ofAllTenants}) as scope(tenant, every), lateral (
        select f.tenant, split_part(s.id, '-', 1) as category, f.type, count(*) as facts,
          count(*) filter (where f.version = 1) as streams
        from fact f, lateral (select id from stream where number = f.stream offset 0) as s
        where f.store = ${store} and f.position > ${Pg.bigint(first * 256n)} and f.position <= ${Pg.bigint(past * 256n)}
          and scope.every is not null
        group by f.tenant, category, f.type
      ) as counted`
    for (const row of rows) {
      const key = keyOf(row.tenant, row.category, row.type)
      const before = found.get(key) ?? nothing
      found.set(key, { ...row, facts: before.facts + row.facts, streams: before.streams + row.streams })
    }
  }

  const counts: Array<CountDrift> = []
  for (const [key, { category, tenant, type }] of new Map([...counted, ...found])) {
    const summarized = ofBoth(counted.get(key))
    const there = ofBoth(found.get(key))
    if (summarized.facts === there.facts && summarized.streams === there.streams) continue
    counts.push({ tenant, category, type, summarized, found: there })
  }
  return { upTo, chunks, counts }
})

/**
 * Takes all summaries of a log away and makes them anew, and tells up to which position. Reads are right all the while, and slow
 * until it has come far; nobody waits. It can be interrupted: whoever has opened the store goes on with it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const rebuild = Effect.fn("FactSummaries.rebuild")(function*(
  options: Options = {}
): Effect.fn.Return<bigint, UnknownStore | SqlError | TransactionError, Postgres> {
  const { sql, transact } = yield* Postgres
  const store = yield* storeOf(options)
  yield* transact(Effect.gen(function*() {
    yield* sql`set local role none`
    yield* sql`select set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)`
    // As in summarize_facts: nobody summarizes meanwhile.
    yield* sql`select pg_advisory_xact_lock(hashtextextended('strata.fact_chunk', ${store}))`
    yield* sql`delete from fact_chunk where store = ${store}`
    yield* sql`delete from fact_count where store = ${store}`
  }))
  const { chunks } = yield* EventStorePolicies
  while (true) {
    const { head, summarized } = yield* FactChunks.summarize(sql, store)
    if (summarized !== null && head - summarized < 256n) return summarized
    // Another process is at it as well.
    if (summarized === null) yield* Effect.sleep(chunks.patience)
  }
})

const storeOf = Effect.fnUntraced(function*({ store = "default" }: Options) {
  const { sql } = yield* Postgres
  const [found] = yield* sql<{ id: number }>`select id from store where name = ${store}`
  return found === undefined ? yield* new UnknownStore({ store }) : found.id
})

const keyOf = (tenant: string, category: string, type: string) => JSON.stringify([tenant, category, type])

const ofBoth = ({ facts, streams }: Counted = nothing): Counted => ({ facts, streams })
