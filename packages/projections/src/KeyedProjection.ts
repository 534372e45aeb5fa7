/**
 * Projections with one row for each key: a state that is folded from the key's facts.
 *
 * **When to use**
 *
 * Use where the read model of a key is what a decider's state would be: no SQL is written. Columns that are searched or sorted
 * by are told as functions of the state.
 *
 * **Details**
 *
 * The table has the columns of the key, `state` as `jsonb`, and those columns. A batch reads the states of its keys, folds
 * them, and writes them back by one statement each. A key of which nothing is believed has no row.
 *
 * **Example** (Balances, with the richest first)
 *
 * ```ts
 * import * as KeyedProjection from "@strata/projections/KeyedProjection"
 * import * as Schema from "effect/Schema"
 *
 * const Balances = KeyedProjection.make({
 *   name: "balances",
 *   events: AccountEvents,
 *   table: "balance",
 *   state: Schema.Struct({ owner: Schema.String, cents: Schema.Int }),
 *   initial: { owner: "", cents: 0 },
 *   evolve: (state, event) =>
 *     event._tag === "Opened" ? { ...state, owner: event.owner } : { ...state, cents: state.cents + event.cents },
 *   columns: { cents: { type: "bigint", of: (state) => state.cents } },
 *   indexes: "create index balance_cents on balance (tenant, cents desc)"
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { Fact } from "@strata/event-store/Fact"
import { split } from "@strata/postgres/MigrationsStatements"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import * as KeyedStates from "./KeyedStates.ts"
import * as Projection from "./Projection.ts"
import * as SqlText from "./SqlText.ts"

/**
 * A column that follows from the state.
 *
 * @category models
 * @since 0.1.0
 */
export interface Column<in State> {
  /** A type of PostgreSQL that is written from JSON: `text`, `integer`, `bigint`, `timestamptz`, `jsonb` … */
  readonly type: string
  readonly of: (state: State) => Schema.Json
}

/**
 * Makes a projection of one row for each key.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Event extends { readonly _tag: string }, State>(
  options: Projection.Options<Event> & {
    readonly table: string
    readonly state: Schema.Codec<State, unknown>
    /** Of a key without facts. */
    readonly initial: NoInfer<State>
    readonly evolve: (state: NoInfer<State>, event: Event, fact: Fact) => NoInfer<State>
    /** Default: none. */
    readonly columns?: { readonly [name: string]: Column<NoInfer<State>> } | undefined
    /** SQL that makes indexes. Default: none but the one of the key. */
    readonly indexes?: string | undefined
  }
): Projection.Projection => {
  const { columns = {}, evolve, events, indexes = "", initial, table } = options
  const described = Projection.describe(options)
  const keyColumns = described.key.columns
  const derived = Object.entries(columns)
  const { encode, load } = KeyedStates.make({ table, columns: keyColumns, state: options.state })

  const fields = [
    ...keyColumns.map((name) => ({ name, type: "text" })),
    { name: "state", type: "jsonb" },
    ...derived.map(([name, { type }]) => ({ name, type }))
  ]
  const names = SqlText.list(fields.map(({ name }) => name))
  // Rows by primary key.
  const save = `
    insert into ${SqlText.identifier(table)} (${names})
    select ${names} from jsonb_to_recordset($1::jsonb) as r(${SqlText.columns(fields)})
    on conflict (${SqlText.list(keyColumns)}) do update set ${
    ["state", ...Object.keys(columns)].map((name) =>
      `${SqlText.identifier(name)} = excluded.${SqlText.identifier(name)}`
    )
      .join(", ")
  }`

  return {
    ...described,
    tables: [
      `create table ${SqlText.identifier(table)} (
        ${
        fields.map(({ name, type }) => `${SqlText.identifier(name)} ${type}${name in columns ? "" : " not null"}`).join(
          ", "
        )
      },
        primary key (${SqlText.list(keyColumns)})
      )`,
      ...Result.getOrThrow(split(indexes)).map(({ text }) => text)
    ],
    apply: Effect.fnUntraced(function*(facts) {
      const sql = yield* SqlClient.SqlClient
      const batch = yield* Effect.fromResult(Projection.decodeAll(events, facts))
      const keys = yield* Effect.fromResult(KeyedStates.group(batch, described.key.of))
      const states = yield* load(keys.map(({ key }) => key))
      const rows = keys.map(({ batch, key, text }) => {
        const state = batch.reduce((state, { event, fact }) => evolve(state, event, fact), states.get(text) ?? initial)
        return {
          ...Object.fromEntries(keyColumns.map((name, place) => [name, key[place]] as const)),
          state: encode(state),
          ...Object.fromEntries(derived.map(([name, { of }]) => [name, of(state)] as const))
        }
      })
      yield* sql.unsafe(save, [Pg.jsonb(rows)])
    }),
    replace: undefined
  }
}
