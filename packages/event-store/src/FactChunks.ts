/**
 * Summarizes a log in the background: see `migrations/0006_chunks.sql`.
 *
 * **Details**
 *
 * Every process that has opened a store offers to do it, and one at a time does. It works in steps of up to 1,024 facts and rests
 * after each for twice as long as it took; while others append for four times as long, and for sixteen times until they are
 * far ahead. So a burst is summarized when it is over. Nothing waits for it: what is not summarized yet is read itself. Its
 * commits wait for no disk, since what a crash takes is summarized again.
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { type ChunkPolicies, EventStorePolicies } from "./EventStorePolicies.ts"
import { Position } from "./Fact.ts"
import type { LogHead } from "./LogHead.ts"

/** Facts that one step summarizes at most. */
const step = 1024n

/** So many facts may be left to read themselves, a tenth of a second of it, before it works as hard as it may beside appends. */
const farAhead = 262_144n

/**
 * How far a log is summarized.
 *
 * @category models
 * @since 0.1.0
 */
export interface Summarized {
  /** Up to this position; null when another process is at it. */
  readonly summarized: Position | null
  readonly head: Position
}

/**
 * Takes one step, if there is one to take.
 *
 * @category constructors
 * @since 0.1.0
 */
export const summarize = (sql: Postgres["Service"]["sql"], storeId: number): Effect.Effect<Summarized, SqlError> =>
  Effect.map(
    sql<Summarized>`
      select done.* from (
        select
          set_config('strata.tenant', '', true), set_config('strata.all_tenants', 'on', true),
          set_config('synchronous_commit', 'off', true)
      ) as scope(tenant, every, commit), lateral (
        select summarized, head from summarize_facts(${storeId}) where scope.every is not null limit 1
      ) as done`,
    (rows) => rows[0]!
  )

/**
 * Summarizes whatever comes, for ever.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = (
  sql: Postgres["Service"]["sql"],
  storeId: number,
  logHead: Pick<LogHead, "reached">
): Effect.Effect<never> => Effect.flatMap(EventStorePolicies, ({ chunks }) => loop(sql, storeId, logHead, chunks))

const loop = (
  sql: Postgres["Service"]["sql"],
  storeId: number,
  logHead: Pick<LogHead, "reached">,
  { patience, rest, restBesideAppends, restFarBehind }: ChunkPolicies
): Effect.Effect<never> => {
  let head = 0n
  const next = Effect.gen(function*() {
    const [took, done] = yield* Effect.timed(summarize(sql, storeId))
    const busy = done.head > head
    head = done.head
    if (done.summarized === null) return yield* Effect.sleep(patience)
    const left = done.head - done.summarized
    const times = !busy ? rest : left < farAhead ? restBesideAppends : restFarBehind
    // Also when it is abreast: otherwise every step's worth of appends would wake it at once, and pay for it.
    yield* Effect.sleep(Duration.times(took, times))
    if (left < step) yield* logHead.reached(Position.make(done.summarized + step), patience)
  })
  return next.pipe(
    Effect.catchCause((cause) =>
      Effect.andThen(Effect.logDebug("Facts were not summarized", cause), Effect.sleep(patience))
    ),
    Effect.forever,
    Effect.withTracerEnabled(false)
  )
}
