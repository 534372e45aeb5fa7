/**
 * What came of a fact: the facts it caused, those that they caused, and so on.
 *
 * **Details**
 *
 * A fact names its cause by `causationId`, the event id of a fact or of something else, like a request. A fact that was
 * corrected is the cause of what names any of its revisions. Facts are shown as they are believed, so what was retracted is
 * gone, and what it caused with it.
 *
 * **Example** (How an order came to be paid)
 *
 * ```ts
 * import * as CausationTree from "@strata/event-store/CausationTree"
 * import type * as Fact from "@strata/event-store/Fact"
 * import * as Effect from "effect/Effect"
 *
 * const story = Effect.fnUntraced(function*(payment: Fact.EventId) {
 *   const [root] = yield* CausationTree.causes(payment)
 *   return root === undefined ? undefined : yield* CausationTree.effects(root.eventId)
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { EventStore, EventStoreError, type SlicePage } from "./EventStore.ts"
import { EventId, type Fact, type Position } from "./Fact.ts"
import { InvalidQuery, type KnownAt } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"
import * as PlaneState from "./PlaneState.ts"
import { UnknownFact } from "./Revision.ts"

/**
 * A fact and what it caused, in the order of the log.
 *
 * @category models
 * @since 0.1.0
 */
export interface CausationTree {
  readonly fact: Fact
  readonly effects: ReadonlyArray<CausationTree>
}

/**
 * Options of a tree.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The moment from which is looked. Default: now. */
  readonly knownAt?: KnownAt | undefined
  /** Facts that the tree may have; it fails with `InvalidQuery` when there are more. Default: 1,000. */
  readonly maxFacts?: number | undefined
}

/**
 * The tree that grows from a fact, addressed by any of its revisions. None when it was not known then, or was retracted; an id
 * that nobody knows is refused.
 *
 * @category constructors
 * @since 0.1.0
 */
export const effects = Effect.fn("CausationTree.effects")(function*(
  eventId: EventId,
  { knownAt, maxFacts = 1000 }: Options = {}
): Effect.fn.Return<Option.Option<CausationTree>, EventStoreError, EventStore> {
  if (!Fields.isVersion(maxFacts)) return yield* invalid(Fields.versionExpected)
  const store = yield* EventStore
  const known = knownAt === undefined ? yield* store.head : yield* store.positionAt(knownAt)
  const first = yield* believed(eventId, known)
  if (Option.isNone(first)) return Option.none()
  const root: Node = { ...first.value, effects: [] }
  const seen = new Set([root.fact.origin])
  const pending = [root]
  for (let node = pending.shift(); node !== undefined; node = pending.shift()) {
    for (const causationId of node.ids) {
      // What is too much is not read.
      const found = yield* PlaneState.pages({ causationId, knownAt: { position: known } }).pipe(
        Stream.take(maxFacts + 1),
        Stream.runCollect
      )
      for (const fact of found) {
        // Whoever appends may name a cause that comes later, and so close a circle.
        if (seen.has(fact.origin)) continue
        seen.add(fact.origin)
        if (seen.size > maxFacts) return yield* tooMany(maxFacts)
        const effect: Node = { fact, ids: yield* idsOf(fact, known), effects: [] }
        node.effects.push(effect)
        pending.push(effect)
      }
    }
    node.effects.sort((a, b) => a.fact.position < b.fact.position ? -1 : 1)
  }
  return Option.some(toTree(root))
})

/**
 * The causes of a fact, the first of all first and the fact itself last: as far as they are facts that are known.
 *
 * @category constructors
 * @since 0.1.0
 */
export const causes = Effect.fn("CausationTree.causes")(function*(
  eventId: EventId,
  { knownAt, maxFacts = 1000 }: Options = {}
): Effect.fn.Return<ReadonlyArray<Fact>, EventStoreError, EventStore> {
  if (!Fields.isVersion(maxFacts)) return yield* invalid(Fields.versionExpected)
  const store = yield* EventStore
  const known = knownAt === undefined ? yield* store.head : yield* store.positionAt(knownAt)
  const found: Array<Fact> = []
  const seen = new Set<Position>()
  for (let next = yield* believed(eventId, known); Option.isSome(next);) {
    const { fact } = next.value
    if (seen.has(fact.origin)) break
    seen.add(fact.origin)
    if (seen.size > maxFacts) return yield* tooMany(maxFacts)
    found.push(fact)
    const cause = Option.flatMap(Option.fromNullishOr(fact.causationId), asEventId)
    if (Option.isNone(cause)) break
    next = Option.isSome(yield* store.get(cause.value)) ? yield* believed(cause.value, known) : Option.none()
  }
  return found.toReversed()
})

interface Node {
  readonly fact: Fact
  /** Of its revisions that are known. */
  readonly ids: ReadonlyArray<EventId>
  readonly effects: Array<Node>
}

const toTree = ({ effects, fact }: Node): CausationTree => ({ fact, effects: effects.map(toTree) })

/** The newest revision of a fact that is known, and the ids of all of them. */
const believed = Effect.fnUntraced(function*(eventId: EventId, known: Position) {
  const store = yield* EventStore
  const fact = Option.getOrUndefined(yield* store.get(eventId))
  if (fact === undefined) return yield* new EventStoreError({ reason: new UnknownFact({ eventId }) })
  const chain = yield* revisions(fact, known)
  const last = chain.at(-1)
  return last === undefined || last.retracted
    ? Option.none()
    : Option.some({ fact: last, ids: chain.map(({ eventId }) => eventId) })
})

const idsOf = (fact: Fact, known: Position) =>
  fact.revision === 0
    ? Effect.succeed([fact.eventId])
    : Effect.map(revisions(fact, known), (chain) => chain.map(({ eventId }) => eventId))

/** All revisions of a fact that are known. */
const revisions = Effect.fnUntraced(function*({ eventId }: Fact, known: Position) {
  const store = yield* EventStore
  const found: Array<Fact> = []
  for (let fromRevision: number | null = 0; fromRevision !== null;) {
    const page: SlicePage = yield* store.historyPage(eventId, { fromRevision })
    found.push(...page.facts.filter(({ position }) => position <= known))
    fromRevision = page.next
  }
  return found
})

const asEventId = Schema.decodeUnknownOption(EventId)

const invalid = (message: string) => new EventStoreError({ reason: new InvalidQuery({ path: "maxFacts", message }) })

const tooMany = (maxFacts: number) => invalid(`there are more than ${maxFacts} facts`)
