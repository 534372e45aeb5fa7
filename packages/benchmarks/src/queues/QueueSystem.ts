/**
 * What the queues are asked to do.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { cast } from "effect/Function"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Server from "../event-store/Server.ts"
import { type BenchmarkError, failure } from "../Suite.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What a message holds.
 *
 * - `n`: its number. Negative for those that lie there before.
 * - `at`: when it was sent, in milliseconds of the machine's monotonic clock, which all processes share.
 * - `priority`: 10 is the most urgent; 5 where a queue has none.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Payload = Schema.Struct({ n: Schema.Int, at: Schema.Finite, priority: Schema.Int })
export type Payload = typeof Payload.Type

/**
 * A queue with one setting.
 *
 * @category models
 * @since 0.1.0
 */
export interface QueueSystem extends Books {
  readonly name: string
  readonly url: Redacted.Redacted
  /** Sends messages by one call, where there is one that takes several. */
  readonly send: (payloads: ReadonlyArray<Payload>) => Effect.Effect<void, BenchmarkError>
  /** Handles messages as they come, each told to be done, until the scope closes. */
  readonly work: (handle: (payload: Payload) => void) => Effect.Effect<void, BenchmarkError, Scope.Scope>
}

/**
 * The tables of a queue, looked at by a connection of its own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Books {
  /** Messages that are neither done nor given up. */
  readonly left: Effect.Effect<number, BenchmarkError>
  /** Forgets all messages, and gives their space back. */
  readonly empty: Effect.Effect<void, BenchmarkError>
  /** Tells the planner what is there, as autovacuum would in a while. */
  readonly analyze: Effect.Effect<void, BenchmarkError>
  /** Bytes of all tables and indexes of the database's user. */
  readonly size: Effect.Effect<number, BenchmarkError>
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Opens the books of a database, for the time of the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const openBooks = Effect.fnUntraced(function*(url: Redacted.Redacted, statements: {
  /** Gives one number. */
  readonly left: string
  readonly empty: ReadonlyArray<string>
}): Effect.fn.Return<Books, BenchmarkError, Scope.Scope> {
  const { rows } = yield* Server.connect({ url, maxConnections: 1, statementTimeout: 0, lockTimeout: 0 })
  const number = (text: string) =>
    Effect.mapBoth(rows(text, []), {
      onSuccess: ([row]) => Number(row?.[0]),
      onFailure: failure("Looking at the tables")
    })
  const run = (texts: ReadonlyArray<string>) =>
    Effect.forEach(texts, (text) => rows(text, []), { discard: true }).pipe(
      Effect.mapError(failure("Emptying the tables"))
    )
  return {
    left: number(statements.left),
    empty: run(statements.empty),
    analyze: run(["analyze"]),
    size: number(
      `select coalesce(sum(pg_total_relation_size(c.oid)), 0)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'r' and n.nspname <> 'information_schema' and n.nspname not like 'pg\\_%'`
    )
  }
})

/**
 * Messages from the `from`th on, all sent now as far as they tell.
 *
 * @category constructors
 * @since 0.1.0
 */
export const payloads = (from: number, count: number, at = 0, priority = 5): ReadonlyArray<Payload> =>
  Array.from({ length: count }, (_, index) => ({ n: from + index, at, priority }))

/**
 * A payload as it came out of a queue that does not check it.
 *
 * @category converting
 * @since 0.1.0
 */
export const payloadOf: (stored: unknown) => Payload = cast
