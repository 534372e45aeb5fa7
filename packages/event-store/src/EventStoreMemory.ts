/**
 * The event store in memory: the same semantics, for tests and examples. It is gone with the process.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { judgeEventIds, judgeKey, refuseOutsideTransaction } from "./AppendJudgement.ts"
import {
  type Append,
  type Appended,
  EventStore,
  EventStoreError,
  type ExpectedVersion,
  type IdempotencyRecord,
  type Snapshot,
  VersionConflict
} from "./EventStore.ts"
import { beginning, type EventId, type Fact, Position, type StreamId } from "./Fact.ts"
import * as LogHead from "./LogHead.ts"
import * as PreparedAppend from "./PreparedAppend.ts"
import * as Subscription from "./Subscription.ts"

/**
 * An empty store.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: { readonly name?: string | undefined } = {}
): Effect.fn.Return<EventStore["Service"], never, SecureRandom.SecureRandom> {
  const random = yield* SecureRandom.SecureRandom
  const name = options.name ?? "default"
  const logHead = LogHead.make("1 second")
  const log: Array<Fact> = []
  const streams = new Map<string, Array<Fact>>()
  const byId = new Map<EventId, Fact>()
  const keys = new Map<string, IdempotencyRecord & { readonly position: Position }>()
  const snapshots = new Map<string, Snapshot>()

  const versionOf = (stream: string) => streams.get(stream)?.length ?? 0

  const write = (append: PreparedAppend.PreparedAppend, recordedAt: Timestamp.Timestamp): Appended => {
    const facts = append.facts.map((prepared): Fact => {
      const fact: Fact = {
        position: Position.make(BigInt(log.length + 1)),
        stream: prepared.stream,
        version: versionOf(prepared.stream) + 1,
        eventId: prepared.eventId,
        type: prepared.type,
        schemaVersion: prepared.schemaVersion,
        data: parse(prepared.data),
        metadata: parseMetadata(prepared.metadata),
        correlationId: prepared.correlationId,
        causationId: prepared.causationId,
        tenant: append.tenant,
        actor: append.actor,
        traceparent: append.traceparent,
        validFrom: prepared.validFrom ?? recordedAt,
        validTo: prepared.validTo ?? Timestamp.infinity,
        recordedAt,
        revision: 0,
        revises: null,
        retracted: false,
        reason: null
      }
      log.push(fact)
      byId.set(fact.eventId, fact)
      const stream = streams.get(fact.stream)
      if (stream === undefined) streams.set(fact.stream, [fact])
      else stream.push(fact)
      return fact
    })
    const position = facts[facts.length - 1]!.position
    if (append.idempotency !== null) {
      const { answer, fingerprint, key } = append.idempotency
      keys.set(keyOf(append.tenant, key), { key, fingerprint, answer: parse(answer), position })
    }
    return { facts, position, recordedAt, duplicate: false }
  }

  const append = Effect.fn("EventStore.append")(function*(append: Append) {
    const prepared = yield* Effect.provideService(PreparedAppend.prepare(append), SecureRandom.SecureRandom, random)
    const now = yield* Timestamp.now
    // From here to the write nothing yields, so no other append comes between.
    return yield* Effect.flatMap(
      Effect.suspend(() => {
        const seen = prepared.facts.flatMap((fact) => byId.get(fact.eventId) ?? [])
        if (seen.length > 0) return judgeEventIds(prepared, seen)
        const key = prepared.idempotency === null
          ? undefined
          : keys.get(keyOf(prepared.tenant, prepared.idempotency.key))
        if (key !== undefined) return judgeKey(prepared, Option.some(key))
        const conflict = prepared.slices.find((slice) => !accepts(slice.expected, versionOf(slice.stream)))
        if (conflict !== undefined) {
          const { expected, stream } = conflict
          const reason = new VersionConflict({ stream, expected, actual: versionOf(stream) })
          return Exit.fail(new EventStoreError({ reason }))
        }
        const last = log.at(-1)
        const recordedAt = last !== undefined && last.recordedAt >= now
          ? Timestamp.fromMicros(last.recordedAt + 1n)
          : now
        return Exit.succeed(write(prepared, recordedAt))
      }),
      (appended) => Effect.as(logHead.advance(appended.position), appended)
    )
  })

  const readLog: EventStore["Service"]["readLog"] = ({ after, limit = 1000 }) =>
    Effect.sync(() => log.slice(Number(after), Number(after) + limit))

  const readStream: EventStore["Service"]["readStream"] = (
    stream,
    { direction = "forwards", fromVersion, limit = 1000 } = {}
  ) =>
    Effect.sync(() => {
      const facts = streams.get(stream) ?? []
      return direction === "forwards"
        ? facts.slice(Math.max(fromVersion ?? 1, 1) - 1).slice(0, limit)
        : facts.slice(0, Math.max(fromVersion ?? facts.length, 0)).toReversed().slice(0, limit)
    })

  return EventStore.of({
    name,
    append,
    appendInTransaction: () => refuseOutsideTransaction,
    readStream,
    readLog,
    get: (eventId) => Effect.sync(() => Option.fromUndefinedOr(byId.get(eventId))),
    head: Effect.sync(() => log.at(-1)?.position ?? beginning),
    streamVersion: (stream) => Effect.sync(() => versionOf(stream)),
    subscribe: (from) => Subscription.subscribe({ readLog, changed: logHead.changed }, from),
    changed: logHead.changed,
    idempotencyRecord: ({ key, tenant = "default" }) =>
      Effect.sync(() => Option.fromUndefinedOr(keys.get(keyOf(tenant, key)))),
    saveSnapshot: Effect.fnUntraced(function*(snapshot) {
      const state = parse(yield* PreparedAppend.jsonText(snapshot.state, "state"))
      const kept = snapshots.get(snapshotKey(snapshot.stream, snapshot.schemaVersion))
      if (kept !== undefined && kept.version >= snapshot.version) return
      snapshots.set(snapshotKey(snapshot.stream, snapshot.schemaVersion), { ...snapshot, state })
    }),
    loadSnapshot: (stream, schemaVersion) =>
      Effect.sync(() => Option.fromUndefinedOr(snapshots.get(snapshotKey(stream, schemaVersion))))
  })
})

/**
 * A store in memory as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: { readonly name?: string | undefined }): Layer.Layer<EventStore> =>
  Layer.effect(EventStore, make(options)).pipe(Layer.provide(SecureRandom.layerWebCrypto))

const accepts = (expected: ExpectedVersion, actual: number): boolean => {
  switch (expected) {
    case "any":
      return true
    case "noStream":
      return actual === 0
    case "streamExists":
      return actual > 0
    default:
      return actual === expected
  }
}

const keyOf = (tenant: string, key: string) => `${tenant}\0${key}`
const snapshotKey = (stream: StreamId, schemaVersion: number) => `${stream}\0${schemaVersion}`

const parse = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Json))
const parseMetadata = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Json)))
