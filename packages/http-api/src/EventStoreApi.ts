/**
 * The event store over HTTP: appending, correcting and retracting facts, and reading them on two time axes.
 *
 * **Details**
 *
 * `eventId` and `id`, `streamId` and `aggregateId`, `recordedAt` and `transactionTime` are the same value under two names. A list
 * answers for a moment, `knownAt`: it holds what was recorded at or before it, and the same question about that moment
 * gets the same answer for ever. A fact's revisions form one chain, which any member's id names. Callers see facts
 * of their own tenant only. Unknown setups and stores are 404.
 *
 * @since 0.1.0
 */
import * as Fact from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import { Admission } from "./Admission.ts"
import * as Alias from "./Alias.ts"
import { Authorization, RoleCheck } from "./Authorization.ts"
import * as Consistency from "./Consistency.ts"
import * as EventStoreQuery from "./EventStoreQuery.ts"
import { AppendBatch, AppendEvent, CorrectEvent, RetractEvent } from "./EventStoreWrites.ts"
import * as IdempotencyKey from "./IdempotencyKey.ts"
import * as Paging from "./Paging.ts"
import { RequiredRole } from "./Principal.ts"
import { Conflict, NotFound, RuleViolated } from "./Problem.ts"
import { label } from "./Text.ts"

const event = {
  id: Fact.EventId,
  eventId: Fact.EventId,
  eventType: Schema.String,
  schemaVersion: Schema.Int,
  streamId: Schema.String,
  aggregateId: Schema.String,
  version: Schema.Int.annotate({ description: "Its place in the stream: 1, 2, 3 …" }),
  position: Consistency.Position,
  eventData: Schema.Json,
  metadata: Schema.JsonObject,
  validFrom: Timestamp.Timestamp,
  validTo: Schema.NullOr(Timestamp.Timestamp).annotate({ description: "Null while open" }),
  recordedAt: Timestamp.Timestamp,
  transactionTime: Timestamp.Timestamp,
  correlationId: Schema.String,
  causationId: Schema.NullOr(Schema.String),
  actor: Schema.NullOr(Schema.String),
  revision: Schema.Int.annotate({ description: "0 for a first fact" }),
  revises: Schema.NullOr(Fact.EventId),
  retracted: Schema.Boolean,
  reason: Schema.NullOr(Schema.String)
}

/**
 * A fact, as answers show it.
 *
 * @category models
 * @since 0.1.0
 */
export const StoredEvent = Schema.Struct(event).annotate({ identifier: "StoredEvent" })
export type StoredEvent = typeof StoredEvent.Type

/**
 * The moment an answer is for.
 *
 * @category models
 * @since 0.1.0
 */
export const moment = {
  knownAt: Schema.NullOr(Timestamp.Timestamp).annotate({
    description: "The moment it answers for; null before the first fact of the store"
  }),
  knownAtPosition: Consistency.Position.annotate({
    description: "The same moment as the last position that was known"
  })
}

/**
 * A page of facts.
 *
 * @category models
 * @since 0.1.0
 */
export const EventList = Schema.Struct({
  events: Schema.Array(StoredEvent),
  eventCount: Schema.Int.annotate({ description: "Events on this page" }),
  totalCount: Schema.optionalKey(Paging.Count),
  ...Paging.fields,
  ...moment
}).annotate({ identifier: "EventList" })
export type EventList = typeof EventList.Type

const AnsweredPoint = Schema.Struct({ validAt: Timestamp.Timestamp, ...moment }).annotate({
  identifier: "AnsweredPoint"
})

/**
 * What differs between two points of the plane. `now` has become the moment it was.
 *
 * @category models
 * @since 0.1.0
 */
export const EventDiff = Schema.Struct({
  streamId: Schema.String,
  aggregateId: Schema.String,
  a: AnsweredPoint,
  b: AnsweredPoint,
  differences: Schema.Array(
    Schema.Struct({
      eventId: Fact.EventId.annotate({ description: "The first fact of its chain" }),
      before: Schema.NullOr(StoredEvent).annotate({ description: "As seen from a; null where it is not" }),
      after: Schema.NullOr(StoredEvent).annotate({ description: "As seen from b; null where it is not" }),
      worldMoved: Schema.Boolean.annotate({ description: "Its validity began or ended between them" }),
      weLearned: Schema.Boolean.annotate({ description: "It was recorded, corrected or retracted between them" })
    }).annotate({ identifier: "EventDifference" })
  ),
  differenceCount: Schema.Int
}).annotate({ identifier: "EventDiff" })
export type EventDiff = typeof EventDiff.Type

/**
 * Where a store is.
 *
 * @category models
 * @since 0.1.0
 */
export const place = { setup: label(128), store: label(128) }

const written = <Duplicate extends boolean>(duplicate: Duplicate, status: number, identifier: string) =>
  HttpApiSchema.WithHeaders(
    Schema.Struct({ ...event, duplicate: Schema.Literal(duplicate) }).annotate({ identifier, httpApiStatus: status }),
    Consistency.answerHeaders
  )

/**
 * A message of the feed.
 *
 * @category models
 * @since 0.1.0
 */
export const FeedEvent = Schema.Struct({
  id: Consistency.Position.annotate({ description: "The event's position" }),
  event: Schema.Literal("message"),
  data: Schema.fromJsonString(StoredEvent)
}).annotate({ identifier: "FeedEvent" })
export type FeedEvent = typeof FeedEvent.Type

const writtenBatch = <Duplicate extends boolean>(duplicate: Duplicate, status: number, identifier: string) =>
  HttpApiSchema.WithHeaders(
    Schema.Struct({
      events: Schema.Array(StoredEvent),
      eventCount: Schema.Int,
      duplicate: Schema.Literal(duplicate)
    }).annotate({ identifier, httpApiStatus: status }),
    Consistency.answerHeaders
  )

const write = {
  headers: IdempotencyKey.headers,
  success: [written(false, 201, "EventWritten"), written(true, 200, "EventWrittenBefore")],
  error: [NotFound, Conflict, RuleViolated]
} as const

const ofEvent = { ...place, id: Fact.EventId }
const ofStream = { ...place, id: EventStoreQuery.StreamId }
const read = { headers: Consistency.headers, error: NotFound }

const reads = HttpApiGroup.make("eventStores").add(
  HttpApiEndpoint.get("log", "/events", {
    params: place,
    query: Schema.Struct({ ...EventStoreQuery.query, ...Consistency.query }).check(
      Alias.agree({ aggregateId: "streamId", fromTime: "from", toTime: "to" })
    ),
    success: EventList,
    ...read
  }).annotateMerge(OpenApi.annotations({
    summary: "Ask for events",
    description: "What was known at `knownAt` to hold at `validAt`, or at some moment of [`fromTime`, `toTime`). A "
      + "filter looks at the revision that is believed. All pages of an answer are for the moment of the first one."
  })),
  HttpApiEndpoint.get("feed", "/events/stream", {
    params: place,
    query: Schema.Struct({
      after: Schema.optionalKey(
        Consistency.Position.annotate({ description: "Events after this position; 0 for all. Default: the last one" })
      ),
      ...EventStoreQuery.filter,
      ...Consistency.query
    }).check(Alias.agree({ aggregateId: "streamId" })),
    headers: {
      "last-event-id": Schema.optionalKey(
        Consistency.Position.annotate({ description: "Goes before `after`: an EventSource that reconnects sends it" })
      ),
      ...Consistency.headers
    },
    success: HttpApiSchema.StreamSse({ events: FeedEvent }),
    error: NotFound
  }).annotateMerge(OpenApi.annotations({
    summary: "Follow the log",
    description: "Server-Sent Events: every row after a position, in the order recorded, first what is there and then "
      + "each as it is recorded. `after=0` begins with the first event, without `after` the feed begins with what comes "
      + "next; the header `Last-Event-ID` goes before it. The id of a message is the position of its event. A quiet feed "
      + "gives signs of life: comments that move the last event id past what the filter left out. It ends when the "
      + "server stops."
  })),
  HttpApiEndpoint.get("event", "/events/:id", {
    params: ofEvent,
    query: Consistency.query,
    success: StoredEvent,
    ...read
  }).annotateMerge(OpenApi.annotations({ summary: "Get an event", description: "The row with this id, as recorded." })),
  HttpApiEndpoint.get("versions", "/events/:id/versions", {
    params: ofEvent,
    query: { ...Paging.query, ...Consistency.query },
    success: EventList,
    ...read
  }).annotateMerge(OpenApi.annotations({
    summary: "List the revisions of an event",
    description: "The first fact, then each correction and retraction, whichever of them the id names."
  })),
  HttpApiEndpoint.get("eventAt", "/events/:id/at", {
    params: ofEvent,
    query: Schema.Struct({
      transactionTime: Schema.optionalKey(EventStoreQuery.KnownAt),
      knownAt: Schema.optionalKey(EventStoreQuery.KnownAt),
      ...Consistency.query
    }).check(Alias.agree({ knownAt: "transactionTime" })),
    success: StoredEvent,
    ...read
  }).annotateMerge(OpenApi.annotations({
    summary: "Get an event as it was known",
    description:
      "The revision that was believed at `transactionTime` (or `knownAt`, the same). 404 says in `reason` whether the "
      + "event was not known yet or was retracted."
  })),
  HttpApiEndpoint.get("stream", "/streams/:id", {
    params: ofStream,
    query: {
      direction: Schema.optionalKey(Schema.Literals(["forwards", "backwards"])),
      ...Paging.query,
      ...Consistency.query
    },
    success: EventList,
    ...read
  }).annotateMerge(OpenApi.annotations({
    summary: "Read a stream",
    description: "Every row, in the order of its versions; a cursor is the version to go on at."
  })),
  HttpApiEndpoint.get("diff", "/streams/:id/diff", {
    params: ofStream,
    query: { a: EventStoreQuery.Point, b: EventStoreQuery.Point, ...Consistency.query },
    success: EventDiff,
    headers: Consistency.headers,
    error: [NotFound, RuleViolated]
  }).annotateMerge(OpenApi.annotations({
    summary: "Compare two points of the plane",
    description:
      "What of the stream is seen otherwise from `b` than from `a`, and whether the world moved or we learned."
  }))
)

/**
 * Event stores.
 *
 * @category groups
 * @since 0.1.0
 */
export class EventStoreApi extends reads.add(
  HttpApiEndpoint.post("append", "/events", { params: place, payload: AppendEvent, ...write })
    .annotate(RequiredRole, "operator")
    .annotateMerge(OpenApi.annotations({
      summary: "Append an event",
      description: "The same `eventId` with the same content is stored once. Event types of the messaging "
        + "application are written through its own endpoints. A `condition` that an event meets is a conflict that "
        + "tells the `blockingPosition`."
    })),
  HttpApiEndpoint.post("appendBatch", "/events/batch", {
    params: place,
    payload: AppendBatch,
    ...write,
    success: [writtenBatch(false, 201, "BatchWritten"), writtenBatch(true, 200, "BatchWrittenBefore")]
  })
    .annotate(RequiredRole, "operator")
    .annotateMerge(OpenApi.annotations({
      summary: "Append events at once",
      description: "All of them, in the order given and next to each other in the log, or none; over one stream or "
        + "several. Sent again with the same event ids and content they are stored once."
    })),
  HttpApiEndpoint.post("correct", "/events/:id/corrections", { params: ofEvent, payload: CorrectEvent, ...write })
    .annotate(RequiredRole, "corrector")
    .annotateMerge(OpenApi.annotations({
      summary: "Correct an event",
      description: "Adds a revision at the end of the chain that the event belongs to. Nothing is overwritten. A "
        + "retracted event is a conflict that names the `retraction`, another `expectedRevision` one that "
        + "tells the `actualRevision`. `eventData` is taken to have the shape of the revision before, unless "
        + "`schemaVersion` says another."
    })),
  HttpApiEndpoint.post("retract", "/events/:id/retraction", { params: ofEvent, payload: RetractEvent, ...write })
    .annotate(RequiredRole, "corrector")
    .annotateMerge(OpenApi.annotations({
      summary: "Retract an event",
      description:
        "Says that it never held. Retracting the retraction, by its own id, restores the event, once: afterwards "
        + "it is a conflict that tells the `actualRevision`, or the `retraction` that came after it."
    }))
)
  .middleware(RoleCheck)
  .middleware(Admission)
  .middleware(Authorization)
  .prefix("/api/v1/eventstores/:setup/:store")
  .annotateMerge(OpenApi.annotations({ title: "Event stores", description: "Facts, on two time axes." }))
{}
