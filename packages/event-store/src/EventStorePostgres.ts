/**
 * The event store on PostgreSQL. Tables and the append function are in `migrations/0001_event_store.sql`.
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Retrying from "@strata/postgres/Retrying"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Arr from "effect/Array"
import * as Cache from "effect/Cache"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import {
  correlatedTo,
  judgeEventIds,
  judgeKey,
  refuseInTransaction,
  refuseOutsideTransaction
} from "./AppendJudgement.ts"
import * as AppendStatement from "./AppendStatement.ts"
import * as CheckedStore from "./CheckedStore.ts"
import * as CommitWork from "./CommitWork.ts"
import { CurrentTenant } from "./CurrentTenant.ts"
import * as EventIds from "./EventIds.ts"
import {
  type Append,
  type Appended,
  EventStore,
  EventStoreError,
  type IdempotencyRecord,
  type LogRange,
  type Snapshot,
  StoreUnavailable
} from "./EventStore.ts"
import { EventStorePolicies } from "./EventStorePolicies.ts"
import type { EventId, Position, StreamId } from "./Fact.ts"
import * as FactChunks from "./FactChunks.ts"
import * as FactPaging from "./FactPaging.ts"
import { countedAtMost, type FactQuery, type KnownAt } from "./FactQuery.ts"
import * as FactReads from "./FactReads.ts"
import * as FactRevisions from "./FactRevisions.ts"
import * as GroupAppend from "./GroupAppend.ts"
import * as LogHead from "./LogHead.ts"
import * as OpenedStore from "./OpenedStore.ts"
import * as PastConditions from "./PastConditions.ts"
import * as PreparedAppend from "./PreparedAppend.ts"
import * as PreparedRevision from "./PreparedRevision.ts"
import type { Revision } from "./Revision.ts"
import * as Sealing from "./Sealing.ts"
import * as Spans from "./Spans.ts"
import { StreamClosed } from "./StreamCatalog.ts"
import * as Streams from "./StreamsPostgres.ts"
import * as WeighedPages from "./WeighedPages.ts"

/**
 * Options of a store on PostgreSQL.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Name of the store; made on first use. Default: `default`. */
  readonly name?: string | undefined
  /** How long a subscriber waits for a hint before it reads again. Default: 1 second. */
  readonly pollInterval?: Duration.Input | undefined
  /** How a statement that lost its connection is sent again. Default: from 50 ms to 1 s apart, for 10 seconds. */
  readonly retry?: Schedule.Schedule<unknown> | undefined
  /** How long an idempotency key is kept. Default: 7 days. */
  readonly idempotencyRetention?: Duration.Input | undefined
  /** Whether this process takes part in summarizing the log, on which fast reads of all of it rely. Default: true. */
  readonly summarize?: boolean | undefined
}

/**
 * Opens a store, and makes it when there is none of that name. Facts with personal fields take `SubjectKeys` in scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<EventStore["Service"], EventStoreError, Postgres | SecureRandom.SecureRandom | Scope.Scope> {
  const postgres = yield* Postgres
  const random = yield* SecureRandom.SecureRandom
  const name = options.name ?? "default"
  const { store: policies } = yield* EventStorePolicies
  const retry = options.retry ?? policies.retry
  const { sql } = postgres

  // A statement is one transaction, and whatever it writes it recognizes when it is sent again. So it is repeated also where
  // nobody knows what became of it, unless a layer above does that. In a transaction that is `transact`, which does all of
  // it again: the transaction is aborted by then, and to send more would only hide the reason.
  const answer = <A>(
    operation: string,
    statement: Effect.Effect<A, CommitWork.WriteError>
  ): Effect.Effect<A, EventStoreError> =>
    statement.pipe(
      Retrying.retry({
        schedule: retry,
        while: AppendStatement.isRepeatable,
        isUnknown: AppendStatement.isUnknown
      }),
      Effect.mapError((cause) =>
        new EventStoreError({
          reason: cause._tag === "ProjectionRefused" ? cause : new StoreUnavailable({ operation, cause })
        })
      )
    )

  /** What the current tenant asks. */
  const forTenant = <A>(operation: string, statement: (tenant: string) => Effect.Effect<A, SqlError>) =>
    Effect.flatMap(CurrentTenant, (tenant) => answer(operation, statement(tenant)))

  const storeId = yield* answer("open", openStore(sql, name))
  const channel = AppendStatement.channelOf(storeId)
  const signature = ` ${yield* random.uuidV4()}`
  const logHead = LogHead.make(options.pollInterval ?? policies.pollInterval)

  const reads = FactReads.make(postgres, storeId)
  const traced = <A, E>(operation: string, effect: Effect.Effect<A, E>) =>
    Spans.traced(effect, `EventStore.${operation}`, () => ({}))

  // ------------------------------------------------------------------------------------------------------- reads

  const head = answer("head", reads.head)

  /** True for the beginning and every position that was ever taken. */
  const exists = (position: Position) =>
    position < 0n || logHead.knows(position)
      ? Effect.succeed(position >= 0n)
      : Effect.map(head, (last) => position <= last)

  const contents = WeighedPages.contents(sql, storeId)

  /** What was found, up to where a page is full. */
  const filled = (
    operation: string,
    found: WeighedPages.Found,
    tenant?: string
  ): Effect.Effect<WeighedPages.Filled, EventStoreError> =>
    found.large.length === 0
      ? Effect.succeed({ facts: found.facts, whole: true })
      : Effect.flatMap(
        answer(operation, contents(found.large, tenant)),
        (contents) => WeighedPages.fill(found, contents)
      )

  /** A page out of up to one fact more than it may hold: the one too many tells that there are more. */
  const pageOf = (operation: string, tenant: string, found: WeighedPages.Found, limit: number) => {
    const page = WeighedPages.within(found, limit)
    return Effect.map(
      filled(operation, page, tenant),
      ({ facts, whole }) => ({ facts, whole: whole && page.facts.length === found.facts.length })
    )
  }

  /** Facts and how far they go, of a part of the log of which the last position is known. */
  const logPage = ({ after, filter, limit = 1000, upTo }: LogRange, found: WeighedPages.Found) =>
    Effect.map(filled("readLog", found), ({ facts, whole }) => {
      const last = facts.at(-1)?.position ?? after
      const isEnd = whole && facts.length < limit && filter !== undefined && upTo !== undefined && upTo > last
      return { facts, end: isEnd ? upTo : last }
    })

  const readLogPage: EventStore["Service"]["readLogPage"] = (range) => {
    const { after, filter, limit = 1000, upTo } = range
    const page = filter === undefined
      ? Effect.flatMap(answer("readLog", reads.log(after, limit, upTo)), (found) => logPage(range, found))
      : Effect.flatMap(upTo === undefined ? head : Effect.succeed(upTo), (last) =>
        Effect.flatMap(
          answer("readLog", reads.filtered(filter, after, last, limit)),
          (found) => logPage({ ...range, upTo: last }, found)
        ))
    return upTo === undefined || logHead.knows(upTo)
      ? page
      : Effect.flatMap(exists(upTo), (there) => there ? page : FactPaging.pastTheHead)
  }

  const readLog: EventStore["Service"]["readLog"] = (range) => Effect.map(readLogPage(range), ({ facts }) => facts)

  const readStreamPage: EventStore["Service"]["readStreamPage"] = (
    stream,
    { direction = "forwards", fromVersion, limit = 1000 } = {}
  ) =>
    traced(
      "readStream",
      Effect.flatMap(
        CurrentTenant,
        (tenant) =>
          answer("readStream", reads.stream(tenant, stream, direction, fromVersion, limit + 1)).pipe(
            Effect.flatMap((found) => pageOf("readStream", tenant, found, limit)),
            Effect.map(({ facts, whole }) => WeighedPages.slice(facts, !whole, direction, ({ version }) => version))
          )
      )
    )

  const readStream: EventStore["Service"]["readStream"] = (stream, options) =>
    Effect.map(readStreamPage(stream, options), ({ facts }) => facts)

  const readStreams: EventStore["Service"]["readStreams"] = ({ streams, upTo }) =>
    streams.length === 0 ? Effect.succeed([]) : answer("readStreams", reads.streams(streams, upTo))

  const factsById = (eventIds: ReadonlyArray<EventId>) => forTenant("get", (tenant) => reads.byId(tenant, eventIds))

  const historyPage: EventStore["Service"]["historyPage"] = (
    eventId,
    { direction = "forwards", fromRevision, limit = 1000 } = {}
  ) =>
    traced(
      "history",
      Effect.flatMap(
        CurrentTenant,
        (tenant) =>
          answer("history", reads.history(tenant, eventId, direction, fromRevision, limit + 1)).pipe(
            Effect.flatMap((found) => pageOf("history", tenant, found, limit)),
            Effect.map(({ facts, whole }) => WeighedPages.slice(facts, !whole, direction, ({ revision }) => revision))
          )
      )
    )

  const history: EventStore["Service"]["history"] = (eventId, options) =>
    Effect.map(historyPage(eventId, options), ({ facts }) => facts)

  // The position of a moment that has passed never changes, so it is worth keeping.
  const passed = yield* Cache.makeWith(
    (time: Timestamp.Timestamp) => answer("positionAt", reads.positionAt(sql, time)),
    {
      capacity: 1000,
      timeToLive: (exit) => Exit.isSuccess(exit) && exit.value !== null ? Duration.infinity : Duration.zero
    }
  )

  // Never found within the caller's transaction: that would hold the store's row until its end, and take back by a rollback what
  // others have been told. Nor by waiting for a connection of the pool, or for someone else's lookup that may wait for
  // one: the caller holds one.
  const foundAside = (time: Timestamp.Timestamp) =>
    Effect.flatMap(
      Cache.getSuccess(passed, time),
      Option.match({
        onSome: (position) => Effect.succeed(position),
        onNone: () =>
          Effect.tap(
            answer("positionAt", reads.positionAt(postgres.aside, time)),
            (position) => position === null ? Effect.void : Cache.set(passed, time, position)
          )
      })
    )

  const placeOf = Effect.fnUntraced(function*(knownAt: KnownAt) {
    const held = yield* postgres.holdsConnection
    const position = "position" in knownAt
      ? knownAt.position
      : yield* held
        ? foundAside(knownAt.time)
        : Cache.get(passed, knownAt.time)
    if (position === null) return yield* FactPaging.inTheFuture
    if ("position" in knownAt && !(yield* exists(position))) return yield* FactPaging.inTheFuture
    // A moment that the transaction's snapshot ends before would be answered without its facts.
    if (held && position > (yield* head)) return yield* FactPaging.afterTheSnapshot
    return position
  })
  const positionAt = (knownAt: KnownAt) => traced("positionAt", placeOf(knownAt))

  const ask = Effect.fnUntraced(function*(query: FactQuery) {
    const tenant = yield* CurrentTenant
    const page = yield* FactPaging.make(query, { store: name, tenant })
    const known = page.after !== undefined
      ? yield* FactPaging.momentOf(page.after, positionAt)
      : query.knownAt === undefined
      ? yield* head
      : yield* positionAt(query.knownAt)
    const found = yield* answer("read", reads.query(tenant, query, page, known))
    const { facts, whole } = yield* pageOf("read", tenant, found, page.limit)
    return FactPaging.close(facts, whole, page, known)
  })
  const read = (query: FactQuery) => traced("read", ask(query))

  const count = Effect.fn("EventStore.count")(function*({ cursor: _, ...query }: FactQuery) {
    const tenant = yield* CurrentTenant
    yield* FactPaging.make(query, { store: name, tenant })
    const known = query.knownAt === undefined ? yield* head : yield* positionAt(query.knownAt)
    const { facts, isCut } = yield* answer("count", reads.count(tenant, query, countedAtMost, known))
    return FactPaging.counted(facts, isCut, known)
  })

  const streamVersion: EventStore["Service"]["streamVersion"] = (stream) =>
    Effect.map(
      readStream(stream, { direction: "backwards", limit: 1 }),
      ([last]) => last?.version ?? 0
    )

  // Served by the primary key of idempotency_key.
  const idempotencyRecord: EventStore["Service"]["idempotencyRecord"] = (key) =>
    forTenant("idempotencyRecord", (tenant) =>
      Effect.map(
        sql<IdempotencyRecord & { readonly position: Position }>`
          select k.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
            select key, fingerprint, answer, position from idempotency_key
            where store = ${storeId} and tenant = scope.tenant and key = ${key}
            limit 1
          ) as k`,
        Arr.head
      ))

  const streams = Streams.make(postgres, {
    storeId,
    answer,
    forTenant,
    random,
    factsById,
    committed: (position) => committed(position)
  })

  const stateOf = (stream: StreamId): Effect.Effect<StreamClosed["state"], EventStoreError> =>
    Effect.map(
      streams.get(stream),
      (found) => Option.isSome(found) && found.value.state === "tombstoned" ? "tombstoned" : "archived"
    )

  const lookups: FactRevisions.Lookups = { factsById, history, stateOf }

  // ----------------------------------------------------------------------------------------------------- appends

  const committed = (position: Position, isTold = false) =>
    isTold
      ? logHead.advance(position)
      : Effect.andThen(logHead.advance(position), postgres.wake(channel, `${position}${signature}`))
  const work = CommitWork.make(postgres)
  const group = yield* GroupAppend.make(postgres, { storeId, retry, work, signature, committed })
  const sealing = yield* Sealing.ofStore({
    store: name,
    told: (_recorded, position) => position === null ? Effect.succeed(null) : Effect.as(committed(position), position)
  })

  /** Something of the append was there before: the stored content tells whether it is the same append again. */
  const judge = (
    prepared: PreparedAppend.PreparedAppend,
    outcome: AppendStatement.Outcome
  ): Effect.Effect<Appended, EventStoreError> => {
    switch (outcome._tag) {
      case "Written":
        return Effect.succeed(outcome.appended)
      case "EventIdsSeen":
        return Effect.flatMap(
          factsById(prepared.facts.map((fact) => fact.eventId)),
          (facts) => Effect.flatMap(factsById(correlatedTo(facts)), (firsts) => judgeEventIds(prepared, facts, firsts))
        )
      case "StreamClosed":
        return Effect.flatMap(
          stateOf(outcome.stream),
          (state) => Effect.fail(new EventStoreError({ reason: new StreamClosed({ stream: outcome.stream, state }) }))
        )
      case "KeySeen":
        return Effect.flatMap(
          idempotencyRecord(prepared.idempotency!.key),
          (record) => judgeKey(prepared, record)
        )
    }
  }

  const narrow = PastConditions.make({
    head,
    logHead,
    firstAfter: (...asked) => answer("read", reads.firstAfter(...asked))
  })
  const prepare = (append: Append) =>
    Effect.flatMap(
      PreparedAppend.prepare(append, random, sealing.seal),
      (prepared) => append.condition === undefined ? Effect.succeed(prepared) : narrow(append.condition, prepared)
    )

  const append = (append: Append) =>
    Spans.traced(
      Effect.flatMap(postgres.holdsConnection, (inTransaction) =>
        inTransaction
          ? refuseInTransaction("appendInTransaction")
          : Effect.flatMap(
            prepare(append),
            (prepared) => Effect.flatMap(group.append(prepared), (outcome) => judge(prepared, outcome))
          )),
      "EventStore.append",
      () => ({ attributes: { "strata.store": name, "strata.facts": append.facts.length } })
    )

  const sealCorrection = Sealing.ofCorrection(
    sealing,
    (eventId) => Effect.map(factsById([eventId]), ([fact]) => fact)
  )
  const prepareRevision = (revision: Revision) =>
    Effect.provideService(PreparedRevision.prepare(revision, sealCorrection), SecureRandom.SecureRandom, random)

  const revise = Effect.fn("EventStore.revise")(function*(revision: Revision) {
    if (yield* postgres.holdsConnection) return yield* refuseInTransaction("reviseInTransaction")
    const prepared = yield* prepareRevision(revision)
    const row = yield* answer(
      "revise",
      work.commit(FactRevisions.write(sql, storeId, prepared), FactRevisions.recordedBy)
    )
    const revised = yield* FactRevisions.answer(prepared, row, lookups)
    yield* committed(revised.position)
    return revised
  })

  /** Hands work to the end of the caller's transaction, and its outcome over after the commit. */
  const atCommit = Effect.fnUntraced(function*<A extends { readonly position: Position }>(
    work: Effect.Effect<A, EventStoreError>
  ) {
    // Whoever ends the transaction need not act for the tenant who asked.
    const tenant = yield* CurrentTenant
    const outcome = yield* postgres.atCommit(
      Effect.tap(
        Effect.provideService(work, CurrentTenant, tenant),
        (written) => sql.afterCommit(committed(written.position))
      )
    )
    // The outcome is known only after the caller's commit, so it is handed over as an effect.
    return yield* Effect.succeed(outcome)
  })

  const reviseInTransaction = Effect.fn("EventStore.reviseInTransaction")(function*(revision: Revision) {
    if (!(yield* postgres.inTransaction)) return yield* refuseOutsideTransaction("revise")
    const prepared = yield* prepareRevision(revision)
    return yield* atCommit(Effect.flatMap(
      answer("revise", work.join(FactRevisions.write(sql, storeId, prepared), FactRevisions.recordedBy)),
      (row) => FactRevisions.answer(prepared, row, lookups)
    ))
  })

  const appendInTransaction = Effect.fn("EventStore.appendInTransaction")(function*(append: Append) {
    if (!(yield* postgres.inTransaction)) return yield* refuseOutsideTransaction("append")
    const prepared = yield* prepare(append)
    return yield* atCommit(Effect.flatMap(group.write(prepared), (outcome) => judge(prepared, outcome)))
  })

  // --------------------------------------------------------------------------------------------------- snapshots

  // Locks one row of snapshot, found by its primary key. An older state never replaces a newer one.
  const saveSnapshot: EventStore["Service"]["saveSnapshot"] = Effect.fnUntraced(function*(snapshot) {
    const state = yield* PreparedAppend.jsonText(snapshot.state, "state")
    yield* forTenant("saveSnapshot", (tenant) =>
      sql`
        insert into snapshot (store, tenant, stream, schema_version, version, position, state)
        select
          ${storeId}::integer, scope.tenant, ${snapshot.stream}, ${snapshot.schemaVersion}::integer,
          ${snapshot.version}::integer, ${Pg.bigint(snapshot.position)}, ${Pg.text(state)}::json
        from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant)
        on conflict (store, tenant, stream, schema_version) do update
        set version = excluded.version, position = excluded.position, state = excluded.state
        where snapshot.version < excluded.version`)
  })

  // Served by the primary key of snapshot.
  const loadSnapshot: EventStore["Service"]["loadSnapshot"] = (stream, schemaVersion) =>
    forTenant("loadSnapshot", (tenant) =>
      Effect.map(
        sql<Snapshot>`
          select s.* from (select set_config('strata.tenant', ${tenant}, true)) as scope(tenant), lateral (
            select stream, schema_version as "schemaVersion", version, position, state from snapshot
            where store = ${storeId} and tenant = scope.tenant and stream = ${stream}
              and schema_version = ${schemaVersion}
            limit 1
          ) as s`,
        Arr.head
      ))

  // -------------------------------------------------------------------------------------------------- background

  // Served by idempotency_key_recorded_at; at most 1,000 rows are locked at a time. An index takes no volatile bound, hence
  // the subquery.
  const forgetKeys = answer(
    "forgetKeys",
    Effect.map(
      sql`
        with scope as materialized (select set_config('strata.all_tenants', 'on', true) as every)
        delete from idempotency_key
        where (select every from scope) is not null and (store, tenant, key) in (
          select store, tenant, key from idempotency_key
          where store = ${storeId} and recorded_at < (
            select clock_timestamp() - ${
        Duration.toSeconds(options.idempotencyRetention ?? "7 days")
      } * interval '1 second'
          )
          order by recorded_at
          limit 1000
        )
        returning 1`,
      (rows) => rows.length
    )
  )

  // Another's append: the hint says that there is something, the read what. This store's own, and one that tells of what is known
  // here, are not followed up.
  yield* postgres.wakeups(channel).pipe(
    Stream.filter((text) => {
      if (text.endsWith(signature)) return false
      const position = /^\d{1,19}(?= |$)/.exec(text)?.[0]
      return position === undefined || !logHead.knows(BigInt(position))
    }),
    Stream.mapEffect(() => Effect.flatMap(head, logHead.advance)),
    Stream.catchCause((cause) => Stream.fromEffectDrain(Effect.logDebug("A wake-up could not be followed up", cause))),
    Stream.runDrain,
    Retrying.outermost,
    inBackground
  )
  yield* forgetKeys.pipe(
    Effect.repeat({ while: (removed) => removed === 1000 }),
    Effect.ignore({ log: "Warn", message: "Old idempotency keys were not removed" }),
    Effect.repeat(policies.forgetKeys),
    Retrying.outermost,
    Effect.delay(policies.background),
    inBackground
  )
  if (options.summarize ?? true) {
    yield* inBackground(Effect.delay(FactChunks.run(sql, storeId, logHead), policies.background))
  }

  return CheckedStore.make(OpenedStore.make(sealing, {
    name,
    append,
    appendInTransaction,
    revise,
    reviseInTransaction,
    beforeCommit: work.register,
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
    get: (eventId) => Effect.map(factsById([eventId]), Arr.head),
    head,
    streamVersion,
    knownHead: logHead.known,
    changed: logHead.changed,
    idempotencyRecord,
    streams,
    saveSnapshot,
    loadSnapshot
  }))
})

/**
 * A store on PostgreSQL as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<EventStore, EventStoreError, Postgres> =>
  Layer.effect(EventStore, make(options)).pipe(Layer.provide(EventIds.layerRandom))

// Told to stop when the scope ends, and not waited for: what it asks a database that does not answer takes its time to be
// let go of.
const inBackground = Effect.fnUntraced(function*<R>(work: Effect.Effect<unknown, never, R>) {
  const fiber = yield* Effect.forkDetach(work)
  yield* Effect.addFinalizer(() => Effect.sync(() => fiber.interruptUnsafe()))
})

// Found by its unique name; made when it is not there.
const openStore = Effect.fnUntraced(function*(sql: Postgres["Service"]["sql"], name: string) {
  const find = sql<{ id: number }>`select id from store where name = ${name}`
  const found = yield* find
  if (found.length > 0) return found[0]!.id
  yield* sql`insert into store (name) values (${name}) on conflict (name) do nothing`
  return (yield* find)[0]!.id
})
