/**
 * Pages of facts, which end by what they weigh as well as by how many facts they hold.
 *
 * **Details**
 *
 * A page is read without what large facts hold. Only where there are some, a second statement gives as many of those as a page
 * may hold, and the page ends there. So pages of small facts, which are nearly all, cost one statement and nothing to
 * weigh them; and what a reader keeps, and what a statement sends, has a bound.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import { EventStoreError, FactUnreadable, type SlicePage } from "./EventStore.ts"
import type { Fact, Position } from "./Fact.ts"

/**
 * Facts as a statement found them: of those at the positions `large` it left out what they hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface Found {
  readonly facts: ReadonlyArray<Fact>
  readonly large: ReadonlyArray<Position>
}

/**
 * What a large fact holds; no metadata when it cannot be read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Contents {
  readonly position: Position
  /** As JSON text. */
  readonly bytes: bigint
  readonly data: Schema.Json
  readonly metadata: { readonly [key: string]: Schema.Json } | null
}

/**
 * Bytes of large facts after which a page ends, as JSON text.
 *
 * @category constants
 * @since 0.1.0
 */
export const pageBytes = 8 * 1024 * 1024

/** The driver takes messages of 16 MiB. Half a mebibyte of that is more than the rest of a row can take. */
const readableBytes = 15.5 * 1024 * 1024

/**
 * Reads what large facts of a store hold, the first ones of those at the given positions, until a page is full: for the tenant whose
 * they are, or for who reads those of all tenants.
 *
 * @category constructors
 * @since 0.1.0
 */
export const contents = (sql: Postgres["Service"]["sql"], storeId: number) =>
(
  large: ReadonlyArray<Position>,
  tenant: string | undefined
): Effect.Effect<ReadonlyArray<Contents>, SqlError> =>
  // One fact after the other by the primary key of fact: what comes after a full page is not unpacked. The scope is set by
  // the first row, before any fact is looked for.
  sql<Contents>`
    with recursive page(place, position, data, metadata, bytes, total) as (
      select 0, 0::bigint, null::json, null::json, 0::bigint, 0::bigint
      from (
        select ${
    tenant === undefined
      ? sql`set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)`
      : sql`set_config('strata.tenant', ${tenant}, true), ''`
  }
      ) as scope(tenant, every)
      where scope.tenant is not null and scope.every is not null
      union all
      select page.place + 1, f.position, f.data, f.metadata, f.bytes, page.total + f.bytes
      from page, lateral (
        select position, data, metadata, octet_length(data::text)::bigint + octet_length(metadata::text) as bytes
        from fact
        where store = ${storeId} and position = (${Pg.bigintArray(large)}::bigint[])[page.place + 1]
        offset 0
      ) as f
      where page.total < ${Pg.bigint(BigInt(pageBytes))}
    )
    select
      position, bytes,
      case when bytes <= ${Pg.bigint(BigInt(readableBytes))} then data end as data,
      case when bytes <= ${Pg.bigint(BigInt(readableBytes))} then metadata end as metadata
    from page
    where place > 0
    order by place`

/**
 * A page with all it holds. `whole` says that nothing was left out of what was found.
 *
 * @category models
 * @since 0.1.0
 */
export interface Filled {
  readonly facts: ReadonlyArray<Fact>
  readonly whole: boolean
}

/**
 * Puts what large facts hold into the page. It ends before the first one of which that is not known; it fails when that is
 * the first of all, since then it cannot be read.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fill = (
  { facts, large }: Found,
  contents: ReadonlyArray<Contents>
): Effect.Effect<Filled, EventStoreError> => {
  const known = new Map(contents.map((each) => [each.position, each]))
  const left = large.find((position) => (known.get(position)?.metadata ?? null) === null)
  const read = left === undefined ? facts : facts.slice(0, facts.findIndex(({ position }) => position === left))
  if (left !== undefined && read.length === 0) return Effect.fail(unreadable(facts[0]!, known.get(left)?.bytes ?? 0n))
  return Effect.succeed({
    whole: left === undefined,
    facts: read.map((fact) => {
      const content = known.get(fact.position)
      return content === undefined ? fact : { ...fact, data: content.data, metadata: content.metadata ?? {} }
    })
  })
}

const unreadable = ({ eventId, position, recordedAt }: Fact, bytes: bigint) =>
  new EventStoreError({ reason: new FactUnreadable({ position, eventId, recordedAt, bytes }) })

/**
 * The facts of a page, out of up to one more than it may hold.
 *
 * @category combinators
 * @since 0.1.0
 */
export const within = ({ facts, large }: Found, limit: number): Found => {
  const left = facts[limit]
  if (left === undefined) return { facts, large }
  return { facts: facts.slice(0, limit), large: large.filter((position) => position !== left.position) }
}

/**
 * A page of what is numbered, and the number that the next one begins with if there are more.
 *
 * @category conversions
 * @since 0.1.0
 */
export const slice = (
  facts: ReadonlyArray<Fact>,
  more: boolean,
  direction: "forwards" | "backwards",
  numberOf: (fact: Fact) => number
): SlicePage => {
  const last = facts.at(-1)
  return { facts, next: more && last !== undefined ? numberOf(last) + (direction === "forwards" ? 1 : -1) : null }
}

/**
 * As many of these facts as a page holds: of a store that has them at hand, and no text of them to measure.
 *
 * @category constructors
 * @since 0.1.0
 */
export const cut = (facts: ReadonlyArray<Fact>, limit: number): Filled => {
  let total = 0
  for (const [index, fact] of facts.slice(0, limit).entries()) {
    if (total >= pageBytes) return { facts: facts.slice(0, index), whole: false }
    const bytes = bytesOf(fact)
    if (bytes >= largeBytes) total += bytes
  }
  return { facts: facts.slice(0, limit), whole: facts.length <= limit }
}

const largeBytes = 8 * 1024

/**
 * The bytes of what a fact holds, as JSON text. Facts do not change, so each is measured once.
 *
 * @category getters
 * @since 0.1.0
 */
export const bytesOf = (fact: Fact): number => {
  const known = measured.get(fact)
  if (known !== undefined) return known
  const bytes = utf8.encode(JSON.stringify(fact.data)).length + utf8.encode(JSON.stringify(fact.metadata)).length
  measured.set(fact, bytes)
  return bytes
}

const measured = new WeakMap<Fact, number>()
const utf8 = new TextEncoder()
