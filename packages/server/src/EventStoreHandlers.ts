/**
 * Handlers of the group `eventStores`.
 *
 * @since 0.1.0
 */
import { ConversationEvents } from "@strata/conversations/domain/ConversationEvent"
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import { Api } from "@strata/http-api/Api"
import type { AppendEvent, StoredEvent } from "@strata/http-api/EventStoreApi"
import { defaultLimit } from "@strata/http-api/Paging"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import { BadRequest, NotFound, RuleViolated } from "@strata/http-api/Problem"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Idempotency from "./Idempotency.ts"
import * as Reads from "./Reads.ts"
import * as Refusals from "./Refusals.ts"

/** The setup of the database the server starts on. */
const defaultSetup = "default"

/**
 * The handlers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = HttpApiBuilder.group(
  Api,
  "eventStores",
  Effect.fnUntraced(function*(handlers) {
    const store = yield* EventStore
    const once = yield* Idempotency.make
    const waitForPosition = yield* Reads.makeForLog

    const find = (params: { readonly setup: string; readonly store: string }) =>
      params.setup === defaultSetup && params.store === store.name
        ? Effect.void
        : Effect.fail(new NotFound({ detail: `There is no event store ${params.store} in the setup ${params.setup}` }))

    const getOwn = Effect.fnUntraced(function*(id: Fact.EventId) {
      const { tenant } = yield* CurrentPrincipal
      const found = Option.filter(yield* answered(store.get(id)), (fact) => fact.tenant === tenant)
      return yield* Effect.fromOption(found).pipe(
        Effect.mapError(() => new NotFound({ detail: `There is no event ${id}` }))
      )
    })

    /** The last fact, and so the moment a list answers for. */
    const newest = Effect.gen(function*() {
      const head = yield* store.head
      if (head === 0n) return undefined
      return (yield* store.readLog({ after: Fact.Position.make(head - 1n), limit: 1 }))[0]
    })

    /** One more than the page holds was read, to know whether there is more; what other tenants own is left out. */
    const page = Effect.fnUntraced(function*(
      read: ReadonlyArray<Fact.Fact>,
      options: {
        readonly limit: number
        readonly last: Fact.Fact | undefined
        readonly next: (fact: Fact.Fact) => string
      }
    ) {
      const { tenant } = yield* CurrentPrincipal
      const seen = read.slice(0, options.limit)
      const final = seen.at(-1)
      const hasMore = read.length > options.limit
      const events = seen.filter((fact) => fact.tenant === tenant).map(shown)
      return {
        events,
        eventCount: events.length,
        nextCursor: hasMore && final !== undefined ? options.next(final) : null,
        hasMore,
        knownAt: options.last?.recordedAt ?? null
      }
    })

    const upTo = (facts: ReadonlyArray<Fact.Fact>, last: Fact.Fact | undefined) =>
      facts.filter(({ position }) => last !== undefined && position <= last.position)

    return handlers.handleAll({
      append: Effect.fnUntraced(function*({ headers, params, payload }) {
        yield* find(params)
        const { subject, tenant } = yield* CurrentPrincipal
        const { data, stream } = yield* contentOf(payload)
        const [first] = yield* answered(store.readStream(stream, { limit: 1 }))
        if (first !== undefined && first.tenant !== tenant) {
          return yield* new NotFound({ detail: `There is no stream ${stream}` })
        }
        const { causationId, correlationId, eventType, expectedVersion, metadata, validFrom, validTo } = payload
        const eventId = payload.eventId ?? Fact.EventId.make(SecureRandom.uuidV7Unsafe())
        const fact = {
          stream,
          type: eventType,
          data,
          eventId,
          causationId,
          correlationId,
          metadata,
          validFrom,
          validTo
        }
        const written = yield* Refusals.answer(once({
          key: headers["idempotency-key"],
          kept: Schema.Struct({ eventId: Fact.EventId }),
          run: (record) =>
            Effect.map(
              store.append({
                facts: [fact],
                expect: expectedVersion === undefined ? undefined : { [stream]: expectedVersion },
                tenant,
                actor: subject,
                idempotency: record?.({ eventId })
              }),
              ({ duplicate }) => ({ eventId, duplicate })
            ),
          replay: (kept) => ({ eventId: kept.eventId, duplicate: false })
        }))
        const body = shown(yield* getOwn(written.eventId))
        return written.duplicate ? withPosition({ ...body, duplicate: true as const }) : withPosition({
          ...body,
          duplicate: false as const
        })
      }),
      log: Effect.fnUntraced(function*({ headers, params, query }) {
        yield* find(params)
        yield* waitForPosition({ query, headers })
        const after = query.cursor === undefined ? Fact.beginning : yield* Effect.mapError(
          decodePosition(query.cursor),
          () => missing("query.cursor", "Expected the cursor of a page")
        )
        const limit = query.limit ?? defaultLimit
        const last = yield* answered(newest)
        const read = upTo(yield* answered(store.readLog({ after, limit: limit + 1 })), last)
        return yield* page(read, { limit, last, next: ({ position }) => String(position) })
      }),
      event: Effect.fnUntraced(function*({ headers, params, query }) {
        yield* find(params)
        yield* waitForPosition({ query, headers })
        return shown(yield* getOwn(params.id))
      }),
      stream: Effect.fnUntraced(function*({ headers, params, query }) {
        yield* find(params)
        yield* waitForPosition({ query, headers })
        const direction = query.direction ?? "forwards"
        const fromVersion = query.cursor === undefined ? undefined : yield* Effect.mapError(
          decodeVersion(query.cursor),
          () => missing("query.cursor", "Expected the cursor of a page")
        )
        const limit = query.limit ?? defaultLimit
        const last = yield* answered(newest)
        const facts = yield* answered(store.readStream(params.id, { direction, fromVersion, limit: limit + 1 }))
        const { tenant } = yield* CurrentPrincipal
        if (!facts.some((fact) => fact.tenant === tenant)) {
          return yield* new NotFound({ detail: `There are no events in ${params.id} there` })
        }
        const step = direction === "forwards" ? 1 : -1
        return yield* page(upTo(facts, last), { limit, last, next: ({ version }) => String(version + step) })
      })
    })
  })
)

/** What is appended, and where to: either name does. The messaging application's own facts are not taken. */
const contentOf = Effect.fnUntraced(function*(payload: typeof AppendEvent.Type) {
  const stream = payload.streamId ?? payload.aggregateId
  const data = payload.eventData ?? payload.payload
  if (stream === undefined) return yield* missing("body.streamId", "Expected the stream")
  if (data === undefined) return yield* missing("body.eventData", "Expected the content")
  if (ConversationEvents.has({ type: payload.eventType }) || Fact.categoryOf(stream) === "conversation") {
    return yield* new RuleViolated({
      rule: "ReservedEvent",
      detail: `${payload.eventType} in ${stream} belongs to the messaging application: use its endpoints`
    })
  }
  return { data, stream }
})

/** A read of the store; that it is away is for the problem layer to say. */
const answered = <A, R>(read: Effect.Effect<A, EventStoreError, R>) => Effect.orDie(read)

const digits = Schema.String.check(Schema.isPattern(/^\d{1,18}$/))
const decodePosition = Schema.decodeEffect(
  digits.pipe(Schema.decodeTo(Schema.BigIntFromString), Schema.decodeTo(Fact.Position))
)
const decodeVersion = Schema.decodeEffect(
  Schema.String.check(Schema.isPattern(/^[1-9]\d{0,8}$/)).pipe(Schema.decodeTo(Schema.FiniteFromString))
)

const missing = (path: string, message: string) =>
  new BadRequest({ detail: `${path}: ${message}`, errors: [{ path, message }] })

const withPosition = <A extends { readonly position: Fact.Position }>(body: A) =>
  HttpApiSchema.withHeaders({ body, headers: { "strata-position": body.position } })

const shown = (fact: Fact.Fact): StoredEvent => ({
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
