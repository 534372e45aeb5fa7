/**
 * The queues that are compared, each in a database of its own.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import type * as Server from "../event-store/Server.ts"
import type { BenchmarkError } from "../Suite.ts"
import * as EffectQueue from "./EffectQueue.ts"
import * as GraphileWorker from "./GraphileWorker.ts"
import * as PgBossQueue from "./PgBossQueue.ts"
import * as PgmqStyle from "./PgmqStyle.ts"
import * as PgqStyle from "./PgqStyle.ts"
import * as PlainQueue from "./PlainQueue.ts"
import * as StrataQueue from "./StrataQueue.ts"

/**
 * Queues of a server, each made when the first work asks for it, and kept for the others.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(server: Server.Server) {
  const scope = yield* Effect.scope
  const once = <A>(
    database: string,
    open: (url: Redacted.Redacted) => Effect.Effect<A, BenchmarkError, Scope.Scope>
  ) =>
    Effect.cached(
      Effect.provideService(Effect.flatMap(server.createDatabase(database), open), Scope.Scope, scope)
    )
  return {
    strata: yield* once("strata", StrataQueue.make),
    deep: yield* once("strata_deep", StrataQueue.make),
    graphileWorker: yield* once("graphile_worker", GraphileWorker.make),
    pgBoss: yield* once("pg_boss", PgBossQueue.make),
    effect: yield* once("effect", EffectQueue.make),
    pgmq: yield* once("pgmq", PgmqStyle.make),
    pgq: yield* once("pgq", PgqStyle.make),
    plain: yield* once("plain", PlainQueue.make)
  }
})

/**
 * The queues.
 *
 * @category models
 * @since 0.1.0
 */
export type Systems = Effect.Success<ReturnType<typeof make>>
