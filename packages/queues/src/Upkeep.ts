/**
 * What somebody has to do now and then, whoever it is: leases that ran out, counts to be added up, tables to be emptied.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Policies } from "./QueuePolicies.ts"

/** Leases that one look takes back. */
const mostLeases = 100

/**
 * Looks after the queues until it is interrupted. Any number of processes may: while one is at it, the others do nothing.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = ({ rows }: Postgres["Service"], { remember, tableSize, upkeep }: Policies): Effect.Effect<never> =>
  rows("select look_after_queues($1, $2, $3)", [
    Pg.int(mostLeases),
    Pg.bigint(BigInt(tableSize)),
    Pg.double(Duration.toSeconds(remember))
  ]).pipe(
    Effect.catchCause((cause) => Effect.logDebug("The queues could not be looked after", cause)),
    Pace.every(upkeep),
    Effect.withTracerEnabled(false)
  )
