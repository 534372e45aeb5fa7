/**
 * Corrections and retractions over HTTP.
 *
 * **Details**
 *
 * A request with an idempotency key becomes a revision whose event id is derived from the tenant and the key, so the store itself
 * tells a repeated request from a new one, also after a crash between the commit and the answer. A repeated request gets
 * the first answer when it would have led to the revision that is stored, otherwise 422.
 *
 * @since 0.1.0
 */
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import type * as Fact from "@strata/event-store/Fact"
import type { Revision } from "@strata/event-store/Revision"
import type { CorrectEvent, RetractEvent } from "@strata/http-api/EventStoreWrites"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Idempotency from "./Idempotency.ts"
import * as KeyedEventId from "./KeyedEventId.ts"
import * as Refusals from "./Refusals.ts"
import * as StoredEvents from "./StoredEvents.ts"

/**
 * A revision that is asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Asked<Payload> {
  readonly params: { readonly id: Fact.EventId }
  readonly headers: { readonly "idempotency-key"?: string | undefined }
  readonly payload: Payload
}

/**
 * Makes the writes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const store = yield* EventStore
  const own = yield* StoredEvents.make
  const eventIdOf = yield* KeyedEventId.make

  const plain = Effect.fnUntraced(function*(revision: Revision) {
    const revised = yield* Effect.uninterruptible(store.revise(revision))
    return { eventId: revised.eventId, duplicate: revised.duplicate }
  })

  const keyed = Effect.fnUntraced(function*(revision: Revision, key: string) {
    const { tenant } = yield* CurrentPrincipal
    const reused = Idempotency.keyReused(key)
    if (Option.isSome(yield* store.idempotencyRecord(key))) return yield* reused
    const eventId = yield* eventIdOf(tenant, key)
    yield* plain({ ...revision, eventId }).pipe(Effect.catchIf(isTaken, () => Effect.fail(reused)))
    return { eventId, duplicate: false }
  })

  /** `fields` gives the names in the body of fields that have another one there. */
  const revise = Effect.fnUntraced(
    function*(revision: Revision, key: string | undefined, fields: Readonly<Record<string, string>> = {}) {
      yield* StoredEvents.refuseReserved(yield* own.fact(revision.revises))
      if (key !== undefined && revision.eventId !== undefined) {
        return yield* Refusals.mistake("body.eventId", "Not together with an Idempotency-Key, which stands for it")
      }
      const { duplicate, eventId } = yield* Refusals.answer(
        key === undefined ? plain(revision) : keyed(revision, key),
        (field) => `body.${fields[field] ?? field}`
      )
      return StoredEvents.written(yield* own.fact(eventId), duplicate)
    }
  )

  const correct = Effect.fnUntraced(function*({ headers, params, payload }: Asked<typeof CorrectEvent.Type>) {
    const { correctionReason, eventData, payload: content, ...changes } = payload
    const reason = correctionReason ?? payload.reason
    if (reason === undefined) return yield* Refusals.mistake("body.correctionReason", "Expected the reason")
    const { subject } = yield* CurrentPrincipal
    const correction = {
      ...changes,
      _tag: "Correction",
      revises: params.id,
      data: eventData === undefined ? content : eventData,
      validTo: payload.validTo === null ? Timestamp.infinity : payload.validTo,
      reason,
      actor: subject
    } as const
    return yield* revise(correction, headers["idempotency-key"], {
      data: content === undefined ? "eventData" : "payload",
      reason: correctionReason === undefined ? "reason" : "correctionReason"
    })
  })

  const retract = Effect.fnUntraced(function*({ headers, params, payload }: Asked<typeof RetractEvent.Type>) {
    const { subject } = yield* CurrentPrincipal
    const retraction = { ...payload, _tag: "Retraction", revises: params.id, actor: subject } as const
    return yield* revise(retraction, headers["idempotency-key"])
  })

  return { correct, retract }
})

const isTaken = (error: EventStoreError): boolean => error.reason._tag === "EventIdTaken"
