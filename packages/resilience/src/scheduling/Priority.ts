/**
 * How much a piece of work matters when there is not room for all of it.
 *
 * **Details**
 *
 * | class | number | what |
 * | --- | --- | --- |
 * | P0 | 10 | never shed: payments, and whatever finishes work that was accepted |
 * | P1 | 7–9 | somebody waits for it |
 * | P2 | 4–6 | ordinary work, and work that says nothing of itself |
 * | P3 | 0–3 | may be left out: reports, prefetching, batches |
 *
 * The class travels with the fiber, so what a handler calls is as urgent as the handler.
 *
 * **Example** (Running batch work in its class)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as Priority from "@strata/resilience/scheduling/Priority"
 *
 * Priority.fromNumber(8) // => "P1"
 * await Effect.runPromise(Priority.run(Priority.Current, "P3")) // => "P3"
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/**
 * The four classes, the most urgent first.
 *
 * @category constants
 * @since 0.1.0
 */
export const all = ["P0", "P1", "P2", "P3"] as const

/**
 * One of the four classes.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Priority = Schema.Literals(all)

/**
 * One of the four classes.
 *
 * @category models
 * @since 0.1.0
 */
export type Priority = typeof Priority.Type

/**
 * The class of a priority written as a whole number from 0 to 10; `undefined` for any other number.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromNumber = (priority: number): Priority | undefined => {
  if (!Number.isInteger(priority) || priority < 0 || priority > 10) return undefined
  if (priority === 10) return "P0"
  if (priority >= 7) return "P1"
  return priority >= 4 ? "P2" : "P3"
}

/**
 * The class of the work this fiber does. P2 unless somebody said.
 *
 * @category references
 * @since 0.1.0
 */
export const Current: Context.Reference<Priority> = Context.Reference<Priority>(
  "@strata/resilience/Priority/Current",
  { defaultValue: () => "P2" }
)

/**
 * Runs an effect in a class.
 *
 * @category combinators
 * @since 0.1.0
 */
export const run = <A, E, R>(effect: Effect.Effect<A, E, R>, priority: Priority): Effect.Effect<A, E, R> =>
  Effect.provideService(effect, Current, priority)

/**
 * Runs what finishes work that was accepted: the next step of a flow, a compensation, an acknowledgement, a sign of
 * life. It is P0, since to shed it would waste what was done and leave it half done.
 *
 * @category combinators
 * @since 0.1.0
 */
export const continuation = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => run(effect, "P0")
