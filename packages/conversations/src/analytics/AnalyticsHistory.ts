/**
 * Answers questions as they would have been answered at a past moment: the projections are replayed as known then.
 *
 * **Details**
 *
 * A replay that somebody has made of that moment (`Replay.run`, of all positions and any period) is asked when there is one, whatever
 * its size. Otherwise the tenant's facts are replayed in a transaction that is rolled back: nothing is left of it, whatever ends
 * meanwhile. That is bounded: at most `longestHistory` facts, and one replay at a time in a process.
 *
 * What was known at a past moment never changes, so answers are kept.
 *
 * Reading only the belief of the period asked for would not do: an answer to a message may lie after it, and what a conversation is
 * about was said at its start. And it would be a second way to come to the same figures, that could come to others.
 *
 * @since 0.1.0
 */
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import type { Position } from "@strata/event-store/Fact"
import { countedAtMost, type KnownAt } from "@strata/event-store/FactQuery"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import type { TransactionError } from "@strata/postgres/TransactionError"
import { searchPath } from "@strata/projections/GenerationSchema"
import type { Projection } from "@strata/projections/Projection"
import * as Replay from "@strata/projections/Replay"
import * as Cache from "effect/Cache"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import type { SqlError } from "effect/sql/SqlError"

/**
 * Facts of a tenant that are replayed to answer a question.
 *
 * @category constants
 * @since 0.1.0
 */
export const longestHistory = countedAtMost

const conversations = "conversation"

// --------------------------------------------------------------------------------------------------------- errors

/**
 * More facts were known at the moment than are replayed to answer a question.
 *
 * @category errors
 * @since 0.1.0
 */
export class HistoryTooLong extends Schema.TaggedError<HistoryTooLong>()("HistoryTooLong", {
  projections: Schema.Array(Schema.String),
  position: Schema.BigInt
}) {
  override get message() {
    const commands = this.projections.map((name) => `npm run replay -- ${name} --known-at ${this.position}`)
    return `More than ${longestHistory} facts were known at position ${this.position}, or they are among too many others, to be replayed for one ` +
      "question. "
      + `Replay them once, and ask again: ${commands.join("; ")}`
  }
}

/**
 * Another question about the past is being answered.
 *
 * @category errors
 * @since 0.1.0
 */
export class HistoryBusy extends Schema.TaggedError<HistoryBusy>()("HistoryBusy", {}) {
  override get message() {
    return "Another question about the past is being answered: ask again in a few seconds"
  }
}

/**
 * Why a question about the past was not answered.
 *
 * @category errors
 * @since 0.1.0
 */
export type HistoryError =
  | HistoryTooLong
  | HistoryBusy
  | EventStoreError
  | Replay.ReplayError
  | SqlError
  | TransactionError

/** Rolls back what was replayed for an answer. */
class Answered<A> extends Data.TaggedError("Answered")<{ readonly answer: A }> {}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * What is asked, by tenant.
 *
 * @category models
 * @since 0.1.0
 */
export interface Question<out Options> {
  readonly tenant: string
  readonly options: Options
}

/**
 * Makes the function that answers one kind of question as known at a moment. `projections` are those that fill what `query` reads.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*() {
  const postgres = yield* Postgres
  const store = yield* EventStore
  const permit = yield* Semaphore.make(1)
  const { sql } = postgres

  const enter = (schemas: ReadonlyArray<string>) => {
    const path = [...schemas.slice(1).map((schema) => `"${schema}"`), searchPath(schemas[0]!, postgres)].join(", ")
    return sql`select set_config('search_path', ${path}, true)`
  }

  // Every replay there is: a few.
  const replaysOf = (projections: ReadonlyArray<Projection>, position: Position) =>
    Effect.map(
      sql<{ name: string; version: number; schema: string }>`
        select distinct on (name, version) name, version, schema from projection_replay
        where store = ${store.name} and valid_at is null and first = 1
          and known_at = ${Pg.bigint(position)} and last = known_at and position = last
        order by name, version, schema`,
      (rows) =>
        projections.flatMap(({ name, version }) =>
          rows.filter((row) => row.name === name && row.version === version).map(({ schema }) => schema)
        )
    )

  /** The tenant's facts are applied to tables that nobody else sees. */
  const replayed = <A, E>(
    projections: ReadonlyArray<Projection>,
    tenant: string,
    position: Position,
    query: Effect.Effect<A, E>
  ) =>
    postgres.transact(Effect.gen(function*() {
      const name = `asked_${Hex.encode(SecureRandom.randomBytesUnsafe(8))}`
      const schemas = projections.map((_, place) => `${name}_${place}`)
      for (const [place, projection] of projections.entries()) {
        const filter = { ...projection.filter, tenant }
        yield* Replay.run({ ...projection, filter }, { into: schemas[place]!, knownAt: { position } })
      }
      yield* enter(schemas)
      return yield* new Answered({ answer: yield* query })
    })).pipe(
      Effect.catchIf(
        (error): error is Answered<A> => error instanceof Answered,
        ({ answer }) => Effect.succeed(answer)
      ),
      Effect.provideService(EventStore, store),
      Effect.provideService(Postgres, postgres)
    )

  /** Whether more were known than are replayed; what is counted of the category anyway is enough to know where it has few until now. */
  const isLong = (position: Position) =>
    Effect.flatMap(store.streams.categories, (all) => {
      const held = all.find(({ category }) => category === conversations)?.facts ?? 0n
      return held <= longestHistory
        ? Effect.succeed(false)
        : Effect.map(
          store.count({ category: conversations, revisions: "all", knownAt: { position } }),
          ({ exact }) => !exact
        )
    })

  const answer = Effect.fnUntraced(function*<A, E>(
    projections: ReadonlyArray<Projection>,
    tenant: string,
    position: Position,
    query: Effect.Effect<A, E>
  ) {
    const there = yield* replaysOf(projections, position)
    if (there.length === projections.length) {
      return yield* postgres.transact(Effect.andThen(enter(there), query))
    }
    if (yield* isLong(position).pipe(Effect.provideService(CurrentTenant, tenant))) {
      return yield* new HistoryTooLong({ projections: projections.map(({ name }) => name), position })
    }
    const answered = yield* permit.withPermitsIfAvailable(1)(replayed(projections, tenant, position, query))
    return Option.isSome(answered) ? answered.value : yield* new HistoryBusy()
  })

  return Effect.fnUntraced(function*<Options, A, E>(
    projections: ReadonlyArray<Projection>,
    query: (options: Options) => Effect.Effect<A, E>
  ) {
    const answers = yield* Cache.makeWith(
      ({ options, position, tenant }: Question<Options> & { readonly position: Position }) =>
        answer(projections, tenant, position, query(options)),
      { capacity: 256, timeToLive: (exit) => Exit.isSuccess(exit) ? Duration.infinity : Duration.zero }
    )
    return (question: Question<Options>, knownAt: KnownAt) =>
      Effect.flatMap(store.positionAt(knownAt), (position) => Cache.get(answers, { ...question, position }))
  })
})
