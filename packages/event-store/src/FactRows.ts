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

/**
 * The columns of a fact, in the order of `FactRow`. What most facts have alike is null: an open end, and all that only a
 * revision has, which comes as one column. So a row is made of few values.
 *
 * @category constants
 * @since 0.1.0
 */
export const columns = `
  position, version, event_id, schema_version, recorded_at, valid_from, nullif(valid_to, 'infinity') as ends, tenant, type,
  data, metadata, correlation_id, causation_id, actor, traceparent,
  case when revision > 0 then json_build_array(revision, retracted, origin::text, revises, reason) end as revised`

/**
 * Its stream's id: a scalar subquery stays a lookup by primary key, whatever the planner believes of the tables.
 *
 * @category constants
 * @since 0.1.0
 */
export const streamIdColumn = `(select s.id from stream s where s.number = fact.stream) as stream_id`

/** What the codecs of `PostgresTypes` make of those columns. The last one is there unless one stream was asked for. */
type FactRow = readonly [
  position: Position,
  version: number,
  eventId: EventId,
  schemaVersion: number,
  recordedAt: Timestamp.Timestamp,
  validFrom: Timestamp.Timestamp,
  validTo: Timestamp.Timestamp | null,
  tenant: string,
  type: string,
  data: Schema.Json,
  metadata: { readonly [key: string]: Schema.Json },
  correlationId: string | null,
  causationId: string | null,
  actor: string | null,
  traceparent: string | null,
  revised: readonly [revision: number, retracted: boolean, origin: string, revises: EventId, reason: string] | null,
  stream: StreamId
]

/**
 * What a statement finds, of one stream or each with its stream's id. Rows come as arrays, which the driver makes in half the
 * time it takes to make objects of so many columns.
 *
 * @category combinators
 * @since 0.1.0
 */
export const facts = (
  statement: Statement.Statement<unknown>,
  stream?: StreamId
): Effect.Effect<ReadonlyArray<Fact>, SqlError> =>
  Effect.map(statement.values, (rows) => {
    const typed: ReadonlyArray<FactRow> = cast(rows)
    return typed.map((row) => toFact(row, stream ?? row[16]))
  })

const toFact = (row: FactRow, stream: StreamId): Fact => {
  const revised = row[15]
  return {
    position: row[0],
    stream,
    version: row[1],
    origin: revised === null ? row[0] : Position.make(BigInt(revised[2]), { disableChecks: true }),
    eventId: row[2],
    type: row[8],
    schemaVersion: row[3],
    data: row[9],
    metadata: row[10],
    correlationId: row[11] ?? row[2],
    causationId: row[12],
    tenant: row[7],
    actor: row[13],
    traceparent: row[14],
    validFrom: row[5],
    validTo: row[6] ?? Timestamp.infinity,
    recordedAt: row[4],
    revision: revised === null ? 0 : revised[0],
    revises: revised === null ? null : revised[3],
    retracted: revised !== null && revised[1],
    reason: revised === null ? null : revised[4]
  }
}
