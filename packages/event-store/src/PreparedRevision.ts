/**
 * A revision made ready to be written, and the judgement of one whose id was there before.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import { sameJson } from "./AppendJudgement.ts"
import { EventIdTaken, EventStoreError, InvalidAppend } from "./EventStore.ts"
import { EventId, type Fact } from "./Fact.ts"
import * as PreparedAppend from "./PreparedAppend.ts"
import { type Revised, type Revision, UnknownFact } from "./Revision.ts"

/**
 * A revision with its defaults filled in and its JSON as text. What is null stays as it was.
 *
 * @category models
 * @since 0.1.0
 */
export interface PreparedRevision {
  readonly revises: EventId
  readonly retract: boolean
  readonly eventId: EventId
  readonly data: string | null
  readonly schemaVersion: number | null
  readonly metadata: string | null
  readonly validFrom: Timestamp.Timestamp | null
  readonly validTo: Timestamp.Timestamp | null
  readonly reason: string
  readonly actor: string
  readonly tenant: string
  readonly correlationId: string | null
  readonly causationId: string | null
  readonly traceparent: string | null
  readonly expectedRevision: number | null
}

/**
 * Characters of a reason at most.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxReason = 10_000

/**
 * True for a reason as PostgreSQL stores it, that says something.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isReason = (reason: string): boolean =>
  reason.trim() !== "" && reason.length <= maxReason && !reason.includes("\0") && reason.isWellFormed()

/**
 * Checks a revision and fills in its defaults.
 *
 * @category constructors
 * @since 0.1.0
 */
export const prepare = Effect.fnUntraced(function*(
  revision: Revision
): Effect.fn.Return<PreparedRevision, EventStoreError, SecureRandom.SecureRandom> {
  const { isEventId, isLabel, isVersion, labelExpected } = PreparedAppend
  const { actor, causationId, correlationId, eventId, expectedRevision, metadata, reason, revises } = revision
  if (!isEventId(revises)) return yield* invalid("revises", "expected a UUID in lower case")
  if (eventId !== undefined && !isEventId(eventId)) return yield* invalid("eventId", "expected a UUID in lower case")
  if (!isReason(reason)) {
    return yield* invalid("reason", `expected 1 to ${maxReason} characters, none of them NUL`)
  }
  if (!isLabel(actor)) return yield* invalid("actor", labelExpected)
  for (const [path, label] of Object.entries({ correlationId, causationId })) {
    if (label !== undefined && !isLabel(label)) return yield* invalid(path, labelExpected)
  }
  if (expectedRevision !== undefined && !(Number.isInteger(expectedRevision) && expectedRevision >= 0)) {
    return yield* invalid("expectedRevision", "expected a whole number from 0")
  }
  const correction = revision._tag === "Correction" ? revision : undefined
  if (correction !== undefined) {
    const { data, schemaVersion, validFrom, validTo } = correction
    if (data === undefined && validFrom === undefined && validTo === undefined) {
      return yield* invalid("data", "a correction gives data, validFrom or validTo")
    }
    if (schemaVersion !== undefined && !isVersion(schemaVersion)) {
      return yield* invalid("schemaVersion", "expected a whole number from 1")
    }
    const problem = PreparedAppend.findPeriodProblem(validFrom, validTo)
    if (problem !== undefined) return yield* invalid(problem, PreparedAppend.timeExpected)
    if (validFrom !== undefined && validTo !== undefined && validTo <= validFrom) return yield* endsTooEarly
  }
  const random = yield* SecureRandom.SecureRandom
  return {
    revises,
    retract: correction === undefined,
    eventId: eventId ?? EventId.make(yield* random.uuidV7()),
    data: correction?.data === undefined ? null : yield* PreparedAppend.jsonText(correction.data, "data"),
    schemaVersion: correction?.schemaVersion ?? null,
    metadata: metadata === undefined ? null : yield* PreparedAppend.jsonbText(metadata, "metadata"),
    validFrom: correction?.validFrom ?? null,
    validTo: correction?.validTo ?? null,
    reason,
    actor,
    tenant: yield* PreparedAppend.currentTenant,
    correlationId: correlationId ?? null,
    causationId: causationId ?? null,
    traceparent: yield* PreparedAppend.currentTraceparent,
    expectedRevision: expectedRevision ?? null
  }
})

const invalid = (path: string, message: string) => new EventStoreError({ reason: new InvalidAppend({ path, message }) })

/**
 * The period would end before it begins.
 *
 * @category errors
 * @since 0.1.0
 */
export const endsTooEarly: Effect.Effect<never, EventStoreError> = Effect.suspend(() =>
  Effect.fail(invalid("validTo", "validTo must be later than validFrom"))
)

/**
 * The first result when the fact that has the revision's id is that revision, otherwise `EventIdTaken`. `stored` is that
 * fact, `named` the fact that the revision names.
 *
 * @category combinators
 * @since 0.1.0
 */
export const judge = (
  revision: PreparedRevision,
  stored: Fact,
  named: Fact | undefined
): Effect.Effect<Revised, EventStoreError> => {
  if (named === undefined) {
    return Effect.fail(new EventStoreError({ reason: new UnknownFact({ eventId: revision.revises }) }))
  }
  const same = stored.revision > 0 &&
    stored.origin === named.origin &&
    stored.reason === revision.reason &&
    (revision.retract || !stored.retracted) &&
    (revision.data === null || sameJson(revision.data, stored.data)) &&
    (revision.validFrom === null || revision.validFrom === stored.validFrom) &&
    (revision.validTo === null || revision.validTo === stored.validTo)
  return same
    ? Effect.succeed(revisedOf(stored, true))
    : Effect.fail(
      new EventStoreError({ reason: new EventIdTaken({ eventId: stored.eventId, position: stored.position }) })
    )
}

/**
 * What a stored revision is answered with.
 *
 * @category getters
 * @since 0.1.0
 */
export const revisedOf = (fact: Fact, duplicate: boolean): Revised => ({
  eventId: fact.eventId,
  revises: fact.revises ?? fact.eventId,
  revision: fact.revision,
  stream: fact.stream,
  version: fact.version,
  position: fact.position,
  recordedAt: fact.recordedAt,
  retracted: fact.retracted,
  duplicate
})
