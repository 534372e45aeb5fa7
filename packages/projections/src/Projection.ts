/**
 * A projection: what turns facts into a read model.
 *
 * **Details**
 *
 * A projection is a value: a name, a version, the events it wants, and what it does with a batch of them. `apply` runs in
 * the transaction that also moves the projection's checkpoint, so a fact takes effect exactly once. It should work on
 * the whole batch at once (`insert … select from unnest(…)`), and keep to the order of the batch where facts of one
 * key depend on each other.
 *
 * Facts of types the event set does not define are passed over; the checkpoint moves over them. A projection owns its
 * tables: no other one writes to them, and it reads no other projection's tables while it applies, since each is at a
 * position of its own.
 *
 * **Example** (Counting deposits)
 *
 * ```ts
 * import * as Projection from "@strata/projections/Projection"
 * import * as Effect from "effect/Effect"
 * import * as SqlClient from "effect/sql/SqlClient"
 *
 * const Deposits = Projection.make({
 *   name: "deposits",
 *   version: 1,
 *   events: AccountEvents,
 *   apply: Effect.fnUntraced(function*(batch) {
 *     const sql = yield* SqlClient.SqlClient
 *     const deposits = batch.filter(({ event }) => event._tag === "Deposited").length
 *     yield* sql`update deposit_count set value = value + ${deposits}`
 *   }),
 *   reset: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`update deposit_count set value = 0`)
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { EventDecodeError, EventSet } from "@strata/event-store/EventDefinition"
import { categoryOf, type Fact } from "@strata/event-store/Fact"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * An event and the fact that holds it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Projected<out Event> {
  readonly event: Event
  readonly fact: Fact
}

/**
 * A projection of any event type, as the runtime takes it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Projection {
  /** Names the checkpoint. At most 128 characters. */
  readonly name: string
  /** Another version means other tables or another meaning: the projection is rebuilt from the first fact. */
  readonly version: number
  /**
   * Decodes the facts it wants, outside any transaction, or refuses the first one that does not decode. The answer
   * applies those of them that stand after a position.
   */
  readonly prepare: (facts: ReadonlyArray<Fact>) => Result.Result<PreparedBatch, EventDecodeError>
  /** Empties its tables, inside the transaction that sets its checkpoint back. */
  readonly reset: Effect.Effect<void, ApplyError, SqlClient.SqlClient>
}

/**
 * A decoded batch that waits for its transaction.
 *
 * @category models
 * @since 0.1.0
 */
export interface PreparedBatch {
  /** How many facts of the batch the projection wants. */
  readonly size: number
  /** Applies the facts after a position, inside the transaction that moves the checkpoint. */
  readonly applyAfter: (position: bigint) => Effect.Effect<void, ApplyError, SqlClient.SqlClient>
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * The projection itself says that it cannot take a fact: trying again does not help.
 *
 * @category errors
 * @since 0.1.0
 */
export class FactRefused extends Schema.TaggedError<FactRefused>()("FactRefused", {
  position: Schema.BigInt,
  detail: Schema.String
}) {
  override get message() {
    return `Fact ${this.position} cannot be projected: ${this.detail}`
  }
}

/**
 * What `apply` and `reset` may fail with. Whether a `SqlError` is worth another attempt is read from its SQLSTATE.
 *
 * @category errors
 * @since 0.1.0
 */
export type ApplyError = SqlError | FactRefused

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Makes a projection.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Event extends { readonly _tag: string }>(options: {
  readonly name: string
  /** Default: 1. */
  readonly version?: number | undefined
  readonly events: EventSet<Event>
  /** Categories of the streams it looks at; an event type of the same name in another stream is passed over. Default: all. */
  readonly categories?: ReadonlyArray<string> | undefined
  readonly apply: (batch: ReadonlyArray<Projected<Event>>) => Effect.Effect<unknown, ApplyError, SqlClient.SqlClient>
  readonly reset: Effect.Effect<unknown, ApplyError, SqlClient.SqlClient>
}): Projection => {
  const { categories, events } = options
  const wants = (fact: Fact) => events.has(fact) && (categories?.includes(categoryOf(fact.stream)) ?? true)
  const apply = (batch: ReadonlyArray<Projected<Event>>) =>
    batch.length === 0 ? Effect.void : Effect.asVoid(options.apply(batch))
  return {
    name: options.name,
    version: options.version ?? 1,
    reset: Effect.asVoid(options.reset),
    prepare: (facts) => {
      const batch: Array<Projected<Event>> = []
      for (const fact of facts) {
        if (!wants(fact)) continue
        const decoded = events.decode(fact)
        if (Result.isFailure(decoded)) return Result.fail(decoded.failure)
        batch.push({ event: decoded.success, fact })
      }
      return Result.succeed({
        size: batch.length,
        applyAfter: (position) => apply(batch.filter(({ fact }) => fact.position > position))
      })
    }
  }
}
