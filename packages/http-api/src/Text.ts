/**
 * Text and JSON that the database can keep: no NUL, no half of a surrogate pair, no nesting without end.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

const isStorable = (text: string): boolean => text.isWellFormed() && !text.includes("\0")

const wellFormed = Schema.makeFilter<string>((text) =>
  isStorable(text) ? undefined : "Expected text without NUL characters and lone surrogates"
)

/**
 * Text that can be stored as it is. May be empty.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Text = Schema.String.check(wellFormed)

/**
 * Text of 1 to `maximum` characters, 512 by default: an id, a name, a reason.
 *
 * @category schemas
 * @since 0.1.0
 */
export const label = (maximum = 512) =>
  // A description goes with the last check, and OpenAPI shows those of checks that it knows.
  Schema.String.check(wellFormed, Schema.isMinLength(1), Schema.isMaxLength(maximum))

/**
 * How deep arrays and objects may be nested in JSON.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxDepth = 64

/**
 * What keeps a JSON value from being stored as it is, `undefined` when nothing does. It walks with a stack of its own, so
 * that no input can exhaust the one of the process.
 *
 * @category guards
 * @since 0.1.0
 */
export const jsonIssue = (value: Schema.Json): string | undefined => {
  const pending: Array<readonly [value: Schema.Json, depth: number]> = [[value, 0]]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [current, depth] = next
    if (typeof current === "string" && !isStorable(current)) {
      return "Expected text without NUL characters and lone surrogates"
    }
    if (typeof current !== "object" || current === null) continue
    if (depth === maxDepth) return `Expected at most ${maxDepth} levels of nesting`
    for (const [key, member] of Object.entries(current)) {
      if (!isStorable(key)) return "Expected names without NUL characters and lone surrogates"
      pending.push([member, depth + 1])
    }
  }
  return undefined
}

const storableJson = Schema.makeFilter<Schema.Json>(jsonIssue)

/**
 * Any JSON value that can be stored as it is.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Json = Schema.Json.check(storableJson)

/**
 * A JSON object that can be stored as it is.
 *
 * @category schemas
 * @since 0.1.0
 */
export const JsonObject = Schema.JsonObject.check(
  Schema.makeFilter<Schema.JsonObject>(jsonIssue)
)
