/**
 * What a condition of an append asks of long ago, looked at before the append.
 *
 * **Details**
 *
 * An append judges its condition while it holds the lock that all who write to the store wait for. So of a condition that goes
 * back far, the past is looked at here, by the indexes of reads and without the lock. Where nothing matches, as is hoped for, what is
 * left to the append is what was recorded since. Where something does, the append is refused, and tells itself which is the first.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { AppendCondition, EventStore, EventStoreError } from "./EventStore.ts"
import type { LogHead } from "./LogHead.ts"
import type { PreparedAppend } from "./PreparedAppend.ts"

/** Facts that an append looks at itself. */
const recent = 1000n

/**
 * Gives the append with the part of its condition that is left.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  { head, logHead, read }: Pick<EventStore["Service"], "head" | "read"> & { readonly logHead: LogHead }
) =>
  Effect.fnUntraced(function*(
    { after, noneOf }: AppendCondition,
    prepared: PreparedAppend
  ): Effect.fn.Return<PreparedAppend, EventStoreError> {
    if (logHead.knows(after) && !logHead.knows(after + recent)) return prepared
    const now = yield* head
    if (prepared.condition === null || now - after <= recent) return prepared
    for (const filter of noneOf) {
      const { facts } = yield* read({
        ...filter,
        knownAt: { position: now },
        revisions: "all",
        direction: "backwards",
        limit: 1
      })
      if (facts.some(({ position }) => position > after)) return prepared
    }
    return { ...prepared, condition: { ...prepared.condition, after: now } }
  })
