/**
 * Subscriptions: the backlog, then what is committed, without a gap and without a double.
 *
 * **Details**
 *
 * A subscriber is a cursor over the log: it reads after its position, and when there is nothing it waits for a hint or
 * for the poll interval and reads again. Positions have no holes and follow the order of commits, so nothing can
 * appear behind a cursor, and what a lost hint would have told is found by the next read.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { EventStore, EventStoreError } from "./EventStore.ts"
import type { Fact, Position } from "./Fact.ts"

/**
 * The facts after a position, in arrays of at most `limit`, for ever.
 *
 * @category constructors
 * @since 0.1.0
 */
export const subscribe = (
  log: Pick<EventStore["Service"], "readLog" | "changed">,
  options: { readonly after: Position; readonly limit?: number | undefined }
): Stream.Stream<Arr.NonEmptyReadonlyArray<Fact>, EventStoreError> =>
  Stream.unfold(
    options.after,
    Effect.fnUntraced(function*(after) {
      while (true) {
        const facts = yield* log.readLog({ after, limit: options.limit })
        if (Arr.isReadonlyArrayNonEmpty(facts)) {
          return [facts, Arr.lastNonEmpty(facts).position] as const
        }
        yield* log.changed(after)
      }
    })
  )
