/**
 * Which messages a consumer wants, by their headers. The database judges it while it claims, so what is not wanted stays for others.
 *
 * **Details**
 *
 * A filter is a value, and becomes one SQL/JSON path expression: nothing of it is SQL text. Comparison is by type too: the
 * header `5` is not the header `"5"`. A header that is not there equals nothing, so `not` of it is true.
 *
 * **Gotchas**
 *
 * What nobody wants is looked at by every claim: give it to somebody, or put it into another queue.
 *
 * **Example** (Orders of Europe, without the tests)
 *
 * ```ts import.meta.vitest
 * import * as HeaderFilter from "@strata/queues/consuming/HeaderFilter"
 *
 * const filter = HeaderFilter.and(
 *   HeaderFilter.oneOf("region", ["eu", "uk"]),
 *   HeaderFilter.not(HeaderFilter.like("source", "test-%"))
 * )
 *
 * HeaderFilter.format(filter) // => "region in (eu, uk) and not source like test-%"
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

// --------------------------------------------------------------------------------------------------------- models

/**
 * The value of a header.
 *
 * @category schemas
 * @since 0.1.0
 */
export const HeaderValue = Schema.Union([Schema.String, Schema.Finite, Schema.Boolean])
export type HeaderValue = typeof HeaderValue.Type

/**
 * A filter.
 *
 * @category models
 * @since 0.1.0
 */
export type HeaderFilter =
  | { readonly _tag: "Equal"; readonly header: string; readonly value: HeaderValue }
  | { readonly _tag: "OneOf"; readonly header: string; readonly values: ReadonlyArray<HeaderValue> }
  | { readonly _tag: "Like"; readonly header: string; readonly pattern: string }
  | { readonly _tag: "Not"; readonly filter: HeaderFilter }
  | { readonly _tag: "And"; readonly filters: ReadonlyArray<HeaderFilter> }
  | { readonly _tag: "Or"; readonly filters: ReadonlyArray<HeaderFilter> }

// --------------------------------------------------------------------------------------------------- constructors

/**
 * The header has this value.
 *
 * @category constructors
 * @since 0.1.0
 */
export const equal = (header: string, value: HeaderValue): HeaderFilter => ({ _tag: "Equal", header, value })

/**
 * The header has one of these values.
 *
 * @category constructors
 * @since 0.1.0
 */
export const oneOf = (header: string, values: ReadonlyArray<HeaderValue>): HeaderFilter => ({
  _tag: "OneOf",
  header,
  values
})

/**
 * The header is a text of this pattern, as of SQL: `%` stands for any text, `_` for one character, and a backslash before
 * either for itself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const like = (header: string, pattern: string): HeaderFilter => ({ _tag: "Like", header, pattern })

/**
 * What the filter does not want.
 *
 * @category constructors
 * @since 0.1.0
 */
export const not = (filter: HeaderFilter): HeaderFilter => ({ _tag: "Not", filter })

/**
 * What all filters want; everything without one.
 *
 * @category constructors
 * @since 0.1.0
 */
export const and = (...filters: ReadonlyArray<HeaderFilter>): HeaderFilter => ({ _tag: "And", filters })

/**
 * What one of the filters wants; nothing without one.
 *
 * @category constructors
 * @since 0.1.0
 */
export const or = (...filters: ReadonlyArray<HeaderFilter>): HeaderFilter => ({ _tag: "Or", filters })

// ----------------------------------------------------------------------------------------------------- converting

/**
 * The filter as an SQL/JSON path predicate on the headers of a message.
 *
 * @category converting
 * @since 0.1.0
 */
export const toJsonPath = (filter: HeaderFilter): string => {
  switch (filter._tag) {
    case "Equal":
      return `(exists($ ? (@.${literal(filter.header)} == ${literal(filter.value)})))`
    case "OneOf":
      return toJsonPath(or(...filter.values.map((value) => equal(filter.header, value))))
    case "Like":
      return `(exists($ ? (@.${literal(filter.header)} like_regex ${literal(regexOf(filter.pattern))} flag "s")))`
    case "Not":
      return `(!${toJsonPath(filter.filter)})`
    case "And":
      return filter.filters.length === 0 ? "(1 == 1)" : `(${filter.filters.map(toJsonPath).join(" && ")})`
    case "Or":
      return filter.filters.length === 0 ? "(1 == 0)" : `(${filter.filters.map(toJsonPath).join(" || ")})`
  }
}

/** A text in a path is written as in JSON. */
const literal = (value: HeaderValue): string => JSON.stringify(value)

/** A pattern of SQL as a regular expression of PostgreSQL. */
const regexOf = (pattern: string): string => {
  let regex = "^"
  for (let at = 0; at < pattern.length; at++) {
    const character = pattern[at]!
    if (character === "%") regex += ".*"
    else if (character === "_") regex += "."
    else regex += quote(character === "\\" && at + 1 < pattern.length ? pattern[++at]! : character)
  }
  return `${regex}$`
}

const quote = (character: string): string => /[\\^$.|?*+()[\]{}]/.test(character) ? `\\${character}` : character

/**
 * The filter as a line to read.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (filter: HeaderFilter): string => {
  switch (filter._tag) {
    case "Equal":
      return `${filter.header} = ${filter.value}`
    case "OneOf":
      return `${filter.header} in (${filter.values.join(", ")})`
    case "Like":
      return `${filter.header} like ${filter.pattern}`
    case "Not":
      return `not ${nested(filter.filter)}`
    case "And":
      return filter.filters.length === 0 ? "everything" : filter.filters.map(nested).join(" and ")
    case "Or":
      return filter.filters.length === 0 ? "nothing" : filter.filters.map(nested).join(" or ")
  }
}

const nested = (filter: HeaderFilter): string =>
  (filter._tag === "And" || filter._tag === "Or") && filter.filters.length > 1 ? `(${format(filter)})` : format(filter)
