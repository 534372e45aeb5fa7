/**
 * Answering a `FactQuery` from PostgreSQL: which facts were believed, of a stream or of the whole log, page by page.
 *
 * **Details**
 *
 * What is asked of one stream is read along its versions. What is asked of the log is read along its positions, but only
 * where the summaries of its chunks say that it may be: see `migrations/0006_chunks.sql`. So a page costs about as much as what is
 * on it, and the rest of the log that is not summarized yet is looked at itself.
 *
 * Nothing that is known at a position changes, so an answer may be put together from several statements.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import { typePattern } from "./Belief.ts"
import * as DataConditions from "./DataConditions.ts"
import type { Fact, Position, StreamId } from "./Fact.ts"
import * as FactBlocks from "./FactBlocks.ts"
import type { Page } from "./FactPaging.ts"
import type { FactFilter, FactQuery, LogFilter } from "./FactQuery.ts"
import * as FactRows from "./FactRows.ts"
import type { Found } from "./WeighedPages.ts"

type Sql = Postgres["Service"]["sql"]

/**
 * The queries of a log.
 *
 * @category models
 * @since 0.1.0
 */
export interface FactQueries {
  /** Up to one fact more than the page holds, in its order. */
  readonly query: (
    tenant: string,
    query: FactQuery,
    page: Page,
    known: Position
  ) => Effect.Effect<Found, SqlError>
  /** How many facts fit, or `most + 1` where there are more; of the whole log, as far as it looks. */
  readonly count: (
    tenant: string,
    query: FactQuery,
    most: number,
    known: Position
  ) => Effect.Effect<{ readonly facts: number; readonly isCut: boolean }, SqlError>
  /** The first fact of the log that fits, revision or not, after one position and up to another. */
  readonly firstAfter: (
    tenant: string,
    filter: FactFilter,
    after: Position,
    known: Position
  ) => Effect.Effect<ReadonlyArray<Fact>, SqlError>
  /** The first facts of the log that fit, after one position and up to another, whoever's they are. */
  readonly filtered: (
    filter: LogFilter,
    after: Position,
    upTo: Position,
    limit: number
  ) => Effect.Effect<Found, SqlError>
}

/**
 * The queries of one store.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (sql: Sql, storeId: number): FactQueries => {
  const columns = sql.literal(FactRows.columns)
  const columnsOfAny = sql.literal(FactRows.columnsOfAny)

  // Within a stream the versions follow the positions: served by fact_version. By validity, all of it is sorted. Its facts
  // are of its tenant; to ask that again could lead the planner to all of the tenant's.
  const ofStream = (
    tenant: string,
    stream: StreamId,
    query: FactQuery,
    page: Page,
    known: Position,
    from?: ReadonlyArray<Statement.Fragment>
  ) => {
    const number = sql`(
      select number from stream where store = ${storeId} and tenant = scope.tenant and id = ${stream}
    )`
    const rest = from ?? (page.orderBy === "position" ? afterInStream(sql, number, page) : after(sql, page))
    return sql`
      select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select ${columns} from fact
        where stream = ${number}
          and position + 0 <= ${Pg.bigint(known)}
          and ${sql.and([...filters(sql, query), ...believedInStream(sql, query, number, known), ...rest])}
        order by ${order(sql, query, page)}
        limit ${page.limit + 1}
      ) as f`
  }

  // The streams of a category by stream_id, each one's facts by fact_version; all of them are sorted.
  const ofFewFacts = (tenant: string, category: string, query: FactQuery, page: Page, known: Position) =>
    sql`
      select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select of_stream.* from stream s, lateral (
          select ${columns}, tenant, s.id as stream_id, valid_from from fact
          where stream = s.number and position + 0 <= ${Pg.bigint(known)} and tenant = scope.tenant
            and ${
      sql.and([
        ...filters(sql, { ...query, category: undefined }),
        ...believed(sql, query, known),
        ...after(sql, page)
      ])
    }
          offset 0
        ) as of_stream
        where s.store = ${storeId} and s.tenant = scope.tenant and ${inCategory(sql, category)}
        order by ${order(sql, query, page)}
        limit ${page.limit + 1}
      ) as f`

  // True when all facts of a category are fewer than those in which a page of them would be looked for. Served by the
  // primary keys of fact_count and fact_chunk.
  const hasFewFacts = (tenant: string, category: string, known: Position) =>
    Effect.map(
      sql<{ readonly few: boolean }>`
        select found.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
          select coalesce(sum(facts), 0) <= 1000 and fact_summarized(${storeId}) > ${Pg.bigint(known)} - 4096 as few
          from fact_count
          where store = ${storeId} and tenant = scope.tenant and category = ${category}
        ) as found`,
      (rows) => rows[0]?.few === true
    )

  /** Where in these spans to look, as `block`, in their order. */
  const blocks = (
    asked: Statement.Fragment,
    spans: ReadonlyArray<FactBlocks.Span>,
    direction: Page["direction"],
    period: Period
  ) =>
    sql`
      (${asked}) as asked,
      unnest(
        ${Pg.bigintArray(spans.map(({ low }) => low))}, ${Pg.bigintArray(spans.map(({ high }) => high))}
      ) as span(low, high),
      lateral fact_blocks(
        ${storeId}::integer, span.low, span.high, ${
      direction === "backwards"
    }, asked.labels, asked.alternatives, asked.also,
        ${instant(period.beginsFrom)}, ${instant(period.beginsBy)}, ${instant(period.endsAfter)}
      ) as block`

  const askedBy = (query: FactQuery) => FactBlocks.asked(sql, storeId, sql`scope.tenant`, query)

  // By the primary key of fact, block after block and no further than the page goes. What is `lateral` runs for one row after
  // another, in their order, so the facts come in the order of the spans, of the blocks, of the positions.
  const byPosition = (tenant: string, query: FactQuery, page: Page, known: Position) => {
    const spans = page.direction === "forwards"
      ? FactBlocks.spans((page.after?.position ?? 0n) + 1n, known, "forwards")
      : FactBlocks.spans(1n, page.after === undefined ? known : page.after.position - 1n, "backwards")
    return sql`
      select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select found.* from ${blocks(askedBy(query), spans, page.direction, periodOf(query))}, lateral (
          select ${columnsOfAny} from fact
          where store = ${storeId} and position between block.low and block.high and tenant = scope.tenant
            and ${sql.and([...filters(sql, query), ...believed(sql, query, known)])}
          order by ${order(sql, query, page)}
          limit ${page.limit + 1}
        ) as found
        limit ${page.limit + 1}
      ) as f`
  }

  // By the primary key of fact; what begins to hold within a bound is sorted.
  const between = (tenant: string, query: FactQuery, page: Page, known: Position, period: Period) =>
    FactRows.found(sql`
      select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select found.* from ${blocks(askedBy(query), FactBlocks.segments(1n, known), page.direction, period)}, lateral (
          select ${columnsOfAny}, valid_from from fact
          where store = ${storeId} and position between block.low and block.high and tenant = scope.tenant
            and (${instant(period.beginsFrom)} is null or valid_from >= ${instant(period.beginsFrom)})
            and (${instant(period.beginsBy)} is null or valid_from <= ${instant(period.beginsBy)})
            and ${sql.and([...filters(sql, query), ...believed(sql, query, known), ...after(sql, page)])}
          order by ${order(sql, query, page)}
          limit ${page.limit + 1}
        ) as found
        order by ${order(sql, query, page)}
        limit ${page.limit + 1}
      ) as f`)

  const boundsOf = (tenant: string, query: FactQuery, page: Page, known: Position, period: Period) =>
    Effect.map(
      sql<{ readonly bounds: ReadonlyArray<Timestamp.Timestamp> }>`
        select fact_bounds(
          ${storeId}::integer, ${Pg.bigint(known)}, ${page.direction === "backwards"}, asked.labels, asked.alternatives,
          asked.also, ${instant(period.beginsFrom)}, ${instant(period.beginsBy)}, ${instant(period.endsAfter)}
        ) as bounds
        from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
          ${askedBy(query)}
        ) as asked`,
      (rows) => rows[0]?.bounds ?? []
    )

  // A bound on the beginning is moved until the page is full within it: 16 chunks, 128, … and at last all that may hold what
  // is asked for, which is when fewer facts than a page answer, or when chunks hold facts from all times.
  const byValidity = Effect.fnUntraced(function*(tenant: string, query: FactQuery, page: Page, known: Position) {
    const { after, direction } = page
    const asked = periodOf(query)
    const period = direction === "forwards"
      ? { ...asked, beginsFrom: after?.validFrom }
      : { ...asked, beginsBy: earlier(after?.validFrom, asked.beginsBy) }
    for (const bound of known > 4096n ? yield* boundsOf(tenant, query, page, known, period) : []) {
      const within = direction === "forwards"
        ? { ...period, beginsBy: earlier(period.beginsBy, bound) }
        : { ...period, beginsFrom: bound }
      const found = yield* between(tenant, query, page, known, within)
      if (found.facts.length > page.limit) return found
    }
    return yield* between(tenant, query, page, known, period)
  })

  // By the primary key of fact: what is between is looked at, and sorted when it is wanted by validity.
  const throughout = (tenant: string, query: FactQuery, page: Page, known: Position) => {
    const [low, high] = reach(page, known)
    return sql`
      select f.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
        select ${columnsOfAny} from fact
        where store = ${storeId} and position between ${Pg.bigint(low)} and ${Pg.bigint(high)} and tenant = scope.tenant
          and ${sql.and([sql`true`, ...filters(sql, query), ...believed(sql, query, known), ...after(sql, page)])}
        order by ${order(sql, query, page)}
        limit ${page.limit + 1}
      ) as f`
  }

  /** The statement that finds a page of the whole log, unless it is looked for by validity in a log that is not short. */
  const ofLog = Effect.fnUntraced(function*(tenant: string, query: FactQuery, page: Page, known: Position) {
    const { category } = query
    const [low, high] = reach(page, known)
    if (high - low < short) return throughout(tenant, query, page, known)
    if (category !== undefined && (yield* hasFewFacts(tenant, category, known))) {
      return ofFewFacts(tenant, category, query, page, known)
    }
    return page.orderBy === "position" ? byPosition(tenant, query, page, known) : undefined
  })

  const query: FactQueries["query"] = Effect.fnUntraced(function*(tenant, query, page, known) {
    const { stream } = query
    if (stream !== undefined) {
      return yield* FactRows.foundOf(tenant, stream, ofStream(tenant, stream, query, page, known).values)
    }
    const statement = yield* ofLog(tenant, query, page, known)
    return yield* statement === undefined ? byValidity(tenant, query, page, known) : FactRows.found(statement)
  })

  // As a page of so many would be found, but that no more blocks are looked into than hold so many facts: who asks how many there are does
  // not wait for all of a log to be read.
  const countInBlocks = (tenant: string, query: FactQuery, most: number, known: Position) => {
    // Each with the position after which enough was looked at.
    const sized = sql`
      select
        block.low, block.high,
        block.high + ${lookedAtMost} - sum(block.high - block.low + 1) over (rows unbounded preceding)::bigint as enough
      from ${blocks(askedBy(query), FactBlocks.spans(1n, known, "forwards"), "forwards", periodOf(query))}`
    const scope = sql`(select set_config('strata.tenant', ${tenant}, true)) as scope(tenant)`
    return sql<Counted>`
      select count(*) filter (where not found.beyond)::integer as facts, coalesce(bool_or(found.beyond), false) as "isCut"
      from (
        (
          select false as beyond from ${scope}, lateral (
            select from (${sized}) as block, lateral (
              select from fact
              where store = ${storeId} and position between block.low and least(block.high, block.enough) and tenant = scope.tenant
                and ${sql.and([sql`true`, ...filters(sql, query), ...believed(sql, query, known)])}
              limit ${most + 1}
            ) as fitting
            where block.low <= block.enough
            limit ${most + 1}
          ) as counted
        )
        union all
        (select true from ${scope}, lateral (select from (${sized}) as block where block.high > block.enough limit 1) as rest)
      ) as found`
  }

  const count: FactQueries["count"] = Effect.fnUntraced(function*(tenant, query, most, known) {
    const { category, stream } = query
    const page: Page = {
      query,
      of: { store: "", tenant },
      orderBy: "position",
      direction: "forwards",
      limit: most,
      after: undefined
    }
    const isFew = stream === undefined && category !== undefined && known > short &&
      (yield* hasFewFacts(tenant, category, known))
    const found = stream !== undefined
      ? ofStream(tenant, stream, query, page, known)
      : known <= short
      ? throughout(tenant, query, page, known)
      : isFew
      ? ofFewFacts(tenant, category, query, page, known)
      : undefined
    const [row] = yield* found === undefined
      ? countInBlocks(tenant, query, most, known)
      : sql<Counted>`select count(*)::integer as facts, false as "isCut" from (${found}) as counted`
    return row!
  })

  // The position need not be one of the stream that is asked for: version_at finds where to begin.
  const firstAfter: FactQueries["firstAfter"] = (tenant, filter, after, known) => {
    const asked: FactQuery = { ...filter, revisions: "all" }
    const of = { store: "", tenant }
    const page: Page = { query: asked, of, orderBy: "position", direction: "forwards", limit: 0, after: undefined }
    const { stream } = filter
    const begun = { known, position: after, validFrom: Timestamp.negativeInfinity, asked: "" }
    return Effect.map(
      stream === undefined
        ? query(tenant, asked, { ...page, after: begun }, known)
        : FactRows.foundOf(
          tenant,
          stream,
          ofStream(tenant, stream, asked, page, known, [sql`
            version > (
              select version_at(number, ${Pg.bigint(after)}) from stream
              where store = ${storeId} and tenant = scope.tenant and id = ${stream}
            )`]).values
        ),
      ({ facts }) => facts
    )
  }

  const allTenants = sql`
    select set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true)`

  // Like byPosition; of the few facts that are new to who follows a log, no summary is asked.
  const filteredLog = (filter: LogFilter, after: Position, upTo: Position, limit: number) => {
    const found = (within: Statement.Fragment) =>
      sql`
        select ${columnsOfAny} from fact
        where store = ${storeId} and ${within} and scope.every is not null
          and ${ofTenant(sql, filter, "fact")} and ${sql.and(filters(sql, filter))}
        order by position
        limit ${limit}`
    if (upTo - after <= short) {
      return FactRows.found(sql`
        select f.* from (${allTenants}) as scope(tenant, every), lateral (
          ${found(sql`position > ${Pg.bigint(after)} and position <= ${Pg.bigint(upTo)}`)}
        ) as f`)
    }
    const asked = FactBlocks.asked(
      sql,
      storeId,
      filter.tenant === undefined ? undefined : sql`${filter.tenant}`,
      filter
    )
    const spans = FactBlocks.spans(after + 1n, upTo, "forwards")
    return FactRows.found(sql`
      select f.* from (${allTenants}) as scope(tenant, every), lateral (
        select found.* from ${blocks(asked, spans, "forwards", periodOf({}))}, lateral (
          ${found(sql`position between block.low and block.high`)}
        ) as found
        limit ${limit}
      ) as f`)
  }

  // The streams of that name by stream_id, each one's facts by fact_version: positions follow the versions, so version_at
  // finds where to begin.
  const streamsOfLog = (stream: StreamId, filter: LogFilter, after: Position, upTo: Position, limit: number) =>
    FactRows.found(
      sql`
        select f.* from (${allTenants}) as scope(tenant, every), lateral (
          select of_stream.* from stream s, lateral (
            select ${columns}, tenant, s.id as stream_id from fact
            where stream = s.number and version > version_at(s.number, ${Pg.bigint(after)})
              and position + 0 <= ${Pg.bigint(upTo)} and ${
        sql.and(filters(sql, { types: filter.types, category: filter.category }))
      }
            order by version
            limit ${limit}
          ) as of_stream
          where s.store = ${storeId} and s.id = ${stream} and scope.every is not null and ${ofTenant(sql, filter, "s")}
          order by position
          limit ${limit}
        ) as f`
    )

  const filtered: FactQueries["filtered"] = (filter, after, upTo, limit) =>
    filter.stream === undefined
      ? filteredLog(filter, after, upTo, limit)
      : streamsOfLog(filter.stream, filter, after, upTo, limit)

  return { query, count, firstAfter, filtered }
}

/** Positions that are sooner looked at than asked about. */
const short = 1024n

/** Positions that a count of the log looks at, where summaries say that something may be. */
const lookedAtMost = 100_000

interface Counted {
  readonly facts: number
  readonly isCut: boolean
}

/** The first and the last position at which the rest of an answer may be. */
const reach = ({ after, direction, orderBy }: Page, known: Position): readonly [low: bigint, high: bigint] => {
  if (after === undefined || orderBy === "validity") return [1n, known]
  return direction === "forwards" ? [after.position + 1n, known] : [1n, after.position - 1n]
}

/** When facts begin to hold that are looked for, both ends included, and when they still do; `undefined` does not restrict. */
interface Period {
  readonly beginsFrom: Timestamp.Timestamp | undefined
  readonly beginsBy: Timestamp.Timestamp | undefined
  readonly endsAfter: Timestamp.Timestamp | undefined
}

const periodOf = ({ validAt, validDuring }: FactQuery): Period => ({
  beginsFrom: undefined,
  beginsBy: validAt ?? validDuring?.to,
  endsAfter: validAt ?? validDuring?.from
})

const earlier = (a: Timestamp.Timestamp | undefined, b: Timestamp.Timestamp | undefined) =>
  a === undefined || (b !== undefined && b < a) ? b : a

const instant = (time: Timestamp.Timestamp | undefined) => Pg.timestamptz(time ?? null)

// --------------------------------------------------------------------------------------------------------- clauses

const inCategory = (sql: Sql, category: string): Statement.Fragment =>
  // In byte order the ids of a category stand between `<category>-` and `<category>.`, the next byte. What is no category
  // stands before ids as well, up to their second `-`: hence the comparison.
  sql`s.id >= ${`${category}-`} and s.id < ${`${category}.`} and split_part(s.id, '-', 1) = ${category}`

const ofTenant = (sql: Sql, { tenant }: LogFilter, table: string): Statement.Fragment =>
  tenant === undefined ? sql`true` : sql`${sql.literal(table)}.tenant = ${tenant}`

const filters = (sql: Sql, query: FactQuery): Array<Statement.Fragment> => {
  const { category, causationId, correlationId, data, metadata, types, validAt, validDuring, versions } = query
  const found: Array<Statement.Fragment | false> = [
    validAt !== undefined && sql`valid_from <= ${Pg.timestamptz(validAt)} and valid_to > ${Pg.timestamptz(validAt)}`,
    validDuring !== undefined &&
    sql`valid_from < ${Pg.timestamptz(validDuring.to)} and valid_to > ${Pg.timestamptz(validDuring.from)}`,
    category !== undefined &&
    sql`(select split_part(s.id, '-', 1) from stream s where s.number = fact.stream) = ${category}`,
    types !== undefined &&
    (types.some((type) => type.includes("*"))
      ? sql`type ~ ${typePattern(types)}`
      : sql`type = any(${Pg.textArray(types)})`),
    correlationId !== undefined && sql`coalesce(correlation_id, event_id::text) = ${correlationId}`,
    causationId !== undefined && sql`causation_id = ${causationId}`,
    versions?.from !== undefined && sql`version >= ${versions.from}`,
    versions?.to !== undefined && sql`version <= ${versions.to}`
  ]
  for (const [key, value] of Object.entries(metadata ?? {})) {
    found.push(sql`metadata::jsonb -> ${key}::text = ${Pg.jsonText(toJson(value))}::jsonb`)
  }
  for (const condition of data ?? []) {
    const value = Pg.jsonText(toJson(condition.value))
    found.push(
      sql`fact_data_fits(data, ${Pg.textArray(DataConditions.stepsOf(condition))}, ${condition.is}, ${value}::jsonb)`
    )
  }
  return found.filter((fragment) => fragment !== false)
}

const toJson = Schema.encodeSync(Schema.fromJsonString(Schema.Json))

// A revision takes the place of the one before it, the first of them of the fact itself, all in one stream: served by fact_revisions, once
// for all facts. Where a stream has many, they are looked for fact by fact.
const believedInStream = (
  sql: Sql,
  query: FactQuery,
  number: Statement.Fragment,
  known: Position
): ReadonlyArray<Statement.Fragment> =>
  query.revisions === "all" ? [] : [sql`
    not retracted and case
      when (
        select count(*) from (select from fact r where r.stream = ${number} and r.revision > 0 limit ${fewRevisions}) as counted
      ) < ${fewRevisions}
      then position not in (
        select lag(r.position, 1, r.origin) over (partition by r.origin order by r.revision) from fact r
        where r.stream = ${number} and r.revision > 0 and r.position + 0 <= ${Pg.bigint(known)}
      )
      else ${isNewest(sql, known)}
    end`]

/** Revisions of a stream that are sooner looked at together. */
const fewRevisions = 1000

const believed = (sql: Sql, query: FactQuery, known: Position): ReadonlyArray<Statement.Fragment> =>
  query.revisions === "all" ? [] : [sql`not retracted and ${isNewest(sql, known)}`]

// Under row-level security an index takes what cannot tell of other rows: `case` passes for that, `coalesce` does not.
const isNewest = (sql: Sql, known: Position): Statement.Fragment =>
  sql`
    (
      select true from fact as newer
      where newer.origin = case when fact.origin is null then fact.position else fact.origin end
        and newer.store + 0 = fact.store and newer.revision > 0 and newer.revision > fact.revision and newer.position + 0 <= ${
    Pg.bigint(known)
  }
      limit 1
    ) is null`

// The position need not be one of the stream: whoever asks may have made it up.
const afterInStream = (
  sql: Sql,
  number: Statement.Fragment,
  { after, direction }: Page
): ReadonlyArray<Statement.Fragment> =>
  after === undefined
    ? []
    : direction === "forwards"
    ? [sql`version > version_at(${number}, ${Pg.bigint(after.position)})`]
    : [sql`version <= version_at(${number}, ${Pg.bigint(after.position - 1n)})`]

const after = (sql: Sql, { after, direction, orderBy }: Page): ReadonlyArray<Statement.Fragment> => {
  if (after === undefined) return []
  const position = Pg.bigint(after.position)
  const validFrom = Pg.timestamptz(after.validFrom)
  if (orderBy === "position") {
    return [direction === "forwards" ? sql`position > ${position}` : sql`position < ${position}`]
  }
  return [
    direction === "forwards"
      ? sql`(valid_from, position) > (${validFrom}, ${position})`
      : sql`(valid_from, position) < (${validFrom}, ${position})`
  ]
}

const order = (sql: Sql, { stream }: FactQuery, { direction, orderBy }: Page): Statement.Fragment => {
  const columns = orderBy === "validity" ? ["valid_from", "position"] : [stream === undefined ? "position" : "version"]
  return sql.literal(columns.map((column) => direction === "forwards" ? column : `${column} desc`).join(", "))
}
