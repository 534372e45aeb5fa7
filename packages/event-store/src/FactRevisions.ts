/**
 * Writing revisions to PostgreSQL. The statement is `revise_fact` in `migrations/0007_restore_once.sql`.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { EventStoreError } from "./EventStore.ts"
import type { EventId, Fact, Position, StreamId } from "./Fact.ts"
import * as PreparedRevision from "./PreparedRevision.ts"
import { FactRetracted, type Revised, RevisionConflict, UnknownFact } from "./Revision.ts"
import { StreamClosed } from "./StreamCatalog.ts"

/** What revise_fact returns. */
interface ReviseRow {
  readonly outcome:
    | "written"
    | "unknown"
    | "seen"
    | "system"
    | "conflict"
    | "retracted"
    | "superseded"
    | "validity"
    | "closed"
  readonly lastEventId: EventId
  readonly lastRevision: number
  readonly lastPosition: Position
  readonly firstEventId: EventId
  readonly stream: StreamId
  readonly version: number
  readonly retracted: boolean
  readonly at: Timestamp.Timestamp
}

/**
 * One statement and, outside a transaction, one commit. Sending it again is safe: its event id tells.
 *
 * @category constructors
 * @since 0.1.0
 */
export const write = (
  sql: Postgres["Service"]["sql"],
  storeId: number,
  r: PreparedRevision.PreparedRevision
): Effect.Effect<ReviseRow, SqlError> =>
  Effect.map(
    sql<ReviseRow>`
      select
        outcome, last_event_id as "lastEventId", last_revision as "lastRevision", last_position as "lastPosition",
        first_event_id as "firstEventId", stream, version, retracted, at
      from revise_fact(
        ${storeId}::integer, ${Pg.text(r.tenant)}, ${Pg.uuid(r.revises)}, ${r.retract}, ${Pg.uuid(r.eventId)}, ${
      Pg.text(r.data)
    },
        ${Pg.int(r.schemaVersion)}, ${Pg.text(r.metadata)}, ${Pg.timestamptz(r.validFrom)},
        ${Pg.timestamptz(r.validTo)}, ${Pg.text(r.reason)}, ${Pg.text(r.actor)},
        ${Pg.text(r.correlationId)}, ${Pg.text(r.causationId)}, ${Pg.text(r.traceparent)},
        ${Pg.int(r.expectedRevision)}
      )`,
    (rows) => rows[0]!
  )

/**
 * What became of a revision. `history` reads the chain of an id that was there before or is named, `stateOf` how a stream is closed.
 *
 * @category combinators
 * @since 0.1.0
 */
export const answer = (
  revision: PreparedRevision.PreparedRevision,
  row: ReviseRow,
  history: (eventId: EventId) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>,
  stateOf: (stream: StreamId) => Effect.Effect<StreamClosed["state"], EventStoreError>
): Effect.Effect<Revised, EventStoreError> => {
  const { eventId, revises } = revision
  const member = <A>(
    id: EventId,
    then: (fact: Fact, chain: ReadonlyArray<Fact>) => Effect.Effect<A, EventStoreError>
  ) =>
    Effect.flatMap(history(id), (chain) => {
      const fact = chain.find((fact) => fact.eventId === id)
      return fact === undefined ? refuse(new UnknownFact({ eventId: id })) : then(fact, chain)
    })
  switch (row.outcome) {
    case "written":
      return Effect.succeed({
        eventId,
        revises: row.firstEventId,
        revision: row.lastRevision,
        stream: row.stream,
        version: row.version,
        position: row.lastPosition,
        recordedAt: row.at,
        retracted: row.retracted,
        duplicate: false
      })
    case "seen":
      return member(eventId, (stored, chain) => PreparedRevision.judge(revision, stored, chain))
    case "unknown":
      return refuse(new UnknownFact({ eventId: revises }))
    case "system":
      return PreparedRevision.ofTheSystem
    case "retracted":
      return refuse(new FactRetracted({ eventId: revises, retraction: row.lastEventId, position: row.lastPosition }))
    case "conflict":
      return refuse(
        new RevisionConflict({ eventId: revises, expected: revision.expectedRevision ?? 0, actual: row.lastRevision })
      )
    case "superseded":
      return member(revises, (named) => refuse(PreparedRevision.superseded(named, row.lastRevision)))
    case "validity":
      return PreparedRevision.endsTooEarly
    case "closed":
      return Effect.flatMap(stateOf(row.stream), (state) => refuse(new StreamClosed({ stream: row.stream, state })))
  }
}

const refuse = (reason: EventStoreError["reason"]) => Effect.fail(new EventStoreError({ reason }))
