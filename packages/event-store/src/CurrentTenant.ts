/**
 * The tenant on whose behalf an effect runs: whose streams it reads and writes.
 *
 * **Details**
 *
 * A stream, a fact and an idempotency key belong to one tenant, and two tenants may use the same names without meeting.
 * Everything a store is asked goes to the tenant of the fiber that asks; only what reads the log as a whole
 * (`readLog`, `subscribe`, durable subscriptions) sees all of them, and is for the system's own use. Under row-level
 * security the database refuses what a statement should have left out.
 *
 * **Example** (Appending for a tenant)
 *
 * ```ts
 * import { CurrentTenant } from "@strata/event-store/CurrentTenant"
 * import { EventStore } from "@strata/event-store/EventStore"
 * import { streamId } from "@strata/event-store/Fact"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* EventStore
 *   yield* store.append({ facts: [{ stream: streamId("account", "42"), type: "Opened", data: {} }] })
 * }).pipe(Effect.provideService(CurrentTenant, "acme"))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"

/**
 * The name of a tenant: a label. `default` where none is given.
 *
 * @category services
 * @since 0.1.0
 */
export const CurrentTenant = Context.Reference<string>("@strata/event-store/CurrentTenant", {
  defaultValue: () => "default"
})
