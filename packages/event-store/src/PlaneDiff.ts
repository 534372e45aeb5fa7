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
import * as Stream from "effect/Stream"
import * as Belief from "./Belief.ts"
import { EventStore, EventStoreError } from "./EventStore.ts"
import { beginning, type Fact, type Position } from "./Fact.ts"
import { type Difference, type FactQuery, InvalidQuery, type Point } from "./FactQuery.ts"
import * as Fields from "./Fields.ts"
import * as PlaneState from "./PlaneState.ts"
import * as WeighedPages from "./WeighedPages.ts"

/**
 * Options of a comparison.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * Bytes of facts, as JSON text, that both points may show together; it fails with `InvalidQuery` when there are more. All of
   * them are held in memory. Default: no limit.
   */
  readonly maxBytes?: number | undefined
}

/**
 * The differences from `a` to `b` among the facts of a stream, a category or whatever else the query selects, in the order
 * in which the facts were first recorded. A point without `validAt` means now by the process's clock, and one without
 * `knownAt` all that is known now: both the same for both points, whoever writes meanwhile.
 *
 * @category combinators
 * @since 0.1.0
 */
export const diff = Effect.fn("PlaneDiff.diff")(function*(
  among: Pick<FactQuery, "stream" | "category" | "types">,
  a: Point,
  b: Point,
  options: Options = {}
): Effect.fn.Return<ReadonlyArray<Difference>, EventStoreError, EventStore> {
  for (const { validAt } of [a, b]) {
    if (validAt === undefined || Fields.isTime(validAt)) continue
    return yield* new EventStoreError({ reason: new InvalidQuery({ path: "validAt", message: Fields.timeExpected }) })
  }
  const now = yield* Timestamp.now
  const fromTime = a.validAt ?? now
  const toTime = b.validAt ?? now
  const store = yield* EventStore
  const knownFrom = a.knownAt && (yield* store.positionAt(a.knownAt))
  const knownTo = b.knownAt && (yield* store.positionAt(b.knownAt))
  // Looked up last, so that now is no earlier than the moment of the other point.
  const head = knownFrom === undefined || knownTo === undefined ? yield* store.head : beginning
  const held = { bytes: 0, limit: options.maxBytes ?? Infinity }
  const before = yield* beliefAt(among, knownFrom ?? head, held)
  const after = yield* beliefAt(among, knownTo ?? head, held, before)
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

interface Held {
  readonly limit: number
  bytes: number
}

/** What is believed in the same way as in another belief is held once. */
const beliefAt = Effect.fnUntraced(function*(
  among: Pick<FactQuery, "stream" | "category" | "types">,
  position: Position,
  held: Held,
  other: ReadonlyMap<Position, Fact> = new Map()
): Effect.fn.Return<ReadonlyMap<Position, Fact>, EventStoreError, EventStore> {
  const belief = new Map<Position, Fact>()
  yield* Stream.runForEachArray(
    PlaneState.pages({ ...among, knownAt: { position } }),
    Effect.fnUntraced(function*(facts) {
      for (const fact of facts) {
        const same = other.get(fact.origin)
        if (same?.eventId === fact.eventId) {
          belief.set(fact.origin, same)
        } else {
          belief.set(fact.origin, fact)
          if (held.limit !== Infinity) held.bytes += WeighedPages.bytesOf(fact)
        }
      }
      if (held.bytes > held.limit) return yield* tooMuch(held.limit)
    })
  )
  return belief
})

const tooMuch = (limit: number) =>
  new EventStoreError({
    reason: new InvalidQuery({ path: "maxBytes", message: `there are more than ${limit} bytes to compare` })
  })

const seen = (fact: Fact | undefined, time: Timestamp.Timestamp): Fact | undefined =>
  fact !== undefined && Belief.isValidAt(fact, time) ? fact : undefined
