/**
 * What is wrong with an append, told by the name of its field before anything is made of it.
 *
 * @since 0.1.0
 */
import { type Append, type AppendCondition, type IdempotencyRecord, InvalidAppend } from "./EventStore.ts"
import type { NewFact } from "./Fact.ts"
import type { FactFilter } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"
import type { PreparedFact } from "./PreparedAppend.ts"
import * as SealedFields from "./SealedFields.ts"

/**
 * Facts of one append at most. A larger one is refused as a whole.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxFacts = 10_000

/**
 * The first field of an append that cannot be written.
 *
 * @category predicates
 * @since 0.1.0
 */
export const findProblem = (append: Append): Fields.Problem | undefined => {
  const shape = Fields.findShapeProblem(append, appendFields, "append", "")
  if (shape !== undefined) return shape
  const { actor, condition, expect, facts, idempotency } = append
  const problem = findFactsProblem(facts)
  if (problem !== undefined) return problem
  if (actor !== undefined && !Fields.isLabel(actor)) return { path: "actor", message: Fields.labelExpected }
  return (expect === undefined ? undefined : findExpectProblem(expect)) ??
    (idempotency === undefined ? undefined : findIdempotencyProblem(idempotency)) ??
    (condition === undefined ? undefined : findConditionProblem(condition))
}

const appendFields = new Set(["facts", "expect", "condition", "actor", "idempotency", "publications"])

// ----------------------------------------------------------------------------------------------------- conditions

const findExpectProblem = (expect: NonNullable<Append["expect"]>): Fields.Problem | undefined => {
  if (!Fields.isObject(expect)) return { path: "expect", message: "expected versions by stream" }
  for (const [stream, expected] of Object.entries(expect)) {
    const path = `expect[${stream}]`
    if (!Fields.isStreamId(stream)) return { path, message: Fields.streamExpected }
    if (typeof expected === "number" && !Fields.isVersionOrNone(expected)) {
      return { path, message: "expected a version is a whole number from 0" }
    }
    if (typeof expected !== "number" && !namedVersions.has(expected)) {
      return { path, message: "expected a version, any, noStream or streamExists" }
    }
  }
  return undefined
}

const namedVersions: ReadonlySet<string> = new Set(["any", "noStream", "streamExists"])

const findIdempotencyProblem = (record: IdempotencyRecord): Fields.Problem | undefined => {
  const shape = Fields.findShapeProblem(record, idempotencyFields, "idempotency")
  if (shape !== undefined) return shape
  if (!Fields.isLabel(record.key)) return { path: "idempotency.key", message: Fields.labelExpected }
  return Fields.isLabel(record.fingerprint)
    ? undefined
    : { path: "idempotency.fingerprint", message: Fields.labelExpected }
}

const idempotencyFields = new Set(["key", "fingerprint", "answer"])

const findConditionProblem = (condition: AppendCondition): Fields.Problem | undefined => {
  const shape = Fields.findShapeProblem(condition, conditionFields, "condition")
  if (shape !== undefined) return shape
  const { after, noneOf } = condition
  if (!Fields.isPosition(after)) return ofTheFuture
  if (!Array.isArray(noneOf) || noneOf.length === 0) {
    return { path: "condition.noneOf", message: "expected at least one filter" }
  }
  for (const [index, filter] of noneOf.entries()) {
    const path = `condition.noneOf[${index}]`
    const problem = Fields.findShapeProblem(filter, Fields.filterFields, path) ??
      Fields.findFilterProblem(filter, `${path}.`) ??
      (restricts(filter) ? undefined : { path, message: "a filter must restrict something" })
    if (problem !== undefined) return problem
  }
  return undefined
}

const conditionFields = new Set(["after", "noneOf"])

/** A filter that any fact fits would be a condition that nothing may have been recorded at all. */
const restricts = ({ category, causationId, correlationId, metadata, stream, types }: FactFilter): boolean =>
  [category, causationId, correlationId, stream, types].some((given) => given !== undefined) ||
  Object.keys(metadata ?? {}).length > 0

/** Nothing was recorded after a position that is not there yet. */
const ofTheFuture: Fields.Problem = { path: "condition.after", message: Fields.positionExpected }

/**
 * The same, where only the write can tell.
 *
 * @category errors
 * @since 0.1.0
 */
export const conditionOfTheFuture = new InvalidAppend(ofTheFuture)

// ---------------------------------------------------------------------------------------------------------- facts

const findFactsProblem = (facts: ReadonlyArray<NewFact>): Fields.Problem | undefined => {
  if (!Array.isArray(facts)) return { path: "facts", message: "expected an array" }
  if (facts.length === 0) return { path: "facts", message: "an append needs at least one fact" }
  if (facts.length > maxFacts) return { path: "facts", message: `more than ${maxFacts} facts in one append` }
  const ids = new Set<string>()
  for (const [index, fact] of facts.entries()) {
    const path = `facts[${index}]`
    const problem = Fields.findShapeProblem(fact, factFields, path) ?? findFactProblem(fact, path)
    if (problem !== undefined) return problem
    if (fact.eventId === undefined) continue
    if (ids.has(fact.eventId)) return { path: `${path}.eventId`, message: "the same event id twice in one append" }
    ids.add(fact.eventId)
  }
  return undefined
}

const factFields = new Set([
  "stream",
  "type",
  "data",
  "eventId",
  "schemaVersion",
  "metadata",
  "validFrom",
  "validTo",
  "correlationId",
  "causationId",
  "personal"
])

const findFactProblem = (fact: NewFact, path: string): Fields.Problem | undefined => {
  const { causationId, correlationId, eventId, schemaVersion, stream, type, validFrom, validTo } = fact
  const problem = (field: string, message: string): Fields.Problem => ({ path: `${path}.${field}`, message })
  if (!Fields.isStreamId(stream)) return problem("stream", Fields.streamExpected)
  if (stream.startsWith("$")) return problem("stream", "a stream of the system is not written to by hand")
  if (!Fields.isLabel(type)) return problem("type", Fields.labelExpected)
  if (type.includes("*") && type.split(".").includes("*")) {
    return problem("type", "no segment of a type is *, by which queries ask for any")
  }
  if (eventId !== undefined && !Fields.isEventId(eventId)) return problem("eventId", Fields.eventIdExpected)
  if (correlationId !== undefined && !Fields.isLabel(correlationId)) {
    return problem("correlationId", Fields.labelExpected)
  }
  if (causationId !== undefined && !Fields.isLabel(causationId)) return problem("causationId", Fields.labelExpected)
  if (schemaVersion !== undefined && !Fields.isVersion(schemaVersion)) {
    return problem("schemaVersion", Fields.versionExpected)
  }
  const ofData = SealedFields.findProblem(fact.data, fact.personal, path)
  if (ofData !== undefined) return ofData
  const end = Fields.findPeriodProblem(validFrom, validTo)
  if (end !== undefined) return problem(end, Fields.timeExpected)
  return validFrom !== undefined && validTo !== undefined && validTo <= validFrom
    ? problem("validTo", "validTo must be later than validFrom")
    : undefined
}

/**
 * Only the write can tell that a period without a beginning would end before it begins: it begins at the recording. If one does, then
 * the one that ends first.
 *
 * @category errors
 * @since 0.1.0
 */
export const endsBeforeRecording = (
  facts: ReadonlyArray<Pick<PreparedFact, "validFrom" | "validTo">>
): InvalidAppend => {
  let first = -1
  for (const [index, { validFrom, validTo }] of facts.entries()) {
    if (validFrom !== null || validTo === null) continue
    if (first < 0 || validTo < facts[first]!.validTo!) first = index
  }
  return new InvalidAppend({
    path: first < 0 ? "facts" : `facts[${first}].validTo`,
    message: "validTo must be later than validFrom, which is the moment of recording unless it is given"
  })
}
