/**
 * `held`: what it costs a queue that somebody else has a transaction open, which keeps vacuum from taking away what was deleted since.
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Server from "../event-store/Server.ts"
import { type BenchmarkError, failure, type Lane } from "../Suite.ts"
import * as Loading from "./Loading.ts"
import type { QueueSystem } from "./QueueSystem.ts"

/**
 * Fills and drains the queue again and again: what it drains in a second of draining, without such a transaction, or with one that is
 * open all the time.
 *
 * @category constructors
 * @since 0.1.0
 */
export const lane = (system: QueueSystem, options: {
  readonly held: boolean
  /** Messages of each filling. */
  readonly count: number
  /** Of a run, in times of what a lane runs. */
  readonly length: number
  /** Untimed, before each run. */
  readonly before: Effect.Effect<void, BenchmarkError>
}): Lane => ({
  system: system.name,
  run: (seconds, watch) =>
    Effect.scoped(
      Effect.gen(function*() {
        const { count, held } = options
        const now = yield* Loading.stopwatch
        yield* system.empty
        yield* options.before
        if (held) yield* holdTransaction(system.url)
        const end = now() + options.length * seconds * 1000
        let drained = 0
        let millis = 0
        const cycle = Effect.gen(function*() {
          yield* Loading.load(system, { from: 0, count })
          millis += yield* Loading.drain(system, count)
          drained += count
        })
        yield* watch(Effect.asVoid(Effect.repeat(cycle, { until: () => now() >= end })))
        const work = held ? "held, a transaction is open" : "held, none is open"
        return [{ work, unit: "ops/s" as const, value: drained / millis * 1000 }]
      }).pipe(Effect.ensuring(Effect.ignore(system.empty)))
    )
})

/** A transaction that has written to a table of its own, and is rolled back when the scope closes. */
const holdTransaction = Effect.fnUntraced(
  function*(url: Redacted.Redacted) {
    const { sql, transact } = yield* Server.connect({
      url,
      schema: "public",
      maxConnections: 1,
      statementTimeout: 0,
      idleInTransactionTimeout: 0
    })
    yield* sql`create table if not exists elsewhere (n integer)`
    const begun = yield* Deferred.make<void>()
    const hold = Effect.gen(function*() {
      yield* sql`insert into elsewhere values (1)`
      yield* Deferred.succeed(begun, undefined)
      return yield* Effect.never
    })
    yield* Effect.forkScoped(transact(hold))
    yield* Deferred.await(begun)
  },
  Effect.mapError(failure("Holding a transaction open"))
)
