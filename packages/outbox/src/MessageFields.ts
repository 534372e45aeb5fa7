/**
 * What the fields of a message may hold, whether it is published or sent to a queue, and what is said of those that hold something else.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import type { Headers } from "./Publication.ts"

/**
 * The field at `path`, and what is wrong with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Problem {
  readonly path: string
  readonly problem: string
}

/**
 * No message waits for more seconds.
 *
 * @category constants
 * @since 0.1.0
 */
export const longestDelay = 10 * 365 * 86_400

/**
 * A time in seconds; undefined for what is none, or has no end.
 *
 * @category converting
 * @since 0.1.0
 */
export const secondsOf = (input: Duration.Input): number | undefined => {
  const duration = Duration.fromInput(input)
  return duration._tag === "Some" && Duration.isFinite(duration.value) ? Duration.toSeconds(duration.value) : undefined
}

/**
 * True for text that PostgreSQL stores as it is.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isText = (text: string, longest: number): boolean =>
  text.length <= longest && !text.includes("\0") && text.isWellFormed()

/**
 * True for text that names something.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isLabel = (text: string): boolean => text !== "" && isText(text, 512)

/**
 * What is said of a label that is none.
 *
 * @category constants
 * @since 0.1.0
 */
export const labelExpected = "expected 1 to 512 characters, none of them NUL or half of a surrogate pair"

/**
 * The first header that cannot be one.
 *
 * @category getters
 * @since 0.1.0
 */
export const findHeaderProblem = (headers: Headers): Problem | undefined => {
  const entries = Object.entries(headers)
  if (entries.length > mostHeaders) return { path: "headers", problem: `expected at most ${mostHeaders}` }
  for (const [name, value] of entries) {
    if (!isLabel(name)) return { path: "headers", problem: `of a name, ${labelExpected}` }
    if (Predicate.isString(value) ? !isText(value, 4096) : !Predicate.isBoolean(value) && !Number.isFinite(value)) {
      return { path: `headers.${name}`, problem: "expected a text of at most 4,096 characters, a number or a boolean" }
    }
  }
  return undefined
}

const mostHeaders = 64
