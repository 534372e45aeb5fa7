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
import { findProblem } from "./CheckedAppend.ts"
import { CurrentTenant } from "./CurrentTenant.ts"
import {
  type Append,
  EventStoreError,
  type ExpectedVersion,
  type IdempotencyRecord,
  InvalidAppend
} from "./EventStore.ts"
import { EventId, type NewFact, type Position, StreamId } from "./Fact.ts"
import type { FactFilter } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"
import type * as SealedFields from "./SealedFields.ts"
import type { Sealing } from "./Sealing.ts"

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
    const problem = Fields.isLabel(tenant) ? findProblem(append) : { path: "tenant", message: Fields.labelExpected }
    if (problem !== undefined) return Effect.fail(refusal(problem))
    const traceparent = Traceparent.inContext(fiber.context)
    const filled = (append: Append, ids: ReadonlyArray<string>) =>
      Effect.fromResult(Result.mapError(fill(append, ids, tenant, traceparent), refusal))
    return Effect.flatMap(
      newIds(append, random),
      (ids) =>
        append.facts.some(isPersonal)
          ? Effect.flatMap(sealed(append, ids, tenant, seal), (append) => filled(append, ids))
          : filled(append, ids)
    )
  })

const isPersonal = ({ personal }: NewFact): boolean => personal !== undefined && personal.length > 0

/** The append with its ids given and what is personal sealed. */
const sealed = (
  append: Append,
  ids: ReadonlyArray<string>,
  tenant: string,
  seal: Sealing["seal"]
): Effect.Effect<Append, EventStoreError> => {
  let nextId = 0
  const facts = append.facts.map((fact) => ({
    ...fact,
    eventId: fact.eventId ?? EventId.make(ids[nextId++]!, { disableChecks: true })
  }))
  const sealables = facts.flatMap((fact, index): ReadonlyArray<SealedFields.Sealable> =>
    isPersonal(fact) ? [{ ...fact, personal: fact.personal ?? [], path: `facts[${index}].data` }] : []
  )
  return Effect.map(seal(tenant, sealables), (data) => {
    let nextSealed = 0
    const written = facts.map((fact) => isPersonal(fact) ? { ...fact, data: data[nextSealed++]! } : fact)
    return { ...append, facts: written }
  })
}

/**
 * One for each fact that brings none, and as many for messages published with them: these have ids of their own kind, and an id that was made
 * is that of one fact and of one message.
 */
const newIds = (
  { facts, publications }: Append,
  random: SecureRandom.SecureRandom["Service"]
): Effect.Effect<ReadonlyArray<string>> => {
  const ids: Array<string> = []
  const missing = Math.max(
    facts.reduce((count, { eventId }) => eventId === undefined ? count + 1 : count, 0),
    publications === undefined ? 0 : PreparedMessage.idsWanted(publications)
  )
  const body = () => random.uuidV7()
  const step = (id: string) => void ids.push(id)
  return Effect.as(Effect.whileLoop({ while: () => ids.length < missing, body, step }), ids)
}

const fill = (
  append: Append,
  ids: ReadonlyArray<string>,
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
    const eventId = fact.eventId ?? EventId.make(ids[nextId++]!, { disableChecks: true })
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
    }, ids)
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
