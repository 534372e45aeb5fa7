/**
 * What somebody has to do now and then, whoever it is: leases that ran out, counts to be added up, tables to be emptied, and what is
 * to be forgotten.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import type { SqlError } from "effect/sql/SqlError"
import type { PayloadStore, PayloadStoreError } from "./PayloadStore.ts"
import type { Policies } from "./QueuePolicies.ts"
import * as StoredPayload from "./sending/StoredPayload.ts"

/** Leases that one look takes back. */
const mostLeases = 100

/** Keys that one look forgets, of each kind. */
const mostKeys = 1000

/** Messages of a queue that one look forgets, of each kind. */
const mostForgotten = 5000

/** Payloads that are removed together. */
const mostPayloads = 16

/**
 * Looks after the queues until it is interrupted. Any number of processes may: while one is at it, the others do nothing.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = (
  postgres: Postgres["Service"],
  { remember, tableSize, upkeep }: Policies,
  payloads: PayloadStore["Service"]
): Effect.Effect<never> => {
  let hasEnded = false
  const look = Effect.map(
    postgres.rows("select look_after_queues($1, $2, $3, $4), forget_keys($5)", [
      Pg.int(mostLeases),
      Pg.bigint(BigInt(tableSize)),
      Pg.double(Duration.toSeconds(remember)),
      Pg.int(mostForgotten),
      Pg.int(mostKeys)
    ]),
    ([row]) => {
      hasEnded ||= row?.[0] === true
    }
  )
  const remove = Effect.suspend(() => {
    if (!hasEnded) return Effect.void
    hasEnded = false
    return removeEnded(postgres, payloads)
  })
  const always = <E>(effect: Effect.Effect<void, E>) =>
    effect.pipe(
      Effect.catchCause((cause) => Effect.logDebug("The queues could not be looked after", cause)),
      Pace.every(upkeep),
      Effect.withTracerEnabled(false)
    )
  // Apart, for there may be much to remove, and leases that ran out wait for nothing.
  return Effect.andThen(Effect.forkChild(always(remove)), always(look))
}

/** Removes payloads that nobody needs any more, some at a time. Passes over what others are just removing. */
const removeEnded = (
  { rows, transact }: Pick<Postgres["Service"], "rows" | "transact">,
  payloads: PayloadStore["Service"]
): Effect.Effect<void, SqlError | TransactionError | PayloadStoreError> => {
  const some = transact(Effect.gen(function*() {
    const found = yield* rows(ended, [Pg.int(mostPayloads)])
    yield* StoredPayload.remove(payloads, found.map(([place]): string => cast(place)))
    return found.length
  }))
  return Effect.flatMap(some, (count) => count < mostPayloads ? Effect.void : removeEnded({ rows, transact }, payloads))
}

const ended = `
  delete from queue_payload_ended e where e.ctid = any(array(
    select o.ctid from queue_payload_ended o limit $1 for update skip locked
  ))
  returning e.stored_at`
