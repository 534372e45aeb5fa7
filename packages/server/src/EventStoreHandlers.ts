/**
 * Handlers of the group `eventStores`.
 *
 * @since 0.1.0
 */
import { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import { Api } from "@strata/http-api/Api"
import type { AppendEvent } from "@strata/http-api/EventStoreApi"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import { NotFound } from "@strata/http-api/Problem"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as Schema from "effect/Schema"
import * as EventStoreReads from "./EventStoreReads.ts"
import * as EventStoreRevisions from "./EventStoreRevisions.ts"
import * as Idempotency from "./Idempotency.ts"
import * as Reads from "./Reads.ts"
import * as Refusals from "./Refusals.ts"
import * as StoredEvents from "./StoredEvents.ts"

/** The setup of the database the server starts on. */
const defaultSetup = "default"

/** Which store a request is about. */
interface Place {
  readonly setup: string
  readonly store: string
}

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
    const own = yield* StoredEvents.make
    const reads = yield* EventStoreReads.make
    const revisions = yield* EventStoreRevisions.make

    const find = (params: Place) =>
      params.setup === defaultSetup && params.store === store.name
        ? Effect.void
        : Effect.fail(new NotFound({ detail: `There is no event store ${params.store} in the setup ${params.setup}` }))

    /** Finds the store, and waits until its log has reached what the caller has seen. */
    const ready = (asked: Reads.Asked & { readonly params: Place }) =>
      Effect.andThen(find(asked.params), waitForPosition(asked))

    return handlers.handleAll({
      append: Effect.fnUntraced(function*({ headers, params, payload }) {
        yield* find(params)
        const { subject } = yield* CurrentPrincipal
        const { data, stream } = yield* contentOf(payload)
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
                actor: subject,
                idempotency: record?.({ eventId })
              }),
              ({ duplicate }) => ({ eventId, duplicate })
            ),
          replay: (kept) => ({ eventId: kept.eventId, duplicate: false })
        }))
        return StoredEvents.written(yield* own.fact(written.eventId), written.duplicate)
      }),
      correct: Effect.fnUntraced(function*(asked) {
        yield* find(asked.params)
        return yield* revisions.correct(asked)
      }),
      retract: Effect.fnUntraced(function*(asked) {
        yield* find(asked.params)
        return yield* revisions.retract(asked)
      }),
      log: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.log(asked.query)
      }),
      event: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.event(asked.params.id)
      }),
      versions: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.versions(asked.params.id, asked.query)
      }),
      eventAt: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.at(asked.params.id, asked.query)
      }),
      stream: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.stream(asked.params.id, asked.query)
      }),
      diff: Effect.fnUntraced(function*(asked) {
        yield* ready(asked)
        return yield* reads.diff(asked.params.id, asked.query)
      })
    })
  })
)

/** What is appended, and where to: either name does. */
const contentOf = Effect.fnUntraced(function*(payload: typeof AppendEvent.Type) {
  const stream = payload.streamId ?? payload.aggregateId
  const data = payload.eventData === undefined ? payload.payload : payload.eventData
  if (stream === undefined) return yield* Refusals.mistake("body.streamId", "Expected the stream")
  if (data === undefined) return yield* Refusals.mistake("body.eventData", "Expected the content")
  yield* StoredEvents.refuseReserved({ type: payload.eventType, stream })
  return { data, stream }
})
