/**
 * The event store over HTTP: appending facts, and reading streams and the log.
 *
 * **Details**
 *
 * `eventId` and `id`, `streamId` and `aggregateId`, `recordedAt` and `transactionTime` are the same value under two names. A list
 * answers for a moment, `knownAt`: it holds what was recorded at or before it. Callers see facts of their own
 * tenant only. Unknown setups and stores are 404.
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
import { Authorization, RoleCheck } from "./Authorization.ts"
import * as Consistency from "./Consistency.ts"
import * as IdempotencyKey from "./IdempotencyKey.ts"
import * as Paging from "./Paging.ts"
import { RequiredRole } from "./Principal.ts"
import { Conflict, NotFound, RuleViolated } from "./Problem.ts"
import { Json, JsonObject, label, Text } from "./Text.ts"

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
 * A page of facts.
 *
 * @category models
 * @since 0.1.0
 */
export const EventList = Schema.Struct({
  events: Schema.Array(StoredEvent),
  eventCount: Schema.Int.annotate({ description: "Events on this page" }),
  ...Paging.fields,
  knownAt: Schema.NullOr(Timestamp.Timestamp).annotate({
    description: "The moment it answers for; null in an empty store"
  })
}).annotate({ identifier: "EventList" })

const StreamId = Text.check(
  Schema.isPattern(/^[^-]+-/, { message: "Expected <category>-<id>" }),
  Schema.isMaxLength(512)
).pipe(Schema.decodeTo(Fact.StreamId))

/**
 * A fact to append. `streamId` or `aggregateId` names the stream, `eventData` or `payload` is the content.
 *
 * @category models
 * @since 0.1.0
 */
export const AppendEvent = Schema.Struct({
  streamId: Schema.optionalKey(StreamId),
  aggregateId: Schema.optionalKey(StreamId),
  eventType: label(),
  eventData: Schema.optionalKey(Json),
  payload: Schema.optionalKey(Json),
  eventId: Schema.optionalKey(Fact.EventId),
  validFrom: Schema.optionalKey(Timestamp.Timestamp),
  validTo: Schema.optionalKey(Timestamp.Timestamp),
  expectedVersion: Schema.optionalKey(
    Schema.Union([
      Schema.Literals(["any", "noStream", "streamExists"]),
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2_147_483_647 }))
    ])
  ),
  correlationId: Schema.optionalKey(label()),
  causationId: Schema.optionalKey(label()),
  metadata: Schema.optionalKey(JsonObject)
}).annotate({ identifier: "AppendEvent" })

const place = { setup: label(128), store: label(128) }

const written = <Duplicate extends boolean>(duplicate: Duplicate, status: number, identifier: string) =>
  HttpApiSchema.WithHeaders(
    Schema.Struct({ ...event, duplicate: Schema.Literal(duplicate) }).annotate({ identifier, httpApiStatus: status }),
    Consistency.answerHeaders
  )

/**
 * Event stores.
 *
 * @category groups
 * @since 0.1.0
 */
export class EventStoreApi extends HttpApiGroup.make("eventStores")
  .add(
    HttpApiEndpoint.post("append", "/events", {
      params: place,
      headers: IdempotencyKey.headers,
      payload: AppendEvent,
      success: [written(false, 201, "EventWritten"), written(true, 200, "EventWrittenBefore")],
      error: [NotFound, Conflict, RuleViolated]
    }).annotate(RequiredRole, "operator").annotateMerge(OpenApi.annotations({
      summary: "Append an event",
      description: "The same `eventId` with the same content is stored once. Event types of the messaging "
        + "application are written through its own endpoints."
    })),
    HttpApiEndpoint.get("log", "/events", {
      params: place,
      query: { ...Paging.query, ...Consistency.query },
      headers: Consistency.headers,
      success: EventList,
      error: NotFound
    }).annotateMerge(OpenApi.annotations({
      summary: "Read the log",
      description: "In the order recorded; a cursor is the position to read after."
    })),
    HttpApiEndpoint.get("event", "/events/:id", {
      params: { ...place, id: Fact.EventId },
      query: Consistency.query,
      headers: Consistency.headers,
      success: StoredEvent,
      error: NotFound
    }).annotateMerge(OpenApi.annotations({ summary: "Get an event" })),
    HttpApiEndpoint.get("stream", "/streams/:id", {
      params: { ...place, id: StreamId },
      query: {
        direction: Schema.optionalKey(Schema.Literals(["forwards", "backwards"])),
        ...Paging.query,
        ...Consistency.query
      },
      headers: Consistency.headers,
      success: EventList,
      error: NotFound
    }).annotateMerge(OpenApi.annotations({
      summary: "Read a stream",
      description: "In the order of its versions; a cursor is the version to go on at."
    }))
  )
  .middleware(RoleCheck)
  .middleware(Authorization)
  .prefix("/api/v1/eventstores/:setup/:store")
  .annotateMerge(OpenApi.annotations({ title: "Event stores", description: "Facts, by stream and by log." }))
{}
