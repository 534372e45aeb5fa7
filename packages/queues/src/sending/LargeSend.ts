/**
 * What is sent in a call that is large: part by part, and what is too large for a row into the store.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { SqlError } from "effect/sql/SqlError"
import type { PayloadStore, PayloadStoreError } from "../PayloadStore.ts"
import type { Call } from "./GroupSend.ts"
import { type PreparedMessage, sizeOf } from "./PreparedMessage.ts"
import type { Outcome } from "./SendStatement.ts"
import * as StoredPayload from "./StoredPayload.ts"

/** Bytes that one statement writes. */
const mostAtOnce = 8_388_608

/**
 * How much a call is.
 *
 * - `light`: of no account.
 * - `heavy`: its queue has to be claimed by bytes.
 * - `large`: that too, and it is too much for one statement.
 *
 * @category getters
 * @since 0.1.0
 */
export const weightOf = (call: Call): "light" | "heavy" | "large" => {
  let total = 0
  let isHeavy = false
  for (const message of call) {
    if (message.large !== null) return "large"
    total += sizeOf(message)
    if (message.storedAt !== null) isHeavy = true
  }
  return total > mostAtOnce ? "large" : isHeavy ? "heavy" : "light"
}

/**
 * Sends a large call. To be run in a transaction of its own, or of the caller: a queue that is full has refused only what came last.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  store: PayloadStore["Service"],
  write: (calls: ReadonlyArray<Call>) => Effect.Effect<ReadonlyArray<Outcome>, SqlError>
) =>
  Effect.fnUntraced(function*(call: Call): Effect.fn.Return<
    ReadonlyArray<Outcome>,
    SqlError | PayloadStoreError
  > {
    const outcomes: Array<Outcome> = []
    for (const part of partsOf(call)) {
      const placed = yield* Effect.forEach(part, (message) => place(store, message))
      const written = yield* write([placed])
      // Of a message that is not there, nothing stays.
      const unsent = placed.flatMap(({ storedAt }, index) =>
        StoredPayload.isApart(storedAt) && !isSent(written[index]) ? [storedAt] : []
      )
      yield* StoredPayload.remove(store, unsent)
      outcomes.push(...written)
      if (written.some(({ outcome }) => outcome === "full")) break
    }
    return outcomes
  })

const isSent = (outcome: Outcome | undefined): boolean =>
  outcome?.outcome === "inserted" || outcome?.outcome === "replaced"

/**
 * The message with its payload in the store, where it is too large for a row.
 *
 * @category constructors
 * @since 0.1.0
 */
export const place = (
  store: PayloadStore["Service"],
  message: PreparedMessage
): Effect.Effect<PreparedMessage, PayloadStoreError> =>
  message.large === null
    ? Effect.succeed(message)
    : Effect.map(StoredPayload.put(store, message.large), (storedAt) => ({ ...message, storedAt, large: null }))

/**
 * The message with its payload at hand, to be stored once more; as it is where that cannot be had.
 *
 * @category constructors
 * @since 0.1.0
 */
export const copy = (
  store: PayloadStore["Service"],
  message: PreparedMessage
): Effect.Effect<PreparedMessage, PayloadStoreError> =>
  !StoredPayload.isApart(message.storedAt)
    ? Effect.succeed(message)
    : Effect.map(
      StoredPayload.get(store, message.storedAt),
      Option.match({ onNone: () => message, onSome: (large) => ({ ...message, storedAt: null, large }) })
    )

/** What stands in rows is parted by its size; what does not takes next to nothing. */
const partsOf = (call: Call): ReadonlyArray<Call> => {
  const parts: Array<Array<PreparedMessage>> = [[]]
  let size = 0
  for (const message of call) {
    const own = message.large === null ? sizeOf(message) : 0
    if (size > 0 && size + own > mostAtOnce) {
      parts.push([])
      size = 0
    }
    parts.at(-1)!.push(message)
    size += own
  }
  return parts
}
