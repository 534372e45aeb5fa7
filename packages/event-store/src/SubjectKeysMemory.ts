/**
 * The keys of subjects in memory. They are gone with the process, and all that is sealed under them.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import type { StreamId } from "./Fact.ts"
import type { Subject } from "./MasterKeys.ts"
import type { FoundKey, KeyRef, Recorded, StoredKey, SubjectKeyTable } from "./SubjectKeyTable.ts"

/**
 * No keys yet.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<SubjectKeyTable> = Effect.sync(() => {
  let numbers = 0
  const keys = new Map<string, StoredKey>()
  const erasures = new Map<string, Array<Omit<Recorded, "again" | "told">>>()
  /** Of each subject, by store. */
  const places = new Map<string, Map<string, Set<StreamId>>>()

  const streamsOf = (subject: Subject, store: string): ReadonlySet<StreamId> =>
    places.get(nameOf(subject))?.get(store) ?? new Set()

  return {
    inTransaction: Effect.succeed(false),
    hold: (tenant, candidates) =>
      Effect.sync(() =>
        candidates.map(({ master, subject, wrapped }) => {
          const name = nameOf({ tenant, subject })
          const held = keys.get(name) ?? { tenant, subject, key: ++numbers, master, wrapped }
          keys.set(name, held)
          return held
        })
      ),
    note: (tenant, noted) =>
      Effect.sync(() => {
        for (const { store, stream, subject } of noted) {
          const name = nameOf({ tenant, subject })
          const stores = places.get(name) ?? new Map<string, Set<StreamId>>()
          places.set(name, stores.set(store, (stores.get(store) ?? new Set()).add(stream)))
        }
      }),
    find: (refs) =>
      Effect.sync(() =>
        refs.flatMap((ref): ReadonlyArray<FoundKey> => {
          const held = keys.get(nameOf(ref))
          if (held?.key === ref.key) return [{ ...ref, found: held }]
          const erased = erasures.get(nameOf(ref))?.some(({ key }) => key === ref.key) ?? false
          return erased ? [{ ...ref, found: null }] : []
        })
      ),
    erase: ({ actor, reason, subject, tenant }) =>
      Effect.map(Timestamp.now, (erasedAt): Recorded => {
        const name = nameOf({ tenant, subject })
        const before = erasures.get(name) ?? []
        const held = keys.get(name)
        const last = before.at(-1)
        if (held === undefined && last !== undefined) return { ...last, again: true, told: [] }
        keys.delete(name)
        const erasure = { tenant, subject, key: held?.key ?? 0, reason, actor, erasedAt }
        erasures.set(name, [...before, erasure])
        const stores = held === undefined ? [] : [...places.get(name)?.keys() ?? []]
        return { ...erasure, again: false, told: stores.map((store) => ({ store, position: null })) }
      }),
    streamsOf: ({ after, limit, store, ...subject }) =>
      Effect.sync(() =>
        [...streamsOf(subject, store)]
          .filter((stream) => after === undefined || inByteOrder(after, stream) < 0)
          .toSorted(inByteOrder)
          .slice(0, limit)
      ),
    wrappedOtherwise: (master, after) =>
      Effect.sync(() =>
        [...keys.values()]
          .filter((key) => key.master !== master && (after === undefined || bySubject(after, key) < 0))
          .toSorted(bySubject)
          .slice(0, page)
      ),
    replace: (_tenant, replacements) =>
      Effect.sync(() => {
        const present = replacements.filter((key) => keys.get(nameOf(key))?.key === key.key)
        for (const key of present) keys.set(nameOf(key), key)
        return present.length
      })
  }
})

const page = 500

const nameOf = ({ subject, tenant }: Subject | KeyRef): string => `${tenant}\0${subject}`

const bySubject = (a: Subject, b: Subject): number =>
  inByteOrder(a.tenant, b.tenant) || inByteOrder(a.subject, b.subject)

const inByteOrder = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))
