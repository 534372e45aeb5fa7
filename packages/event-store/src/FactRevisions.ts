/**
 * Writing revisions to PostgreSQL. The statement is `revise_fact` in `migrations/0013_type_of_revision.sql`.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Recorded } from "./CommitWork.ts"
import { type EventStore, EventStoreError } from "./EventStore.ts"
import { type EventId, type Fact, Position, type StreamId } from "./Fact.ts"
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
    | "type"
  readonly lastEventId: EventId
  readonly lastRevision: number
  readonly lastPosition: Position
  readonly firstEventId: EventId
  readonly stream: StreamId
  readonly version: number
  readonly retracted: boolean
  readonly at: Timestamp.Timestamp
  readonly type: string
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
        first_event_id as "firstEventId", stream, version, retracted, at, type
      from revise_fact(
        ${storeId}::integer, ${Pg.text(r.tenant)}, ${Pg.uuid(r.revises)}, ${r.retract}, ${Pg.uuid(r.eventId)}, ${
      Pg.text(r.data)
    },
        ${Pg.int(r.schemaVersion)}, ${Pg.text(r.metadata)}, ${Pg.timestamptz(r.validFrom)},
        ${Pg.timestamptz(r.validTo)}, ${Pg.text(r.reason)}, ${Pg.text(r.actor)},
        ${Pg.text(r.correlationId)}, ${Pg.text(r.causationId)}, ${Pg.text(r.traceparent)},
        ${Pg.int(r.expectedRevision)}, ${Pg.text(r.type)}
      )`,
    (rows) => rows[0]!
  )

/**
 * The fact that was written, if any.
 *
 * @category getters
 * @since 0.1.0
 */
export const recordedBy = ({ lastPosition, outcome }: ReviseRow): Recorded | undefined =>
  outcome === "written" ? { after: Position.make(lastPosition - 1n), upTo: lastPosition } : undefined

/**
 * What the answer to a revision may have to look up: facts by their ids, the revisions of a fact, and how a stream is closed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lookups {
  readonly factsById: (eventIds: ReadonlyArray<EventId>) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>
  readonly history: EventStore["Service"]["history"]
  readonly stateOf: (stream: StreamId) => Effect.Effect<StreamClosed["state"], EventStoreError>
}

/**
 * What became of a revision.
 *
 * @category combinators
 * @since 0.1.0
 */
export const answer = (
  revision: PreparedRevision.PreparedRevision,
  row: ReviseRow,
  { factsById, history, stateOf }: Lookups
): Effect.Effect<Revised, EventStoreError> => {
  const { eventId, revises } = revision
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
      return Effect.gen(function*() {
        const facts = yield* factsById([eventId, revises])
        const stored = facts.find((fact) => fact.eventId === eventId)
        if (stored === undefined) return yield* refuse(new UnknownFact({ eventId }))
        const [before] = stored.revision === 0
          ? []
          : yield* history(eventId, { direction: "backwards", fromRevision: stored.revision - 1, limit: 1 })
        return yield* PreparedRevision.judge(revision, stored, before, facts.find((fact) => fact.eventId === revises))
      })
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
      return Effect.flatMap(
        factsById([revises]),
        ([named]) =>
          refuse(
            named === undefined
              ? new UnknownFact({ eventId: revises })
              : PreparedRevision.superseded(named, row.lastRevision)
          )
      )
    case "type":
      return PreparedRevision.ofAnotherType(row.type)
    case "validity":
      return PreparedRevision.endsTooEarly
    case "closed":
      return Effect.flatMap(stateOf(row.stream), (state) => refuse(new StreamClosed({ stream: row.stream, state })))
  }
}

const refuse = (reason: EventStoreError["reason"]) => Effect.fail(new EventStoreError({ reason }))
