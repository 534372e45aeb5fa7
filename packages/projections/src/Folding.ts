/**
 * Applies facts to a generation, revisions among them: keys that a revision touches are made again from what is believed.
 *
 * **Details**
 *
 * After each batch the rows of a key are what the projection makes of the facts of the key that are believed at the
 * checkpoint, in the order in which each was first recorded. Facts of keys without a revision in the batch are applied as they are;
 * that gives the same, since what comes new stands behind all that was there.
 *
 * An erasure touches the keys that have facts in the streams of its subject, and those they had before the erasure, where
 * what is erased was part of the key. A key that waits is made again as of the fact that it waits for.
 *
 * @since 0.1.0
 */
import * as Belief from "@strata/event-store/Belief"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { partitionOf } from "@strata/event-store/DurableSubscriptionFilter"
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
import * as Erasures from "./Erasures.ts"
import { type Generation, sharing } from "./Generation.ts"
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

/**
 * Whose keys a batch is of: those of a partition, or all of them, of an inline projection.
 *
 * @category models
 * @since 0.1.0
 */
export type Part = number | "all"

/** Facts that `apply` is given at a time. */
const chunk = 1000

/** Keys that are made again together after an erasure, of which a subject may have any number. */
const keysAtATime = 100

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
  const streamsOfSubject = Erasures.streamsOf(postgres, store.name)
  const { key: shareOf } = sharing(projection)

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

  /**
   * Makes keys again from what is believed at `after`, where the tables show what was believed at `before`. Applies facts of other
   * keys as well.
   */
  const refold = Effect.fnUntraced(function*(keys: ReadonlyArray<Place>, options: {
    readonly before: Position
    readonly after: Position
    readonly skipped: ReadonlySet<bigint>
    readonly others?: ReadonlyArray<Fact>
  }): Effect.fn.Return<void, FoldError> {
    const { others = [] } = options
    if (keys.length === 0) return yield* applyInChunks(others)
    const { replace } = projection
    if (replace !== undefined) {
      const [before, after] = yield* beliefsOf(keys, [options.before, options.after], options.skipped)
      const changes = keys.map(({ key: { columns, text } }) => ({
        key: columns,
        before: before?.get(text) ?? [],
        after: after?.get(text) ?? []
      }))
      const [now, later] = Arr.splitAt(others, chunk)
      yield* withSql(replace(changes, now))
      return yield* applyInChunks(later)
    }
    yield* withSql(GenerationSchema.clear(
      generation.tables,
      projection.key.columns,
      keys.map(({ key }) => key.columns)
    ))
    const [believed] = yield* beliefsOf(keys, [options.after], options.skipped)
    yield* applyInChunks([...others, ...[...believed?.values() ?? []].flat()].toSorted(Belief.byOrigin))
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

  // ------------------------------------------------------------------------------------------------------- erasures

  /** The keys of a part that subjects have something in, by facts up to a position, and those they had something in before. */
  const touchedBy = Effect.fnUntraced(function*(
    erasures: ReadonlyArray<Pick<Fact, "tenant" | "stream" | "position">>,
    part: Part,
    upTo: Position
  ): Effect.fn.Return<ReadonlyMap<string, Place>, FoldError> {
    const keys = new Map<string, Place>()
    if (erasures.length === 0) return keys
    const { skipped } = yield* parkedKeys.enter([], part)
    const subjects = erasures.flatMap((fact) => skipped.has(fact.position) ? [] : Erasures.subjectOf(fact) ?? [])
    const isOwn = (place: Place["fact"]) =>
      part === "all" || partitionOf(shareOf(place), generation.partitions) === part
    for (const subject of subjects) {
      yield* streamsOfSubject(
        subject,
        Effect.fnUntraced(function*(all): Effect.fn.Return<void, FoldError> {
          const streams = all.filter(isOwn)
          const facts = yield* store.readStreams({ streams, upTo })
          // What does not decode belongs to no key.
          const keyed = facts.filter(projection.wants).flatMap((fact) =>
            Result.match(keyOf(fact), {
              onFailure: () => [],
              onSuccess: (key): ReadonlyArray<Keyed> => [{ fact, key }]
            })
          )
          for (const place of yield* moveStreams(streams, keyed)) keys.set(place.key.text, place)
          for (const each of keyed) keys.set(each.key.text, each)
        })
      )
    }
    return keys
  })

  /** Notes anew which keys have facts in streams, and gives those that have none there any more. */
  const moveStreams = Effect.fnUntraced(function*(
    streams: ReadonlyArray<Place["fact"]>,
    keyed: ReadonlyArray<Keyed>
  ): Effect.fn.Return<ReadonlyArray<Place>, SqlError> {
    if (projection.key.isStream || streams.length === 0) return []
    yield* noteStreams(keyed)
    // Rows by the index on streams.
    const gone = yield* sql<Pick<Fact, "tenant" | "stream"> & { readonly key: string }>`
      delete from projection_key_stream as k
      using unnest(
        ${Pg.textArray(streams.map(({ tenant }) => tenant))}, ${Pg.textArray(streams.map(({ stream }) => stream))}
      ) as s(tenant, stream)
      where k.generation = ${generation.id} and k.tenant = s.tenant and k.stream = s.stream
        and (k.key, k.tenant, k.stream) not in (
          select * from unnest(
            ${Pg.textArray(keyed.map(({ key }) => key.text))}, ${Pg.textArray(keyed.map(({ fact }) => fact.tenant))},
            ${Pg.textArray(keyed.map(({ fact }) => fact.stream))}
          )
        )
      returning k.key, k.tenant, k.stream`
    return gone.map(({ key, ...fact }) => ({ fact, key: { text: key, columns: ProjectionKey.parse(key) } }))
  })

  /** Makes keys again that something was erased of, as of a position; those that wait as of the fact they wait for. */
  const refoldErased = Effect.fnUntraced(function*(places: Iterable<Place>, options: {
    readonly before: Position
    readonly after: Position
    readonly parked: ReadonlyMap<string, Position>
    readonly skipped: ReadonlySet<bigint>
  }): Effect.fn.Return<void, FoldError> {
    const { parked } = options
    const all = [...places]
    for (const some of Arr.chunksOf(all.filter(({ key }) => !parked.has(key.text)), keysAtATime)) {
      yield* refold(some, options)
    }
    for (const place of all) {
      const failed = parked.get(place.key.text)
      if (failed === undefined) continue
      const before = Position.make(failed - 1n)
      yield* refold([place], { ...options, before, after: before })
      // Its facts belong to another key now, and that has taken them.
      const isGone = (yield* streamsOf([place])).length === 0
      yield* isGone ? parkedKeys.remove(place.key.text) : parkedKeys.forgetError(place.key.text)
    }
  })

  // ---------------------------------------------------------------------------------------------------------- batches

  /** Applies a batch: facts that follow each other in a partition of the log, and erasures among them. */
  const apply = Effect.fnUntraced(function*(
    batch: Arr.NonEmptyReadonlyArray<Fact>,
    part: Part
  ): Effect.fn.Return<void, FoldError> {
    const keyed = yield* withKeys(batch)
    const erasures = yield* Erasures.concerning(generation, batch)
    if (keyed.length === 0 && erasures.length === 0) return
    const range = { before: Position.make(batch[0].position - 1n), after: Arr.lastNonEmpty(batch).position }
    const revised = yield* touched(keyed)
    yield* noteStreams(keyed)
    const erased = yield* touchedBy(erasures, part, range.after)
    const keys = new Set([...keyed.map(({ key }) => key.text), ...revised.keys(), ...erased.keys()])
    const { parked, skipped } = yield* parkedKeys.enter([...keys], part)
    yield* refoldErased(erased.values(), { ...range, parked, skipped })
    const others = keyed
      .filter(({ fact, key }) =>
        !parked.has(key.text) && !revised.has(key.text) && !erased.has(key.text) && !skipped.has(fact.position)
      )
      .map(({ fact }) => fact)
    yield* refold(
      [...revised.values()].filter(({ key }) => !parked.has(key.text) && !erased.has(key.text)),
      { ...range, skipped, others }
    )
    if (parked.size > 0) yield* parkedKeys.hold(countBy(keyed, parked))
  })

  /** Puts a fact aside, and with it its key. An erasure is put aside for one partition: it concerns any of its keys. */
  const park = Effect.fnUntraced(function*(failed: FailedFact, partition: number) {
    const { fact } = failed
    const place = [fact.tenant, fact.stream, String(fact.position)]
    const columns = Erasures.isErasure(fact)
      ? [...place, String(partition)]
      : Result.getOrElse(projection.key.of(fact), () => place)
    yield* parkedKeys.add({ text: ProjectionKey.format(columns), columns }, failed)
  })

  /** The partition that a key or an erasure waits in. */
  const partitionOfParked = (row: ParkedKeys.ParkedRow): number =>
    Erasures.subjectOf(row) === undefined ? partitionOf(shareOf(row), generation.partitions) : Number(row.columns[3])

  /** Follows an erasure that waits. */
  const followErasure = Effect.fnUntraced(function*(
    row: ParkedKeys.ParkedRow,
    checkpoint: Position
  ): Effect.fn.Return<void, FoldError> {
    const partition = partitionOfParked(row)
    const erased = yield* touchedBy([row], partition, checkpoint)
    const { parked, skipped } = yield* parkedKeys.enter([...erased.keys()], partition)
    yield* refoldErased(erased.values(), { before: checkpoint, after: checkpoint, parked, skipped })
    yield* parkedKeys.remove(row.key)
  })

  /** Makes a key again that waits, as of its partition's checkpoint, and lets it go on. */
  const release = Effect.fnUntraced(function*(
    row: ParkedKeys.ParkedRow,
    checkpoint: Position
  ): Effect.fn.Return<void, FoldError> {
    if (Erasures.subjectOf(row) !== undefined) return yield* followErasure(row, checkpoint)
    const { skipped } = yield* parkedKeys.enter([], "none")
    const key = { text: row.key, columns: row.columns }
    const { stream, tenant } = row
    yield* refold([{ key, fact: { stream, tenant } }], {
      before: Position.make(row.position - 1n),
      after: checkpoint,
      skipped
    })
    yield* parkedKeys.remove(row.key)
  })

  return { apply, park, release, partitionOfParked, parkedKeys }
}

const countBy = (keyed: ReadonlyArray<Keyed>, parked: ReadonlyMap<string, Position>): ReadonlyMap<string, number> => {
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
