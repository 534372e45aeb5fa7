/**
 * An append made ready to be written: checked, with its defaults filled in and its JSON as text.
 *
 * @since 0.1.0
 */
import type { Problem } from "@strata/outbox/MessageFields"
import * as PreparedMessage from "@strata/outbox/PreparedMessage"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Traceparent from "@strata/postgres/Traceparent"
import * as Context from "effect/Context"
import type * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { typePattern } from "./Belief.ts"
import { CurrentTenant } from "./CurrentTenant.ts"
import {
  type Append,
  type AppendCondition,
  EventStoreError,
  type ExpectedVersion,
  type IdempotencyRecord,
  InvalidAppend
} from "./EventStore.ts"
import { EventId, type NewFact, type Position, StreamId } from "./Fact.ts"
import type { FactFilter } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"
import * as SealedFields from "./SealedFields.ts"
import type { Sealing } from "./Sealing.ts"

/**
 * Facts of one append at most. A larger one is refused as a whole.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxFacts = 10_000

/**
 * Characters of JSON in one append at most: one statement carries them, and all who write wait for it.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxSize = 33_554_432

/**
 * What an append says of one stream, and how many facts it brings to it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Slice {
  readonly stream: StreamId
  readonly expected: ExpectedVersion
  count: number
}

/**
 * A fact with everything but what only the write can tell: position, version and recorded time.
 *
 * @category models
 * @since 0.1.0
 */
export interface PreparedFact {
  /** Index of its slice in the append. */
  readonly slice: number
  /** Place in its slice, from 1. */
  readonly ordinal: number
  readonly stream: StreamId
  readonly eventId: EventId
  readonly type: string
  readonly schemaVersion: number
  readonly data: string
  /** Null for an empty object. */
  readonly metadata: string | null
  /** Null for its own event id. */
  readonly correlationId: string | null
  readonly causationId: string | null
  readonly validFrom: Timestamp.Timestamp | null
  readonly validTo: Timestamp.Timestamp | null
}

/**
 * An append that can be written as it is.
 *
 * @category models
 * @since 0.1.0
 */
export interface PreparedAppend {
  readonly slices: ReadonlyArray<Slice>
  readonly facts: ReadonlyArray<PreparedFact>
  readonly tenant: string
  readonly actor: string | null
  readonly traceparent: string | null
  readonly condition: {
    readonly after: Position
    readonly filters: string
    /** Nothing matches after that position and up to this one. */
    readonly looked: Position
  } | null
  readonly idempotency: (Omit<IdempotencyRecord, "answer"> & { readonly answer: string }) | null
  /** What is published with it. */
  readonly messages: ReadonlyArray<PreparedMessage.PreparedMessage>
  /** Characters of JSON it holds. */
  readonly size: number
}

/**
 * Checks an append, fills in its defaults and seals what is personal. The ambient span becomes the facts' traceparent.
 *
 * @category constructors
 * @since 0.1.0
 */
export const prepare = (
  append: Append,
  random: SecureRandom.SecureRandom["Service"],
  seal: Sealing["seal"]
): Effect.Effect<PreparedAppend, EventStoreError> =>
  Effect.withFiber((fiber) => {
    const tenant = Context.get(fiber.context, CurrentTenant)
    const problem = Fields.isLabel(tenant) ? findProblem(append) : invalid("tenant", Fields.labelExpected)
    if (problem !== undefined) return Effect.fail(new EventStoreError({ reason: problem }))
    const traceparent = Traceparent.inContext(fiber.context)
    const filled = (append: Append, eventIds: ReadonlyArray<string>) =>
      Effect.fromResult(Result.mapError(fill(append, eventIds, tenant, traceparent), refusal))
    return Effect.flatMap(
      newEventIds(append, random),
      (eventIds) =>
        append.facts.some(isPersonal)
          ? Effect.flatMap(sealed(append, eventIds, tenant, seal), ([append, left]) => filled(append, left))
          : filled(append, eventIds)
    )
  })

const isPersonal = ({ personal }: NewFact): boolean => personal !== undefined && personal.length > 0

/** The append with its ids given and what is personal sealed, and the ids that are left. */
const sealed = (
  append: Append,
  eventIds: ReadonlyArray<string>,
  tenant: string,
  seal: Sealing["seal"]
): Effect.Effect<readonly [append: Append, left: ReadonlyArray<string>], EventStoreError> => {
  let nextId = 0
  const facts = append.facts.map((fact) => ({
    ...fact,
    eventId: fact.eventId ?? EventId.make(eventIds[nextId++]!, { disableChecks: true })
  }))
  const sealables = facts.flatMap((fact, index): ReadonlyArray<SealedFields.Sealable> =>
    isPersonal(fact) ? [{ ...fact, personal: fact.personal ?? [], path: `facts[${index}].data` }] : []
  )
  return Effect.map(seal(tenant, sealables), (data) => {
    let nextSealed = 0
    const written = facts.map((fact) => isPersonal(fact) ? { ...fact, data: data[nextSealed++]! } : fact)
    return [{ ...append, facts: written }, eventIds.slice(nextId)] as const
  })
}

/** One for each fact, and for each message published with them, that brings none. */
const newEventIds = (
  { facts, publications }: Append,
  random: SecureRandom.SecureRandom["Service"]
): Effect.Effect<ReadonlyArray<string>> => {
  const ids: Array<string> = []
  const missing = facts.reduce((count, { eventId }) => eventId === undefined ? count + 1 : count, 0) +
    (publications === undefined ? 0 : PreparedMessage.idsWanted(publications))
  const body = () => random.uuidV7()
  const step = (id: string) => void ids.push(id)
  return Effect.as(Effect.whileLoop({ while: () => ids.length < missing, body, step }), ids)
}

const fill = (
  append: Append,
  eventIds: ReadonlyArray<string>,
  tenant: string,
  traceparent: string | null
): Result.Result<PreparedAppend, Fields.Problem> => {
  const slices: Array<Slice> = []
  const sliceByStream = new Map<string, number>()
  const sliceOf = (stream: StreamId): number => {
    let index = sliceByStream.get(stream)
    if (index === undefined) {
      index = slices.push({ stream, expected: append.expect?.[stream] ?? "any", count: 0 }) - 1
      sliceByStream.set(stream, index)
    }
    return index
  }

  const facts: Array<PreparedFact> = []
  let size = 0
  let nextId = 0
  let firstId: EventId | undefined
  for (const [index, fact] of append.facts.entries()) {
    const data = Fields.toJson(fact.data, `facts[${index}].data`)
    if (Result.isFailure(data)) return Result.fail(data.failure)
    const metadata = fact.metadata === undefined ? undefined : Fields.toJsonb(fact.metadata, `facts[${index}].metadata`)
    if (metadata !== undefined && Result.isFailure(metadata)) return Result.fail(metadata.failure)
    const eventId = fact.eventId ?? EventId.make(eventIds[nextId++]!, { disableChecks: true })
    firstId ??= eventId
    const correlationId = fact.correlationId ?? firstId
    const slice = sliceOf(fact.stream)
    size += data.success.length + (metadata?.success.length ?? 0)
    if (size > maxSize) {
      return Result.fail(tooLarge("facts"))
    }
    facts.push({
      slice,
      ordinal: ++slices[slice]!.count,
      stream: fact.stream,
      eventId,
      type: fact.type,
      schemaVersion: fact.schemaVersion ?? 1,
      data: data.success,
      metadata: metadata?.success ?? null,
      correlationId: correlationId === eventId ? null : correlationId,
      causationId: fact.causationId ?? null,
      validFrom: fact.validFrom ?? null,
      validTo: fact.validTo ?? null
    })
  }
  for (const stream of Object.keys(append.expect ?? {})) sliceOf(StreamId.make(stream, { disableChecks: true }))

  const { condition, idempotency } = append
  const filters = condition === undefined ? undefined : Fields.toJson(condition.noneOf.map(toFilterRow), "condition")
  if (filters !== undefined && Result.isFailure(filters)) return Result.fail(filters.failure)
  const answer = idempotency === undefined ? undefined : Fields.toJson(idempotency.answer, "idempotency.answer")
  if (answer !== undefined && Result.isFailure(answer)) return Result.fail(answer.failure)
  const messages = append.publications === undefined
    ? nothing
    : PreparedMessage.prepare(append.publications, {
      tenant,
      correlationId: facts[0]?.correlationId ?? firstId ?? null,
      causationId: null,
      traceparent
    }, eventIds.slice(nextId))
  if (Result.isFailure(messages)) {
    return Result.fail({ path: `publications.${messages.failure.path}`, message: messages.failure.problem })
  }
  for (const { data } of messages.success) size += data.length
  if (size > maxSize) return Result.fail(tooLarge("publications"))
  return Result.succeed({
    slices,
    facts,
    tenant,
    actor: append.actor ?? null,
    traceparent,
    condition: condition === undefined || filters === undefined
      ? null
      : { after: condition.after, filters: filters.success, looked: condition.after },
    idempotency: idempotency === undefined || answer === undefined ? null : { ...idempotency, answer: answer.success },
    messages: messages.success,
    size
  })
}

const nothing: Result.Result<ReadonlyArray<PreparedMessage.PreparedMessage>, Problem> = Result.succeed(
  []
)

const tooLarge = (path: string): Fields.Problem => ({
  path,
  message: `more than ${maxSize} characters of JSON in one append`
})

/**
 * The tenant the fiber runs for.
 *
 * @category getters
 * @since 0.1.0
 */
export const currentTenant: Effect.Effect<string, EventStoreError> = Effect.suspend(() =>
  Effect.filterOrFail(
    CurrentTenant,
    Fields.isLabel,
    () => refusal({ path: "tenant", message: Fields.labelExpected })
  )
)

/** A filter as append_facts reads it. */
const toFilterRow = (filter: FactFilter) => ({
  type: filter.types === undefined ? null : typePattern(filter.types),
  stream: filter.stream ?? null,
  category: filter.category ?? null,
  correlation_id: filter.correlationId ?? null,
  causation_id: filter.causationId ?? null,
  metadata: filter.metadata ?? null
})

// --------------------------------------------------------------------------------------------------------- checks

const findProblem = (append: Append): InvalidAppend | undefined => {
  if (append.facts.length === 0) return invalid("facts", "an append needs at least one fact")
  if (append.facts.length > maxFacts) return invalid("facts", `more than ${maxFacts} facts in one append`)
  const ids = new Set<string>()
  for (const [index, fact] of append.facts.entries()) {
    const problem = findFactProblem(fact, `facts[${index}]`)
    if (problem !== undefined) return problem
    if (fact.eventId === undefined) continue
    if (ids.has(fact.eventId)) return invalid(`facts[${index}].eventId`, "the same event id twice in one append")
    ids.add(fact.eventId)
  }
  for (const [stream, expected] of Object.entries(append.expect ?? {})) {
    if (!Fields.isStreamId(stream)) return invalid(`expect[${stream}]`, Fields.streamExpected)
    if (typeof expected === "number" && !Fields.isVersionOrNone(expected)) {
      return invalid(`expect[${stream}]`, "expected a version is a whole number from 0")
    }
    if (typeof expected !== "number" && !namedVersions.has(expected)) {
      return invalid(`expect[${stream}]`, "expected a version, any, noStream or streamExists")
    }
  }
  const { actor, condition, idempotency } = append
  if (actor !== undefined && !Fields.isLabel(actor)) return invalid("actor", Fields.labelExpected)
  if (idempotency !== undefined && !Fields.isLabel(idempotency.key)) {
    return invalid("idempotency.key", Fields.labelExpected)
  }
  if (idempotency !== undefined && !Fields.isLabel(idempotency.fingerprint)) {
    return invalid("idempotency.fingerprint", Fields.labelExpected)
  }
  return condition === undefined ? undefined : findConditionProblem(condition)
}

const findConditionProblem = ({ after, noneOf }: AppendCondition): InvalidAppend | undefined => {
  if (!Fields.isPosition(after)) return conditionOfTheFuture
  if (noneOf.length === 0) return invalid("condition.noneOf", "expected at least one filter")
  for (const [index, filter] of noneOf.entries()) {
    const path = `condition.noneOf[${index}]`
    const problem = Fields.findUnknownField(filter, Fields.filterFields, `${path}.`) ??
      Fields.findFilterProblem(filter, `${path}.`)
    if (problem === undefined && !restricts(filter)) return invalid(path, "a filter must restrict something")
    if (problem !== undefined) return new InvalidAppend(problem)
  }
  return undefined
}

/** A filter that any fact fits would be a condition that nothing may have been recorded at all. */
const restricts = ({ category, causationId, correlationId, metadata, stream, types }: FactFilter): boolean =>
  [category, causationId, correlationId, stream, types].some((given) => given !== undefined) ||
  Object.keys(metadata ?? {}).length > 0

const findFactProblem = (fact: NewFact, path: string): InvalidAppend | undefined => {
  const { causationId, correlationId, eventId, schemaVersion, stream, type, validFrom, validTo } = fact
  if (!Fields.isStreamId(stream)) return invalid(`${path}.stream`, Fields.streamExpected)
  if (stream.startsWith("$")) return invalid(`${path}.stream`, "a stream of the system is not written to by hand")
  if (!Fields.isLabel(type)) return invalid(`${path}.type`, Fields.labelExpected)
  if (type.includes("*") && type.split(".").includes("*")) {
    return invalid(`${path}.type`, "no segment of a type is *, by which queries ask for any")
  }
  if (eventId !== undefined && !Fields.isEventId(eventId)) return invalid(`${path}.eventId`, Fields.eventIdExpected)
  if (correlationId !== undefined && !Fields.isLabel(correlationId)) {
    return invalid(`${path}.correlationId`, Fields.labelExpected)
  }
  if (causationId !== undefined && !Fields.isLabel(causationId)) {
    return invalid(`${path}.causationId`, Fields.labelExpected)
  }
  if (schemaVersion !== undefined && !Fields.isVersion(schemaVersion)) {
    return invalid(`${path}.schemaVersion`, Fields.versionExpected)
  }
  const ofData = SealedFields.findProblem(fact.data, fact.personal, path)
  if (ofData !== undefined) return invalid(ofData.path, ofData.message)
  const problem = Fields.findPeriodProblem(validFrom, validTo)
  if (problem !== undefined) return invalid(`${path}.${problem}`, Fields.timeExpected)
  if (validFrom !== undefined && validTo !== undefined && validTo <= validFrom) {
    return invalid(`${path}.validTo`, "validTo must be later than validFrom")
  }
  return undefined
}

const namedVersions: ReadonlySet<string> = new Set(["any", "noStream", "streamExists"])

/**
 * Nothing was recorded after a position that is not there yet.
 *
 * @category errors
 * @since 0.1.0
 */
export const conditionOfTheFuture = new InvalidAppend({
  path: "condition.after",
  message: Fields.positionExpected
})

/**
 * Only the write can tell that a period without a beginning would end before it begins: it begins at the recording.
 *
 * @category errors
 * @since 0.1.0
 */
export const endsBeforeRecording = new InvalidAppend({
  path: "validTo",
  message: "validTo must be later than validFrom, which is the moment of recording unless it is given"
})

const invalid = (path: string, message: string) => new InvalidAppend({ path, message })

const refusal = (problem: Fields.Problem) => new EventStoreError({ reason: new InvalidAppend(problem) })

// ----------------------------------------------------------------------------------------------------------- JSON

/**
 * A value as JSON text, within bounds. `path` names the field in the error.
 *
 * @category formatting
 * @since 0.1.0
 */
export const jsonText = (value: unknown, path: string): Effect.Effect<string, EventStoreError> =>
  Effect.fromResult(Result.mapError(Fields.toJson(value, path), refusal))

/**
 * A value as JSON text that `jsonb` can hold.
 *
 * @category formatting
 * @since 0.1.0
 */
export const jsonbText = (value: unknown, path: string): Effect.Effect<string, EventStoreError> =>
  Effect.fromResult(Result.mapError(Fields.toJsonb(value, path), refusal))
