/**
 * Errors without a stack: for refusals, which are made by the thousand when there is least time, and whose message says all.
 *
 * **Details**
 *
 * To capture a stack takes two thirds of what a refusal costs.
 *
 * **Example** (A refusal)
 *
 * ```ts import.meta.vitest
 * import * as Stackless from "@strata/resilience/Stackless"
 *
 * Stackless.make(() => new Error("full")).stack // => "Error: full"
 * ```
 *
 * @since 0.1.0
 */

/**
 * Makes an error, or a few that hold each other. What makes it does nothing else.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <E extends Error>(error: () => E): E => {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return error()
  } finally {
    Error.stackTraceLimit = limit
  }
}
