/**
 * The state of an aggregate from any point of the plane: as it was known at one moment to be at another.
 *
 * **Details**
 *
 * Without `validAt`, the facts believed are folded in the order in which they were first recorded, as a command handler
 * folds them. With it, those whose period holds that moment are folded by the beginning of their validity, so that what
 * was recorded late still comes where it belongs.
 *
 * **Example** (What did we think on Monday that the balance would be on Friday?)
 *
 * ```ts
 * const balance = yield* PlaneState.at(Account, "ada", { knownAt: { time: monday }, validAt: friday })
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Belief from "./Belief.ts"
import type { Decider } from "./Decider.ts"
import type { EventDecodeError } from "./EventDefinition.ts"
import { EventStore, type EventStoreError } from "./EventStore.ts"
import { type Fact, streamId } from "./Fact.ts"
import type { FactQuery, Point } from "./FactQuery.ts"

/**
 * Folds by the decider's `evolve`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const at = Effect.fn("PlaneState.at")(function*<State, Command, Event extends { readonly _tag: string }, Error>(
  decider: Pick<Decider<State, Command, Event, Error>, "category" | "events" | "initial" | "evolve">,
  id: string,
  { knownAt, validAt }: Point
): Effect.fn.Return<State, EventStoreError | EventDecodeError, EventStore> {
  const stream = streamId(decider.category, id)
  let state = decider.initial
  const fold = Effect.fnUntraced(function*(facts: ReadonlyArray<Fact>) {
    for (const fact of facts) state = decider.evolve(state, yield* Effect.fromResult(decider.events.decode(fact)))
  })
  if (validAt === undefined) yield* fold((yield* readAll({ stream, knownAt })).toSorted(Belief.byOrigin))
  else yield* Stream.runForEachArray(pages({ stream, knownAt, validAt, orderBy: "validity" }), fold)
  return state
})

/**
 * All facts of an answer, read a page at a time.
 *
 * @category combinators
 * @since 0.1.0
 */
export const pages = (query: FactQuery): Stream.Stream<Fact, EventStoreError, EventStore> =>
  Stream.paginate(undefined, (cursor: string | undefined) =>
    Effect.map(
      Effect.flatMap(EventStore, (store) => store.read({ ...query, limit: 1000, cursor })),
      ({ facts, next }) => [facts, next === null ? Option.none() : Option.some(next)] as const
    ))

/** All of them at once. */
const readAll = (query: FactQuery): Effect.Effect<ReadonlyArray<Fact>, EventStoreError, EventStore> =>
  Stream.runCollect(pages(query))
