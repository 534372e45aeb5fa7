/**
 * What is read of an event store over HTTP: questions on two time axes, streams, revisions and differences.
 *
 * @since 0.1.0
 */
import { EventStore } from "@strata/event-store/EventStore"
import type * as Fact from "@strata/event-store/Fact"
import type { FactFilter, FactPage, FactQuery, KnownAt, Point } from "@strata/event-store/FactQuery"
import * as PlaneDiff from "@strata/event-store/PlaneDiff"
import type { EventDiff, EventList, StoredEvent } from "@strata/http-api/EventStoreApi"
import type * as EventStoreQuery from "@strata/http-api/EventStoreQuery"
import { defaultLimit } from "@strata/http-api/Paging"
import { type CurrentPrincipal } from "@strata/http-api/Principal"
import { type BadRequest, NotFound, RuleViolated } from "@strata/http-api/Problem"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Refusals from "./Refusals.ts"
import * as StoredEvents from "./StoredEvents.ts"

/**
 * A question as its query parameters have it.
 *
 * @category models
 * @since 0.1.0
 */
export type Question = Schema.Struct.Type<typeof EventStoreQuery.query>

/**
 * The part of it that says which events, whatever the time axes say.
 *
 * @category models
 * @since 0.1.0
 */
export type Filter = Schema.Struct.Type<typeof EventStoreQuery.filter>

/**
 * The parameters of a page.
 *
 * @category models
 * @since 0.1.0
 */
export interface PageQuery {
  readonly limit?: number | undefined
  readonly cursor?: string | undefined
}

/** Rows of a stream that two points of it may be compared over, and bytes of them: both beliefs are held at once. */
const maxCompared = 10_000
const maxComparedBytes = 32 * 1024 * 1024

/** Revisions of one look back into a chain. */
const lookBack = 100

/** Facts that one read of the store gives at most. */
const maxRead = 1_000

/**
 * Makes the reads. Each of them is of the caller's tenant only.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const store = yield* EventStore
  const own = yield* StoredEvents.make

  /** Reads what the page leaves out, for where it begins. */
  const skip = Effect.fnUntraced(function*(question: FactQuery, offset: number) {
    let page: FactPage = yield* store.read({ ...question, limit: Math.min(offset, maxRead) })
    for (let left = offset - page.facts.length; left > 0 && page.next !== null; left -= page.facts.length) {
      page = yield* store.read({ ...question, limit: Math.min(left, maxRead), cursor: page.next })
    }
    return page
  })

  const log = Effect.fnUntraced(function*(query: Question) {
    const { limit = defaultLimit, offset = 0 } = query
    if (query.cursor !== undefined && offset > 0) {
      return yield* Refusals.mistake("query.offset", "Not together with a cursor")
    }
    const question = yield* questionOf(query)
    const parameter = (field: string) => parameterOf(query, field)
    const skipped = offset === 0 ? undefined : yield* StoredEvents.asked(skip(question, offset), parameter)
    const page = skipped?.next === null
      ? { ...skipped, facts: [] }
      : yield* StoredEvents.asked(
        store.read({ ...question, limit, cursor: skipped?.next ?? query.cursor }),
        parameter
      )
    const moment = yield* own.moment(page.knownAt, query.knownAt)
    const list = StoredEvents.listed(page.facts, page.next, moment)
    if (query.total !== true) return list
    const { exact, value } = yield* StoredEvents.asked(
      store.count({ ...question, knownAt: { position: page.knownAt } }),
      parameter
    )
    return { ...list, totalCount: { value: String(value), exact, asOf: moment.knownAt } }
  })

  const versions = Effect.fnUntraced(function*(id: Fact.EventId, { cursor, limit = defaultLimit }: PageQuery) {
    const from = cursor === undefined ? 0 : yield* readCursor(cursor)
    const { facts, next } = yield* own.chain(id, { fromRevision: from, limit })
    return StoredEvents.listed(
      facts,
      next === null ? null : String(next),
      yield* own.moment(yield* StoredEvents.answered(store.head))
    )
  })

  const at = Effect.fnUntraced(function*(
    id: Fact.EventId,
    query: { readonly transactionTime?: KnownAt | undefined; readonly knownAt?: KnownAt | undefined }
  ): Effect.fn.Return<StoredEvent, BadRequest | NotFound, CurrentPrincipal> {
    const moment = query.transactionTime ?? query.knownAt
    const parameter = query.transactionTime === undefined && moment !== undefined ? "knownAt" : "transactionTime"
    if (moment === undefined) return yield* Refusals.mistake("query.transactionTime", "Expected a moment")
    const position = yield* StoredEvents.asked(store.positionAt(moment), () => parameter)
    for (let fromRevision: number | undefined;;) {
      const { facts, next } = yield* own.chain(id, { direction: "backwards", fromRevision, limit: lookBack })
      const believed = facts.find((fact) => fact.position <= position)
      if (believed !== undefined) {
        return believed.retracted ? yield* retracted(id, believed) : StoredEvents.shown(believed)
      }
      if (next === null) return yield* notYetKnown(id, facts.at(-1))
      fromRevision = next
    }
  })

  const stream = Effect.fnUntraced(function*(
    id: Fact.StreamId,
    query: PageQuery & { readonly direction?: "forwards" | "backwards" | undefined }
  ): Effect.fn.Return<EventList, BadRequest | NotFound, CurrentPrincipal> {
    const { direction = "forwards", limit = defaultLimit } = query
    const fromVersion = query.cursor === undefined ? undefined : yield* readCursor(query.cursor)
    // What is recorded between the two reads is later than the moment answered for.
    const head = yield* StoredEvents.answered(store.head)
    const page = yield* StoredEvents.answered(store.readStreamPage(id, { direction, fromVersion, limit }))
    const facts = page.facts.filter((fact) => fact.position <= head)
    // All of it may have been recorded between the two reads.
    if (facts.length === 0) return yield* (page.facts.length === 0 ? noStream(id) : stream(id, query))
    const next = direction === "forwards" && facts.length < page.facts.length ? null : page.next
    return StoredEvents.listed(facts, next === null ? null : String(next), yield* own.moment(head))
  })

  const diff = Effect.fnUntraced(function*(id: Fact.StreamId, query: { readonly a: Point; readonly b: Point }) {
    const rows = yield* StoredEvents.answered(store.streamVersion(id))
    if (rows === 0) return yield* noStream(id)
    if (rows > maxCompared) {
      return yield* new RuleViolated({
        rule: "StreamTooLong",
        detail: `${id} has ${rows} rows; points of at most ${maxCompared} are compared`
      })
    }
    const now = yield* Timestamp.now
    const head = yield* StoredEvents.answered(store.head)
    const settle = Effect.fnUntraced(function*(parameter: "a" | "b") {
      const { knownAt = { position: head }, validAt = now } = query[parameter]
      const position = yield* StoredEvents.asked(store.positionAt(knownAt), () => parameter)
      return {
        point: { validAt, knownAt: { position } },
        shown: { validAt, ...(yield* own.moment(position, knownAt)) }
      }
    })
    const a = yield* settle("a")
    const b = yield* settle("b")
    const differences = yield* PlaneDiff.diff({ stream: id }, a.point, b.point, { maxBytes: maxComparedBytes }).pipe(
      Effect.provideService(EventStore, store),
      Effect.catch((error) =>
        error.reason._tag === "InvalidQuery" && error.reason.path === "maxBytes"
          ? Effect.fail(new RuleViolated({ rule: "StreamTooLong", detail: `${id}: ${error.reason.message}` }))
          : Effect.die(error)
      )
    )
    const answer: EventDiff = {
      streamId: id,
      aggregateId: id,
      a: a.shown,
      b: b.shown,
      differences: differences.map(({ after, before, ...difference }) => ({
        ...difference,
        before: before && StoredEvents.shown(before),
        after: after && StoredEvents.shown(after)
      })),
      differenceCount: differences.length
    }
    return answer
  })

  const event = (id: Fact.EventId) => Effect.map(own.fact(id), StoredEvents.shown)

  return { log, event, versions, at, stream, diff }
})

// ------------------------------------------------------------------------------------------------------- questions

/**
 * The filter that is asked for.
 *
 * @category conversions
 * @since 0.1.0
 */
export const filterOf = (query: Filter): FactFilter => ({
  stream: query.streamId ?? query.aggregateId,
  category: query.category,
  types: query.eventType,
  correlationId: query.correlationId,
  causationId: query.causationId,
  metadata: query.metadata
})

const questionOf = Effect.fnUntraced(function*(
  query: Question
): Effect.fn.Return<FactQuery, BadRequest> {
  const { maxVersion, minVersion, revisions, sort = "position" } = query
  if (minVersion !== undefined && maxVersion !== undefined && maxVersion < minVersion) {
    return yield* Refusals.mistake("query.maxVersion", "Expected at least minVersion")
  }
  const from = query.fromTime ?? query.from
  const to = query.toTime ?? query.to
  return {
    ...filterOf(query),
    data: query.data,
    knownAt: query.knownAt,
    validAt: query.validAt,
    validDuring: from === undefined && to === undefined
      ? undefined
      : { from: from ?? Timestamp.negativeInfinity, to: to ?? Timestamp.infinity },
    versions: { from: minVersion, to: maxVersion },
    revisions,
    orderBy: sort.startsWith("validity") ? "validity" : "position",
    direction: sort.endsWith("desc") ? "backwards" : "forwards"
  }
})

const parameterOf = (query: Question, field: string): string => {
  switch (field) {
    case "validDuring":
      return (["toTime", "to", "fromTime", "from"] as const).find((name) => query[name] !== undefined) ?? field
    case "types":
      return "eventType"
    case "versions":
      return "minVersion"
    default:
      return field
  }
}

const CursorNumber = Schema.String.check(Schema.isPattern(/^[1-9]\d{0,8}$/)).pipe(
  Schema.decodeTo(Schema.FiniteFromString)
)
const decodeCursor = Schema.decodeEffect(CursorNumber)

const readCursor = (cursor: string): Effect.Effect<number, BadRequest> =>
  Effect.mapError(decodeCursor(cursor), () => Refusals.mistake("query.cursor", "Expected the cursor of a page"))

// --------------------------------------------------------------------------------------------------------- nothing

const noStream = (id: Fact.StreamId) => new NotFound({ detail: `There are no events in ${id} there` })

const notYetKnown = (id: Fact.EventId, first: Fact.Fact | undefined) =>
  new NotFound({
    reason: "notYetKnown",
    detail: `Event ${id} was not known yet: it was recorded at ${
      Timestamp.format(first?.recordedAt ?? Timestamp.infinity)
    }`
  })

const retracted = (id: Fact.EventId, retraction: Fact.Fact) =>
  new NotFound({
    reason: "retracted",
    detail: `Event ${id} was retracted then, at ${
      Timestamp.format(retraction.recordedAt)
    } by ${retraction.eventId}: ${retraction.reason}`
  })
