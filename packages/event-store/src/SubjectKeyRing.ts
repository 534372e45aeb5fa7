/**
 * The keys of subjects at hand: those used last, for as long as they are trusted.
 *
 * **Details**
 *
 * A key is taken from memory for a few seconds, then the table is asked again: that is how soon an erasure by another
 * process is seen at the latest. Who reads the fact that tells of it sees it at once, by `forget`. Keys that are asked for at the same
 * time are asked for by one statement.
 *
 * **Gotchas**
 *
 * What is appended within these seconds by a process that has not heard of an erasure yet may be sealed under the key that is
 * gone, and is erased with the rest.
 *
 * @since 0.1.0
 */
import * as Cache from "effect/Cache"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Request from "effect/Request"
import * as RequestResolver from "effect/RequestResolver"
import type { EventStoreError } from "./EventStore.ts"
import { StreamId } from "./Fact.ts"
import type { MasterKeys } from "./MasterKeys.ts"
import type { HeldKey, SealedFields, SealKey } from "./SealedFields.ts"
import type { KeyRef, Place, SubjectKeyTable, WrappedKey } from "./SubjectKeyTable.ts"

/**
 * What the keys are made of, and how many are kept for how long.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly table: SubjectKeyTable
  readonly masterKeys: MasterKeys
  readonly fields: SealedFields
  readonly capacity: number
  readonly timeToLive: Duration.Duration
}

/**
 * The keys of all tenants.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubjectKeyRing {
  /** The key to seal with what a stream holds of a subject, made when there is none; and the stream is remembered. */
  readonly hold: (tenant: string, place: Place) => Effect.Effect<HeldKey, EventStoreError>
  /** Keys by their numbers, in the order asked for. */
  readonly find: (
    refs: ReadonlyArray<KeyRef>
  ) => Effect.Effect<ReadonlyArray<SealKey | "erased" | "missing">, EventStoreError>
  /** A key that was destroyed is used no more. */
  readonly forget: (ref: KeyRef) => Effect.Effect<void>
}

/**
 * Nothing at hand yet.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  { capacity, fields, masterKeys, table, timeToLive }: Options
): Effect.fn.Return<SubjectKeyRing, never, SecureRandom.SecureRandom> {
  const random = yield* SecureRandom.SecureRandom

  const unwrapped = Effect.fnUntraced(function*(ref: KeyRef, wrapped: WrappedKey) {
    return yield* fields.derive(yield* masterKeys.unwrap(ref, wrapped))
  })

  const held = yield* shelf({
    capacity,
    timeToLive: () => timeToLive,
    load: Effect.fnUntraced(function*(tenant, subjects, aside) {
      const candidates = yield* Effect.forEach(subjects, (subject) =>
        Effect.map(
          Effect.flatMap(random.randomBytes(keyLength), (key) => masterKeys.wrap({ tenant, subject }, key)),
          (wrapped) => ({ subject, ...wrapped })
        ))
      const stored = yield* table.hold(tenant, candidates, aside)
      return yield* Effect.forEach(stored, (key) =>
        Effect.map(
          Effect.exit(unwrapped(key, key)),
          Exit.map((sealKey): HeldKey => ({ subject: key.subject, key: key.key, sealKey }))
        ).pipe(Effect.map((exit) => [key.subject, exit] as const)))
    })
  })

  const noted = yield* shelf({
    capacity: 2 * capacity,
    timeToLive: () => Duration.infinity,
    load: (tenant, names, aside) =>
      Effect.as(
        table.note(tenant, names.map(placeOf), aside),
        names.map((name) => [name, Exit.void] as const)
      )
  })

  const found = yield* shelf({
    capacity,
    timeToLive: (key: SealKey | "erased" | "missing") =>
      key === "erased" ? Duration.infinity : key === "missing" ? Duration.zero : timeToLive,
    load: Effect.fnUntraced(function*(_, names, aside) {
      const answers = new Map<string, Exit.Exit<SealKey | "erased" | "missing", EventStoreError>>(
        names.map((name) => [name, Exit.succeed("missing")])
      )
      for (const ref of yield* table.find(names.map(refOf), aside)) {
        answers.set(
          nameOf(ref),
          ref.found === null ? Exit.succeed("erased") : yield* Effect.exit(unwrapped(ref, ref.found))
        )
      }
      return [...answers]
    })
  })

  return {
    hold: (tenant, place) =>
      Effect.flatMap(
        noted.get(table.inTransaction, tenant, `${place.subject}\0${place.store}\0${place.stream}`),
        () => held.get(table.inTransaction, tenant, place.subject)
      ),
    find: (refs) =>
      Effect.forEach(refs, (ref) => found.get(table.inTransaction, ofAll, nameOf(ref)), {
        concurrency: "unbounded"
      }),
    forget: (ref) =>
      Effect.andThen(
        held.drop(ref.tenant, ref.subject),
        found.set(ofAll, nameOf(ref), "erased")
      )
  }
})

/** Bytes of a subject's key. */
const keyLength = 32

/** Keys that are read may be of several tenants in one page, and are one statement then too. */
const ofAll = ""

const nameOf = ({ key, subject, tenant }: KeyRef): string => `${tenant}\0${subject}\0${key}`

const refOf = (name: string): KeyRef => {
  const [tenant = "", subject = "", key = ""] = name.split("\0")
  return { tenant, subject, key: Number(key) }
}

const placeOf = (name: string): Place => {
  const [subject = "", store = "", stream = ""] = name.split("\0")
  return { subject, store, stream: StreamId.make(stream, { disableChecks: true }) }
}

// ---------------------------------------------------------------------------------------------------------- shelf

/** Something of a tenant's, by name: read from the table when it is not at hand. */
interface Shelf<A> {
  readonly get: (
    inTransaction: Effect.Effect<boolean>,
    tenant: string,
    name: string
  ) => Effect.Effect<A, EventStoreError>
  readonly set: (tenant: string, name: string, value: A) => Effect.Effect<void>
  readonly drop: (tenant: string, name: string) => Effect.Effect<void>
}

/** A look at the table. Those of one tenant that are made at the same time are one statement. */
interface Load<A> extends Request.Request<A, EventStoreError> {
  readonly tenant: string
  readonly name: string
  readonly aside: boolean
}

/** Names in one statement. */
const most = 1000

const shelf = Effect.fnUntraced(function*<A>(options: {
  readonly capacity: number
  readonly timeToLive: (value: A) => Duration.Duration
  readonly load: (
    tenant: string,
    names: ReadonlyArray<string>,
    aside: boolean
  ) => Effect.Effect<ReadonlyArray<readonly [name: string, answer: Exit.Exit<A, EventStoreError>]>, EventStoreError>
}): Effect.fn.Return<Shelf<A>> {
  const resolver = RequestResolver.batchN(
    RequestResolver.makeGrouped<Load<A>, string>({
      key: ({ request }) => `${request.aside} ${request.tenant}`,
      resolver: (entries) => {
        const [{ request: { aside, tenant } }] = entries
        const names = new Set(entries.map(({ request }) => request.name))
        return Effect.map(options.load(tenant, [...names], aside), (answers) => {
          const byName = new Map(answers)
          for (const entry of entries) {
            const answer = byName.get(entry.request.name)
            if (answer !== undefined) entry.completeUnsafe(answer)
          }
        })
      }
    }),
    most
  )
  const load = (tenant: string, name: string, aside: boolean) =>
    Effect.request(Request.of<Load<A>>()({ tenant, name, aside }), resolver)

  const cache = yield* Cache.makeWith((key: string) => {
    const end = key.indexOf("\0")
    return load(key.slice(0, end), key.slice(end + 1), false)
  }, {
    capacity: options.capacity,
    timeToLive: (exit) => Exit.isSuccess(exit) ? options.timeToLive(exit.value) : Duration.zero
  })
  const keyOf = (tenant: string, name: string) => `${tenant}\0${name}`

  // Dropped while a caller aside was looking: what it found may be older than that.
  let drops = 0
  const aside = (tenant: string, name: string) =>
    Effect.suspend(() => {
      const before = drops
      return Effect.tap(
        load(tenant, name, true),
        (value) => drops === before ? Cache.set(cache, keyOf(tenant, name), value) : Effect.void
      )
    })

  return {
    get: (inTransaction, tenant, name) =>
      Effect.flatMap(
        Cache.getSuccess(cache, keyOf(tenant, name)),
        Option.match({
          onSome: (value) => Effect.succeed(value),
          onNone: () =>
            Effect.flatMap(inTransaction, (held) =>
              // Nor for somebody else's look, which may wait for the connection that the caller holds.
              held ? aside(tenant, name) : Cache.get(cache, keyOf(tenant, name)))
        })
      ),
    set: (tenant, name, value) =>
      Effect.suspend(() => {
        drops++
        return Cache.set(cache, keyOf(tenant, name), value)
      }),
    drop: (tenant, name) =>
      Effect.suspend(() => {
        drops++
        return Cache.invalidate(cache, keyOf(tenant, name))
      })
  }
})
