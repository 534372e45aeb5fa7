/**
 * Projections that sum up over keys: each fact contributes to some combinations of dimensions.
 *
 * **When to use**
 *
 * Use for figures: messages by day, revenue by country, different visitors, response times in buckets.
 *
 * **Details**
 *
 * `contribute` tells what a fact contributes: dimensions and the values of measures. The runtime keeps the sums, by one statement
 * a batch. When facts of a key are revised, it takes away what the key's facts contributed as they were believed before, and adds
 * what they contribute as they are believed now. So counts, sums, distinct counts and histograms are exact after any
 * corrections and retractions.
 *
 * Where events have personal fields (see `PersonalData`), each fact's contributions are remembered in a table beside the others,
 * `<table>_given`: what was contributed before an erasure can then be taken away, though nobody can read it any more.
 *
 * What a fact contributes may depend on the facts of its key before it: `state` folds them.
 *
 * The table has the dimensions, a column for each count, sum and distinct count, and `contributions`, the sum of the weights. See
 * `Measure` for what else there is.
 *
 * **Gotchas**
 *
 * - `contribute` and `evolve` are pure, and change only with the version: what was added has to be taken away again.
 * - Dimensions are never null: give what is unknown a name.
 * - With personal fields, a fact costs one row more. When an event of a projection gets its first one, raise the version.
 *
 * **Example** (Messages by day)
 *
 * ```ts
 * import * as ContributionsProjection from "@strata/projections/ContributionsProjection"
 * import * as Measure from "@strata/projections/Measure"
 *
 * const Daily = ContributionsProjection.make({
 *   name: "daily",
 *   events: MessageEvents,
 *   table: "daily",
 *   dimensions: { tenant: "text", day: "date" },
 *   measures: { messages: Measure.count, bytes: Measure.sum, senders: Measure.distinct },
 *   contribute: ({ event, fact }) => [{
 *     dimensions: { tenant: fact.tenant, day: dayOf(event.sentAt) },
 *     values: { bytes: event.size, senders: event.senderId }
 *   }]
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { EventDecodeError } from "@strata/event-store/EventDefinition"
import type { Fact } from "@strata/event-store/Fact"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as ContributionSums from "./ContributionSums.ts"
import * as GivenContributions from "./GivenContributions.ts"
import type { Given } from "./GivenContributions.ts"
import * as KeyedStates from "./KeyedStates.ts"
import type { Measure } from "./Measure.ts"
import * as Projection from "./Projection.ts"
import * as ProjectionKey from "./ProjectionKey.ts"
import * as SqlText from "./SqlText.ts"

/**
 * What a fact adds to one combination of dimensions.
 *
 * @category models
 * @since 0.1.0
 */
export interface Contribution {
  readonly dimensions: { readonly [name: string]: string | number | boolean }
  /** By measure: a whole number for a sum, a text to be distinct, a number for a histogram, whether it counts. */
  readonly values?: { readonly [measure: string]: string | number | bigint | boolean | null | undefined } | undefined
  /** How often it is added, a whole number; negative takes away. Default: 1. */
  readonly weight?: number | undefined
}

/**
 * The facts of a key so far.
 *
 * @category models
 * @since 0.1.0
 */
export interface StateOptions<in Event, in out State> {
  readonly schema: Schema.Codec<State, unknown>
  /** Of a key without facts. */
  readonly initial: State
  readonly evolve: (state: State, projected: Projection.Projected<Event>) => State
}

/**
 * What a fact contributes: by itself, or with the state of the facts of its key before it.
 *
 * @category options
 * @since 0.1.0
 */
export type ContributeOptions<Event, State> =
  | {
    readonly state?: undefined
    readonly contribute: (projected: Projection.Projected<Event>) => ReadonlyArray<Contribution>
  }
  | {
    readonly state: StateOptions<Event, State>
    readonly contribute: (projected: Projection.Projected<Event>, state: State) => ReadonlyArray<Contribution>
  }

/**
 * Makes a projection of sums.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Event extends { readonly _tag: string }, State = never>(
  options: Projection.Options<Event> & ContributeOptions<Event, State> & {
    readonly table: string
    /** Columns with their types: `text`, `integer`, `bigint`, `boolean`, `date`, `timestamptz`. */
    readonly dimensions: { readonly [name: string]: string }
    readonly measures: { readonly [name: string]: Measure }
  }
): Projection.Projection => {
  const { dimensions, events, measures, table } = options
  const described = Projection.describe(options)
  const sums = { table, dimensions, measures }
  const add = ContributionSums.make(sums)
  const keys = options.state === undefined
    ? stateless(options.contribute)
    : stateful(options.state, options.contribute, { table: `${table}_state`, columns: described.key.columns })
  const memory = events.isPersonal
    ? GivenContributions.make({ table: `${table}_given`, columns: described.key.columns })
    : undefined

  const decoded = (facts: ReadonlyArray<Fact>) =>
    Arr.isReadonlyArrayNonEmpty(facts)
      ? Effect.fromResult(Projection.decodeAll(events, facts))
      : Effect.succeed<ReadonlyArray<Projection.Projected<Event>>>([])

  const slicesOf = Effect.fnUntraced(function*(
    changes: ReadonlyArray<Projection.BeliefChange>,
    which: "before" | "after"
  ): Effect.fn.Return<ReadonlyArray<KeyedStates.KeySlice<Event>>, EventDecodeError> {
    return yield* Effect.forEach(
      changes,
      ({ key, ...facts }) =>
        Effect.map(decoded(facts[which]), (batch) => ({ key, text: ProjectionKey.format(key), batch }))
    )
  })

  /** What facts contribute that follow those of before. */
  const moreOf = Effect.fnUntraced(function*(facts: ReadonlyArray<Fact>) {
    return yield* keys.more(yield* Effect.fromResult(KeyedStates.group(yield* decoded(facts), described.key.of)))
  })

  return {
    ...described,
    tables: [...ContributionSums.tablesOf(sums), ...keys.tables, ...memory?.tables ?? []],
    apply: Effect.fnUntraced(function*(facts) {
      const more = yield* moreOf(facts)
      yield* add(contributionsOf(more))
      if (memory !== undefined) yield* memory.note(more)
    }),
    replace: Effect.fnUntraced(function*(changes, others) {
      const after = yield* slicesOf(changes, "after")
      // What was erased, facts do not say any more.
      const before = memory === undefined ? yield* slicesOf(changes, "before") : []
      const given = yield* memory?.take(changes.map(({ key }) => key)) ??
        Effect.succeed(contributionsOf(keys.all(before)))
      const less = given.map((each) => ({ ...each, weight: -(each.weight ?? 1) }))
      const more = [...keys.all(after), ...others.length === 0 ? [] : yield* moreOf(others)]
      yield* add([...less, ...contributionsOf(more)])
      yield* keys.settle(after, before)
      if (memory !== undefined) yield* memory.note(more)
    })
  }
}

const contributionsOf = (given: ReadonlyArray<Given>): ReadonlyArray<Contribution> =>
  given.flatMap(({ contributions }) => contributions)

/** How the facts of keys are turned into contributions. */
interface Keys<Event> {
  readonly tables: ReadonlyArray<string>
  /** Of facts that follow those of before. */
  readonly more: (
    slices: ReadonlyArray<KeyedStates.KeySlice<Event>>
  ) => Effect.Effect<ReadonlyArray<Given>, SqlError, SqlClient.SqlClient>
  /** Of all facts of keys. */
  readonly all: (slices: ReadonlyArray<KeyedStates.KeySlice<Event>>) => ReadonlyArray<Given>
  /** Keeps the states after all facts of keys, and leaves alone those that are known to be as before. */
  readonly settle: (
    slices: ReadonlyArray<KeyedStates.KeySlice<Event>>,
    before: ReadonlyArray<KeyedStates.KeySlice<Event>>
  ) => Effect.Effect<void, SqlError, SqlClient.SqlClient>
}

const stateless = <Event>(
  contribute: (projected: Projection.Projected<Event>) => ReadonlyArray<Contribution>
): Keys<Event> => {
  const all: Keys<Event>["all"] = (slices) =>
    slices.flatMap(({ batch, key }) =>
      batch.map((projected) => ({ key, origin: projected.fact.origin, contributions: contribute(projected) }))
    )
  return { tables: [], more: (slices) => Effect.succeed(all(slices)), all, settle: () => Effect.void }
}

const stateful = <Event, State>(
  { evolve, initial, schema }: StateOptions<Event, State>,
  contribute: (projected: Projection.Projected<Event>, state: State) => ReadonlyArray<Contribution>,
  { columns, table }: { readonly table: string; readonly columns: ReadonlyArray<string> }
): Keys<Event> => {
  const states = KeyedStates.make({ table, columns, state: schema })
  const fold = ({ batch, key }: KeyedStates.KeySlice<Event>, from: State) => {
    let state = from
    const given = batch.map((projected): Given => {
      const contributions = contribute(projected, state)
      state = evolve(state, projected)
      return { key, origin: projected.fact.origin, contributions }
    })
    return { given, state }
  }
  return {
    tables: [`create table ${SqlText.identifier(table)} (
      ${columns.map((name) => `${SqlText.identifier(name)} text not null`).join(", ")}, state jsonb not null,
      primary key (${SqlText.list(columns)})
    )`],
    more: Effect.fnUntraced(function*(slices) {
      const before = yield* states.load(slices.map(({ key }) => key))
      const folded = slices.map((slice) => ({ key: slice.key, ...fold(slice, before.get(slice.text) ?? initial) }))
      yield* states.save(folded)
      return folded.flatMap(({ given }) => given)
    }),
    all: (slices) => slices.flatMap((slice) => fold(slice, initial).given),
    settle: Effect.fnUntraced(function*(slices, before) {
      const isThere = ({ batch }: KeyedStates.KeySlice<Event>) => batch.length > 0
      const kept = new Map(
        before.filter(isThere).map((slice) => [slice.text, states.encode(fold(slice, initial).state)])
      )
      yield* states.save(
        slices.filter(isThere).map((slice) => ({ ...slice, state: fold(slice, initial).state }))
          .filter(({ state, text }) => !kept.has(text) || !Equal.equals(kept.get(text), states.encode(state)))
      )
      yield* states.remove(slices.filter((slice) => !isThere(slice)).map(({ key }) => key))
    })
  }
}
