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
  const facts = yield* readAll({ stream: streamId(decider.category, id), knownAt, validAt })
  const ordered = facts.toSorted(validAt === undefined ? Belief.byOrigin : Belief.byValidity)
  let state = decider.initial
  for (const fact of ordered) state = decider.evolve(state, yield* Effect.fromResult(decider.events.decode(fact)))
  return state
})

/**
 * Every page of an answer.
 *
 * @category combinators
 * @since 0.1.0
 */
export const readAll = Effect.fnUntraced(function*(
  query: FactQuery
): Effect.fn.Return<ReadonlyArray<Fact>, EventStoreError, EventStore> {
  const store = yield* EventStore
  const facts: Array<Fact> = []
  let cursor: string | undefined
  do {
    const page = yield* store.read({ ...query, limit: 1000, cursor })
    facts.push(...page.facts)
    cursor = page.next ?? undefined
  } while (cursor !== undefined)
  return facts
})
