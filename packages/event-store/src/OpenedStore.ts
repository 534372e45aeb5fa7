/**
 * A store of which the readers see what was appended: personal fields are opened, and what was erased shows as `Erased`.
 *
 * **Details**
 *
 * Only what leaves the store is opened. It judges, compares and copies what is stored as it is stored.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { EventStore, EventStoreError } from "./EventStore.ts"
import type { Fact } from "./Fact.ts"
import { concernsKeys } from "./SealedFields.ts"
import type { Sealing } from "./Sealing.ts"
import * as Subscription from "./Subscription.ts"

type Store = EventStore["Service"]

/**
 * The store as it is read. A page in which nothing is sealed is the same page.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (sealing: Sealing, store: Omit<Store, "subscribe">): Store => {
  const open: Sealing["open"] = (facts) =>
    Effect.tap(sealing.open(facts), (opened) =>
      Effect.sync(() => {
        for (const [index, fact] of opened.entries()) if (fact !== facts[index]) passing.add(fact)
      }))

  const facts = (read: Effect.Effect<ReadonlyArray<Fact>, EventStoreError>) =>
    Effect.filterOrElse(read, (facts) => !facts.some(concernsKeys), open)

  const page = <Page extends { readonly facts: ReadonlyArray<Fact> }>(
    read: Effect.Effect<Page, EventStoreError>
  ): Effect.Effect<Page, EventStoreError> =>
    Effect.filterOrElse(
      read,
      (page) => !page.facts.some(concernsKeys),
      (page) => Effect.map(open(page.facts), (facts) => ({ ...page, facts }))
    )

  const readLog: Store["readLog"] = (range) => facts(store.readLog(range))

  return {
    ...store,
    read: (query) => page(store.read(query)),
    history: (eventId, options) => facts(store.history(eventId, options)),
    historyPage: (eventId, options) => page(store.historyPage(eventId, options)),
    readStream: (stream, options) => facts(store.readStream(stream, options)),
    readStreamPage: (stream, options) => page(store.readStreamPage(stream, options)),
    readStreams: (streams) => facts(store.readStreams(streams)),
    readLog,
    readLogPage: (range) => page(store.readLogPage(range)),
    get: (eventId) =>
      Effect.map(facts(Effect.map(store.get(eventId), Option.toArray)), ([fact]) => Option.fromUndefinedOr(fact)),
    subscribe: (from) => Subscription.subscribe({ readLog, changed: store.changed }, from)
  }
}

/** Facts of which fields were opened. */
const passing = new WeakSet<Fact>()

/**
 * True of a fact that was read with personal fields open: it shows what may be erased any moment, so it is not to be kept.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isPassing = (fact: Fact): boolean => passing.has(fact)
