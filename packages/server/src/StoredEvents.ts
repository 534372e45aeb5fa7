/**
 * Facts as answers show them, and the failures of a store as requests meet them.
 *
 * @since 0.1.0
 */
import { ConversationEvents } from "@strata/conversations/domain/ConversationEvent"
import { EventStore, type EventStoreError, type HistorySlice } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { KnownAt } from "@strata/event-store/FactQuery"
import type { EventList, StoredEvent } from "@strata/http-api/EventStoreApi"
import { type BadRequest, NotFound, RuleViolated } from "@strata/http-api/Problem"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as Refusals from "./Refusals.ts"

/**
 * A fact under all its names.
 *
 * @category conversions
 * @since 0.1.0
 */
export const shown = (fact: Fact.Fact): StoredEvent => ({
  id: fact.eventId,
  eventId: fact.eventId,
  eventType: fact.type,
  schemaVersion: fact.schemaVersion,
  streamId: fact.stream,
  aggregateId: fact.stream,
  version: fact.version,
  position: fact.position,
  eventData: fact.data,
  metadata: fact.metadata,
  validFrom: fact.validFrom,
  validTo: fact.validTo === Timestamp.infinity ? null : fact.validTo,
  recordedAt: fact.recordedAt,
  transactionTime: fact.recordedAt,
  correlationId: fact.correlationId,
  causationId: fact.causationId,
  actor: fact.actor,
  revision: fact.revision,
  revises: fact.revises,
  retracted: fact.retracted,
  reason: fact.reason
})

/**
 * The answer to a write: 201, or 200 when it had been stored before.
 *
 * @category conversions
 * @since 0.1.0
 */
export const written = (fact: Fact.Fact, duplicate: boolean) => {
  const headers = { "strata-position": fact.position }
  return duplicate
    ? HttpApiSchema.withHeaders({ body: { ...shown(fact), duplicate: true as const }, headers })
    : HttpApiSchema.withHeaders({ body: { ...shown(fact), duplicate: false as const }, headers })
}

/**
 * The answer to a write of facts at once.
 *
 * @category conversions
 * @since 0.1.0
 */
export const writtenBatch = (facts: ReadonlyArray<Fact.Fact>, position: Fact.Position, duplicate: boolean) => {
  const headers = { "strata-position": position }
  const body = { events: facts.map(shown), eventCount: facts.length }
  return duplicate
    ? HttpApiSchema.withHeaders({ body: { ...body, duplicate: true as const }, headers })
    : HttpApiSchema.withHeaders({ body: { ...body, duplicate: false as const }, headers })
}

/**
 * A list answer.
 *
 * @category conversions
 * @since 0.1.0
 */
export const listed = (
  facts: ReadonlyArray<Fact.Fact>,
  next: string | null,
  moment: Pick<EventList, "knownAt" | "knownAtPosition">
): EventList => ({
  events: facts.map(shown),
  eventCount: facts.length,
  nextCursor: next,
  hasMore: next !== null,
  ...moment
})

/**
 * Refuses what has another way in. The messaging application checks what it appends, and its read models do not follow
 * revisions; what begins with `$` is the store's own.
 *
 * @category guards
 * @since 0.1.0
 */
export const refuseReserved = (fact: Pick<Fact.Fact, "type" | "stream">): Effect.Effect<void, RuleViolated> =>
  refuse(
    fact.type.startsWith("$") ? theStore : ConversationEvents.has(fact) ? theApplication : ownerOf(fact.stream),
    `${fact.type} in ${fact.stream}`
  )

/**
 * The same for a stream.
 *
 * @category guards
 * @since 0.1.0
 */
export const refuseReservedStream = (stream: Fact.StreamId): Effect.Effect<void, RuleViolated> =>
  refuse(ownerOf(stream), stream)

const theStore = "the store itself"
const theApplication = "the messaging application"

const ownerOf = (stream: Fact.StreamId): string | undefined =>
  stream.startsWith("$") ? theStore : Fact.categoryOf(stream) === "conversation" ? theApplication : undefined

const refuse = (owner: string | undefined, what: string): Effect.Effect<void, RuleViolated> =>
  owner === undefined
    ? Effect.void
    : Effect.fail(
      new RuleViolated({ rule: "ReservedEvent", detail: `${what} belongs to ${owner}: use its endpoints` })
    )

/**
 * A read of the store; that it is away is for the problem layer to say.
 *
 * @category combinators
 * @since 0.1.0
 */
export const answered = <A, R>(read: Effect.Effect<A, EventStoreError, R>): Effect.Effect<A, never, R> =>
  Effect.orDie(read)

/**
 * The same for a question, which may be one that cannot be answered: `parameter` gives the query parameter that a
 * field of it came in.
 *
 * @category combinators
 * @since 0.1.0
 */
export const asked = <A, R>(
  read: Effect.Effect<A, EventStoreError, R>,
  parameter: (field: string) => string
): Effect.Effect<A, BadRequest, R> =>
  Effect.catch(
    read,
    (error) =>
      error.reason._tag === "InvalidQuery"
        ? Effect.fail(Refusals.mistake(`query.${parameter(error.reason.path)}`, error.reason.message))
        : Effect.die(error)
  )

/**
 * Makes what reads only the caller's own facts, and names moments.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const store = yield* EventStore

  /** The fact with an id. */
  const fact = Effect.fnUntraced(function*(id: Fact.EventId) {
    return yield* Effect.fromOption(yield* answered(store.get(id))).pipe(Effect.mapError(() => unknown(id)))
  })

  /** A part of the chain that an id belongs to. */
  const chain = Effect.fnUntraced(function*(id: Fact.EventId, slice: HistorySlice) {
    const page = yield* answered(store.historyPage(id, slice))
    return page.facts.length > 0 ? page : yield* unknown(id)
  })

  /** The last `count` facts up to a position: those of one append stand next to each other. */
  const upTo = Effect.fnUntraced(function*(position: Fact.Position, count: number) {
    const facts: Array<Fact.Fact> = []
    while (facts.length < count) {
      const after = Fact.Position.make(position - BigInt(count - facts.length))
      const more = yield* answered(store.readLog({ after, limit: count - facts.length }))
      if (more.length === 0) break
      facts.push(...more)
    }
    return facts
  })

  /** A position as the moment it is. A time that was asked about is that moment, though nothing was recorded at it. */
  const moment = Effect.fnUntraced(function*(position: Fact.Position, knownAt?: KnownAt) {
    if (knownAt !== undefined && "time" in knownAt) return { knownAt: knownAt.time, knownAtPosition: position }
    const [last] = position === Fact.beginning
      ? []
      : yield* answered(store.readLog({ after: Fact.Position.make(position - 1n), limit: 1 }))
    return { knownAt: last?.recordedAt ?? null, knownAtPosition: position }
  })

  return { fact, chain, upTo, moment }
})

const unknown = (id: Fact.EventId) => new NotFound({ detail: `There is no event ${id}`, reason: "unknown" })
