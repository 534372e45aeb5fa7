/**
 * Sums contributions up in memory, and adds what comes out to the tables by one statement each.
 *
 * **Details**
 *
 * Rows are written in the order of their dimensions, so that partitions that add to the same ones wait for each other and never
 * in a circle. A row of which all is zero is removed: then the tables show the same whichever way they were filled.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Contribution } from "./ContributionsProjection.ts"
import { bucketOf, type Measure } from "./Measure.ts"
import * as SqlText from "./SqlText.ts"

/**
 * A table of sums.
 *
 * @category models
 * @since 0.1.0
 */
export interface SumsTable {
  readonly table: string
  /** Columns with their types. */
  readonly dimensions: { readonly [name: string]: string }
  readonly measures: { readonly [name: string]: Measure }
}

/** What a batch changes about one combination of dimensions. */
interface Change {
  readonly dimensions: Contribution["dimensions"]
  contributions: bigint
  readonly sums: Map<string, bigint>
  /** By measure: by value or bucket, how many more. */
  readonly parts: Map<string, Map<string | number, bigint>>
}

/**
 * The statements that make the tables.
 *
 * @category constructors
 * @since 0.1.0
 */
export const tablesOf = ({ dimensions, measures, table }: SumsTable): ReadonlyArray<string> => {
  const names = SqlText.list(Object.keys(dimensions))
  const columns = Object.entries(dimensions).map(([name, type]) => `${SqlText.identifier(name)} ${type} not null`)
  const totals = Object.entries(measures).flatMap(([name, { _tag }]) =>
    _tag === "Histogram"
      ? []
      : [`${SqlText.identifier(name)} ${_tag === "Sum" ? "numeric" : "bigint"} not null default 0`]
  )
  const parts = Object.entries(measures).flatMap(([name, { _tag }]) => {
    if (_tag === "Count" || _tag === "Sum") return []
    const value = _tag === "Distinct" ? "value text" : "bucket integer"
    return [`create table ${SqlText.identifier(`${table}_${name}`)} (
      ${columns.join(", ")}, ${value} not null, refs bigint not null, primary key (${names}, ${value.split(" ")[0]})
    ) with (fillfactor = 80)`]
  })
  return [
    `create table ${SqlText.identifier(table)} (
      ${columns.join(", ")}, ${
      [...totals, "contributions bigint not null default 0"].join(", ")
    }, primary key (${names})
    ) with (fillfactor = 80)`,
    ...parts
  ]
}

/**
 * Adds contributions, each as often as its weight says.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (sums: SumsTable) => {
  const { measures } = sums
  const statements = statementsOf(sums)
  const dimensionNames = Object.keys(sums.dimensions)

  const changesOf = (contributions: Iterable<Contribution>): ReadonlyArray<readonly [string, Change]> => {
    const changes = new Map<string, Change>()
    for (const { dimensions, values = {}, weight = 1 } of contributions) {
      const key = dimensionNames.map((name) => String(dimensions[name])).join("\0")
      const change = changes.get(key) ?? { dimensions, contributions: 0n, sums: new Map(), parts: new Map() }
      changes.set(key, change)
      const times = BigInt(weight)
      change.contributions += times
      for (const [name, measure] of Object.entries(measures)) add(change, name, measure, values[name], times)
    }
    return [...changes].filter(([, change]) => isOne(change)).toSorted(([a], [b]) => a < b ? -1 : a > b ? 1 : 0)
  }

  return Effect.fnUntraced(function*(
    contributions: Iterable<Contribution>
  ): Effect.fn.Return<void, SqlError, SqlClient.SqlClient> {
    const changes = changesOf(contributions).map(([, change]) => change)
    if (changes.length === 0) return
    const sql = yield* SqlClient.SqlClient
    const totals = Pg.jsonb(changes.map(({ contributions, dimensions, sums }) => ({
      ...dimensions,
      ...Object.fromEntries([...sums].map(([name, sum]) => [name, String(sum)] as const)),
      contributions: String(contributions)
    })))
    yield* sql.unsafe(statements.total, [totals])
    for (const { add, empty, name } of statements.parts) {
      const parts = changes.flatMap(({ dimensions, parts }) =>
        [...parts.get(name) ?? []].filter(([, refs]) => refs !== 0n)
          .toSorted(([a], [b]) => String(a) < String(b) ? -1 : 1)
          .map(([part, refs]) => ({ ...dimensions, part, refs: String(refs) }))
      )
      if (parts.length === 0) continue
      yield* sql.unsafe(add, [Pg.jsonb(parts)])
      if (parts.some(({ refs }) => refs.startsWith("-"))) yield* sql.unsafe(empty, [Pg.jsonb(parts)])
    }
    if (changes.some(isLess)) yield* sql.unsafe(statements.empty, [totals])
  })
}

type Value = NonNullable<Contribution["values"]>[string]

const add = (change: Change, name: string, measure: Measure, value: Value, times: bigint) => {
  if (measure._tag === "Count") {
    if (value !== false) change.sums.set(name, (change.sums.get(name) ?? 0n) + times)
  } else if (value === undefined || value === null) {
    return
  } else if (measure._tag === "Sum") {
    change.sums.set(name, (change.sums.get(name) ?? 0n) + times * BigInt(value))
  } else {
    const part = measure._tag === "Distinct" ? String(value) : bucketOf(measure, Number(value))
    const parts = change.parts.get(name) ?? new Map<string | number, bigint>()
    change.parts.set(name, parts)
    parts.set(part, (parts.get(part) ?? 0n) + times)
  }
}

/** What is taken away and added again is none: a correction leaves most of what its key contributed as it was. */
const isOne = ({ contributions, parts, sums }: Change): boolean =>
  contributions !== 0n || [...sums.values()].some((sum) => sum !== 0n) ||
  [...parts.values()].some((counts) => [...counts.values()].some((refs) => refs !== 0n))

const isLess = ({ contributions, sums }: Change): boolean =>
  contributions <= 0n || [...sums.values()].some((sum) => sum < 0n)

/** Rows by primary keys, all of them. */
const statementsOf = ({ dimensions, measures, table }: SumsTable) => {
  const names = Object.keys(dimensions)
  const dims = SqlText.list(names)
  const fields = names.map((name) => ({ name, type: dimensions[name] ?? "text" }))
  const totals = Object.entries(measures).filter(([, { _tag }]) => _tag === "Count" || _tag === "Sum")
    .map(([name, { _tag }]) => ({ name, type: _tag === "Sum" ? "numeric" : "bigint" }))
  const counted = [...totals, { name: "contributions", type: "bigint" }]
  const distinct = Object.entries(measures).filter(([, { _tag }]) => _tag === "Distinct").map(([name]) => name)
  const same = (a: string, b: string) =>
    names.map((name) => `${a}.${SqlText.identifier(name)} = ${b}.${SqlText.identifier(name)}`).join(" and ")
  const main = SqlText.identifier(table)

  const total = `
    insert into ${main} as t (${dims}, ${SqlText.list(counted.map(({ name }) => name))})
    select ${dims}, ${counted.map(({ name }) => `coalesce(${SqlText.identifier(name)}, 0)`).join(", ")}
    from jsonb_to_recordset($1::jsonb) as r(${SqlText.columns([...fields, ...counted])})
    on conflict (${dims}) do update set ${
    counted.map(({ name }) => {
      const column = SqlText.identifier(name)
      return `${column} = t.${column} + excluded.${column}`
    }).join(", ")
  }`
  const empty = `
    delete from ${main} as t using jsonb_to_recordset($1::jsonb) as r(${SqlText.columns(fields)})
    where ${same("t", "r")} and ${
    [...counted.map(({ name }) => name), ...distinct].map((name) => `t.${SqlText.identifier(name)} = 0`).join(" and ")
  }`

  const parts = Object.entries(measures).flatMap(([name, { _tag }]) => {
    if (_tag === "Count" || _tag === "Sum") return []
    const partTable = SqlText.identifier(`${table}_${name}`)
    const part = _tag === "Distinct" ? "value" : "bucket"
    const record = SqlText.columns([
      ...fields,
      { name: "part", type: _tag === "Distinct" ? "text" : "integer" },
      { name: "refs", type: "bigint" }
    ])
    const upsert = `
      insert into ${partTable} as t (${dims}, ${part}, refs)
      select ${dims}, part, refs from jsonb_to_recordset($1::jsonb) as r(${record})
      on conflict (${dims}, ${part}) do update set refs = t.refs + excluded.refs`
    const column = SqlText.identifier(name)
    // What the distinct count changes by: values that were not there before, less those that are gone.
    const counting = `
      with added as (${upsert} returning ${dims}, ${part}, refs)
      insert into ${main} as t (${dims}, ${column})
      select ${SqlText.list(names, "a.")}, sum((a.refs > 0)::integer - (a.refs - d.refs > 0)::integer) as change
      from added a
      join jsonb_to_recordset($1::jsonb) as d(${record}) on ${same("a", "d")} and a.${part} = d.part
      group by ${SqlText.list(names, "a.")}
      having sum((a.refs > 0)::integer - (a.refs - d.refs > 0)::integer) <> 0
      order by ${SqlText.list(names, "a.")}
      on conflict (${dims}) do update set ${column} = t.${column} + excluded.${column}`
    return [{
      name,
      add: _tag === "Distinct" ? counting : upsert,
      empty: `
        delete from ${partTable} as t using jsonb_to_recordset($1::jsonb) as r(${record})
        where ${same("t", "r")} and t.${part} = r.part and t.refs = 0`
    }]
  })
  return { total, empty, parts }
}
