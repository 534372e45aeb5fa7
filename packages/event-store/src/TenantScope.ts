/**
 * A caller's own SQL under row-level security: which tenant's rows its transaction sees.
 *
 * **When to use**
 *
 * Use for statements on the store's tables, or on tables of one's own with a policy that asks `tenant_in_scope()`. The
 * store's operations name their scope themselves.
 *
 * **Details**
 *
 * A scope is named by a statement and lasts until the transaction ends or names another one, so it can neither be
 * forgotten on a pooled connection nor be taken for another caller's. Without one, no row is there.
 *
 * **Gotchas**
 *
 * A store's read inside the transaction names a scope as well: that of the tenant it is for, and of all tenants when it
 * reads the log as a whole. What it named is there for the statements that follow.
 *
 * **Example** (Counting a tenant's facts)
 *
 * ```ts
 * import * as TenantScope from "@strata/event-store/TenantScope"
 * import { Postgres } from "@strata/postgres/Postgres"
 * import * as Effect from "effect/Effect"
 *
 * const count = Effect.flatMap(Postgres, ({ sql }) => TenantScope.transact(sql`select count(*) from fact`))
 * ```
 *
 * @since 0.1.0
 */
import { Postgres, type TransactOptions } from "@strata/postgres/Postgres"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { CurrentTenant } from "./CurrentTenant.ts"

/**
 * As `Postgres.transact`, in the scope of the current tenant. Inside another transaction the scope of that one is back
 * when the body is done.
 *
 * @category combinators
 * @since 0.1.0
 */
export const transact = Effect.fnUntraced(function*<A, E, R>(
  body: Effect.Effect<A, E, R>,
  options?: TransactOptions
): Effect.fn.Return<A, E | SqlError | TransactionError, R | Postgres> {
  const { inTransaction, sql, transact } = yield* Postgres
  const tenant = yield* CurrentTenant
  const nested = yield* inTransaction
  return yield* transact(
    Effect.gen(function*() {
      // `offset 0` lets the settings be read before they are changed.
      const [before] = yield* sql<Scope>`
        select before.*, set_config('strata.tenant', ${tenant}, true)
        from (
          select
            coalesce(current_setting('strata.tenant', true), '') as tenant,
            coalesce(current_setting('strata.all_tenants', true), '') as every
          offset 0
        ) as before`
      const answer = yield* body
      if (nested) {
        yield* sql`
          select
            set_config('strata.tenant', ${before!.tenant}, true), set_config('strata.all_tenants', ${
          before!.every
        }, true)`
      }
      return answer
    }),
    options
  )
})

interface Scope {
  readonly tenant: string
  readonly every: string
}
