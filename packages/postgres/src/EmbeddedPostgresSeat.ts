/**
 * A place among the processes that use an embedded server: a session with a shared advisory lock on the maintenance
 * database. It goes with the process, however that ends, so the server can tell who is the last.
 *
 * @since 0.1.0
 */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Net from "node:net"
import * as ApplicationRole from "./ApplicationRole.ts"
import type * as Cluster from "./EmbeddedPostgresCluster.ts"
import { Busy } from "./EmbeddedPostgresServer.ts"
import { PostgresPolicies } from "./PostgresPolicies.ts"

/**
 * A place that was taken.
 *
 * @category models
 * @since 0.1.0
 */
export interface Seat {
  readonly session: PgConnection.PgConnection
  /** The server it was taken at. */
  readonly running: Cluster.Running
  readonly url: Redacted.Redacted
  /** Done when the session has ended, for whatever reason. */
  readonly ended: Effect.Effect<void>
  readonly scope: Scope.Closeable
}

/** Any two numbers nobody else uses on the maintenance database of a cluster. */
const lockKey = [1398035028, 1] as const

/**
 * Takes a place. Waits while the last user has the server for itself, and is `Busy` when that one stops it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const take = Effect.fnUntraced(function*(url: Redacted.Redacted, running: Cluster.Running) {
  const { embedded: policies } = yield* PostgresPolicies
  const scope = yield* Scope.make()
  const closed = Deferred.makeUnsafe<void>()
  const session = yield* connect(url, {
    stream: () => {
      const socket = Net.connect({ host: "127.0.0.1", port: running.port, noDelay: true })
      socket.once("close", () => Deferred.doneUnsafe(closed, Exit.void))
      // The driver hears errors as long as it uses the socket; one that nobody hears would end the process.
      socket.on("error", () => {})
      return socket
    }
  }).pipe(
    Effect.tap((session) => session.query("select pg_advisory_lock_shared($1::int4, $2::int4)", lockKey)),
    Effect.tap(ApplicationRole.create),
    Scope.provide(scope),
    Effect.timeout(policies.seatTimeout),
    Effect.onError(() => Scope.close(scope, Exit.void)),
    Effect.mapError((cause) => new Busy(`the server with pid ${running.pid} does not let us in: ${cause.message}`))
  )
  return { session, running, url, ended: Deferred.await(closed), scope } satisfies Seat
})

const connect = (url: Redacted.Redacted, config?: PgConnection.Config) =>
  Effect.flatMap(PostgresPolicies, ({ embedded }) =>
    PgConnection.make({
      ...config,
      url,
      applicationName: "strata embedded server",
      connectTimeout: embedded.seatConnectTimeout
    }))

/**
 * Gives the lock back, and is true when nobody else has one: nobody then gets in until the seat is released.
 *
 * @category getters
 * @since 0.1.0
 */
export const isLast = (seat: Seat): Effect.Effect<boolean> =>
  Effect.flatMap(PostgresPolicies, ({ embedded }) =>
    isLastOn(seat.session).pipe(
      // The session is lost: the server was killed, or somebody has ended the session.
      Effect.catch(() => Effect.scoped(Effect.flatMap(connect(seat.url), isLastOn))),
      Effect.timeout(embedded.lastTimeout),
      Effect.orElseSucceed(() => true)
    ))

const isLastOn = Effect.fnUntraced(function*(session: PgConnection.PgConnection) {
  yield* session.query("select pg_advisory_unlock_shared($1::int4, $2::int4)", lockKey)
  const { rows } = yield* session.query("select pg_try_advisory_lock($1::int4, $2::int4) as last", lockKey)
  return rows[0]?.["last"] === true
})

/**
 * Leaves.
 *
 * @category constructors
 * @since 0.1.0
 */
export const release = (seat: Seat): Effect.Effect<void> => Scope.close(seat.scope, Exit.void)
