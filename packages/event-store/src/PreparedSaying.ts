/**
 * What is to be said of a stream, checked and with its defaults filled in, and the judgement of what was said before under
 * its id.
 *
 * @since 0.1.0
 */
import * as Traceparent from "@strata/postgres/Traceparent"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { sameJson, taken } from "./AppendJudgement.ts"
import { EventStoreError, InvalidAppend } from "./EventStore.ts"
import { EventId, type Fact, type Position, type StreamId } from "./Fact.ts"
import { InvalidQuery } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"
import * as PreparedAppend from "./PreparedAppend.ts"
import { isReason, maxReason } from "./PreparedRevision.ts"
import { aboutStream, type ListStreams, type Saying, StreamState } from "./StreamCatalog.ts"

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
  if (!Fields.isStreamId(stream)) return yield* invalid("stream", Fields.streamExpected)
  if (stream.startsWith("$")) return yield* invalid("stream", "a stream of the system cannot be described")
  const shape = Fields.findShapeProblem(change, changeFields, "saying", "")
  if (shape !== undefined) return yield* invalid(shape.path, shape.message)
  if (metadata === undefined && !isState(state)) return yield* invalid("state", statesExpected)
  if (!isReason(reason)) return yield* invalid("reason", `expected 1 to ${maxReason} characters, none of them NUL`)
  if (!Fields.isLabel(actor)) return yield* invalid("actor", Fields.labelExpected)
  if (eventId !== undefined && !Fields.isEventId(eventId)) return yield* invalid("eventId", Fields.eventIdExpected)
  const random = yield* SecureRandom.SecureRandom
  return {
    stream,
    eventId: eventId ?? EventId.make(yield* random.uuidV7()),
    type: state === undefined ? "$stream.metadata" : `$stream.${state}`,
    state: state ?? null,
    metadata: metadata === undefined ? null : yield* PreparedAppend.jsonbText(metadata, "metadata"),
    /** What the fact holds that tells it. */
    data: yield* PreparedAppend.jsonText({ stream, metadata: metadata ?? null, reason }, "metadata"),
    reason,
    actor,
    tenant: yield* PreparedAppend.currentTenant,
    traceparent: yield* Traceparent.current
  }
})

const changeFields = new Set(["actor", "reason", "eventId", "state", "metadata"])

/**
 * A change that can be said as it is.
 *
 * @category models
 * @since 0.1.0
 */
export type PreparedSaying = Effect.Success<ReturnType<typeof prepare>>

/**
 * Where it was said when the fact that has its id says just that, otherwise `EventIdTaken`, whose description has the rule.
 *
 * @category combinators
 * @since 0.1.0
 */
export const judge = (said: PreparedSaying, stored: Fact): Effect.Effect<Position, EventStoreError> =>
  stored.stream === aboutStream(said.stream) &&
    stored.type === said.type &&
    stored.actor === said.actor &&
    sameJson(said.data, stored.data)
    ? Effect.succeed(stored.position)
    : taken(stored)

/**
 * Checks which streams are asked for.
 *
 * @category constructors
 * @since 0.1.0
 */
export const listing = Effect.fnUntraced(function*(options: ListStreams) {
  const problem = Fields.findShapeProblem(options, listingFields, "options", "") ?? findListingProblem(options)
  if (problem !== undefined) return yield* new EventStoreError({ reason: new InvalidQuery(problem) })
  const { after, category, limit = 100, states = ["open"] } = options
  return { after, category, limit, states }
})

const listingFields = new Set(["after", "category", "limit", "states"])

const findListingProblem = (
  { after, category, limit = 1, states = [] }: ListStreams
): Fields.Problem | undefined => {
  if (after !== undefined && !Fields.isStreamId(after)) return { path: "after", message: Fields.streamExpected }
  if (!Fields.isVersion(limit) || limit > 1000) return { path: "limit", message: "expected 1 to 1,000" }
  if (!Array.isArray(states) || !states.every(isState)) return { path: "states", message: statesExpected }
  return Fields.findFilterProblem({ category })
}

const isState = Schema.is(StreamState)
const statesExpected = "expected open, archived or tombstoned"

const invalid = (path: string, message: string) => new EventStoreError({ reason: new InvalidAppend({ path, message }) })
