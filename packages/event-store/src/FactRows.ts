/**
 * Facts as rows of PostgreSQL.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import type * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import { type EventId, type Fact, Position, type StreamId } from "./Fact.ts"
import type { Found } from "./WeighedPages.ts"

const columnsWith = (contents: string): string => `
  position, version, event_id, schema_version, recorded_at, nullif(valid_from, recorded_at) as begins,
  nullif(valid_to, 'infinity') as ends, type, ${contents}, correlation_id, causation_id, actor, traceparent,
  case when revision > 0 then json_build_array(revision, retracted, origin::text, revises, reason) end as revised`

const place = "tenant, (select s.id from stream s where s.number = fact.stream) as stream_id"

/** Of what is compressed only its size as it is stored is known, so it is unpacked to be measured, where that is not large already. */
const isSmall = `case
  when pg_column_compression(data) is null and pg_column_compression(metadata) is null
    then pg_column_size(data) + pg_column_size(metadata) < 8192
  when pg_column_size(data) + pg_column_size(metadata) < 2048
    then octet_length(data::text) + octet_length(metadata::text) < 8192
  else false end`

/**
 * The columns of a fact of a known stream, in the order of `FactRow`. What most facts have alike is null: a beginning when
 * they were recorded, an open end, and all that only a revision has, which comes as one column. So a row is made of few values.
 * What a fact holds is left out where that is large: 8 KiB, or 2 KiB compressed. That costs a look at the sizes. See
 * `WeighedPages`.
 *
 * @category constants
 * @since 0.1.0
 */
export const columns = columnsWith(
  `case when ${isSmall} then data end as data, case when ${isSmall} then metadata end as metadata`
)

/**
 * Those of a fact of any stream: a scalar subquery stays a lookup by primary key, whatever the planner believes of the tables.
 *
 * @category constants
 * @since 0.1.0
 */
export const columnsOfAny = `${columns}, ${place}`

/**
 * Those with all that a fact holds, however large it is.
 *
 * @category constants
 * @since 0.1.0
 */
export const columnsOfWhole = `${columnsWith("data, metadata")}, ${place}`

/** What the codecs of `PostgresTypes` make of those columns. */
type FactRow = readonly [
  position: Position,
  version: number,
  eventId: EventId,
  schemaVersion: number,
  recordedAt: Timestamp.Timestamp,
  validFrom: Timestamp.Timestamp | null,
  validTo: Timestamp.Timestamp | null,
  type: string,
  data: Schema.Json,
  metadata: { readonly [key: string]: Schema.Json } | null,
  correlationId: string | null,
  causationId: string | null,
  actor: string | null,
  traceparent: string | null,
  revised: readonly [revision: number, retracted: boolean, origin: string, revises: EventId, reason: string] | null,
  ...place: Place
]

/** Whose a fact is. */
type Place = readonly [tenant: string, stream: StreamId]

/**
 * What a statement finds of any stream by `columnsOfWhole`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const facts = (statement: Statement.Statement<unknown>): Effect.Effect<ReadonlyArray<Fact>, SqlError> =>
  Effect.map(found(statement), ({ facts }) => facts)

/**
 * What a statement finds of any stream by `columnsOfAny`. Rows come as arrays, which the driver makes in half the time it takes
 * to make objects of so many columns.
 *
 * @category combinators
 * @since 0.1.0
 */
export const found = (statement: Statement.Statement<unknown>): Effect.Effect<Found, SqlError> =>
  Effect.map(statement.values, (rows) => foundIn(cast(rows), (row) => toFact(row, row[15], row[16])))

/**
 * What a statement finds of one stream by `columns`, each without saying so.
 *
 * @category combinators
 * @since 0.1.0
 */
export const foundOf = (
  tenant: string,
  stream: StreamId,
  rows: Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>, SqlError>
): Effect.Effect<Found, SqlError> =>
  Effect.map(rows, (rows) => foundIn(cast(rows), (row) => toFact(row, tenant, stream)))

const foundIn = (rows: ReadonlyArray<FactRow>, toFact: (row: FactRow) => Fact): Found => ({
  facts: rows.map(toFact),
  large: rows.filter(isLarge).map((row) => row[0])
})

const isLarge = (row: FactRow) => row[9] === null

const toFact = (row: FactRow, tenant: string, stream: StreamId): Fact => {
  const revised = row[14]
  return {
    position: row[0],
    stream,
    version: row[1],
    origin: revised === null ? row[0] : Position.make(BigInt(revised[2]), { disableChecks: true }),
    eventId: row[2],
    type: row[7],
    schemaVersion: row[3],
    data: row[8],
    metadata: row[9] ?? {},
    correlationId: row[10] ?? row[2],
    causationId: row[11],
    tenant,
    actor: row[12],
    traceparent: row[13],
    validFrom: row[5] ?? row[4],
    validTo: row[6] ?? Timestamp.infinity,
    recordedAt: row[4],
    revision: revised === null ? 0 : revised[0],
    revises: revised === null ? null : revised[3],
    retracted: revised !== null && revised[1],
    reason: revised === null ? null : revised[4]
  }
}
