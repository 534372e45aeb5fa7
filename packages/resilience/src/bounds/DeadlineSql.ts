/**
 * Transactions whose statements the server ends by itself when the deadline of the fiber passes.
 *
 * **When to use**
 *
 * For statements that may run long. Interrupting a fiber cancels its statement through a second connection, which needs the network
 * and the client to be alive; a time-out that the server was told needs neither.
 *
 * **Example** (A report that gives up in time)
 *
 * ```ts
 * import * as Deadline from "@strata/resilience/bounds/Deadline"
 * import * as DeadlineSql from "@strata/resilience/bounds/DeadlineSql"
 * import { Postgres } from "@strata/postgres/Postgres"
 * import * as Effect from "effect/Effect"
 *
 * const report = Effect.flatMap(Postgres, ({ sql }) => DeadlineSql.transact(sql`select count(*) from fact`))
 * const program = Deadline.within("2 seconds")(report)
 * ```
 *
 * @since 0.1.0
 */
import { Postgres, type TransactOptions } from "@strata/postgres/Postgres"
import type { TransactionError } from "@strata/postgres/TransactionError"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Deadline from "./Deadline.ts"

/**
 * How a transaction is run. See `Deadline.statementTimeout`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends TransactOptions {
  /** The longest a statement may take, without a deadline too. Default: 1 minute. */
  readonly atMost?: Duration.Input | undefined
  /** Kept for the answer to come back. Default: nothing. */
  readonly reserve?: Duration.Input | undefined
}

/**
 * As `Postgres.transact`, with a `statement_timeout` of what is left when the transaction begins. Not begun when nothing is.
 *
 * @category combinators
 * @since 0.1.0
 */
export const transact = Effect.fnUntraced(function*<A, E, R>(
  body: Effect.Effect<A, E, R>,
  { atMost = "1 minute", reserve, ...options }: Options = {}
): Effect.fn.Return<A, E | SqlError | TransactionError | Deadline.DeadlineExceeded, R | Postgres> {
  const { sql, transact } = yield* Postgres
  return yield* transact(
    Effect.gen(function*() {
      const timeout = yield* Deadline.statementTimeout({ atMost, reserve })
      yield* sql`select set_config('statement_timeout', ${timeout}, true)`
      return yield* body
    }),
    options
  )
})
