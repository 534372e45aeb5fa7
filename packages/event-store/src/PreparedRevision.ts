/**
 * A revision made ready to be written, and the judgement of one whose id was there before.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Traceparent from "@strata/postgres/Traceparent"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type * as Schema from "effect/Schema"
import { sameData, sameJson, taken } from "./AppendJudgement.ts"
import { EventStoreError, InvalidAppend } from "./EventStore.ts"
import { EventId, type Fact } from "./Fact.ts"
import * as Fields from "./Fields.ts"
import * as PreparedAppend from "./PreparedAppend.ts"
import { type Correction, type Revised, type Revision, RevisionConflict } from "./Revision.ts"
import * as SealedFields from "./SealedFields.ts"

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
  readonly type: string | null
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
  typeof reason === "string" && reason.trim() !== "" && reason.length <= maxReason && !reason.includes("\0") &&
  reason.isWellFormed()

/**
 * Checks a revision and fills in its defaults. `seal` gives the data of a correction with its personal fields sealed.
 *
 * @category constructors
 * @since 0.1.0
 */
export const prepare = Effect.fnUntraced(function*(
  revision: Revision,
  seal: (correction: Correction) => Effect.Effect<Schema.Json, EventStoreError>
): Effect.fn.Return<PreparedRevision, EventStoreError, SecureRandom.SecureRandom> {
  const { eventIdExpected, isEventId, isLabel, isVersion, isVersionOrNone, labelExpected } = Fields
  if (!Fields.isObject(revision)) return yield* invalid("revision", "expected an object")
  if (revision._tag !== "Correction" && revision._tag !== "Retraction") {
    return yield* invalid("_tag", "expected Correction or Retraction")
  }
  const shape = Fields.findShapeProblem(revision, fieldsOf[revision._tag], "revision", "")
  if (shape !== undefined) return yield* invalid(shape.path, shape.message)
  const { actor, causationId, correlationId, eventId, expectedRevision, metadata, reason, revises } = revision
  if (!isEventId(revises)) return yield* invalid("revises", eventIdExpected)
  if (eventId !== undefined && !isEventId(eventId)) return yield* invalid("eventId", eventIdExpected)
  if (!isReason(reason)) {
    return yield* invalid("reason", `expected 1 to ${maxReason} characters, none of them NUL`)
  }
  if (!isLabel(actor)) return yield* invalid("actor", labelExpected)
  for (const [path, label] of Object.entries({ correlationId, causationId })) {
    if (label !== undefined && !isLabel(label)) return yield* invalid(path, labelExpected)
  }
  if (expectedRevision !== undefined && !isVersionOrNone(expectedRevision)) {
    return yield* invalid("expectedRevision", "expected a whole number from 0")
  }
  const correction = revision._tag === "Correction" ? revision : undefined
  if (correction !== undefined) {
    const { data, schemaVersion, type, validFrom, validTo } = correction
    if (data === undefined && validFrom === undefined && validTo === undefined) {
      return yield* invalid("data", "a correction gives data, validFrom or validTo")
    }
    if (type !== undefined && !isLabel(type)) return yield* invalid("type", labelExpected)
    if (schemaVersion !== undefined && !isVersion(schemaVersion)) {
      return yield* invalid("schemaVersion", Fields.versionExpected)
    }
    const ofData = SealedFields.findProblem(data, correction.personal)
    if (ofData !== undefined) return yield* invalid(ofData.path, ofData.message)
    const problem = Fields.findPeriodProblem(validFrom, validTo)
    if (problem !== undefined) return yield* invalid(problem, Fields.timeExpected)
    if (validFrom !== undefined && validTo !== undefined && validTo <= validFrom) return yield* endsTooEarly
  }
  const random = yield* SecureRandom.SecureRandom
  const data = correction !== undefined && isPersonal(correction) ? yield* seal(correction) : correction?.data
  return {
    revises,
    retract: correction === undefined,
    eventId: eventId ?? EventId.make(yield* random.uuidV7()),
    data: data === undefined ? null : yield* PreparedAppend.jsonText(data, "data"),
    type: correction?.type ?? null,
    schemaVersion: correction?.schemaVersion ?? null,
    metadata: metadata === undefined ? null : yield* PreparedAppend.jsonbText(metadata, "metadata"),
    validFrom: correction?.validFrom ?? null,
    validTo: correction?.validTo ?? null,
    reason,
    actor,
    tenant: yield* PreparedAppend.currentTenant,
    correlationId: correlationId ?? null,
    causationId: causationId ?? null,
    traceparent: yield* Traceparent.current,
    expectedRevision: expectedRevision ?? null
  }
})

const common = [
  "_tag",
  "revises",
  "reason",
  "actor",
  "eventId",
  "metadata",
  "correlationId",
  "causationId",
  "expectedRevision"
]

const fieldsOf: { readonly [Tag in Revision["_tag"]]: ReadonlySet<string> } = {
  Correction: new Set([...common, "data", "type", "schemaVersion", "personal", "validFrom", "validTo"]),
  Retraction: new Set(common)
}

const isPersonal = ({ personal = [] }: Correction): boolean => personal.length > 0

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
 * What the store itself says is not revised: it is said again, otherwise.
 *
 * @category errors
 * @since 0.1.0
 */
export const ofTheSystem: Effect.Effect<never, EventStoreError> = Effect.suspend(() =>
  Effect.fail(invalid("revises", "a fact of a stream of the system is not revised by hand"))
)

/**
 * The fact is of another type than the correction takes it to be.
 *
 * @category errors
 * @since 0.1.0
 */
export const ofAnotherType = (type: string): Effect.Effect<never, EventStoreError> =>
  Effect.suspend(() => Effect.fail(invalid("type", `the fact is a ${type}, and a correction does not change that`)))

/**
 * The retraction that is to be retracted does not end its chain: the fact is restored already, and whatever was said of it since stays.
 *
 * @category errors
 * @since 0.1.0
 */
export const superseded = ({ eventId, revision }: Fact, actual: number): RevisionConflict =>
  new RevisionConflict({ eventId, expected: revision, actual })

/**
 * The first result when the revision would have led to the fact that has its id, otherwise `EventIdTaken`, whose description
 * has the rule. `before` is the revision before that one, `named` the fact that is to be revised.
 *
 * @category combinators
 * @since 0.1.0
 */
export const judge = (
  revision: PreparedRevision,
  stored: Fact,
  before: Fact | undefined,
  named: Fact | undefined
): Effect.Effect<Revised, EventStoreError> =>
  before !== undefined && named !== undefined && named.origin === stored.origin && named.revision < stored.revision &&
    leadsTo(revision, named, before, stored)
    ? Effect.succeed(revisedOf(stored, true))
    : taken(stored)

/** True when the revision of `named`, made where the chain ended with `before`, would be the stored one. */
const leadsTo = (revision: PreparedRevision, named: Fact, before: Fact, stored: Fact): boolean => {
  const restores = revision.retract && named.retracted
  return (restores ? named.eventId === before.eventId : !before.retracted) &&
    stored.retracted === (revision.retract && !restores) &&
    stored.reason === revision.reason &&
    stored.actor === revision.actor &&
    (revision.type === null || stored.type === revision.type) &&
    stored.schemaVersion === (revision.schemaVersion ?? before.schemaVersion) &&
    stored.correlationId === (revision.correlationId ?? before.correlationId) &&
    stored.causationId === (revision.causationId ?? before.causationId) &&
    stored.validFrom === (revision.validFrom ?? before.validFrom) &&
    stored.validTo === (revision.validTo ?? before.validTo) &&
    (revision.expectedRevision === null || revision.expectedRevision === before.revision) &&
    (revision.data === null ? Equal.equals(before.data, stored.data) : sameData(revision.data, stored)) &&
    (revision.metadata === null
      ? Equal.equals(before.metadata, stored.metadata)
      : sameJson(revision.metadata, stored.metadata))
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
