/**
 * Fills tables of their own with what was known at one moment, to hold at another.
 *
 * **When to use**
 *
 * Use to see a read model as it would have been: yesterday's figures as they were known last Monday, next to what is known of them
 * today. The tables that readers see are left alone.
 *
 * **Details**
 *
 * *Known at K*: of each fact recorded at or before K, its newest revision recorded at or before K; retracted ones are gone. *Valid
 * at V*: only facts whose period holds V. The log is read twice up to K: for the revisions, which are kept in memory, and for the facts.
 * They are applied in the order in which each was first recorded. Nothing of this is what the live tables are filled by: both
 * have to come to the same.
 *
 * Batches commit with how far it is. A replay that was broken off goes on when it is run again with the same options.
 *
 * **Example** (Figures as they were known at a time)
 *
 * ```ts
 * import * as Replay from "@strata/projections/Replay"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   yield* Replay.run(Daily, { into: "daily_monday", knownAt: { time: monday } })
 *   return yield* Replay.within("daily_monday")(readDaily)
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Belief from "@strata/event-store/Belief"
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import { beginning, type Fact, Position } from "@strata/event-store/Fact"
import type { KnownAt } from "@strata/event-store/FactQuery"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Arr from "effect/Array"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as GenerationSchema from "./GenerationSchema.ts"
import type { ApplyError, Projection } from "./Projection.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What is replayed, and where to.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The PostgreSQL schema to be made for the tables. */
  readonly into: string
  /** Default: now. */
  readonly knownAt?: KnownAt | undefined
  /** Default: facts of any period. */
  readonly validAt?: Timestamp.Timestamp | undefined
  /** Only facts that were first recorded at these positions, both ends included. Default: all. */
  readonly from?: Position | undefined
  readonly to?: Position | undefined
  /** Applies everything in one transaction, which is rolled back. Default: false. */
  readonly dryRun?: boolean | undefined
  /** Told after each batch. */
  readonly onProgress?: ((progress: Progress) => Effect.Effect<void>) | undefined
}

/**
 * How far a replay is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  readonly into: string
  /** The last position that was known. */
  readonly knownAt: Position
  /** The last fact that was looked at, and the last one that will be. */
  readonly position: Position
  readonly last: Position
  /** Facts applied. */
  readonly facts: bigint
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * The schema is there already, and is not what these options would fill.
 *
 * @category errors
 * @since 0.1.0
 */
export class SchemaTaken extends Schema.TaggedError<SchemaTaken>()("SchemaTaken", { schema: Schema.String }) {
  override get message() {
    return `The schema ${this.schema} is there already and holds something else: name another one, or drop it`
  }
}

/**
 * Why a replay failed.
 *
 * @category errors
 * @since 0.1.0
 */
export type ReplayError =
  | SchemaTaken
  | GenerationSchema.InvalidTables
  | ApplyError
  | EventStoreError
  | SqlError
  | TransactionError

/** Rolls a dry run back. */
class DryRun extends Data.TaggedError("DryRun")<{ readonly progress: Progress }> {}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Runs a replay to its end, from where it was broken off.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fn("Replay.run")(function*(
  projection: Projection,
  options: Options
): Effect.fn.Return<Progress, ReplayError, EventStore | Postgres> {
  const postgres = yield* Postgres
  const store = yield* EventStore
  const knownAt = options.knownAt === undefined ? yield* store.head : yield* store.positionAt(options.knownAt)
  const last = options.to === undefined || options.to > knownAt ? knownAt : options.to
  const revisions = yield* newestRevisions(store, projection, knownAt)
  const replay = rowsOf(postgres, store.name, projection, options, { knownAt, last })

  /** Applies the believed facts of one page of the log. */
  const step = Effect.fnUntraced(function*(progress: Progress) {
    const page = yield* store.readLogPage({
      after: progress.position,
      limit: 1000,
      filter: projection.filter,
      upTo: last
    })
    const end = page.facts.length === 0 ? last : page.end
    const believed = page.facts.flatMap((fact) => believedOf(fact, revisions, options.validAt))
      .filter(projection.wants)
    const next: Progress = { ...progress, position: end, facts: progress.facts + BigInt(believed.length) }
    yield* replay.enter
    if (Arr.isReadonlyArrayNonEmpty(believed)) {
      yield* Effect.provideService(projection.apply(believed), SqlClient.SqlClient, postgres.sql)
    }
    yield* replay.leave(progress, next)
    return next
  })

  const all = Effect.fnUntraced(function*(begin: Effect.Effect<Progress, ReplayError>, each: typeof postgres.transact) {
    let progress = yield* begin
    while (progress.position < last) {
      progress = yield* each(step(progress), { idempotent: true })
      yield* options.onProgress?.(progress) ?? Effect.void
    }
    return progress
  })

  if (options.dryRun !== true) {
    return yield* all(postgres.transact(replay.open, { idempotent: true }), postgres.transact)
  }
  return yield* postgres.transact(
    Effect.flatMap(all(replay.open, (body) => body), (progress) => Effect.fail(new DryRun({ progress })))
  ).pipe(Effect.catchTag("DryRun", ({ progress }) => Effect.succeed(progress)))
})

/**
 * Runs queries on the tables of a replay, in a transaction of their own.
 *
 * @category combinators
 * @since 0.1.0
 */
export const within = (into: string) =>
<A, E, R>(
  queries: Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError | TransactionError, R | Postgres> =>
  Effect.flatMap(
    Postgres,
    (postgres) => postgres.transact(Effect.andThen(GenerationSchema.enter(postgres.sql, into, postgres), queries))
  )

/**
 * Removes what a replay has made.
 *
 * @category constructors
 * @since 0.1.0
 */
export const drop = (into: string): Effect.Effect<void, SqlError | TransactionError, Postgres> =>
  Effect.flatMap(Postgres, ({ sql, transact }) =>
    transact(
      Effect.gen(function*() {
        const known = yield* sql`delete from projection_replay where schema = ${into} returning 1`
        if (known.length > 0) yield* GenerationSchema.drop(sql, into)
      }),
      { idempotent: true }
    ))

/** By the position of the first fact: its newest revision that was known. */
const newestRevisions = Effect.fnUntraced(function*(
  store: EventStore["Service"],
  projection: Projection,
  knownAt: Position
) {
  const newest = new Map<Position, Fact>()
  let after = beginning
  while (after < knownAt) {
    const { end, facts } = yield* store.readLogPage({ after, limit: 1000, filter: projection.filter, upTo: knownAt })
    for (const fact of facts) if (fact.revision > 0) newest.set(fact.origin, fact)
    after = facts.length === 0 ? knownAt : end
  }
  return newest
})

const believedOf = (
  fact: Fact,
  revisions: ReadonlyMap<Position, Fact>,
  validAt: Timestamp.Timestamp | undefined
): ReadonlyArray<Fact> => {
  if (fact.revision > 0) return []
  const believed = revisions.get(fact.position) ?? fact
  return believed.retracted || validAt !== undefined && !Belief.isValidAt(believed, validAt) ? [] : [believed]
}

// ----------------------------------------------------------------------------------------------------------- rows

/** The row of a replay: one, by primary key. */
const rowsOf = (
  postgres: Postgres["Service"],
  store: string,
  projection: Projection,
  { from, into, validAt }: Options,
  { knownAt, last }: { readonly knownAt: Position; readonly last: Position }
) => {
  const { sql } = postgres
  const first = from ?? Position.make(1n)

  /** Makes the schema, or finds where a replay with the same options was broken off. */
  const open: Effect.Effect<Progress, ReplayError> = Effect.gen(function*() {
    const [row] = yield* sql<{ same: boolean; position: Position; facts: bigint }>`
      select position, facts,
        (store, name, version, known_at, first, last)
          = (${store}, ${projection.name}, ${projection.version}, ${Pg.bigint(knownAt)}, ${Pg.bigint(first)}, ${
      Pg.bigint(last)
    })
          and valid_at is not distinct from ${Pg.timestamptz(validAt ?? null)} as same
      from projection_replay where schema = ${into} for update`
    if (row !== undefined) {
      return row.same
        ? { into, knownAt, position: row.position, last, facts: row.facts }
        : yield* new SchemaTaken({ schema: into })
    }
    const taken = yield* sql`select from pg_namespace where nspname = ${into}`
    if (taken.length > 0) return yield* new SchemaTaken({ schema: into })
    yield* GenerationSchema.create(postgres, projection, into)
    const position = Position.make(first - 1n)
    yield* sql`
      insert into projection_replay (schema, store, name, version, known_at, valid_at, first, last, position)
      values (
        ${into}, ${store}, ${projection.name}, ${projection.version}, ${Pg.bigint(knownAt)},
        ${Pg.timestamptz(validAt ?? null)}, ${Pg.bigint(first)}, ${Pg.bigint(last)}, ${Pg.bigint(position)}
      )`
    return { into, knownAt, position, last, facts: 0n }
  })

  /** Two processes that replay the same take turns, and the second finds that nothing is left of the step. */
  const leave = Effect.fnUntraced(function*(before: Progress, after: Progress) {
    const moved = yield* sql`
      update projection_replay set position = ${Pg.bigint(after.position)}, facts = ${Pg.bigint(after.facts)}
      where schema = ${into} and position = ${Pg.bigint(before.position)}
      returning 1`
    if (moved.length === 0) return yield* new SchemaTaken({ schema: into })
  })

  return { open, leave, enter: GenerationSchema.enter(sql, into, postgres) }
}
