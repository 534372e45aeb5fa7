/**
 * What is to be said of a stream, checked and with its defaults filled in.
 *
 * @since 0.1.0
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import { EventStoreError, InvalidAppend } from "./EventStore.ts"
import { EventId, type StreamId } from "./Fact.ts"
import { InvalidQuery } from "./FactQuery.ts"
import * as PreparedAppend from "./PreparedAppend.ts"
import { isReason, maxReason } from "./PreparedRevision.ts"
import type { ListStreams, Saying, StreamState } from "./StreamCatalog.ts"

/**
 * Other metadata, or another state.
 *
 * @category models
 * @since 0.1.0
 */
export type Change = Saying & {
  readonly state?: StreamState | undefined
  readonly metadata?: { readonly [key: string]: Schema.Json } | undefined
}

/**
 * Checks a change. A stream that is about a stream cannot be spoken of itself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const prepare = Effect.fnUntraced(function*(stream: StreamId, change: Change) {
  const { actor, eventId, metadata, reason, state } = change
  if (stream.startsWith("$")) return yield* invalid("stream", "a stream of the system cannot be described")
  if (!isReason(reason)) return yield* invalid("reason", `expected 1 to ${maxReason} characters, none of them NUL`)
  if (!PreparedAppend.isLabel(actor)) return yield* invalid("actor", PreparedAppend.labelExpected)
  if (eventId !== undefined && !PreparedAppend.isEventId(eventId)) {
    return yield* invalid("eventId", "expected a UUID in lower case")
  }
  const random = yield* SecureRandom.SecureRandom
  return {
    eventId: eventId ?? EventId.make(yield* random.uuidV7()),
    type: state === undefined ? "$stream.metadata" : `$stream.${state}`,
    state: state ?? null,
    metadata: metadata === undefined ? null : yield* PreparedAppend.jsonbText(metadata, "metadata"),
    reason,
    actor,
    tenant: yield* PreparedAppend.currentTenant,
    traceparent: yield* PreparedAppend.currentTraceparent
  }
})

/**
 * Checks which streams are asked for.
 *
 * @category constructors
 * @since 0.1.0
 */
export const listing = Effect.fnUntraced(function*({ after, category, limit = 100, states = ["open"] }: ListStreams) {
  if (!Number.isInteger(limit) || limit < 1 || limit > 1000) {
    return yield* new EventStoreError({ reason: new InvalidQuery({ path: "limit", message: "expected 1 to 1,000" }) })
  }
  return { after, category, limit, states }
})

const invalid = (path: string, message: string) => new EventStoreError({ reason: new InvalidAppend({ path, message }) })
