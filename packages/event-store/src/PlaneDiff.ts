/**
 * What differs between two points of the plane, and whether the world moved or we learned.
 *
 * **Details**
 *
 * A point sees the facts that were known at its `knownAt` to hold at its `validAt`. A fact that two points see otherwise
 * differs because *the world moved* when moving only in valid time, at the knowledge of either point, shows a
 * difference, and because *we learned* when moving only in recorded time, at the valid time of either point, does.
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Belief from "./Belief.ts"
import { type EventStore, type EventStoreError } from "./EventStore.ts"
import type { Fact, Position } from "./Fact.ts"
import type { Difference, FactQuery, Point } from "./FactQuery.ts"
import { readAll } from "./PlaneState.ts"

/**
 * The differences from `a` to `b` among the facts of a stream, a category or whatever else the query selects, in the order
 * in which the facts were first recorded. A point without `validAt` means now by the process's clock.
 *
 * @category combinators
 * @since 0.1.0
 */
export const diff = Effect.fn("PlaneDiff.diff")(function*(
  among: Pick<FactQuery, "stream" | "category" | "types">,
  a: Point,
  b: Point
): Effect.fn.Return<ReadonlyArray<Difference>, EventStoreError, EventStore> {
  const now = yield* Timestamp.now
  const fromTime = a.validAt ?? now
  const toTime = b.validAt ?? now
  const before = yield* beliefAt(among, a)
  const after = yield* beliefAt(among, b)
  const differences: Array<Difference> = []
  for (const origin of [...new Set([...before.keys(), ...after.keys()])].toSorted((x, y) => x < y ? -1 : 1)) {
    const known = before.get(origin)
    const learned = after.get(origin)
    const from = seen(known, fromTime)
    const to = seen(learned, toTime)
    const first = known ?? learned
    if (first === undefined || from?.eventId === to?.eventId) continue
    differences.push({
      eventId: first.revises ?? first.eventId,
      before: from ?? null,
      after: to ?? null,
      worldMoved: seen(known, fromTime) !== seen(known, toTime) || seen(learned, fromTime) !== seen(learned, toTime),
      weLearned: seen(known, fromTime)?.eventId !== seen(learned, fromTime)?.eventId ||
        seen(known, toTime)?.eventId !== seen(learned, toTime)?.eventId
    })
  }
  return differences
})

const beliefAt = (
  among: Pick<FactQuery, "stream" | "category" | "types">,
  { knownAt }: Point
): Effect.Effect<ReadonlyMap<Position, Fact>, EventStoreError, EventStore> =>
  Effect.map(readAll({ ...among, knownAt }), (facts) => new Map(facts.map((fact) => [fact.origin, fact])))

const seen = (fact: Fact | undefined, time: Timestamp.Timestamp): Fact | undefined =>
  fact !== undefined && Belief.isValidAt(fact, time) ? fact : undefined
