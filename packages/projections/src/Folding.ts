/**
 * Applies facts to a generation, revisions among them: keys that a revision touches are made again from what is believed.
 *
 * **Details**
 *
 * After each batch the rows of a key are what the projection makes of the facts of the key that are believed at the
 * checkpoint, in the order in which each was first recorded. Facts of keys without a revision in the batch are applied as they are;
 * that gives the same, since what comes new stands behind all that was there.
 *
 * @since 0.1.0
 */
import * as Belief from "@strata/event-store/Belief"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { FailedFact } from "@strata/event-store/DurableSubscriptionPartition"
import type { EventDecodeError } from "@strata/event-store/EventDefinition"
import type { EventStore, EventStoreError } from "@strata/event-store/EventStore"
import { type Fact, Position } from "@strata/event-store/Fact"
import type { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as SqlState from "@strata/postgres/SqlState"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Generation } from "./Generation.ts"
import * as GenerationSchema from "./GenerationSchema.ts"
import * as ParkedKeys from "./ParkedKeys.ts"
import type { ApplyError, Projection } from "./Projection.ts"
import * as ProjectionKey from "./ProjectionKey.ts"

/**
 * What applying a batch may fail with.
 *
 * @category errors
 * @since 0.1.0
 */
export type FoldError = ApplyError | EventStoreError | SqlError

/** A key in both of its forms. */
interface Key {
  readonly text: string
  readonly columns: ReadonlyArray<string>
}

/** A key, and where a fact of it is. */
interface Place {
  readonly fact: Pick<Fact, "tenant" | "stream">
  readonly key: Key
}

/** A wanted fact with its key. */
interface Keyed extends Place {
  readonly fact: Fact
}

/** Facts that `apply` is given at a time. */
const chunk = 1000

/**
 * Applies facts to the tables of one generation, always inside a transaction.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (projection: Projection, generation: Generation, { postgres, store }: {
  readonly postgres: Postgres["Service"]
  readonly store: EventStore["Service"]
}) => {
  const { sql } = postgres
  const withSql = Effect.provideService(SqlClient.SqlClient, sql)
  const parkedKeys = ParkedKeys.make(postgres, store.name, generation)

  const keyOf = (fact: Fact) =>
    Result.map(projection.key.of(fact), (columns): Key => ({ text: ProjectionKey.format(columns), columns }))

  /** The wanted ones with their keys, or the first of them that does not decode. */
  const withKeys = (facts: ReadonlyArray<Fact>): Effect.Effect<ReadonlyArray<Keyed>, EventDecodeError> => {
    const keyed: Array<Keyed> = []
    for (const fact of facts) {
      if (!projection.wants(fact)) continue
      const key = keyOf(fact)
      if (Result.isFailure(key)) return Effect.fail(key.failure)
      keyed.push({ fact, key: key.success })
    }
    return Effect.succeed(keyed)
  }

  // -------------------------------------------------------------------------------------------------------- belief

  /** In which streams the facts of keys are. Rows by the first columns of the primary key. */
  const streamsOf = (places: ReadonlyArray<Place>) =>
    projection.key.isStream
      ? Effect.succeed(places.map(({ fact: { stream, tenant } }) => ({ stream, tenant })))
      : sql<Pick<Fact, "tenant" | "stream">>`
        select distinct tenant, stream from projection_key_stream
        where generation = ${generation.id} and key = any(${Pg.textArray(places.map(({ key }) => key.text))})`

  /** Notes in which streams the facts of keys are, where the key itself does not tell. */
  const noteStreams = (keyed: ReadonlyArray<Keyed>) => {
    if (projection.key.isStream) return Effect.void
    const places = [
      ...new Map(keyed.map((each) => [`${each.key.text}\0${each.fact.tenant}\0${each.fact.stream}`, each])).values()
    ]
    return sql`
      insert into projection_key_stream (generation, key, tenant, stream)
      select ${generation.id}::integer, * from unnest(
        ${Pg.textArray(places.map(({ key }) => key.text))},
        ${Pg.textArray(places.map(({ fact }) => fact.tenant))},
        ${Pg.textArray(places.map(({ fact }) => fact.stream))}
      )
      on conflict do nothing`
  }

  /**
   * By key: the facts that are believed at a position, in the order of their origins, without those that are left out. For each of
   * the positions.
   */
  const beliefsOf = Effect.fnUntraced(function*(
    places: ReadonlyArray<Place>,
    positions: ReadonlyArray<Position>,
    skipped: ReadonlySet<bigint>
  ): Effect.fn.Return<ReadonlyArray<ReadonlyMap<string, ReadonlyArray<Fact>>>, FoldError> {
    const upTo = positions.reduce((last, position) => position > last ? position : last)
    const facts = (yield* store.readStreams({ streams: yield* streamsOf(places), upTo }))
      .filter((fact) => projection.wants(fact) && !skipped.has(fact.position))
    return yield* Effect.forEach(positions, (position) =>
      Effect.gen(function*() {
        const believed = new Map<string, Array<Fact>>(places.map(({ key }) => [key.text, []]))
        for (const { fact, key } of yield* withKeys(Belief.knownAt(facts, position))) believed.get(key.text)?.push(fact)
        for (const facts of believed.values()) facts.sort(Belief.byOrigin)
        return believed
      }))
  })

  // -------------------------------------------------------------------------------------------------------- applying

  const applyInChunks = (facts: ReadonlyArray<Fact>) =>
    Effect.forEach(
      Arr.chunksOf(facts, chunk),
      (part) => Arr.isReadonlyArrayNonEmpty(part) ? withSql(projection.apply(part)) : Effect.void,
      { discard: true }
    )

  /** Makes keys again from what is believed at `after`, where the tables show what was believed at `before`. */
  const refold = Effect.fnUntraced(function*(keys: ReadonlyArray<Place>, options: {
    readonly before: Position
    readonly after: Position
    readonly skipped: ReadonlySet<bigint>
  }): Effect.fn.Return<ReadonlyArray<Fact>, FoldError> {
    if (keys.length === 0) return []
    const { replace } = projection
    if (replace !== undefined) {
      const [before, after] = yield* beliefsOf(keys, [options.before, options.after], options.skipped)
      yield* withSql(replace(keys.map(({ key: { columns, text } }) => ({
        key: columns,
        before: before?.get(text) ?? [],
        after: after?.get(text) ?? []
      }))))
      return []
    }
    yield* withSql(GenerationSchema.clear(
      generation.tables,
      projection.key.columns,
      keys.map(({ key }) => key.columns)
    ))
    const [believed] = yield* beliefsOf(keys, [options.after], options.skipped)
    return [...believed?.values() ?? []].flat()
  })

  /** The keys that revisions touch: those they belong to, and those that what they revise belonged to. */
  const touched = Effect.fnUntraced(function*(keyed: ReadonlyArray<Keyed>): Effect.fn.Return<
    ReadonlyMap<string, Keyed>,
    FoldError
  > {
    const keys = new Map<string, Keyed>()
    for (const each of keyed) {
      if (each.fact.revision === 0) continue
      keys.set(each.key.text, each)
      if (projection.key.isStream) continue
      const chain = yield* store.history(each.fact.eventId, { limit: each.fact.revision }).pipe(
        Effect.provideService(CurrentTenant, each.fact.tenant)
      )
      for (const member of yield* withKeys(chain)) keys.set(member.key.text, member)
    }
    return keys
  })

  /** Applies a batch: facts that follow each other in a partition of the log. */
  const apply = Effect.fnUntraced(function*(
    batch: Arr.NonEmptyReadonlyArray<Fact>
  ): Effect.fn.Return<void, FoldError> {
    const keyed = yield* withKeys(batch)
    if (keyed.length === 0) return
    const revised = yield* touched(keyed)
    const keys = new Set([...keyed.map(({ key }) => key.text), ...revised.keys()])
    const { parked, skipped } = yield* parkedKeys.enter([...keys])
    yield* noteStreams(keyed)
    const believed = yield* refold([...revised.values()].filter(({ key }) => !parked.has(key.text)), {
      before: Position.make(batch[0].position - 1n),
      after: Arr.lastNonEmpty(batch).position,
      skipped
    })
    const plain = keyed
      .filter(({ fact, key }) => !parked.has(key.text) && !revised.has(key.text) && !skipped.has(fact.position))
      .map(({ fact }) => fact)
    yield* applyInChunks(believed.length === 0 ? plain : [...plain, ...believed].toSorted(Belief.byOrigin))
    if (parked.size > 0) yield* parkedKeys.hold(countBy(keyed, parked))
  })

  /** Puts a fact aside, and with it its key. */
  const park = Effect.fnUntraced(function*(failed: FailedFact) {
    const { fact } = failed
    const key = Result.getOrElse(keyOf(fact), (): Key => {
      const columns = [fact.tenant, fact.stream, String(fact.position)]
      return { text: ProjectionKey.format(columns), columns }
    })
    yield* parkedKeys.add(key, failed)
  })

  /** Makes a key again that waits, as of its partition's checkpoint, and lets it go on. */
  const release = Effect.fnUntraced(function*(
    row: ParkedKeys.ParkedRow,
    checkpoint: Position
  ): Effect.fn.Return<void, FoldError> {
    const { skipped } = yield* parkedKeys.enter([])
    const key = { text: row.key, columns: row.columns }
    const { stream, tenant } = row
    const believed = yield* refold([{ key, fact: { stream, tenant } }], {
      before: Position.make(row.position - 1n),
      after: checkpoint,
      skipped
    })
    yield* applyInChunks(believed)
    yield* parkedKeys.remove(row.key)
  })

  return { apply, park, release, parkedKeys }
}

const countBy = (keyed: ReadonlyArray<Keyed>, parked: ReadonlySet<string>): ReadonlyMap<string, number> => {
  const counts = new Map<string, number>()
  for (const { key: { text } } of keyed) if (parked.has(text)) counts.set(text, (counts.get(text) ?? 0) + 1)
  return counts
}

/**
 * Applies facts to the tables of one generation.
 *
 * @category models
 * @since 0.1.0
 */
export type Folding = ReturnType<typeof make>

/**
 * What went wrong, in the database's own words where it has some.
 *
 * @category formatting
 * @since 0.1.0
 */
export const describe = (error: unknown): string => {
  const said = SqlState.sqlErrorOf(error)?.reason.cause ?? error
  return Predicate.hasProperty(said, "message") ? String(said.message) : String(said)
}
