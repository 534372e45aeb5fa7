/**
 * Keeps the answers of queries on read models, for as long as they are right.
 *
 * **When to use**
 *
 * Use for what is asked far more often than its projections apply facts, and costs more than a look at their checkpoints: a report that
 * many people have open, figures of an archive that grows once a day. Where facts come all the time it saves nothing: every one may
 * change an answer, so after every one it is computed again.
 *
 * **Details**
 *
 * - Each `get` asks by one short statement where the projections are: which generation readers see, how far each of its partitions is, how
 *   many keys wait. An answer belongs to the place that was looked at before it was computed, and is given at that place only. So it is
 *   as fresh as the tables, in every process: after another batch, after a correction, a switch, a rollback, or a key that goes on.
 * - Reading one's own write is as without it: wait for the position (`Projections.waitFor`), then ask. What was kept before that position
 *   belongs to another place.
 * - Who asks for the same at the same place while it is being computed waits for that. A failure is not kept.
 * - Answers are kept in memory, the latest `capacity` of them. With a `Persistence` in scope, such as `Persistence.layerRedis`, they are
 *   kept there as well, and found by other processes and after a restart. When it fails, or holds what does not decode, the answer is
 *   computed: a warning says so, and the read does not fail.
 * - Inside a transaction nothing is looked up and nothing is kept: what it sees may be rolled back.
 *
 * **Gotchas**
 *
 * - All that an answer depends on is part of its key, the tenant first of all. It should not depend on the time: `timeToLive` bounds how long
 *   one that does is wrong, twice over where a persistence is used.
 * - A database that was restored from a backup may come to a place again with other facts. Empty the persistence then.
 *
 * **Example** (The busiest days, with Redis)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import * as ProjectionCache from "@strata/projections/ProjectionCache"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Persistence from "effect/persistence/Persistence"
 * import * as Schema from "effect/Schema"
 *
 * const program = Effect.gen(function*() {
 *   const busiest = yield* ProjectionCache.make({
 *     name: "busiest-days",
 *     projections: ["daily"],
 *     key: ({ tenant, year }: { readonly tenant: string; readonly year: number }) => `${tenant}/${year}`,
 *     answer: Schema.Array(Schema.Struct({ day: Schema.String, messages: Schema.Int })),
 *     lookup: queryBusiestDays,
 *     timeToLive: "10 minutes"
 *   })
 *   return yield* busiest.get({ tenant: "acme", year: 2026 })
 * })
 *
 * program.pipe(Effect.provide(
 *   Persistence.layerRedis.pipe(Layer.provide(NodeRedis.layer({ url: "redis://localhost" })))
 * ))
 * ```
 *
 * @since 0.1.0
 */
import { EventStore } from "@strata/event-store/EventStore"
import { Postgres } from "@strata/postgres/Postgres"
import * as Cache from "effect/Cache"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Hash from "effect/Hash"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Persistable from "effect/persistence/Persistable"
import * as Persistence from "effect/persistence/Persistence"
import * as PrimaryKey from "effect/PrimaryKey"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import * as Generation from "./Generation.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * A cache of one kind of question.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProjectionCache<in Question, out A, out E = never, out R = never> {
  /** The answer as the read models show it now: kept, or computed. */
  readonly get: (question: Question) => Effect.Effect<A, E | SqlError, R>
}

/**
 * What is kept, and for how long.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<in Question, in out A, out E, out R> {
  /** Tells the answers of one cache from those of others in the same persistence, and in the metrics. */
  readonly name: string
  /** The projections that fill the tables which `lookup` reads. */
  readonly projections: ReadonlyArray<string>
  /** All that the answer depends on but the read models, as a text. */
  readonly key: (question: Question) => string
  /** How an answer is written where there is a persistence. */
  readonly answer: Schema.Codec<A, unknown>
  readonly lookup: (question: Question) => Effect.Effect<A, E, R>
  /** How long an answer is kept at most while nothing changes. Default: 1 minute. */
  readonly timeToLive?: Duration.Input | undefined
  /** Answers kept in memory at most. Default: 1,000. */
  readonly capacity?: number | undefined
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Makes a cache of queries on projections of the store in scope. What it has kept in a persistence stays there when the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*<Question, A, E = never, R = never>(
  options: Options<Question, A, E, R>
): Effect.fn.Return<ProjectionCache<Question, A, E, R>, never, EventStore | Postgres | Scope.Scope> {
  const { capacity = 1000, key, lookup, name, projections } = options
  const postgres = yield* Postgres
  const store = yield* EventStore
  const timeToLive = Duration.fromInputUnsafe(options.timeToLive ?? "1 minute")
  const placeOf = Generation.make(postgres, store.name).placeOf(projections)
  const asked = Metric.withAttributes(gets, { cache: name })
  const computed = Metric.withAttributes(lookups, { cache: name })
  const kept = yield* persisted(`strata/${postgres.schema}/${store.name}/${name}`, timeToLive)

  const compute = (question: Question) => Effect.andThen(Metric.update(computed, 1), lookup(question))

  const cache = yield* Cache.makeWith(
    Effect.fnUntraced(function*(request: Request<Question, A>) {
      const before = yield* kept.get(request)
      if (before !== undefined) return yield* before
      const answer = yield* compute(request.question)
      yield* kept.set(request, Exit.succeed(answer))
      return answer
    }),
    {
      capacity,
      timeToLive: (exit) => Exit.isSuccess(exit) ? timeToLive : Duration.zero,
      requireServicesAt: "lookup"
    }
  )

  return {
    get: Effect.fnUntraced(function*(question) {
      yield* Metric.update(asked, 1)
      if (yield* postgres.holdsConnection) return yield* compute(question)
      const place = yield* placeOf
      return yield* Cache.get(cache, new Request(`${place}/${key(question)}`, question, options.answer))
    })
  }
})

// ------------------------------------------------------------------------------------------------------- internals

/** A question at a place of the projections. The same question at the same place is the same request. */
class Request<out Question, A>
  implements Equal.Equal, Persistable.Persistable<Schema.Codec<A, unknown>, typeof Schema.Never>
{
  readonly id: string
  readonly question: Question
  readonly [Persistable.symbol]: { readonly success: Schema.Codec<A, unknown>; readonly error: typeof Schema.Never }
  constructor(id: string, question: Question, success: Schema.Codec<A, unknown>) {
    this.id = id
    this.question = question
    this[Persistable.symbol] = { success, error: Schema.Never }
  }
  [Equal.symbol](that: Equal.Equal): boolean {
    return that instanceof Request && that.id === this.id
  }
  [Hash.symbol](): number {
    return Hash.string(this.id)
  }
  [PrimaryKey.symbol](): string {
    return this.id
  }
}

/**
 * The persistence in scope, if there is one, of which no failure gets through: that of `PersistedCache` would be the read's.
 */
const persisted = Effect.fnUntraced(function*(storeId: string, timeToLive: Duration.Duration) {
  const persistence = yield* Effect.serviceOption(Persistence.Persistence)
  const store = Option.isNone(persistence)
    ? undefined
    : yield* persistence.value.make({ storeId, timeToLive: () => timeToLive })
  const unless = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A | undefined> =>
    Effect.catchCause(effect, (cause) =>
      Cause.hasInterrupts(cause)
        ? Effect.interrupt
        : Effect.as(Effect.logWarning(`Answers are not kept in ${storeId}`, cause), undefined))
  return {
    get: <A>(request: Request<unknown, A>): Effect.Effect<Exit.Exit<A> | undefined> =>
      store === undefined ? Effect.undefined : unless(store.get(request)),
    set: <A>(request: Request<unknown, A>, exit: Exit.Exit<A>): Effect.Effect<void> =>
      store === undefined ? Effect.void : unless(store.set(request, exit))
  }
})

const gets = Metric.counter("strata_projection_cache_gets_total", {
  description: "Answers asked for",
  incremental: true
})
const lookups = Metric.counter("strata_projection_cache_lookups_total", {
  description: "Answers that were computed, since none was kept",
  incremental: true
})
