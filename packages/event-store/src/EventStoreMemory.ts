/**
 * The event store in memory: the same semantics, for tests and examples. It is gone with the process.
 *
 * @since 0.1.0
 */
import type { PreparedMessage } from "@strata/outbox/PreparedMessage"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import {
  accepts,
  correlatedTo,
  judgeEventIds,
  judgeKey,
  refuseOutsideTransaction,
  versionConflict
} from "./AppendJudgement.ts"
import * as Belief from "./Belief.ts"
import * as CheckedAppend from "./CheckedAppend.ts"
import * as CheckedStore from "./CheckedStore.ts"
import { CurrentTenant } from "./CurrentTenant.ts"
import * as DurableSubscriptionFilter from "./DurableSubscriptionFilter.ts"
import * as EventIds from "./EventIds.ts"
import {
  type Append,
  type AppendCondition,
  type Appended,
  ConditionFailed,
  EventStore,
  EventStoreError,
  type IdempotencyRecord,
  type Snapshot
} from "./EventStore.ts"
import { EventStorePolicies } from "./EventStorePolicies.ts"
import { beginning, type Fact, Position, type StreamId } from "./Fact.ts"
import * as FactPaging from "./FactPaging.ts"
import type { FactQuery, KnownAt } from "./FactQuery.ts"
import * as LogHead from "./LogHead.ts"
import * as OpenedStore from "./OpenedStore.ts"
import { aboutSubject, erasedType } from "./PersonalData.ts"
import * as PreparedAppend from "./PreparedAppend.ts"
import * as PreparedRevision from "./PreparedRevision.ts"
import { FactRetracted, type Revised, type Revision, RevisionConflict, UnknownFact } from "./Revision.ts"
import * as Sealing from "./Sealing.ts"
import { aboutStream, StreamClosed } from "./StreamCatalog.ts"
import * as StreamsMemory from "./StreamsMemory.ts"
import * as WeighedPages from "./WeighedPages.ts"

/**
 * Options of a store in memory.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Default: `default`. */
  readonly name?: string | undefined
  /** Is told what was published with each append. Default: nobody is. */
  readonly published?: ((messages: ReadonlyArray<PreparedMessage>) => void) | undefined
}

/**
 * An empty store. Facts with personal fields take `SubjectKeys` in scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<EventStore["Service"], never, SecureRandom.SecureRandom> {
  const random = yield* SecureRandom.SecureRandom
  const name = options.name ?? "default"
  const logHead = LogHead.make((yield* EventStorePolicies).store.pollInterval)
  const log: Array<Fact> = []
  // By tenant and name, like everything a tenant has: see `keyOf`.
  const streams = new Map<string, Array<Fact>>()
  const byId = new Map<string, Fact>()
  const keys = new Map<string, IdempotencyRecord & { readonly position: Position }>()
  const snapshots = new Map<string, Snapshot>()

  const versionOf = (tenant: string, stream: string) => streams.get(keyOf(tenant, stream))?.length ?? 0

  let lastAt = Timestamp.negativeInfinity

  /** The moment to record at: now, and later than everything before. */
  const recordAt = (now: Timestamp.Timestamp): Timestamp.Timestamp => {
    lastAt = now > lastAt ? now : Timestamp.fromMicros(lastAt + 1n)
    return lastAt
  }

  const store = (fact: Fact): void => {
    log.push(fact)
    byId.set(keyOf(fact.tenant, fact.eventId), fact)
    const key = keyOf(fact.tenant, fact.stream)
    const stream = streams.get(key)
    if (stream === undefined) streams.set(key, [fact])
    else stream.push(fact)
  }

  const write = (append: PreparedAppend.PreparedAppend, recordedAt: Timestamp.Timestamp): Appended => {
    const facts = append.facts.map((prepared): Fact => {
      const position = Position.make(BigInt(log.length + 1))
      const fact: Fact = {
        position,
        origin: position,
        stream: prepared.stream,
        version: versionOf(append.tenant, prepared.stream) + 1,
        eventId: prepared.eventId,
        type: prepared.type,
        schemaVersion: prepared.schemaVersion,
        data: parse(prepared.data),
        metadata: parseMetadata(prepared.metadata ?? "{}"),
        correlationId: prepared.correlationId ?? prepared.eventId,
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
      store(fact)
      return fact
    })
    const position = facts[facts.length - 1]!.position
    if (append.idempotency !== null) {
      const { answer, fingerprint, key } = append.idempotency
      keys.set(keyOf(append.tenant, key), { key, fingerprint, answer: parse(answer), position })
    }
    if (append.messages.length > 0) options.published?.(append.messages)
    return { facts, position, recordedAt, duplicate: false }
  }

  /** Says something in a stream of the system. */
  const say = Effect.fnUntraced(function*(
    { actor, data, eventId, stream, tenant, traceparent, type }: Pick<
      Fact,
      "actor" | "data" | "eventId" | "stream" | "tenant" | "traceparent" | "type"
    >
  ) {
    const now = yield* Timestamp.now
    const position = Position.make(BigInt(log.length + 1))
    const recordedAt = recordAt(now)
    store({
      position,
      origin: position,
      stream,
      version: versionOf(tenant, stream) + 1,
      eventId,
      type,
      schemaVersion: 1,
      data,
      metadata: {},
      correlationId: eventId,
      causationId: null,
      tenant,
      actor,
      traceparent,
      validFrom: recordedAt,
      validTo: Timestamp.infinity,
      recordedAt,
      revision: 0,
      revises: null,
      retracted: false,
      reason: null
    })
    yield* logHead.advance(position)
    return position
  })

  const sealing = yield* Sealing.ofStore({
    store: name,
    told: Effect.fnUntraced(function*({ actor, eventId, key, reason, subject, tenant, traceparent }) {
      // Of whatever streams: a snapshot that is gone costs a fold.
      for (const id of snapshots.keys()) if (id.startsWith(`${tenant}\0`)) snapshots.delete(id)
      return yield* say({
        actor,
        eventId,
        stream: aboutSubject(subject),
        tenant,
        traceparent,
        type: erasedType,
        data: { subject, key, reason }
      })
    })
  })

  const catalog = StreamsMemory.make({
    ids: (tenant) => [...streams.values()].flatMap(([first]) => first?.tenant === tenant ? [first.stream] : []),
    versionOf,
    facts: (tenant) => log.filter((fact) => fact.tenant === tenant),
    random,
    find: (tenant, eventId) => byId.get(keyOf(tenant, eventId)),
    write: ({ data, stream, ...said }) => say({ ...said, stream: aboutStream(stream), data: parse(data) })
  })

  const append = Effect.fn("EventStore.append")(function*(append: Append) {
    const prepared = yield* PreparedAppend.prepare(append, random, sealing.seal)
    const now = yield* Timestamp.now
    // From here to the write nothing yields, so no other append comes between.
    return yield* Effect.flatMap(
      Effect.suspend(() => {
        const seen = prepared.facts.flatMap((fact) => byId.get(keyOf(prepared.tenant, fact.eventId)) ?? [])
        if (seen.length > 0) {
          const firsts = correlatedTo(seen).flatMap((id) => byId.get(keyOf(prepared.tenant, id)) ?? [])
          return judgeEventIds(prepared, seen, firsts)
        }
        const key = prepared.idempotency === null
          ? undefined
          : keys.get(keyOf(prepared.tenant, prepared.idempotency.key))
        if (key !== undefined) return judgeKey(prepared, Option.some(key))
        if (append.condition !== undefined && append.condition.after > log.length) {
          return refuse(CheckedAppend.conditionOfTheFuture)
        }
        const blocker = append.condition === undefined ? undefined : blockerOf(prepared.tenant, append.condition)
        if (blocker !== undefined) {
          const after = append.condition?.after ?? beginning
          return refuse(new ConditionFailed({ after, position: blocker.position }))
        }
        const { tenant } = prepared
        const closed = prepared.slices.find((slice) =>
          slice.count > 0 && catalog.closedAs(tenant, slice.stream) !== undefined
        )
        if (closed !== undefined) return refuseClosed(tenant, closed.stream)
        const versions = prepared.slices.map(({ stream }) => versionOf(tenant, stream))
        if (!prepared.slices.every(({ expected }, index) => accepts(expected, versions[index]!))) {
          return Exit.fail(new EventStoreError({ reason: versionConflict(prepared.slices, versions) }))
        }
        const recordedAt = recordAt(now)
        if (prepared.facts.some(({ validFrom, validTo }) => validTo !== null && validTo <= (validFrom ?? recordedAt))) {
          return refuse(CheckedAppend.endsBeforeRecording(prepared.facts))
        }
        return Exit.succeed(write(prepared, recordedAt))
      }),
      (appended) => Effect.as(logHead.advance(appended.position), appended)
    )
  })

  const refuseClosed = (tenant: string, stream: StreamId) =>
    refuse(new StreamClosed({ stream, state: catalog.closedAs(tenant, stream) ?? "archived" }))

  const blockerOf = (tenant: string, { after, noneOf }: AppendCondition) =>
    log.find((fact) =>
      fact.position > after && fact.tenant === tenant && noneOf.some((filter) => Belief.matches(filter)(fact))
    )

  const chainOf = (fact: Fact) => log.filter((other) => other.origin === fact.origin)

  /** Adds to the end of the chain that a revision names. */
  const writeRevision = (
    revision: PreparedRevision.PreparedRevision,
    now: Timestamp.Timestamp
  ): Effect.Effect<Revised, EventStoreError> => {
    const { eventId, expectedRevision, retract, revises, tenant } = revision
    const named = byId.get(keyOf(tenant, revises))
    const seen = byId.get(keyOf(tenant, eventId))
    if (seen !== undefined) {
      return PreparedRevision.judge(revision, seen, chainOf(seen)[seen.revision - 1], named)
    }
    if (named === undefined) return refuse(new UnknownFact({ eventId: revises }))
    if (named.stream.startsWith("$")) return PreparedRevision.ofTheSystem
    const last = chainOf(named).at(-1) ?? named
    if (revision.type !== null && revision.type !== last.type) return PreparedRevision.ofAnotherType(last.type)
    if (expectedRevision !== null && expectedRevision !== last.revision) {
      return refuse(new RevisionConflict({ eventId: revises, expected: expectedRevision, actual: last.revision }))
    }
    const restores = retract && named.retracted
    if (last.retracted && !(restores && last === named)) {
      return refuse(new FactRetracted({ eventId: revises, retraction: last.eventId, position: last.position }))
    }
    if (restores && last !== named) return refuse(PreparedRevision.superseded(named, last.revision))
    if (catalog.closedAs(tenant, last.stream) !== undefined) return refuseClosed(tenant, last.stream)
    const validFrom = revision.validFrom ?? last.validFrom
    const validTo = revision.validTo ?? last.validTo
    if (validTo <= validFrom) return PreparedRevision.endsTooEarly
    const fact: Fact = {
      ...last,
      position: Position.make(BigInt(log.length + 1)),
      version: versionOf(tenant, last.stream) + 1,
      eventId,
      schemaVersion: revision.schemaVersion ?? last.schemaVersion,
      data: revision.data === null ? last.data : parse(revision.data),
      metadata: revision.metadata === null ? last.metadata : parseMetadata(revision.metadata),
      correlationId: revision.correlationId ?? last.correlationId,
      causationId: revision.causationId ?? last.causationId,
      actor: revision.actor,
      traceparent: revision.traceparent,
      validFrom,
      validTo,
      recordedAt: recordAt(now),
      revision: last.revision + 1,
      revises: last.revises ?? last.eventId,
      retracted: retract && !restores,
      reason: revision.reason
    }
    store(fact)
    return Effect.succeed(PreparedRevision.revisedOf(fact, false))
  }

  const sealCorrection = Sealing.ofCorrection(
    sealing,
    (eventId) => Effect.map(CurrentTenant, (tenant) => byId.get(keyOf(tenant, eventId)))
  )

  const revise = Effect.fn("EventStore.revise")(function*(revision: Revision) {
    const prepared = yield* Effect.provideService(
      PreparedRevision.prepare(revision, sealCorrection),
      SecureRandom.SecureRandom,
      random
    )
    const now = yield* Timestamp.now
    const revised = yield* Effect.suspend(() => writeRevision(prepared, now))
    yield* logHead.advance(revised.position)
    return revised
  })

  const positionAt = Effect.fnUntraced(function*(knownAt: KnownAt) {
    if ("position" in knownAt) {
      return knownAt.position < 0n || knownAt.position > log.length ? yield* FactPaging.inTheFuture : knownAt.position
    }
    const now = yield* Timestamp.now
    if (knownAt.time > now && knownAt.time > lastAt) return yield* FactPaging.inTheFuture
    // What is appended from now on is recorded after the moment somebody was told about.
    if (knownAt.time > lastAt) lastAt = knownAt.time
    return log.findLast((fact) => fact.recordedAt <= knownAt.time)?.position ?? beginning
  })

  /** Facts that answer a question, in no order. */
  const answersTo = (query: FactQuery, tenant: string, known: Position): ReadonlyArray<Fact> => {
    const own = log.filter((fact) => fact.tenant === tenant)
    const facts = query.revisions === "all"
      ? own.filter((fact) => fact.position <= known)
      : Belief.knownAt(own, known)
    return facts.filter(Belief.matches(query))
  }

  const count = Effect.fn("EventStore.count")(function*({ cursor: _, ...query }: FactQuery) {
    const tenant = yield* CurrentTenant
    yield* FactPaging.make(query, { store: name, tenant })
    const known = yield* positionAt(query.knownAt ?? { position: Position.make(BigInt(log.length)) })
    return FactPaging.counted(answersTo(query, tenant, known).length, false, known)
  })

  const read = Effect.fn("EventStore.read")(function*(query: FactQuery) {
    const tenant = yield* CurrentTenant
    const page = yield* FactPaging.make(query, { store: name, tenant })
    const known = page.after !== undefined
      ? yield* FactPaging.momentOf(page.after, positionAt)
      : yield* positionAt(query.knownAt ?? { position: Position.make(BigInt(log.length)) })
    const found = FactPaging.select(answersTo(query, tenant, known), page)
    const { facts: held, whole } = WeighedPages.cut(found, page.limit)
    return FactPaging.close(held, whole, page, known)
  })

  const readLogPage: EventStore["Service"]["readLogPage"] = (range) =>
    Effect.suspend(() => {
      const { after, filter, limit = 1000, upTo = Position.make(BigInt(log.length)) } = range
      if (upTo > log.length) return FactPaging.pastTheHead
      const facts = log.slice(Number(after), Number(upTo))
      const fitting = filter === undefined ? facts : facts.filter(DurableSubscriptionFilter.matches(filter))
      const { facts: held, whole } = WeighedPages.cut(fitting, limit)
      const last = held.at(-1)?.position ?? after
      const isEnd = whole && held.length < limit && filter !== undefined && upTo > last
      return Effect.succeed({ facts: held, end: isEnd ? upTo : last })
    })

  const readLog: EventStore["Service"]["readLog"] = (range) => Effect.map(readLogPage(range), ({ facts }) => facts)

  const readStreamPage: EventStore["Service"]["readStreamPage"] = (
    stream,
    { direction = "forwards", fromVersion, limit = 1000 } = {}
  ) =>
    Effect.map(CurrentTenant, (tenant) => {
      const facts = streams.get(keyOf(tenant, stream)) ?? []
      const from = direction === "forwards"
        ? facts.slice((fromVersion ?? 1) - 1)
        : facts.slice(0, fromVersion ?? facts.length).toReversed()
      const { facts: held, whole } = WeighedPages.cut(from, limit)
      return WeighedPages.slice(held, !whole, direction, ({ version }) => version)
    })

  const readStream: EventStore["Service"]["readStream"] = (stream, options) =>
    Effect.map(readStreamPage(stream, options), ({ facts }) => facts)

  const readStreams: EventStore["Service"]["readStreams"] = ({ streams: asked, upTo }) =>
    Effect.sync(() =>
      asked.flatMap(({ stream, tenant }) => streams.get(keyOf(tenant, stream)) ?? [])
        .filter(({ position }) => position <= upTo)
        .toSorted(Belief.byPosition)
    )

  const historyPage: EventStore["Service"]["historyPage"] = (
    eventId,
    { direction = "forwards", fromRevision, limit = 1000 } = {}
  ) =>
    Effect.map(CurrentTenant, (tenant) => {
      const fact = byId.get(keyOf(tenant, eventId))
      const chain = fact === undefined ? [] : chainOf(fact)
      const from = direction === "forwards"
        ? chain.slice(fromRevision ?? 0)
        : chain.slice(0, (fromRevision ?? chain.length) + 1).toReversed()
      const { facts: held, whole } = WeighedPages.cut(from, limit)
      return WeighedPages.slice(held, !whole, direction, ({ revision }) => revision)
    })

  const history: EventStore["Service"]["history"] = (eventId, options) =>
    Effect.map(historyPage(eventId, options), ({ facts }) => facts)

  return CheckedStore.make(OpenedStore.make(sealing, {
    name,
    append,
    appendInTransaction: () => refuseOutsideTransaction("append"),
    revise,
    reviseInTransaction: () => refuseOutsideTransaction("revise"),
    beforeCommit: () => Effect.die(new Error("A store in memory has no transactions that could be joined")),
    read,
    count,
    history,
    historyPage,
    positionAt,
    readStream,
    readStreamPage,
    readStreams,
    readLog,
    readLogPage,
    get: (eventId) => Effect.map(CurrentTenant, (tenant) => Option.fromUndefinedOr(byId.get(keyOf(tenant, eventId)))),
    head: Effect.sync(() => log.at(-1)?.position ?? beginning),
    streamVersion: (stream) => Effect.map(CurrentTenant, (tenant) => versionOf(tenant, stream)),
    knownHead: logHead.known,
    changed: logHead.changed,
    idempotencyRecord: (key) =>
      Effect.map(CurrentTenant, (tenant) => Option.fromUndefinedOr(keys.get(keyOf(tenant, key)))),
    streams: catalog,
    saveSnapshot: Effect.fnUntraced(function*(snapshot) {
      const state = parse(yield* PreparedAppend.jsonText(snapshot.state, "state"))
      const key = snapshotKey(yield* CurrentTenant, snapshot.stream, snapshot.schemaVersion)
      const kept = snapshots.get(key)
      if (kept !== undefined && kept.version >= snapshot.version) return
      snapshots.set(key, { ...snapshot, state })
    }),
    loadSnapshot: (stream, schemaVersion) =>
      Effect.map(
        CurrentTenant,
        (tenant) => Option.fromUndefinedOr(snapshots.get(snapshotKey(tenant, stream, schemaVersion)))
      )
  }))
})

/**
 * A store in memory as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<EventStore> =>
  Layer.effect(EventStore, make(options)).pipe(Layer.provide(EventIds.layerRandom))

const refuse = (reason: EventStoreError["reason"]) => Effect.fail(new EventStoreError({ reason }))

const keyOf = (tenant: string, key: string) => `${tenant}\0${key}`
const snapshotKey = (tenant: string, stream: StreamId, schemaVersion: number) =>
  `${tenant}\0${stream}\0${schemaVersion}`

const parse = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Json))
const parseMetadata = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Json)))
