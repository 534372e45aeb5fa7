/**
 * States of keys, kept as JSON in a table with the columns of the key and `state`.
 *
 * @since 0.1.0
 */
import type { EventDecodeError } from "@strata/event-store/EventDefinition"
import type { Fact } from "@strata/event-store/Fact"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Projected } from "./Projection.ts"
import * as ProjectionKey from "./ProjectionKey.ts"
import * as SqlText from "./SqlText.ts"

/**
 * The facts of one key, in order.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeySlice<out Event> {
  readonly key: ReadonlyArray<string>
  readonly text: string
  readonly batch: ReadonlyArray<Projected<Event>>
}

/**
 * A batch by key, keys in the order in which they first appear.
 *
 * @category combinators
 * @since 0.1.0
 */
export const group = <Event>(
  batch: ReadonlyArray<Projected<Event>>,
  keyOf: (fact: Fact) => Result.Result<ReadonlyArray<string>, EventDecodeError>
): Result.Result<ReadonlyArray<KeySlice<Event>>, EventDecodeError> => {
  const slices = new Map<string, KeySlice<Event> & { readonly batch: Array<Projected<Event>> }>()
  for (const projected of batch) {
    const key = keyOf(projected.fact)
    if (Result.isFailure(key)) return Result.fail(key.failure)
    const text = ProjectionKey.format(key.success)
    const slice = slices.get(text)
    if (slice === undefined) slices.set(text, { key: key.success, text, batch: [projected] })
    else slice.batch.push(projected)
  }
  return Result.succeed([...slices.values()])
}

/**
 * The statements on one table.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <State>({ columns, state, table }: {
  readonly table: string
  readonly columns: ReadonlyArray<string>
  readonly state: Schema.Codec<State, unknown>
}) => {
  const json = Schema.toCodecJson(state)
  const decode = Schema.decodeUnknownSync(json)
  const encode = Schema.encodeSync(json)
  const names = SqlText.list(columns)
  const parameters = columns.map((_, place) => `$${place + 1}`).join(", ")
  // Rows by primary key.
  const select = `
    select array[${names}] as key, state from ${SqlText.identifier(table)}
    where (${names}) in (select * from unnest(${parameters}))`
  const remove = `
    delete from ${SqlText.identifier(table)} where (${names}) in (select * from unnest(${parameters}))`
  const fields = [...columns.map((name) => ({ name, type: "text" })), { name: "state", type: "jsonb" }]
  const upsert = `
    insert into ${SqlText.identifier(table)} (${SqlText.list(fields.map(({ name }) => name))})
    select * from jsonb_to_recordset($1::jsonb) as r(${SqlText.columns(fields)})
    on conflict (${names}) do update set state = excluded.state`
  const columnsOf = (keys: ReadonlyArray<ReadonlyArray<string>>) =>
    columns.map((_, place) => Pg.textArray(keys.map((key) => key[place] ?? "")))

  return {
    encode,
    /** The states of those keys that have one, by the key's text. */
    load: (
      keys: ReadonlyArray<ReadonlyArray<string>>
    ): Effect.Effect<ReadonlyMap<string, State>, SqlError, SqlClient.SqlClient> =>
      Effect.flatMap(SqlClient.SqlClient, (sql) =>
        Effect.map(
          sql.unsafe<{ key: ReadonlyArray<string>; state: unknown }>(select, columnsOf(keys)),
          (rows) => new Map(rows.map(({ key, state }) => [ProjectionKey.format(key), decode(state)]))
        )),
    save: (
      states: ReadonlyArray<{ readonly key: ReadonlyArray<string>; readonly state: State }>
    ): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
      states.length === 0 ?
        Effect.void :
        Effect.flatMap(SqlClient.SqlClient, (sql) =>
          Effect.asVoid(sql.unsafe(upsert, [
            Pg.jsonb(states.map(({ key, state }) => ({
              ...Object.fromEntries(columns.map((name, place) => [name, key[place]] as const)),
              state: encode(state)
            })))
          ]))),
    remove: (keys: ReadonlyArray<ReadonlyArray<string>>): Effect.Effect<void, SqlError, SqlClient.SqlClient> =>
      keys.length === 0
        ? Effect.void
        : Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.asVoid(sql.unsafe(remove, columnsOf(keys))))
  }
}
