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
 * What a fact contributes may depend on the facts of its key before it: `state` folds them.
 *
 * The table has the dimensions, a column for each count, sum and distinct count, and `contributions`, the sum of the weights. See
 * `Measure` for what else there is.
 *
 * **Gotchas**
 *
 * - `contribute` and `evolve` are pure, and change only with the version: what was added has to be taken away again.
 * - Dimensions are never null: give what is unknown a name.
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
import type { Fact } from "@strata/event-store/Fact"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as ContributionSums from "./ContributionSums.ts"
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

  const decoded = (facts: ReadonlyArray<Fact>) =>
    Arr.isReadonlyArrayNonEmpty(facts)
      ? Effect.fromResult(Projection.decodeAll(events, facts))
      : Effect.succeed<ReadonlyArray<Projection.Projected<Event>>>([])

  return {
    ...described,
    tables: [...ContributionSums.tablesOf(sums), ...keys.tables],
    apply: Effect.fnUntraced(function*(facts) {
      const slices = yield* Effect.fromResult(KeyedStates.group(yield* decoded(facts), described.key.of))
      yield* add(yield* keys.more(slices))
    }),
    replace: Effect.fnUntraced(function*(changes) {
      const contributions: Array<Contribution> = []
      const slices: Array<KeyedStates.KeySlice<Event>> = []
      for (const { after, before, key } of changes) {
        const batch = yield* decoded(after)
        slices.push({ key, text: ProjectionKey.format(key), batch })
        for (const each of keys.all(yield* decoded(before))) {
          contributions.push({ ...each, weight: -(each.weight ?? 1) })
        }
        contributions.push(...keys.all(batch))
      }
      yield* add(contributions)
      yield* keys.settle(slices)
    })
  }
}

/** How the facts of keys are turned into contributions. */
interface Keys<Event> {
  readonly tables: ReadonlyArray<string>
  /** Of facts that follow those of before. */
  readonly more: (
    slices: ReadonlyArray<KeyedStates.KeySlice<Event>>
  ) => Effect.Effect<ReadonlyArray<Contribution>, SqlError, SqlClient.SqlClient>
  /** Of all facts of a key. */
  readonly all: (batch: ReadonlyArray<Projection.Projected<Event>>) => ReadonlyArray<Contribution>
  /** Keeps the states after all facts of keys. */
  readonly settle: (
    slices: ReadonlyArray<KeyedStates.KeySlice<Event>>
  ) => Effect.Effect<void, SqlError, SqlClient.SqlClient>
}

const stateless = <Event>(
  contribute: (projected: Projection.Projected<Event>) => ReadonlyArray<Contribution>
): Keys<Event> => ({
  tables: [],
  more: (slices) => Effect.succeed(slices.flatMap(({ batch }) => batch.flatMap(contribute))),
  all: (batch) => batch.flatMap(contribute),
  settle: () => Effect.void
})

const stateful = <Event, State>(
  { evolve, initial, schema }: StateOptions<Event, State>,
  contribute: (projected: Projection.Projected<Event>, state: State) => ReadonlyArray<Contribution>,
  { columns, table }: { readonly table: string; readonly columns: ReadonlyArray<string> }
): Keys<Event> => {
  const states = KeyedStates.make({ table, columns, state: schema })
  const fold = (batch: ReadonlyArray<Projection.Projected<Event>>, from: State) => {
    let state = from
    const contributions = batch.flatMap((projected) => {
      const given = contribute(projected, state)
      state = evolve(state, projected)
      return given
    })
    return { contributions, state }
  }
  return {
    tables: [`create table ${SqlText.identifier(table)} (
      ${columns.map((name) => `${SqlText.identifier(name)} text not null`).join(", ")}, state jsonb not null,
      primary key (${SqlText.list(columns)})
    )`],
    more: Effect.fnUntraced(function*(slices) {
      const before = yield* states.load(slices.map(({ key }) => key))
      const folded = slices.map(({ batch, key, text }) => ({ key, ...fold(batch, before.get(text) ?? initial) }))
      yield* states.save(folded)
      return folded.flatMap(({ contributions }) => contributions)
    }),
    all: (batch) => fold(batch, initial).contributions,
    settle: Effect.fnUntraced(function*(slices) {
      const isThere = ({ batch }: KeyedStates.KeySlice<Event>) => batch.length > 0
      yield* states.save(slices.filter(isThere).map(({ batch, key }) => ({ key, state: fold(batch, initial).state })))
      yield* states.remove(slices.filter((slice) => !isThere(slice)).map(({ key }) => key))
    })
  }
}
