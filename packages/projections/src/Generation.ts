/**
 * Generations of projections: what exists, what readers see, and how one takes the place of another.
 *
 * **Details**
 *
 * A generation builds one version of a projection. The first is live at once. A later one is `building` beside it, and becomes
 * `live` by a switch; the one before is `old` then, and can be switched back to until it is dropped. Changes of a
 * projection's generations take turns on an advisory lock.
 *
 * That of an inline projection is filled by its subscription until it has caught up, and joins the appends then: in a transaction
 * that holds the log, so no fact comes between. Where facts are found that it was not given, it leaves them again.
 *
 * @since 0.1.0
 */
import { holdLog } from "@strata/event-store/CommitWork"
import * as Checkpoints from "@strata/event-store/DurableSubscriptionCheckpoints"
import { beginning, type Fact, type Position } from "@strata/event-store/Fact"
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type * as Timestamp from "@strata/postgres/Timestamp"
import type { TransactionError } from "@strata/postgres/TransactionError"
import * as Pace from "@strata/resilience/retry/Pace"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { SqlError } from "effect/sql/SqlError"
import * as Erasures from "./Erasures.ts"
import * as GenerationSchema from "./GenerationSchema.ts"
import type { InvalidTables } from "./GenerationSchema.ts"
import type { Projection } from "./Projection.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What a generation is to readers.
 *
 * @category models
 * @since 0.1.0
 */
export type State = "building" | "live" | "old"

/**
 * How facts reach a generation: by its subscription, or `inline`, in the transactions that write them. `joining` is one of an inline
 * projection that its subscription fills: readers do not see it, or it has not caught up.
 *
 * @category models
 * @since 0.1.0
 */
export type Applied = "subscription" | "joining" | "inline"

/**
 * A generation's row.
 *
 * @category models
 * @since 0.1.0
 */
export interface Generation {
  readonly id: number
  readonly name: string
  /** Counts the generations of a projection 1, 2, 3 … */
  readonly number: number
  readonly version: number
  /** The PostgreSQL schema of its tables. */
  readonly schema: string
  readonly tables: ReadonlyArray<string>
  readonly state: State
  readonly applied: Applied
  readonly partitions: number
  /** Whether it waits for a person to switch to it. */
  readonly manual: boolean
  /** Facts a second it may take at most while it is built. */
  readonly rate: number | null
  readonly madeAt: Timestamp.Timestamp
  readonly liveAt: Timestamp.Timestamp | null
}

/**
 * How a generation is built.
 *
 * @category options
 * @since 0.1.0
 */
export interface BuildOptions {
  readonly partitions: number
  readonly manual: boolean
  readonly rate: number | undefined
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * The generation is not as far as readers have seen. It goes on meanwhile: try again.
 *
 * @category errors
 * @since 0.1.0
 */
export class GenerationBehind extends Schema.TaggedError<GenerationBehind>()("GenerationBehind", {
  projection: Schema.String,
  number: Schema.Int
}) {
  override get message() {
    return `Generation ${this.number} of projection ${this.projection} has not reached what readers see: wait until it has`
  }
}

/**
 * The projection has no generation that this can be done with.
 *
 * @category errors
 * @since 0.1.0
 */
export class NoSuchGeneration extends Schema.TaggedError<NoSuchGeneration>()("NoSuchGeneration", {
  projection: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return `Projection ${this.projection}: ${this.detail}`
  }
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * The name of the durable subscription that fills a generation.
 *
 * @category getters
 * @since 0.1.0
 */
export const subscriptionOf = ({ name, number }: Pick<Generation, "name" | "number">): string =>
  `projection/${name}/${number}`

/**
 * What decides which facts a generation's partitions are given, and in which order: erasures go to all of them.
 *
 * @category getters
 * @since 0.1.0
 */
export const sharing = (projection: Projection) => ({
  filter: Erasures.withErasures(projection.filter),
  key: projection.key.isStream
    ? ({ stream, tenant }: Pick<Fact, "stream" | "tenant">) => `${tenant}\0${stream}`
    : () => "",
  toAll: Erasures.isErasure
})

/**
 * The generations of a store's projections.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (postgres: Postgres["Service"], store: string) => {
  const { sql, transact } = postgres

  // A projection has a handful of rows.
  const columns = sql.literal(`
    id, name, number, version, schema, tables, state, applied, partitions, manual, rate, made_at as "madeAt", live_at as "liveAt"`)
  const all: Effect.Effect<ReadonlyArray<Generation>, SqlError> = sql<Generation>`
    select ${columns} from projection_generation where store = ${store} and state <> 'dropped' order by name, number`
  const ofName = (name: string) =>
    sql<Generation>`
      select ${columns} from projection_generation
      where store = ${store} and name = ${name} and state <> 'dropped' order by number`

  /** Those that appends have to apply facts to, for who holds the log. Served by projection_generation_inline. */
  const inline = sql<Generation>`
    select ${columns} from projection_generation where store = ${store} and applied = 'inline' order by name`

  /**
   * Where projections are, as a text that is another one whenever what readers see of them may be: which generations and since when, how far
   * each partition is and in which epoch, and how many keys wait, of which one that goes on is applied where its partition is.
   */
  // Rows by unique names and the first columns of primary keys.
  const placeOf = (names: ReadonlyArray<string>): Effect.Effect<string, SqlError> =>
    Effect.map(
      sql<{ place: string }>`
        select coalesce(string_agg(
          concat_ws(':', g.id, extract(epoch from g.live_at), p.partition, p.epoch, p.position, (
            select count(*) from projection_parked k where k.generation = g.id
          )),
          ',' order by g.id, p.partition
        ), '') as place
        from projection_generation g
        left join subscription s on s.store = g.store and s.name = concat('projection/', g.name, '/', g.number)
        left join subscription_partition p on p.subscription = s.id
        where g.store = ${store} and g.name = any(${Pg.textArray(names)}) and g.state = 'live'`,
      ([row]) => row?.place ?? ""
    )

  /** Until the transaction ends, nobody else changes the generations of a projection. */
  const lock = (name: string) =>
    sql`select pg_advisory_xact_lock(hashtextextended(${`projection/${postgres.schema}/${store}/${name}`}, 0))`

  const insert = Effect.fnUntraced(
    function*(projection: Projection, live: Generation | undefined, options: BuildOptions) {
      const [last] = yield* sql<{ number: number }>`
      select coalesce(max(number), 0)::integer as number from projection_generation
      where store = ${store} and name = ${projection.name}`
      const number = (last?.number ?? 0) + 1
      // A fact may move between keys that are not streams: one owner sees both.
      const partitions = projection.key.isStream ? options.partitions : 1
      const schema = GenerationSchema.nameOf({ schema: postgres.schema, store, name: projection.name, number })
      const tables = yield* GenerationSchema.create(postgres, projection, schema)
      const [made] = yield* sql<Generation>`
      insert into projection_generation (
        store, name, number, version, schema, tables, state, applied, partitions, manual, rate, live_at
      ) values (
        ${store}, ${projection.name}, ${number}, ${projection.version}, ${schema}, ${Pg.textArray(tables)},
        ${live === undefined ? "live" : "building"}, ${projection.inline ? "joining" : "subscription"}, ${partitions},
        ${Pg.boolean(options.manual)},
        ${Pg.int(options.rate ?? null)}, ${live === undefined ? sql`clock_timestamp()` : sql`null`}
      )
      returning ${columns}`
      if (live === undefined) yield* GenerationSchema.publish(postgres, { schema, tables }, [])
      return made!
    }
  )

  /** Makes the first generation of a projection, or of a version that has none. */
  const open = (
    projection: Projection,
    options: BuildOptions
  ): Effect.Effect<void, InvalidTables | SqlError | TransactionError> =>
    Effect.gen(function*() {
      yield* lock(projection.name)
      const known = yield* ofName(projection.name)
      const own = known.filter(({ version }) => version === projection.version)
      if (own.length > 0) return yield* Effect.forEach(own, declare(projection.inline), { discard: true })
      const made = yield* insert(projection, known.find(({ state }) => state === "live"), options)
      // Without a fact there is nothing to catch up on.
      if (made.state !== "live" || !projection.inline || (yield* holdLog(sql, store)) > beginning) return
      yield* Checkpoints.create(postgres, {
        store,
        name: subscriptionOf(made),
        partitions: made.partitions,
        position: beginning
      })
      yield* enter(made, beginning)
    }).pipe((body) => transact(body, { idempotent: true }))

  // One row, by primary key.
  const setApplied = (generation: Generation, applied: Applied) =>
    sql`update projection_generation set applied = ${applied} where id = ${generation.id}`

  /** A projection may become inline, or cease to be, without another version. */
  const declare = (inline: boolean) =>
    Effect.fnUntraced(function*(generation: Generation) {
      if (inline === (generation.applied !== "subscription")) return
      yield* holdLog(sql, store)
      if (generation.applied === "inline") yield* leave(generation)
      yield* setApplied(generation, inline ? "joining" : "subscription")
    })

  /**
   * For who holds the log, at whose end the generation is: from the next append on, appends apply facts to it. Its subscription pauses, and
   * what its owners have not committed is fenced. One that somebody has paused or set back goes on joining.
   */
  const enter = Effect.fnUntraced(function*(generation: Generation, head: Position) {
    const held = yield* Checkpoints.hold(sql, store, subscriptionOf(generation))
    const subscription = yield* Checkpoints.find(sql, store, subscriptionOf(generation))
    if (subscription === undefined || subscription.paused || held.some(({ position }) => position !== head)) return
    const { pause, reset } = Checkpoints.make(postgres, subscription)
    yield* reset({ position: undefined, partition: undefined, failed: false })
    yield* pause(true)
    yield* setApplied(generation, "inline")
  })

  /** For who holds the log: from here on its subscription fills it again, from where it is. */
  const leave = Effect.fnUntraced(function*(generation: Generation) {
    const subscription = yield* Checkpoints.find(sql, store, subscriptionOf(generation))
    if (subscription !== undefined) yield* Checkpoints.make(postgres, subscription).pause(false)
    yield* setApplied(generation, "joining")
  })

  /** Lets appends apply facts to the generation that readers see, once it has caught up: in a transaction that holds the log. */
  const join = (name: string): Effect.Effect<void, GenerationBehind | SqlError | TransactionError> =>
    Effect.gen(function*() {
      yield* lock(name)
      const live = (yield* ofName(name)).find(({ state }) => state === "live")
      if (live?.applied !== "joining") return
      const head = yield* holdLog(sql, store)
      yield* isNear(live, head)
      yield* reached(live, head)
      yield* enter(live, head)
    }).pipe((body) => transact(body, { idempotent: true }))

  /** Makes one more generation of a projection, unless one is being built already. */
  const rebuild = (
    projection: Projection,
    options: BuildOptions
  ): Effect.Effect<Generation, InvalidTables | SqlError | TransactionError> =>
    Effect.gen(function*() {
      yield* lock(projection.name)
      const known = yield* ofName(projection.name)
      const building = known.find(({ state, version }) => state === "building" && version === projection.version)
      return building ?? (yield* insert(projection, known.find(({ state }) => state === "live"), options))
    }).pipe((body) => transact(body, { idempotent: true }))

  /**
   * Switches readers to a generation, in one transaction in which the one they see does not move. It has to be as far as that
   * within a second, in every partition.
   */
  const switchTo = (
    name: string,
    number: number
  ): Effect.Effect<Generation, NoSuchGeneration | GenerationBehind | SqlError | TransactionError> =>
    Effect.gen(function*() {
      yield* lock(name)
      const known = yield* ofName(name)
      const next = known.find((each) => each.number === number)
      if (next === undefined) return yield* missing(name, `there is no generation ${number}`)
      const live = known.find(({ state }) => state === "live")
      if (live === undefined || live.id === next.id) return next
      const head = [live, next].some(({ applied }) => applied !== "subscription")
        ? yield* holdLog(sql, store)
        : undefined
      if (head !== undefined) yield* isNear(next, head)
      yield* reached(next, head ?? furthest(yield* Checkpoints.hold(sql, store, subscriptionOf(live))))
      yield* GenerationSchema.publish(postgres, next, live.tables)
      if (live.applied === "inline") yield* leave(live)
      if (next.applied === "joining" && head !== undefined) yield* enter(next, head)
      // Two rows, by primary key; the index of live ones allows one at a time.
      yield* sql`update projection_generation set state = 'old' where id = ${live.id}`
      yield* sql`update projection_generation set state = 'live', live_at = clock_timestamp() where id = ${next.id}`
      return next
    }).pipe((body) => transact(body, { idempotent: true }))

  /** Whether every partition has reached a position. */
  const isAt = (generation: Generation, position: bigint) =>
    Effect.map(
      Checkpoints.read(sql, store, [subscriptionOf(generation)]),
      (rows) => rows.length > 0 && rows.every((row) => row.position >= position)
    )
  const behind = ({ name, number }: Generation) => new GenerationBehind({ projection: name, number })

  /** While the log is held, one that is far behind is not waited for. */
  const isNear = (generation: Generation, head: Position) =>
    Effect.flatMap(isAt(generation, head - nearly), (near) => near ? Effect.void : Effect.fail(behind(generation)))

  /**
   * Waits until every partition has reached a position, for as long as one may hold up the generation that readers see, or those
   * who append.
   */
  const reached = Effect.fnUntraced(function*(generation: Generation, position: bigint) {
    const look = isAt(generation, position)
    // Each look is a statement of the transaction that holds the others up, so it is bounded by their number.
    for (let looks = 0; looks < 100; looks++) {
      if (yield* look) return
      yield* Effect.void.pipe(Pace.after("10 millis"))
    }
    return yield* behind(generation)
  })

  /** Removes a generation that readers do not see, for good. */
  const drop = (name: string, number: number): Effect.Effect<void, NoSuchGeneration | SqlError | TransactionError> =>
    Effect.gen(function*() {
      yield* lock(name)
      const generation = (yield* ofName(name)).find((each) => each.number === number)
      if (generation === undefined) return yield* missing(name, `there is no generation ${number}`)
      if (generation.state === "live") {
        return yield* missing(name, `readers see generation ${number}: it cannot be dropped`)
      }
      yield* GenerationSchema.drop(sql, generation.schema)
      yield* sql`delete from projection_parked where generation = ${generation.id}`
      yield* sql`delete from projection_key_stream where generation = ${generation.id}`
      yield* sql`update projection_generation set state = 'dropped' where id = ${generation.id}`
    }).pipe((body) => transact(body, { idempotent: true }))

  return { all, ofName, inline, placeOf, open, rebuild, join, leave, switchTo, drop }
}

/** So many facts before the end of the log, it is worth waiting. */
export const nearly = 1000n

/**
 * The generations of a store's projections.
 *
 * @category models
 * @since 0.1.0
 */
export type Generations = ReturnType<typeof make>

/**
 * Fails, since there is no such generation.
 *
 * @category errors
 * @since 0.1.0
 */
export const missing = (projection: string, detail: string) => new NoSuchGeneration({ projection, detail })

const furthest = (rows: ReadonlyArray<{ readonly position: Position }>): bigint =>
  rows.reduce((most, { position }) => position > most ? position : most, 0n)
