/**
 * The parameters of the statement that publishes.
 *
 * @since 0.1.0
 */
import * as Pg from "@strata/postgres/PostgresTypes"
import type { PreparedMessage } from "./PreparedMessage.ts"

/**
 * Messages as `publish_messages` takes them, after the outcomes and numbers of appends: see `migrations/0002_fields.sql`. What is null
 * in all of them goes as an empty array, which costs nothing.
 *
 * @category converting
 * @since 0.1.0
 */
export const parameters = (messages: ReadonlyArray<PreparedMessage>): ReadonlyArray<Pg.Parameter> => {
  const destinations: Array<PreparedMessage["destination"]> = []
  const to = messages.map(({ destination }) => {
    // There are one or two.
    const known = destinations.findIndex(({ kind, name }) => kind === destination.kind && name === destination.name)
    return known < 0 ? destinations.push(destination) : known + 1
  })
  return [
    Pg.textArray(destinations.map(({ kind }) => kind)),
    Pg.textArray(destinations.map(({ name }) => name)),
    Pg.intArray(to),
    Pg.uuidArray(messages.map(({ id }) => id)),
    Pg.textArray(unlessNull(messages.map(({ key }) => key))),
    Pg.textArray(onceIfSame(messages.map(({ type }) => type))),
    Pg.textArray(onceIfSame(messages.map(({ tenant }) => tenant))),
    Pg.textArray(unlessNull(messages.map(({ correlationId }) => correlationId))),
    Pg.textArray(unlessNull(messages.map(({ causationId }) => causationId))),
    Pg.textArray(unlessNull(messages.map(({ traceparent }) => traceparent))),
    Pg.textArray(unlessNull(messages.map(({ headers }) => headers))),
    Pg.textArray(messages.map(({ data }) => data)),
    Pg.textArray(unlessNull(messages.map(({ options }) => options)))
  ]
}

/**
 * The text for these parameters, the first of which is numbered `from`.
 *
 * @category converting
 * @since 0.1.0
 */
export const placeholders = (from: number): string => types.map((type, index) => `$${from + index}::${type}`).join(", ")

const types = [
  "text[]",
  "text[]",
  "integer[]",
  "uuid[]",
  "text[]",
  "text[]",
  "text[]",
  "text[]",
  "text[]",
  "text[]",
  "text[]::jsonb[]",
  "text[]::json[]",
  "text[]::jsonb[]"
]

const onceIfSame = (values: ReadonlyArray<string>): ReadonlyArray<string> => {
  const [first] = values
  return first !== undefined && values.every((value) => value === first) ? [first] : values
}

const unlessNull = <A>(values: ReadonlyArray<A | null>): ReadonlyArray<A | null> =>
  values.some((value) => value !== null) ? values : []
