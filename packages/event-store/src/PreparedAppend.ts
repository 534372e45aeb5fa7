/**
 * An append made ready to be written: checked, with its defaults filled in and its JSON as text.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Context from "effect/Context"
import type * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Tracer from "effect/Tracer"
import { typePattern } from "./Belief.ts"
import { CurrentTenant } from "./CurrentTenant.ts"
import {
  type Append,
  EventStoreError,
  type ExpectedVersion,
  type IdempotencyRecord,
  InvalidAppend
} from "./EventStore.ts"
import { EventId, Label, type NewFact, type Position, StreamId } from "./Fact.ts"
import type { FactFilter } from "./FactQuery.ts"

/**
 * Bounds of one append. A larger one is refused as a whole.
 *
 * @category constants
 * @since 0.1.0
 */
export const limits = {
  /** Facts of one append. */
  facts: 10_000,
  /** Characters of one fact's data or metadata as JSON. */
  json: 8_388_608
} as const

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
  readonly condition: { readonly after: Position; readonly filters: string } | null
  readonly idempotency: (Omit<IdempotencyRecord, "answer"> & { readonly answer: string }) | null
  /** Characters of JSON it holds. */
  readonly size: number
}

/**
 * Checks an append and fills in its defaults. The ambient span becomes the facts' traceparent.
 *
 * @category constructors
 * @since 0.1.0
 */
export const prepare = (
  append: Append,
  random: SecureRandom.SecureRandom["Service"]
): Effect.Effect<PreparedAppend, EventStoreError> =>
  Effect.withFiber((fiber) => {
    const tenant = Context.get(fiber.context, CurrentTenant)
    const problem = isLabel(tenant) ? findProblem(append) : invalid("tenant", labelExpected)
    if (problem !== undefined) return Effect.fail(new EventStoreError({ reason: problem }))
    const traceparent = traceparentOf(Context.getOrUndefined(fiber.context, Tracer.ParentSpan))
    return Effect.flatMap(
      newEventIds(append, random),
      (eventIds) => Effect.fromResult(fill(append, eventIds, tenant, traceparent))
    )
  })

/** One for each fact that brings none. */
const newEventIds = (
  { facts }: Append,
  random: SecureRandom.SecureRandom["Service"]
): Effect.Effect<ReadonlyArray<string>> => {
  const ids: Array<string> = []
  const missing = facts.reduce((count, { eventId }) => eventId === undefined ? count + 1 : count, 0)
  const body = () => random.uuidV7()
  const step = (id: string) => void ids.push(id)
  return Effect.as(Effect.whileLoop({ while: () => ids.length < missing, body, step }), ids)
}

const fill = (
  append: Append,
  eventIds: ReadonlyArray<string>,
  tenant: string,
  traceparent: string | null
): Result.Result<PreparedAppend, EventStoreError> => {
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
    const data = toJson(fact.data, `facts[${index}].data`)
    if (Result.isFailure(data)) return Result.fail(data.failure)
    const metadata = fact.metadata === undefined ? undefined : toJsonb(fact.metadata, `facts[${index}].metadata`)
    if (metadata !== undefined && Result.isFailure(metadata)) return Result.fail(metadata.failure)
    const eventId = fact.eventId ?? EventId.make(eventIds[nextId++]!, { disableChecks: true })
    firstId ??= eventId
    const correlationId = fact.correlationId ?? firstId
    const slice = sliceOf(fact.stream)
    size += data.success.length + (metadata?.success.length ?? 0)
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
  for (const stream of Object.keys(append.expect ?? {})) sliceOf(StreamId.make(stream))

  const { condition, idempotency } = append
  const filters = condition === undefined ? undefined : toJsonb(condition.noneOf.map(toFilterRow), "condition")
  if (filters !== undefined && Result.isFailure(filters)) return Result.fail(filters.failure)
  const answer = idempotency === undefined ? undefined : toJson(idempotency.answer, "idempotency.answer")
  if (answer !== undefined && Result.isFailure(answer)) return Result.fail(answer.failure)
  return Result.succeed({
    slices,
    facts,
    tenant,
    actor: append.actor ?? null,
    traceparent,
    condition: condition === undefined || filters === undefined
      ? null
      : { after: condition.after, filters: filters.success },
    idempotency: idempotency === undefined || answer === undefined ? null : { ...idempotency, answer: answer.success },
    size
  })
}

/**
 * The tenant the fiber runs for.
 *
 * @category getters
 * @since 0.1.0
 */
export const currentTenant: Effect.Effect<string, EventStoreError> = Effect.suspend(() =>
  Effect.filterOrFail(CurrentTenant, isLabel, () => refusal("tenant", labelExpected))
)

/**
 * The ambient span as W3C trace context, null when there is none.
 *
 * @category getters
 * @since 0.1.0
 */
export const currentTraceparent: Effect.Effect<string | null> = Effect.withFiberSucceed((fiber) =>
  traceparentOf(Context.getOrUndefined(fiber.context, Tracer.ParentSpan))
)

const traceparentOf = (span: Tracer.AnySpan | undefined): string | null =>
  span === undefined ? null : `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`

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

const isStreamId = Schema.is(StreamId)
const isShortText = Schema.is(Label)

/**
 * True for a UUID in lower case.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isEventId = Schema.is(EventId)

/**
 * True for a label as PostgreSQL stores it.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isLabel = (text: string): boolean => isShortText(text) && text.isWellFormed()

/**
 * True for a version of a stream or of a shape.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isVersion = (version: number): boolean =>
  Number.isInteger(version) && version >= 1 && version <= maxVersion

const findProblem = (append: Append): InvalidAppend | undefined => {
  if (append.facts.length === 0) return invalid("facts", "an append needs at least one fact")
  if (append.facts.length > limits.facts) return invalid("facts", `more than ${limits.facts} facts in one append`)
  const ids = new Set<string>()
  for (const [index, fact] of append.facts.entries()) {
    const problem = findFactProblem(fact, `facts[${index}]`)
    if (problem !== undefined) return problem
    if (fact.eventId === undefined) continue
    if (ids.has(fact.eventId)) return invalid(`facts[${index}].eventId`, "the same event id twice in one append")
    ids.add(fact.eventId)
  }
  for (const [stream, expected] of Object.entries(append.expect ?? {})) {
    if (!isStreamId(stream)) return invalid(`expect[${stream}]`, "expected a stream id, <category>-<id>")
    if (typeof expected === "number" && !(Number.isInteger(expected) && expected >= 0 && expected <= maxVersion)) {
      return invalid(`expect[${stream}]`, "expected a version is a whole number from 0")
    }
    if (typeof expected !== "number" && !namedVersions.has(expected)) {
      return invalid(`expect[${stream}]`, "expected a version, any, noStream or streamExists")
    }
  }
  const { actor, condition, idempotency } = append
  if (condition !== undefined) {
    if (condition.after < 0n || condition.after > lastPosition) return conditionOfTheFuture
    const empty = condition.noneOf.findIndex((filter) => Object.values(filter).every((value) => value === undefined))
    if (condition.noneOf.length === 0) return invalid("condition.noneOf", "expected at least one filter")
    if (empty >= 0) return invalid(`condition.noneOf[${empty}]`, "a filter must restrict something")
  }
  if (actor !== undefined && !isLabel(actor)) return invalid("actor", labelExpected)
  if (idempotency !== undefined && !isLabel(idempotency.key)) return invalid("idempotency.key", labelExpected)
  if (idempotency !== undefined && !isLabel(idempotency.fingerprint)) {
    return invalid("idempotency.fingerprint", labelExpected)
  }
  return undefined
}

const findFactProblem = (fact: NewFact, path: string): InvalidAppend | undefined => {
  if (!isStreamId(fact.stream) || !fact.stream.isWellFormed()) {
    return invalid(`${path}.stream`, "expected <category>-<id>, at most 512 characters")
  }
  if (fact.stream.startsWith("$")) return invalid(`${path}.stream`, "a stream of the system is not written to by hand")
  if (!isLabel(fact.type)) return invalid(`${path}.type`, labelExpected)
  const { causationId, correlationId, eventId, schemaVersion, validFrom, validTo } = fact
  if (eventId !== undefined && !isEventId(eventId)) return invalid(`${path}.eventId`, "expected a UUID in lower case")
  if (correlationId !== undefined && !isLabel(correlationId)) return invalid(`${path}.correlationId`, labelExpected)
  if (causationId !== undefined && !isLabel(causationId)) return invalid(`${path}.causationId`, labelExpected)
  if (
    schemaVersion !== undefined &&
    !(Number.isInteger(schemaVersion) && schemaVersion >= 1 && schemaVersion <= maxVersion)
  ) {
    return invalid(`${path}.schemaVersion`, "expected a whole number from 1")
  }
  const problem = findPeriodProblem(validFrom, validTo)
  if (problem !== undefined) return invalid(`${path}.${problem}`, timeExpected)
  if (validFrom !== undefined && validTo !== undefined && validTo <= validFrom) {
    return invalid(`${path}.validTo`, "validTo must be later than validFrom")
  }
  return undefined
}

const namedVersions: ReadonlySet<string> = new Set(["any", "noStream", "streamExists"])

/**
 * The end of a period that is no time: it begins at an instant, and ends at one or never.
 *
 * @category predicates
 * @since 0.1.0
 */
export const findPeriodProblem = (
  validFrom: Timestamp.Timestamp | undefined,
  validTo: Timestamp.Timestamp | undefined
): "validFrom" | "validTo" | undefined => {
  if (validFrom !== undefined && !(Timestamp.isFinite(validFrom) && Timestamp.isStorable(validFrom))) return "validFrom"
  if (validTo !== undefined && (validTo === Timestamp.negativeInfinity || !Timestamp.isStorable(validTo))) {
    return "validTo"
  }
  return undefined
}

/**
 * What is said of a time that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const timeExpected = "expected an instant from 4714 BC up to the year 294276"

/**
 * Nothing was recorded after a position that is not there yet.
 *
 * @category errors
 * @since 0.1.0
 */
export const conditionOfTheFuture = new InvalidAppend({
  path: "condition.after",
  message: "expected a position of the log"
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

/** Positions are kept as `bigint`. */
const lastPosition = 9_223_372_036_854_775_807n

/** Versions are kept as `integer`. */
const maxVersion = 2_147_483_647

/**
 * What is said of a label that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const labelExpected = "expected 1 to 512 characters, none of them NUL"

const invalid = (path: string, message: string) => new InvalidAppend({ path, message })

// ----------------------------------------------------------------------------------------------------------- JSON

const encodeJson = Schema.encodeUnknownResult(Schema.fromJsonString(Schema.Unknown))

/**
 * A value as JSON text, within bounds. `path` names the field in the error.
 *
 * @category formatting
 * @since 0.1.0
 */
export const jsonText = (value: unknown, path: string): Effect.Effect<string, EventStoreError> =>
  Effect.fromResult(toJson(value, path))

const toJson = (value: unknown, path: string): Result.Result<string, EventStoreError> => {
  const text = encodeJson(value)
  if (Result.isFailure(text) || text.success === undefined) return Result.fail(refusal(path, "not JSON"))
  return text.success.length > limits.json
    ? Result.fail(refusal(path, `longer than ${limits.json} characters as JSON`))
    : Result.succeed(text.success)
}

/**
 * A value as JSON text that `jsonb` can hold.
 *
 * @category formatting
 * @since 0.1.0
 */
export const jsonbText = (value: unknown, path: string): Effect.Effect<string, EventStoreError> =>
  Effect.fromResult(toJsonb(value, path))

const toJsonb = (value: unknown, path: string): Result.Result<string, EventStoreError> =>
  Result.filterOrFail(
    toJson(value, path),
    (text) => !text.includes("\\u") || !notInJsonb.test(text),
    () => refusal(path, "holds NUL or half of a surrogate pair")
  )

/** What `jsonb` cannot hold and `JSON.stringify` writes as an escape: NUL and lone surrogates. */
const notInJsonb = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/

const refusal = (path: string, message: string) => new EventStoreError({ reason: invalid(path, message) })
