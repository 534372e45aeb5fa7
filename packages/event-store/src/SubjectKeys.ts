/**
 * The keys of subjects: one for each person of a tenant whose personal data facts hold, until that person is erased.
 *
 * **When to use**
 *
 * Provide it to a store whose events have personal fields (see `PersonalData`), and ask it to `erase` a subject.
 *
 * **Details**
 *
 * A key is made when a subject is first written about, and kept in a table, wrapped under a master key that the application
 * gives and no table holds. An erasure destroys it, in one transaction with a record of who asked for it, why and when, and with
 * a fact in each log that holds something of the subject. It can be repeated. A subject that comes back gets a new key;
 * what was sealed under the old one stays erased.
 *
 * To change the master key, give the new one as `masterKey` and the one before among `olderMasterKeys`, call `rewrap` when all
 * processes have both, and then leave the old one out. No fact is written for that.
 *
 * **Gotchas**
 *
 * - Another process may open a field for up to `timeToLive` after an erasure, and seal one that is lost with the rest.
 * - A backup of the database from before an erasure has the wrapped key, and so does the write-ahead log. It is worth nothing
 *   without the master key: to make old backups forget as well, rewrap under a new one and destroy the old.
 * - Who loses the master key has lost everything that is sealed.
 * - What reads of the past have handed out, what projections and snapshots hold and what was published is not sealed. Snapshots of
 *   the streams that hold something of the subject are removed with its key; a `CommandHandler` elsewhere may still fold
 *   on a state it has in memory. Keep what is personal out of states that are kept.
 *
 * **Example** (Erasing a person)
 *
 * ```ts
 * import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
 * import * as SubjectKeys from "@strata/event-store/SubjectKeys"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import type * as Redacted from "effect/Redacted"
 *
 * const storeWith = (key: Redacted.Redacted<string>) =>
 *   EventStorePostgres.layer().pipe(Layer.provideMerge(SubjectKeys.layer({ masterKey: { id: "2026", key } })))
 *
 * const forget = Effect.gen(function*() {
 *   const keys = yield* SubjectKeys.SubjectKeys
 *   yield* keys.erase({ subject: "user 42", reason: "asked for by letter", actor: "ada" })
 * })
 * ```
 *
 * @since 0.1.0
 */
import { Postgres } from "@strata/postgres/Postgres"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Traceparent from "@strata/postgres/Traceparent"
import * as Context from "effect/Context"
import type * as Aead from "effect/crypto/Aead"
import type * as Mac from "effect/crypto/Mac"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { EventStoreError, InvalidAppend } from "./EventStore.ts"
import { EventId, type Fact, type Position, type StreamId } from "./Fact.ts"
import { InvalidQuery } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"
import * as MasterKeys from "./MasterKeys.ts"
import { erasureOf } from "./PersonalData.ts"
import * as PreparedAppend from "./PreparedAppend.ts"
import { isReason, maxReason } from "./PreparedRevision.ts"
import * as SealedFields from "./SealedFields.ts"
import type { Listener, Sealing } from "./Sealing.ts"
import * as SealingCrypto from "./SealingCrypto.ts"
import * as SubjectKeyRing from "./SubjectKeyRing.ts"
import * as SubjectKeysMemory from "./SubjectKeysMemory.ts"
import * as SubjectKeysPostgres from "./SubjectKeysPostgres.ts"
import type { Erasing, SubjectKeyTable } from "./SubjectKeyTable.ts"

export { InvalidMasterKey, type MasterKey } from "./MasterKeys.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * Whom to erase, why, and who says so. The reason is kept: it is not to tell who it is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Erase {
  readonly subject: string
  readonly reason: string
  readonly actor: string
}

/**
 * An erasure as it was recorded. `again` says that the subject had been erased before and has not come back: then it is that
 * erasure, and nothing was written.
 *
 * @category models
 * @since 0.1.0
 */
export interface Erasure {
  /** The digest of the subject. */
  readonly subject: string
  /** The number of the key that was destroyed; 0 when there was none. */
  readonly key: number
  readonly reason: string
  readonly actor: string
  readonly erasedAt: Timestamp.Timestamp
  readonly again: boolean
  /** The stores that hold something of the subject, and where their logs tell of it. */
  readonly facts: ReadonlyArray<{ readonly store: string; readonly position: Position }>
}

/**
 * Streams of a store in which something is, or was, of a subject of the current tenant. An erasure's fact gives the digest.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamsOf {
  /** The digest. */
  readonly subject: string
  /** The name of the store. */
  readonly store: string
  /** Streams after this one: the last of the page before. */
  readonly after?: StreamId | undefined
  /** 1 to 1,000. Default: 100. */
  readonly limit?: number | undefined
}

/**
 * Options of the keys of subjects.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The master key under which keys are wrapped from now on. */
  readonly masterKey: MasterKeys.MasterKey
  /** Those under which keys may still be wrapped. Default: none. */
  readonly olderMasterKeys?: ReadonlyArray<MasterKeys.MasterKey> | undefined
  /** Keys that are kept in memory. Default: 10,000. */
  readonly capacity?: number | undefined
  /** How long a key in memory is used before the table is asked again. Default: 5 seconds. */
  readonly timeToLive?: Duration.Input | undefined
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * The keys of the subjects of all tenants. What it is asked about a subject is about one of the current tenant.
 *
 * @category services
 * @since 0.1.0
 */
export class SubjectKeys extends Context.Service<SubjectKeys, {
  /** Destroys the key of a subject. Refused inside a transaction, with which it could be undone. */
  readonly erase: (erase: Erase) => Effect.Effect<Erasure, EventStoreError>
  /** In byte order. */
  readonly streamsOf: (asked: StreamsOf) => Effect.Effect<ReadonlyArray<StreamId>, EventStoreError>
  /** Wraps the keys of all tenants under the newest master key that are under another one; tells how many. */
  readonly rewrap: Effect.Effect<number, EventStoreError>
  /**
   * Has keys in memory looked up again before they are used, whatever `timeToLive` says: what is read from then on shows all
   * erasures that were committed before. For who goes on after a position that another process has come to.
   */
  readonly refresh: Effect.Effect<void>
  /** For a store: seals and opens its facts, and has it told of erasures from now on. */
  readonly sealing: (listener: Listener) => Effect.Effect<Sealing>
}>()("@strata/event-store/SubjectKeys") {}

/**
 * Keys on PostgreSQL. Tables are in `migrations/0012_subject_keys.sql`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<SubjectKeys, MasterKeys.InvalidMasterKey, Postgres> =>
  Layer.effect(
    SubjectKeys,
    Effect.gen(function*() {
      return yield* make(options, yield* SubjectKeysPostgres.make(yield* Postgres))
    })
  ).pipe(Layer.provide(SealingCrypto.layer))

/**
 * Keys in memory, for a store in memory.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options: Options): Layer.Layer<SubjectKeys, MasterKeys.InvalidMasterKey> =>
  Layer.effect(SubjectKeys, Effect.flatMap(SubjectKeysMemory.make, (table) => make(options, table))).pipe(
    Layer.provide(SealingCrypto.layer)
  )

// ---------------------------------------------------------------------------------------------------- constructors

/**
 * Keys kept in a table.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  { capacity = 10_000, masterKey, olderMasterKeys = [], timeToLive = "5 seconds" }: Options,
  table: SubjectKeyTable
): Effect.fn.Return<
  SubjectKeys["Service"],
  MasterKeys.InvalidMasterKey,
  Aead.Aead | Mac.Mac | SecureRandom.SecureRandom
> {
  const random = yield* SecureRandom.SecureRandom
  const masterKeys = yield* MasterKeys.make(masterKey, olderMasterKeys)
  const fields = yield* SealedFields.make
  const ring = yield* SubjectKeyRing.make({
    table,
    masterKeys,
    fields,
    capacity,
    timeToLive: Duration.fromInputUnsafe(timeToLive)
  })
  const listeners = new Map<string, Listener["told"]>()

  const erase = Effect.fn("SubjectKeys.erase")(function*({ actor, reason, subject }: Erase) {
    if (!Fields.isLabel(subject)) return yield* invalid("subject", Fields.labelExpected)
    if (!Fields.isLabel(actor)) return yield* invalid("actor", Fields.labelExpected)
    if (!isReason(reason)) return yield* invalid("reason", `expected 1 to ${maxReason} characters, none of them NUL`)
    if (yield* table.inTransaction) return yield* invalid("transaction", "inside a transaction, nobody is erased")
    const tenant = yield* PreparedAppend.currentTenant
    const erasing: Erasing = {
      tenant,
      subject: SealingCrypto.digestOf(tenant, subject),
      eventId: EventId.make(yield* random.uuidV7()),
      reason,
      actor,
      traceparent: yield* Traceparent.current
    }
    const recorded = yield* table.erase(erasing)
    yield* ring.forget(recorded)
    const facts: Array<Erasure["facts"][number]> = []
    for (const { position, store } of recorded.told) {
      const told = listeners.get(store)
      const at = told === undefined ? position : yield* told({ ...erasing, key: recorded.key }, position)
      if (at !== null) facts.push({ store, position: at })
    }
    const { again, erasedAt, key } = recorded
    return { subject: recorded.subject, key, reason: recorded.reason, actor: recorded.actor, erasedAt, again, facts }
  })

  const rewrap = Effect.gen(function*() {
    let moved = 0
    let after: MasterKeys.Subject | undefined
    while (true) {
      const page = yield* table.wrappedOtherwise(masterKeys.newest, after)
      const last = page.at(-1)
      if (last === undefined) return moved
      after = last
      const keys = yield* Effect.forEach(page, (key) =>
        Effect.map(
          Effect.flatMap(masterKeys.unwrap(key, key), (bytes) => masterKeys.wrap(key, bytes)),
          (wrapped) => ({ ...key, ...wrapped })
        ))
      for (const [tenant, own] of Map.groupBy(keys, ({ tenant }) => tenant)) moved += yield* table.replace(tenant, own)
    }
  }).pipe(Effect.withSpan("SubjectKeys.rewrap"))

  const seal = (store: string): Sealing["seal"] => (tenant, sealables) =>
    Effect.forEach(sealables, (sealable) => {
      const { personal, stream } = sealable
      const places = personal.map(({ subject }) => ({
        subject: SealingCrypto.digestOf(tenant, subject),
        store,
        stream
      }))
      return Effect.flatMap(ring.hold(tenant, places), (held) => fields.seal(tenant, sealable, held))
    })

  return {
    erase,
    streamsOf: Effect.fn("SubjectKeys.streamsOf")(function*({ after, limit = 100, store, subject }) {
      if (!/^[0-9a-f]{32}$/.test(subject)) return yield* invalidQuery("subject", "expected the digest of a subject")
      if (!Fields.isVersion(limit) || limit > 1000) return yield* invalidQuery("limit", "expected 1 to 1,000")
      if (after !== undefined && !Fields.isStreamId(after)) return yield* invalidQuery("after", Fields.streamExpected)
      return yield* table.streamsOf({ tenant: yield* PreparedAppend.currentTenant, subject, store, after, limit })
    }),
    rewrap,
    refresh: ring.refresh,
    sealing: ({ store, told }) =>
      Effect.sync(() => {
        listeners.set(store, told)
        return { seal: seal(store), open: opening(ring, fields) }
      })
  }
})

const opening = (ring: SubjectKeyRing.SubjectKeyRing, fields: SealedFields.SealedFields): Sealing["open"] =>
  Effect.fnUntraced(function*(facts) {
    const concerned = facts.filter(SealedFields.concernsKeys)
    if (concerned.length === 0) return facts
    // Whoever has read of an erasure has seen it: before anything is opened.
    for (const fact of concerned) {
      const erasure = erasureOf(fact)
      if (Option.isSome(erasure)) yield* ring.forget({ tenant: fact.tenant, ...erasure.value })
    }
    const sealed = yield* Effect.fromResult(
      Result.all(concerned.filter(SealedFields.isSealed).map(SealedFields.envelopesOf))
    )
    const refs = new Map(
      sealed.flatMap(({ envelopes, fact: { tenant } }) =>
        envelopes.map(([, { key, subject }]) => [nameOf(tenant, { key, subject }), { tenant, subject, key }] as const)
      )
    )
    const found = yield* ring.find([...refs.values()])
    const keys = new Map([...refs.keys()].map((name, index) => [name, found[index]!]))
    const opened = new Map<Position, Fact>()
    for (const each of sealed) {
      const fact = yield* fields.open(each, (tenant, envelope) => keys.get(nameOf(tenant, envelope)) ?? "missing")
      opened.set(fact.position, fact)
    }
    return facts.map((fact) => opened.get(fact.position) ?? fact)
  })

const nameOf = (tenant: string, { key, subject }: Pick<SealedFields.Envelope, "subject" | "key">) =>
  `${tenant}\0${subject}\0${key}`

const invalid = (path: string, message: string) => new EventStoreError({ reason: new InvalidAppend({ path, message }) })

const invalidQuery = (path: string, message: string) =>
  new EventStoreError({ reason: new InvalidQuery({ path, message }) })
