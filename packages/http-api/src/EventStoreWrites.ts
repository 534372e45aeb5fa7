/**
 * What is written to an event store: facts, one by one or many at once, and revisions of them.
 *
 * @since 0.1.0
 */
import * as Fact from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Arr from "effect/Array"
import * as Schema from "effect/Schema"
import * as Alias from "./Alias.ts"
import * as Consistency from "./Consistency.ts"
import * as EventStoreQuery from "./EventStoreQuery.ts"
import { Json, JsonObject, label } from "./Text.ts"

// --------------------------------------------------------------------------------------------------------- appends

/**
 * What a stream must look like for a write to be accepted.
 *
 * @category models
 * @since 0.1.0
 */
export const ExpectedVersion = Schema.Union([
  Schema.Literals(["any", "noStream", "streamExists"]),
  Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2_147_483_647 }))
]).annotate({ identifier: "ExpectedVersion" })

const EventType = label()

/** A type with a segment `*` could not be asked for. */
const NewEventType = EventType.check(
  Schema.isPattern(/^(?!([^.]*\.)*\*(\.|$))/u, {
    message: "Expected no segment that is *: it stands for any segment in questions",
    description: "Between its dots there is no segment `*`, which stands for any in questions"
  })
)

/**
 * Which events. Everything that is given must hold, and something must be given. `streamId` and `aggregateId` are the
 * same; `eventType` is one of `eventTypes`.
 *
 * @category models
 * @since 0.1.0
 */
export const EventFilter = Schema.Struct({
  eventType: Schema.optionalKey(EventType),
  eventTypes: Schema.optionalKey(
    Schema.Array(EventType).check(Schema.isMinLength(1), Schema.isMaxLength(100)).annotate({
      description: "Any of these; `*` stands for one segment between dots"
    })
  ),
  streamId: Schema.optionalKey(EventStoreQuery.StreamId),
  aggregateId: Schema.optionalKey(EventStoreQuery.StreamId),
  category: Schema.optionalKey(label()),
  correlationId: Schema.optionalKey(label()),
  causationId: Schema.optionalKey(label()),
  metadata: Schema.optionalKey(JsonObject.annotate({ description: "Top-level metadata that must be equal" }))
}).check(Alias.agree({ aggregateId: "streamId" })).annotate({ identifier: "EventFilter" })
export type EventFilter = typeof EventFilter.Type

/**
 * What must not have been recorded since the caller looked: a boundary of consistency drawn by a question instead of a
 * stream.
 *
 * @category models
 * @since 0.1.0
 */
export const AppendCondition = Schema.Struct({
  afterPosition: Consistency.Position.annotate({
    description: "What the caller's decision has read up to: `knownAtPosition` of an answer"
  }),
  noneOf: Schema.Array(EventFilter).check(Schema.isMinLength(1), Schema.isMaxLength(20))
}).annotate({
  identifier: "AppendCondition",
  description: "Refuse when an event after the position fits any of the filters"
})
export type AppendCondition = typeof AppendCondition.Type

const newEvent = {
  streamId: Schema.optionalKey(EventStoreQuery.StreamId),
  aggregateId: Schema.optionalKey(EventStoreQuery.StreamId),
  eventType: NewEventType,
  eventData: Schema.optionalKey(Json),
  payload: Schema.optionalKey(Json),
  eventId: Schema.optionalKey(Fact.EventId),
  validFrom: Schema.optionalKey(Timestamp.Timestamp),
  validTo: Schema.optionalKey(Timestamp.Timestamp),
  expectedVersion: Schema.optionalKey(ExpectedVersion),
  correlationId: Schema.optionalKey(label()),
  causationId: Schema.optionalKey(label()),
  metadata: Schema.optionalKey(JsonObject)
}

const agreed = Alias.agree({ aggregateId: "streamId", payload: "eventData" })

/**
 * A fact to append. `streamId` or `aggregateId` names the stream, `eventData` or `payload` is the content.
 *
 * @category models
 * @since 0.1.0
 */
export const AppendEvent = Schema.Struct({
  ...newEvent,
  condition: Schema.optionalKey(AppendCondition)
}).check(agreed).annotate({ identifier: "AppendEvent" })
export type AppendEvent = typeof AppendEvent.Type

/**
 * One of several facts to append at once. `expectedVersion` is that of its stream before the first of them.
 *
 * @category models
 * @since 0.1.0
 */
export const BatchEvent = Schema.Struct(newEvent).check(agreed).annotate({ identifier: "BatchEvent" })
export type BatchEvent = typeof BatchEvent.Type

/**
 * Facts of a batch at most.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxBatch = 1_000

/**
 * Facts to append at once, over one stream or several: all of them, in this order, or none.
 *
 * @category models
 * @since 0.1.0
 */
export const AppendBatch = Schema.Struct({
  events: Schema.Array(BatchEvent).check(Schema.isMinLength(1).abort(), Schema.isMaxLength(maxBatch)).pipe(
    Schema.refine(Arr.isReadonlyArrayNonEmpty)
  ),
  expectedVersions: Schema.optionalKey(
    Schema.Record(Schema.String, ExpectedVersion).check(Schema.isMaxProperties(maxBatch)).annotate({
      description: "Versions of streams before the first of the events, by stream id. A stream need not be written to"
    })
  ),
  condition: Schema.optionalKey(AppendCondition)
}).annotate({ identifier: "AppendBatch" })
export type AppendBatch = typeof AppendBatch.Type

// ------------------------------------------------------------------------------------------------------- revisions

/**
 * Why something is done.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Reason = label(10_000).annotate({ description: "Why. Kept for ever" })

const ofRevision = {
  eventId: Schema.optionalKey(
    Fact.EventId.annotate({ description: "Of the revision. Not together with an Idempotency-Key, which stands for it" })
  ),
  expectedRevision: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2_147_483_646 })).annotate({
      description: "Refuse unless the chain ends with this revision; 0 is the first fact"
    })
  ),
  correlationId: Schema.optionalKey(label()),
  causationId: Schema.optionalKey(label()),
  metadata: Schema.optionalKey(JsonObject)
}

/**
 * How a fact should have been. What is not given stays as it was; content or validity must be. `eventData` or `payload` is
 * the content, `correctionReason` or `reason` the reason. `validTo: null` opens the end.
 *
 * @category models
 * @since 0.1.0
 */
export const CorrectEvent = Schema.Struct({
  eventData: Schema.optionalKey(Json),
  payload: Schema.optionalKey(Json),
  schemaVersion: Schema.optionalKey(
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2_147_483_647 })).annotate({
      description: "The version of the content's shape. Default: that of the revision before"
    })
  ),
  validFrom: Schema.optionalKey(Timestamp.Timestamp),
  validTo: Schema.optionalKey(Schema.NullOr(Timestamp.Timestamp)),
  correctionReason: Schema.optionalKey(Reason),
  reason: Schema.optionalKey(Reason),
  ...ofRevision
}).check(Alias.agree({ payload: "eventData", correctionReason: "reason" })).annotate({ identifier: "CorrectEvent" })

/**
 * That a fact never held, or, for a retraction, that it did.
 *
 * @category models
 * @since 0.1.0
 */
export const RetractEvent = Schema.Struct({ reason: Reason, ...ofRevision }).annotate({ identifier: "RetractEvent" })
