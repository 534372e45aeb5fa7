/**
 * The streams of an event store over HTTP: which there are, what is said of them, and the states they fold to.
 *
 * **Details**
 *
 * A stream is the history of one aggregate, so `/aggregates` and `/streams` are the same list. An *archived* stream takes
 * no events until it is reopened; a *tombstoned* one never takes any again. Both stay readable, and the log has who said
 * so, when and why, in the stream `$stream-<id>`. Callers see streams of their own tenant only.
 *
 * @since 0.1.0
 */
import * as StreamCatalog from "@strata/event-store/StreamCatalog"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import { Admission } from "./Admission.ts"
import { Authorization, RoleCheck } from "./Authorization.ts"
import * as Consistency from "./Consistency.ts"
import { moment, place } from "./EventStoreApi.ts"
import * as EventStoreQuery from "./EventStoreQuery.ts"
import { Reason } from "./EventStoreWrites.ts"
import * as IdempotencyKey from "./IdempotencyKey.ts"
import * as Paging from "./Paging.ts"
import { RequiredRole } from "./Principal.ts"
import { Conflict, NotFound, RuleViolated } from "./Problem.ts"
import { JsonObject, label } from "./Text.ts"

// ---------------------------------------------------------------------------------------------------------- models

/**
 * Whether a stream takes events.
 *
 * @category models
 * @since 0.1.0
 */
export const StreamState = StreamCatalog.StreamState.annotate({
  identifier: "StreamState",
  description: "`open` takes events, `archived` does not until it is reopened, `tombstoned` never again"
})

/**
 * A stream, and what is said of it.
 *
 * @category models
 * @since 0.1.0
 */
export const StreamInfo = Schema.Struct({
  streamId: Schema.String,
  aggregateId: Schema.String,
  category: Schema.String,
  version: Schema.Int.annotate({ description: "Events it holds, revisions among them: the version of the last one" }),
  state: StreamState,
  metadata: Schema.JsonObject
}).annotate({ identifier: "StreamInfo" })
export type StreamInfo = typeof StreamInfo.Type

/**
 * A page of streams.
 *
 * @category models
 * @since 0.1.0
 */
export const StreamList = Schema.Struct({
  streams: Schema.Array(StreamInfo),
  streamCount: Schema.Int.annotate({ description: "Streams on this page" }),
  ...Paging.fields
}).annotate({ identifier: "StreamList" })
export type StreamList = typeof StreamList.Type

/**
 * How much a store holds.
 *
 * @category models
 * @since 0.1.0
 */
export const StoreStats = Schema.Struct({
  eventStoreName: Schema.String,
  events: Paging.Count,
  streams: Paging.Count,
  categories: Schema.Array(
    Schema.Struct({ category: Schema.String, streams: Paging.Count, events: Paging.Count }).annotate({
      identifier: "CategoryStats"
    })
  ).annotate({ description: "The largest 500, by their events" }),
  categoryCount: Paging.Count
}).annotate({ identifier: "StoreStats" })
export type StoreStats = typeof StoreStats.Type

/**
 * The state an aggregate had at a point of the plane.
 *
 * @category models
 * @since 0.1.0
 */
export const FoldedState = Schema.Struct({
  streamId: Schema.String,
  aggregateId: Schema.String,
  category: Schema.String,
  validAt: Schema.NullOr(Timestamp.Timestamp).annotate({ description: "Null where events of any validity are folded" }),
  ...moment,
  state: Schema.Json
}).annotate({ identifier: "FoldedState" })
export type FoldedState = typeof FoldedState.Type

/**
 * Other metadata of a stream, which replaces what it had.
 *
 * @category models
 * @since 0.1.0
 */
export const DescribeStream = Schema.Struct({ metadata: JsonObject, reason: Reason }).annotate({
  identifier: "DescribeStream"
})
export type DescribeStream = typeof DescribeStream.Type

/**
 * Why a stream changes its state.
 *
 * @category models
 * @since 0.1.0
 */
export const ChangeStream = Schema.Struct({ reason: Reason }).annotate({ identifier: "ChangeStream" })
export type ChangeStream = typeof ChangeStream.Type

// ------------------------------------------------------------------------------------------------------- endpoints

const ofStream = { ...place, id: EventStoreQuery.StreamId }
const read = { headers: Consistency.headers, error: NotFound }

const list = {
  params: place,
  query: {
    category: Schema.optionalKey(label()),
    state: Schema.optionalKey(
      Schema.Array(StreamState).check(Schema.isMinLength(1)).annotate({
        description: "Any of these, repeated. Default: open"
      })
    ),
    ...Paging.query,
    ...Consistency.query
  },
  success: StreamList,
  ...read
}

const write = {
  params: ofStream,
  headers: IdempotencyKey.headers,
  success: HttpApiSchema.WithHeaders(StreamInfo, Consistency.answerHeaders),
  error: [NotFound, Conflict, RuleViolated]
} as const

const reads = HttpApiGroup.make("streams").add(
  HttpApiEndpoint.get("aggregates", "/aggregates", list).annotateMerge(OpenApi.annotations({
    summary: "List aggregates",
    description: "The same as the list of streams: each is the history of one aggregate."
  })),
  HttpApiEndpoint.get("list", "/streams", list).annotateMerge(OpenApi.annotations({
    summary: "List streams",
    description: "In the byte order of their ids. Streams of the store itself, `$…`, are listed when their category is "
      + "asked for."
  })),
  HttpApiEndpoint.get("stats", "/stats", {
    params: place,
    query: Consistency.query,
    success: StoreStats,
    ...read
  }).annotateMerge(OpenApi.annotations({
    summary: "Count events, streams and categories",
    description: "A read model keeps the counts, so asking for them costs the same however large the store is."
  })),
  HttpApiEndpoint.get("info", "/streams/:id/info", {
    params: ofStream,
    query: Consistency.query,
    success: StreamInfo,
    ...read
  }).annotateMerge(OpenApi.annotations({ summary: "Get a stream's version, state and metadata" })),
  HttpApiEndpoint.get("state", "/streams/:id/state", {
    params: ofStream,
    query: {
      validAt: Schema.optionalKey(Timestamp.Timestamp),
      knownAt: Schema.optionalKey(EventStoreQuery.KnownAt),
      ...Consistency.query
    },
    success: FoldedState,
    headers: Consistency.headers,
    error: [NotFound, RuleViolated]
  }).annotateMerge(OpenApi.annotations({
    summary: "Get the state of an aggregate",
    description:
      "What the events known at `knownAt` fold to, by the decider of the category: with `validAt`, those that "
      + "hold at that moment, by the beginning of their validity; without, all of them, as they were first recorded. A "
      + "category without a decider is refused by the rule `NoDecider`."
  }))
)

/**
 * Streams.
 *
 * @category groups
 * @since 0.1.0
 */
export class StreamsApi extends reads.add(
  HttpApiEndpoint.put("describe", "/streams/:id/metadata", { payload: DescribeStream, ...write })
    .annotate(RequiredRole, "operator")
    .annotateMerge(OpenApi.annotations({
      summary: "Replace a stream's metadata",
      description: "A stream need not have events yet."
    })),
  HttpApiEndpoint.post("archive", "/streams/:id/archive", { payload: ChangeStream, ...write })
    .annotate(RequiredRole, "operator")
    .annotateMerge(OpenApi.annotations({
      summary: "Archive a stream",
      description: "It is read as before, is left out of lists unless asked for, and takes no events until it is "
        + "reopened."
    })),
  HttpApiEndpoint.post("reopen", "/streams/:id/reopen", { payload: ChangeStream, ...write })
    .annotate(RequiredRole, "operator")
    .annotateMerge(OpenApi.annotations({ summary: "Reopen an archived stream" })),
  HttpApiEndpoint.post("tombstone", "/streams/:id/tombstone", { payload: ChangeStream, ...write })
    .annotate(RequiredRole, "admin")
    .annotateMerge(OpenApi.annotations({
      summary: "Tombstone a stream",
      description: "It never takes an event again, and nothing more is said of it. It is read as before."
    }))
)
  .middleware(RoleCheck)
  .middleware(Admission)
  .middleware(Authorization)
  .prefix("/api/v1/eventstores/:setup/:store")
  .annotateMerge(OpenApi.annotations({
    title: "Streams",
    description: "Streams of an event store, and the states of aggregates."
  }))
{}
