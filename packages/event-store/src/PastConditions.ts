/**
 * What a condition of an append asks of long ago, looked at before the append.
 *
 * **Details**
 *
 * An append judges its condition while it holds the lock that all who write to the store wait for. So of a condition that goes
 * back far, the past is looked at here, by the indexes of reads and without the lock. What is left to the append is what was
 * recorded since; or, where something matches, what begins with the first that does, which the append then finds at once.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { CurrentTenant } from "./CurrentTenant.ts"
import type { AppendCondition, EventStore, EventStoreError } from "./EventStore.ts"
import { type Fact, Position } from "./Fact.ts"
import type { FactFilter } from "./FactQuery.ts"
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
export const make = ({ firstAfter, head, logHead }: {
  readonly head: EventStore["Service"]["head"]
  readonly logHead: LogHead
  /** The first fact of a tenant that fits, after one position and up to another. */
  readonly firstAfter: (
    tenant: string,
    filter: FactFilter,
    after: Position,
    known: Position
  ) => Effect.Effect<ReadonlyArray<Fact>, EventStoreError>
}) =>
  Effect.fnUntraced(function*(
    { after, noneOf }: AppendCondition,
    prepared: PreparedAppend
  ): Effect.fn.Return<PreparedAppend, EventStoreError> {
    if (logHead.knows(after) && !logHead.knows(after + recent)) return prepared
    const now = yield* head
    if (prepared.condition === null || now - after <= recent) return prepared
    const tenant = yield* CurrentTenant
    let looked = now
    for (const filter of noneOf) {
      const [first] = yield* firstAfter(tenant, filter, after, looked)
      if (first !== undefined) looked = Position.make(first.position - 1n)
    }
    return { ...prepared, condition: { ...prepared.condition, looked } }
  })
