/**
 * Work that joins the transactions in which facts are written: it is done after the facts and before the commit.
 *
 * **Details**
 *
 * The store's row is locked by then, so nobody else appends until the transaction ends, and what the work does takes effect
 * together with the facts or not at all. Every writer of the store waits for it.
 *
 * A store without work writes by single statements, as if there were none of this.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import { EventId, type Position } from "./Fact.ts"

/**
 * The facts that a transaction has written: all that stand after one position, up to another one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorded {
  readonly after: Position
  readonly upTo: Position
}

/**
 * What is to be done in the same transaction. A failure refuses the facts; one of the database that time may mend leads to
 * another attempt of all of it.
 *
 * @category models
 * @since 0.1.0
 */
export type CommitWork = (recorded: Recorded) => Effect.Effect<void, ProjectionRefused | SqlError>

/**
 * A projection that is applied in the transaction of the append cannot take one of the facts. Nothing was written.
 *
 * @category errors
 * @since 0.1.0
 */
export class ProjectionRefused extends Schema.TaggedError<ProjectionRefused>()("ProjectionRefused", {
  projection: Schema.String,
  /** The fact, which is not in the log. */
  eventId: EventId,
  stream: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return `Projection ${this.projection} cannot take fact ${this.eventId} of stream ${this.stream}: ${this.detail}`
  }
}

/**
 * Why nothing was written, or why nobody can tell whether it was.
 *
 * @category errors
 * @since 0.1.0
 */
export type WriteError = SqlError | TransactionError | ProjectionRefused

/**
 * The work of one store in this process.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ sql, transact }: Postgres["Service"]) => {
  const all: Array<CommitWork> = []

  /** Does what has been registered, in that order, until the scope closes. */
  const register = (work: CommitWork): Effect.Effect<void, never, Scope.Scope> =>
    Effect.asVoid(Effect.acquireRelease(
      Effect.sync(() => all.push(work)),
      () => Effect.sync(() => void all.splice(all.indexOf(work), 1))
    ))

  /** `recordedBy` gives nothing where nothing was written. */
  const withWork = <A, E>(
    write: Effect.Effect<A, E>,
    recordedBy: (written: A) => Recorded | undefined
  ): Effect.Effect<A, E | SqlError | ProjectionRefused> =>
    Effect.tap(write, (written) => {
      const recorded = recordedBy(written)
      return recorded === undefined ? Effect.void : Effect.forEach(all, (work) => work(recorded), { discard: true })
    })

  /** Writes in the caller's transaction, which goes on and finds what it has set, and does the work of what was written. */
  const join = <A, E>(
    write: Effect.Effect<A, E>,
    recordedBy: (written: A) => Recorded | undefined
  ): Effect.Effect<A, E | SqlError | ProjectionRefused> =>
    Effect.suspend((): Effect.Effect<A, E | SqlError | ProjectionRefused> =>
      all.length === 0
        ? write
        : Effect.flatMap(settings, (before) => Effect.tap(withWork(write, recordedBy), () => restore(before)))
    )

  /** Writes with a commit of its own. What is written has to be recognized when it is written again. */
  const commit = <A>(
    write: Effect.Effect<A, SqlError>,
    recordedBy: (written: A) => Recorded | undefined
  ): Effect.Effect<A, WriteError> =>
    Effect.suspend((): Effect.Effect<A, WriteError> =>
      all.length === 0 ? write : transact(withWork(write, recordedBy), { idempotent: true })
    )

  const settings = Effect.map(
    Effect.suspend(() =>
      sql<{ path: string; tenant: string; all: string }>`
      select current_setting('search_path') as path, coalesce(current_setting('strata.tenant', true), '') as tenant,
        coalesce(current_setting('strata.all_tenants', true), '') as all`
    ),
    ([row]) => row!
  )
  const restore = ({ all, path, tenant }: { readonly path: string; readonly tenant: string; readonly all: string }) =>
    sql`
      select set_config('search_path', ${path}, true), set_config('strata.tenant', ${tenant}, true),
        set_config('strata.all_tenants', ${all}, true)`

  return { register, join, commit }
}

/**
 * The work of one store in this process.
 *
 * @category models
 * @since 0.1.0
 */
export type CommitWorks = ReturnType<typeof make>

/**
 * Holds up whoever appends to a store until the transaction ends. Gives the position of its last fact.
 *
 * @category getters
 * @since 0.1.0
 */
// Locks the store's row, by its unique name, as appends do.
export const holdLog = (sql: Postgres["Service"]["sql"], store: string): Effect.Effect<Position, SqlError> =>
  Effect.map(
    sql<{ head: Position }>`select head from store where name = ${store} for no key update`,
    ([row]) => row!.head
  )
