/**
 * A store that is asked only what can be asked. What is wrong with a question is told by the name of its field, before
 * anybody looks for an answer. `read` and `streams.list` look at the rest of their own questions, and what is written is looked at where
 * it is made ready.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { CurrentTenant } from "./CurrentTenant.ts"
import {
  type EventStore,
  EventStoreError,
  type HistorySlice,
  InvalidAppend,
  type Slice,
  type Snapshot,
  type StreamSlice
} from "./EventStore.ts"
import type { EventId, StreamId } from "./Fact.ts"
import { InvalidQuery } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"

type Store = EventStore["Service"]

/**
 * The same store, with its questions checked.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (store: Store): Store => ({
  ...store,
  history: (eventId, options) => unless(ofHistory(eventId, options), () => store.history(eventId, options)),
  historyPage: (eventId, options) => unless(ofHistory(eventId, options), () => store.historyPage(eventId, options)),
  get: (eventId) => unless(ofEvent(eventId), () => store.get(eventId)),
  positionAt: (knownAt) => unless(Fields.findMomentProblem(knownAt), () => store.positionAt(knownAt)),
  readStream: (stream, options) => unless(ofStream(stream, options), () => store.readStream(stream, options)),
  readStreamPage: (stream, options) => unless(ofStream(stream, options), () => store.readStreamPage(stream, options)),
  streamVersion: (stream) => unless(ofStream(stream), () => store.streamVersion(stream)),
  readLog: (options) => unless(ofLog(options), () => store.readLog(options)),
  readLogPage: (options) => unless(ofLog(options), () => store.readLogPage(options)),
  subscribe: (options) => {
    const problem = ofLog(options)
    return problem === undefined ? store.subscribe(options) : Stream.fail(invalidQuery(problem))
  },
  idempotencyRecord: (key) =>
    unless(
      Fields.isLabel(key) ? undefined : { path: "key", message: Fields.labelExpected },
      () => store.idempotencyRecord(key)
    ),
  read: (query) => unless(undefined, () => store.read(query)),
  count: (query) => unless(undefined, () => store.count(query)),
  streams: {
    ...store.streams,
    list: (options) => unless(undefined, () => store.streams.list(options)),
    get: (stream) => unless(ofStream(stream), () => store.streams.get(stream))
  },
  saveSnapshot: (snapshot) => {
    const problem = Fields.findShapeProblem(snapshot, snapshotFields, "snapshot", "") ?? ofSnapshot(snapshot) ??
      (Fields.isVersion(snapshot.version) ? undefined : { path: "version", message: Fields.versionExpected }) ??
      (Fields.isPosition(snapshot.position) ? undefined : { path: "position", message: Fields.positionExpected })
    return problem === undefined
      ? store.saveSnapshot(snapshot)
      : Effect.fail(new EventStoreError({ reason: new InvalidAppend(problem) }))
  },
  loadSnapshot: (stream, schemaVersion) =>
    unless(ofSnapshot({ stream, schemaVersion }), () => store.loadSnapshot(stream, schemaVersion))
})

const invalidQuery = (problem: Fields.Problem) => new EventStoreError({ reason: new InvalidQuery(problem) })

const unless = <A>(
  problem: Fields.Problem | undefined,
  answer: () => Effect.Effect<A, EventStoreError>
): Effect.Effect<A, EventStoreError> =>
  problem === undefined
    ? Effect.withFiber((fiber) =>
      Fields.isLabel(fiber.getRef(CurrentTenant)) ? answer() : Effect.fail(invalidQuery(invalidTenant))
    )
    : Effect.fail(invalidQuery(problem))

const invalidTenant: Fields.Problem = { path: "tenant", message: Fields.labelExpected }

// ------------------------------------------------------------------------------------------------------- problems

const ofEvent = (eventId: EventId): Fields.Problem | undefined =>
  Fields.isEventId(eventId) ? undefined : { path: "eventId", message: Fields.eventIdExpected }

const ofDirection = (direction: Slice["direction"]): Fields.Problem | undefined =>
  direction === undefined || direction === "forwards" || direction === "backwards"
    ? undefined
    : { path: "direction", message: "expected forwards or backwards" }

const sliceFields = ["direction", "limit"]
const historyFields = new Set([...sliceFields, "fromRevision"])
const streamFields = new Set([...sliceFields, "fromVersion"])
const logFields = new Set(["after", "limit", "filter", "upTo"])
const snapshotFields = new Set(["stream", "version", "position", "schemaVersion", "state"])

const ofOptions = (options: object | undefined, known: ReadonlySet<string>): Fields.Problem | undefined =>
  options === undefined ? undefined : Fields.findShapeProblem(options, known, "options", "")

const ofHistory = (eventId: EventId, options?: HistorySlice): Fields.Problem | undefined => {
  const problem = ofEvent(eventId) ?? ofOptions(options, historyFields)
  if (problem !== undefined) return problem
  const { fromRevision } = options ?? {}
  return ofDirection(options?.direction) ??
    (fromRevision === undefined || fromRevision === 0 || Fields.isVersion(fromRevision)
      ? ofLimit(options?.limit)
      : { path: "fromRevision", message: "expected a whole number from 0" })
}

const ofStream = (stream: StreamId, options?: StreamSlice): Fields.Problem | undefined => {
  if (!Fields.isStreamId(stream)) return { path: "stream", message: Fields.streamExpected }
  const problem = ofOptions(options, streamFields)
  if (problem !== undefined) return problem
  if (options?.fromVersion !== undefined && !Fields.isVersion(options.fromVersion)) {
    return { path: "fromVersion", message: Fields.versionExpected }
  }
  return ofDirection(options?.direction) ?? ofLimit(options?.limit)
}

const ofLog = (options: Parameters<Store["readLog"]>[0]): Fields.Problem | undefined => {
  const problem = Fields.findShapeProblem(options, logFields, "options", "")
  if (problem !== undefined) return problem
  const { after, filter, limit, upTo } = options
  if (!Fields.isPosition(after)) return { path: "after", message: Fields.positionExpected }
  if (upTo !== undefined && !Fields.isPosition(upTo)) return { path: "upTo", message: Fields.positionExpected }
  if (filter === undefined) return ofLimit(limit)
  return ofLimit(limit) ?? Fields.findShapeProblem(filter, Fields.logFilterFields, "filter") ??
    Fields.findFilterProblem(filter, "filter.")
}

const ofLimit = (limit: number | undefined): Fields.Problem | undefined =>
  limit === undefined || Fields.isVersion(limit) ? undefined : { path: "limit", message: Fields.versionExpected }

const ofSnapshot = ({ schemaVersion, stream }: Pick<Snapshot, "stream" | "schemaVersion">) =>
  ofStream(stream) ??
    (Fields.isVersion(schemaVersion) ? undefined : { path: "schemaVersion", message: Fields.versionExpected })
