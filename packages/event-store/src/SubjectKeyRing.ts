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
import * as Clock from "effect/Clock"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
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
 * What is known of a key: itself, that it was destroyed, or nothing.
 *
 * @category models
 * @since 0.1.0
 */
export type Known = SealKey | "erased" | "missing"

/**
 * The keys of all tenants.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubjectKeyRing {
  /** The keys to seal with what streams hold of subjects, made where there are none; and the streams are remembered. */
  readonly hold: (
    tenant: string,
    places: ReadonlyArray<Place>
  ) => Effect.Effect<ReadonlyArray<HeldKey>, EventStoreError>
  /** Keys by their numbers. */
  readonly find: (refs: ReadonlyArray<KeyRef>) => Effect.Effect<ReadonlyArray<Known>, EventStoreError>
  /** A key that was destroyed is used no more. */
  readonly forget: (ref: KeyRef) => Effect.Effect<void>
  /** No key at hand is trusted any more: each is looked up again. */
  readonly refresh: Effect.Effect<void>
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

  const held = shelf({
    capacity,
    timeToLive: () => timeToLive,
    inTransaction: table.inTransaction,
    load: Effect.fnUntraced(function*(tenant, subjects, aside) {
      const candidates = yield* Effect.forEach(subjects, (subject) =>
        Effect.map(
          Effect.flatMap(random.randomBytes(keyLength), (key) => masterKeys.wrap({ tenant, subject }, key)),
          (wrapped) => ({ subject, ...wrapped })
        ))
      return yield* Effect.forEach(yield* table.hold(tenant, candidates, aside), (stored) =>
        Effect.map(
          Effect.exit(unwrapped(stored, stored)),
          (exit) =>
            [
              stored.subject,
              Exit.map(exit, (sealKey): HeldKey => ({ subject: stored.subject, key: stored.key, sealKey }))
            ] as const
        ))
    })
  })

  const noted = shelf({
    capacity: 2 * capacity,
    timeToLive: () => Duration.infinity,
    inTransaction: table.inTransaction,
    load: (tenant, names, aside) =>
      Effect.as(
        table.note(tenant, names.map(placeOf), aside),
        names.map((name) => [name, Exit.succeed(true)] as const)
      )
  })

  const found = shelf({
    capacity,
    timeToLive: (key: Known) => key === "erased" ? Duration.infinity : key === "missing" ? Duration.zero : timeToLive,
    inTransaction: table.inTransaction,
    load: Effect.fnUntraced(function*(_, names, aside) {
      const answers = new Map<string, Exit.Exit<Known, EventStoreError>>(
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
    hold: (tenant, places) =>
      Effect.flatMap(
        noted.get(tenant, places.map(({ store, stream, subject }) => `${subject}\0${store}\0${stream}`)),
        () => held.get(tenant, places.map(({ subject }) => subject))
      ),
    find: (refs) => found.get(ofAll, refs.map(nameOf)),
    forget: (ref) =>
      Effect.sync(() => {
        held.drop(ref.tenant, ref.subject)
        found.set(ofAll, nameOf(ref), "erased")
      }),
    refresh: Effect.sync(() => {
      held.clear()
      found.clear()
    })
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

/** Things of a tenant's, by name: read from the table when they are not at hand. */
interface Shelf<A> {
  /** In the order of the names. */
  readonly get: (tenant: string, names: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<A>, EventStoreError>
  /** For ever, but for want of room. */
  readonly set: (tenant: string, name: string, value: A) => void
  readonly drop: (tenant: string, name: string) => void
  readonly clear: () => void
}

interface ShelfOptions<A> {
  readonly capacity: number
  readonly timeToLive: (value: A) => Duration.Duration
  readonly inTransaction: Effect.Effect<boolean>
  readonly load: (
    tenant: string,
    names: ReadonlyArray<string>,
    aside: boolean
  ) => Effect.Effect<ReadonlyArray<readonly [name: string, answer: Exit.Exit<A, EventStoreError>]>, EventStoreError>
}

/** A look at the table. Those of one tenant that are made at the same time are one statement. */
interface Load<A> extends Request.Request<A, EventStoreError> {
  readonly tenant: string
  readonly name: string
  readonly aside: boolean
}

/** Names in one statement. */
const most = 1000

const loader = <A>(load: ShelfOptions<A>["load"]) =>
  RequestResolver.batchN(
    RequestResolver.makeGrouped<Load<A>, string>({
      key: ({ request }) => `${request.aside} ${request.tenant}`,
      resolver: (entries) => {
        const [{ request: { aside, tenant } }] = entries
        const names = new Set(entries.map(({ request }) => request.name))
        return Effect.map(load(tenant, [...names], aside), (answers) => {
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

/**
 * Looked at once or more for each fact, so a look at what is at hand is no effect of its own, and changes nothing. What came
 * first makes room.
 */
const shelf = <A>({ capacity, inTransaction, load, timeToLive }: ShelfOptions<A>): Shelf<A> => {
  const kept = new Map<string, { readonly value: A; readonly until: number }>()
  const resolver = loader(load)
  // Of what was looked up, nothing is kept when something was dropped meanwhile: it may be older than that.
  let drops = 0

  const find = (key: string, now: number): A | undefined => {
    const entry = kept.get(key)
    return entry === undefined || entry.until <= now ? undefined : entry.value
  }
  const keep = (key: string, value: A, until: number) => {
    kept.delete(key)
    kept.set(key, { value, until })
    for (const oldest of kept.size > capacity ? kept.keys() : []) {
      kept.delete(oldest)
      break
    }
  }
  const look = (tenant: string, names: ReadonlyArray<string>, now: number) =>
    Effect.flatMap(inTransaction, (aside) => {
      const before = drops
      return Effect.forEach(names, (name) =>
        Effect.map(Effect.request(Request.of<Load<A>>()({ tenant, name, aside }), resolver), (value) => {
          if (drops === before) {
            keep(`${tenant}\0${name}`, value, now + Duration.toMillis(timeToLive(value)))
          }
          return value
        }), { concurrency: "unbounded" })
    })

  return {
    get: (tenant, names) =>
      Effect.withFiber((fiber) => {
        const now = Number(fiber.getRef(Clock.Clock).currentTimeNanosUnsafe()) / 1e6
        const values = names.map((name) => find(`${tenant}\0${name}`, now))
        const there = values.filter((value) => value !== undefined)
        if (there.length === names.length) return Effect.succeed(there)
        const missing = [...new Set(names.filter((_, index) => values[index] === undefined))]
        return Effect.map(look(tenant, missing, now), (looked) => {
          const byName = new Map(missing.map((name, index) => [name, looked[index]!]))
          return names.map((name, index) => values[index] ?? byName.get(name)!)
        })
      }),
    set: (tenant, name, value) => {
      drops++
      keep(`${tenant}\0${name}`, value, Number.POSITIVE_INFINITY)
    },
    drop: (tenant, name) => {
      drops++
      kept.delete(`${tenant}\0${name}`)
    },
    clear: () => {
      drops++
      kept.clear()
    }
  }
}
