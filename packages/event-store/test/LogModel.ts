/**
 * What a log must look like, and which answers it explains: written to be read, with nothing of the store's own code.
 */
import { assert } from "@effect/vitest"
import {
  ConditionFailed,
  EventIdTaken,
  type EventStoreError,
  InvalidAppend,
  VersionConflict
} from "@strata/event-store/EventStore"
import { type EventId, type Fact, Position } from "@strata/event-store/Fact"
import { FactRetracted, RevisionConflict, UnknownFact } from "@strata/event-store/Revision"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Arr from "effect/Array"
import * as Equal from "effect/Equal"
import { type Asked, type AskedAppend, type AskedRevision, type Attempt, day } from "./Attempt.ts"

/** The facts at the positions 1, 2, 3 … up to some place. */
export type Log = ReadonlyArray<Fact>

type Reason = EventStoreError["reason"]

// ---------------------------------------------------------------------------------------------------------- order

/**
 * Positions are 1..n without holes, versions are 1..n in each stream of a tenant, recorded times never decrease, no id of
 * a tenant comes twice, no period ends before it begins, and the revisions of each fact are one chain 1..n in its stream.
 */
export const assertInOrder = (log: Log) => {
  const versions = new Map<string, number>()
  const chains = new Map<Position, Fact>()
  const ids = new Set<string>()
  let recordedAt = log[0]?.recordedAt ?? 0n
  for (const [index, fact] of log.entries()) {
    const stream = `${fact.tenant}/${fact.stream}`
    const id = `${fact.tenant}/${fact.eventId}`
    assert.strictEqual(fact.position, BigInt(index + 1))
    assert.strictEqual(fact.version, (versions.get(stream) ?? 0) + 1, stream)
    assert.isTrue(fact.recordedAt >= recordedAt, `recorded before the fact before: ${fact.position}`)
    assert.isFalse(ids.has(id), `twice: ${id}`)
    assert.isTrue(fact.validFrom < fact.validTo, `ends before it begins: ${fact.eventId}`)
    const before = chains.get(fact.origin)
    assert.strictEqual(fact.origin, before?.origin ?? fact.position, `begins no chain: ${fact.eventId}`)
    assert.strictEqual(fact.revision, before === undefined ? 0 : before.revision + 1, `forks: ${fact.eventId}`)
    assert.strictEqual(fact.revises, before === undefined ? null : log[Number(fact.origin) - 1]!.eventId)
    assert.isTrue(
      before === undefined || before.stream === fact.stream && before.tenant === fact.tenant,
      `leaves its stream: ${fact.eventId}`
    )
    versions.set(stream, fact.version)
    chains.set(fact.origin, fact)
    ids.add(id)
    recordedAt = fact.recordedAt
  }
}

// ---------------------------------------------------------------------------------------------------- explanation

/**
 * True when the log, as it was at some place between the question and the answer, gives this answer. Of what is there, a
 * tenant is answered by its own facts.
 */
export const explains = (log: Log, { answer, asked, from, tenant, to }: Attempt): boolean =>
  Arr.range(Number(from), Number(to)).some((place) => {
    const before = log.slice(0, place).filter((fact) => fact.tenant === tenant)
    const reasons = reasonsAgainst(before, asked)
    if (answer._tag === "Refused") return reasons.some((reason) => Equal.equals(reason, answer.reason))
    const there = before.filter((fact) => idsOf(asked).includes(fact.eventId))
    const facts = answer.duplicate ? there : log.slice(place, place + idsOf(asked).length)
    return reasons.length === 0 &&
      answer.duplicate === there.length > 0 &&
      Equal.equals(
        facts.map(shown),
        answer.duplicate ? there.map(shown) : additions(before, asked, place, answer.recordedAt)
      ) &&
      Equal.equals(facts.map(placeOf), answer.places) &&
      facts.every((fact) => fact.tenant === tenant && fact.recordedAt === answer.recordedAt)
  })

/** What a tenant believed once the log went so far: the newest revision of each fact, but for those retracted. */
export const believedAt = (log: Log, tenant: string, place: number): Log => {
  const known = log.slice(0, place).filter((fact) => fact.tenant === tenant)
  return known.filter((fact) =>
    !fact.retracted && !known.some((newer) => newer.origin === fact.origin && newer.revision > fact.revision)
  )
}

/** What speaks against a request where the tenant's log ends here: nothing when it is to be written, or was before. */
const reasonsAgainst = (log: Log, asked: Asked): ReadonlyArray<Reason> => {
  const there = log.filter((fact) => idsOf(asked).includes(fact.eventId))
  if (there.length > 0) {
    return isRepeated(log, there, asked)
      ? []
      : there.map(({ eventId, position }) => new EventIdTaken({ eventId, position }))
  }
  return asked._tag === "Append" ? reasonsAgainstAppend(log, asked) : reasonsAgainstRevision(log, asked)
}

const reasonsAgainstAppend = (log: Log, { expect, facts, free }: AskedAppend): ReadonlyArray<Reason> => {
  const reasons: Array<Reason> = []
  const streams = new Set([...facts.map(({ stream }): string => stream), ...Object.keys(expect)])
  const [first, ...others] = [...streams].flatMap((stream) => {
    const expected = expect[stream] ?? "any"
    const actual = log.filter((fact) => fact.stream === stream).length
    const fits = expected === "any" ||
      (expected === "streamExists" ? actual > 0 : actual === (expected === "noStream" ? 0 : expected))
    return fits ? [] : [{ stream, expected, actual }]
  })
  if (first !== undefined) reasons.push(new VersionConflict(others.length === 0 ? first : { ...first, others }))
  const taken = free === null ?
    undefined :
    log.find((fact) =>
      fact.position > free.after && /^seat\.[^.]+$/.test(fact.type) && fact.metadata["seat"] === free.seat
    )
  if (free !== null && taken !== undefined) {
    reasons.push(new ConditionFailed({ after: free.after, position: taken.position }))
  }
  return reasons
}

const reasonsAgainstRevision = (log: Log, asked: AskedRevision): ReadonlyArray<Reason> => {
  const { expectedRevision, retract, revises, validFrom, validTo } = asked
  // Wrong in itself, whatever the log holds.
  if (validFrom !== null && validTo !== null && validTo <= validFrom) return [endsTooEarly]
  const chain = chainOf(log, revises)
  const last = chain.at(-1)
  if (last === undefined) return [new UnknownFact({ eventId: revises })]
  const reasons: Array<Reason> = []
  if (expectedRevision !== null && expectedRevision !== last.revision) {
    reasons.push(new RevisionConflict({ eventId: revises, expected: expectedRevision, actual: last.revision }))
  }
  const named = chain.find((fact) => fact.eventId === revises)!
  const restores = retract && named.retracted
  if (last.retracted && !(restores && named === last)) {
    reasons.push(new FactRetracted({ eventId: revises, retraction: last.eventId, position: last.position }))
  } else if (restores && named !== last) {
    reasons.push(new RevisionConflict({ eventId: revises, expected: named.revision, actual: last.revision }))
  }
  const period = periodAfter(last, asked)
  if (period.validTo <= period.validFrom) reasons.push(endsTooEarly)
  return reasons
}

const endsTooEarly = new InvalidAppend({ path: "validTo", message: "validTo must be later than validFrom" })

/** The facts that a request adds after a place, where the tenant's log ends. */
const additions = (log: Log, asked: Asked, place: number, recordedAt: Timestamp.Timestamp): ReadonlyArray<Shown> => {
  if (asked._tag === "Append") {
    return asked.facts.map(({ eventId, n, seat, stream, type, validFrom, validTo }, index) => {
      const position = Position.make(BigInt(place + index + 1))
      const inStream = [...log, ...asked.facts.slice(0, index)].filter((fact) => fact.stream === stream)
      return {
        position,
        origin: position,
        eventId,
        stream,
        version: inStream.length + 1,
        type,
        data: { n },
        metadata: seat === null ? {} : { seat },
        validFrom: validFrom === null ? recordedAt : day(validFrom),
        validTo: validTo === null ? Timestamp.infinity : day(validTo),
        revision: 0,
        revises: null,
        retracted: false
      }
    })
  }
  const chain = chainOf(log, asked.revises)
  const [first, last] = [chain[0]!, chain.at(-1)!]
  return [{
    ...shown(last),
    ...periodAfter(last, asked),
    position: Position.make(BigInt(place + 1)),
    eventId: asked.eventId,
    version: log.filter((fact) => fact.stream === last.stream).length + 1,
    data: asked.n === null ? last.data : { n: asked.n },
    revision: chain.length,
    revises: first.eventId,
    retracted: asked.retract && !last.retracted
  }]
}

/** True when what is there under the ids of a request is that request. */
const isRepeated = (log: Log, there: Log, asked: Asked): boolean => {
  const { position, recordedAt } = there[0]!
  const before = log.filter((fact) => fact.position < position)
  return Equal.equals(there.map(shown), additions(before, asked, Number(position) - 1, recordedAt))
}

const idsOf = (asked: Asked): ReadonlyArray<EventId> =>
  asked._tag === "Append" ? asked.facts.map((fact) => fact.eventId) : [asked.eventId]

/** The chain of any of its members, the first fact first. */
const chainOf = (log: Log, member: EventId): Log => {
  const named = log.find((fact) => fact.eventId === member)
  return log.filter((fact) => fact.origin === named?.origin)
}

const periodAfter = (last: Fact, { validFrom, validTo }: AskedRevision) => ({
  validFrom: validFrom === null ? last.validFrom : day(validFrom),
  validTo: validTo === null ? last.validTo : day(validTo)
})

type Shown = Omit<ReturnType<typeof shown>, "data"> & { readonly data: unknown }

/** What the model has to say of a fact. */
const shown = (fact: Fact) => ({
  position: fact.position,
  origin: fact.origin,
  eventId: fact.eventId,
  stream: fact.stream,
  version: fact.version,
  type: fact.type,
  data: fact.data,
  metadata: fact.metadata,
  validFrom: fact.validFrom,
  validTo: fact.validTo,
  revision: fact.revision,
  revises: fact.revises,
  retracted: fact.retracted
})

const placeOf = ({ eventId, position, stream, version }: Fact) => ({ eventId, stream, version, position })
