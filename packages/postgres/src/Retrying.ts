/**
 * Who tries again what failed: of all the layers that a call passes through, the outermost one that can.
 *
 * **When to use**
 *
 * Use `retry` in what others may call under a retry of theirs, and `marked` around what is retried where something below
 * may retry too. Packages above the one of retry policies have those, which do both.
 *
 * **Details**
 *
 * Three layers of three tries each would call a database that is in trouble twenty-seven times. So a layer that retries
 * marks what it calls, and who finds the mark runs once and lets the failure out.
 *
 * One kind of failure may be left to those below: where nobody knows whether the call took effect, only who can repeat
 * it without harm may try again, and that is often the one who made the event ids. Hence the mark tells which failures
 * are retried above: all of them, or only those that certainly changed nothing. Each is retried by one layer either way.
 *
 * The mark is looked at when something has failed, so `retry` costs a call that succeeds no more than `Effect.retry`.
 *
 * **Gotchas**
 *
 * Fibers inherit the mark. What is forked under it and outlives the call begins with `outermost`.
 *
 * **Example** (Two layers of three tries make three calls)
 *
 * ```ts import.meta.vitest
 * import * as Retrying from "@strata/postgres/Retrying"
 * import * as Effect from "effect/Effect"
 * import * as Schedule from "effect/Schedule"
 *
 * let calls = 0
 * const call = Effect.suspend(() => Effect.fail(++calls))
 * const again = { schedule: Schedule.recurs(2), while: () => true }
 * const program = call.pipe(Retrying.retry(again), Retrying.marked, Retrying.retry(again))
 *
 * await Effect.runPromise(Effect.flip(program)) // => 3
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Schedule from "effect/Schedule"

/**
 * What the layers above try again.
 *
 * - `nothing`: no layer above retries.
 * - `harmless`: failures that certainly changed nothing.
 * - `everything`: also those of which nobody knows whether they took effect.
 *
 * @category models
 * @since 0.1.0
 */
export type Above = "nothing" | "harmless" | "everything"

/**
 * The mark of this fiber. `nothing` unless a layer above has set it.
 *
 * @category references
 * @since 0.1.0
 */
export const Retrying: Context.Reference<Above> = Context.Reference<Above>("@strata/postgres/Retrying", {
  defaultValue: () => "nothing"
})

/**
 * How, and after which failures, something is tried again.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<in E> {
  readonly schedule: Schedule.Schedule<unknown, E>
  readonly while: (error: E) => boolean
  /** True of a failure that may have taken effect, and of which `while` says that a repetition does no harm. Default: none. */
  readonly isUnknown?: ((error: E) => boolean) | undefined
}

/**
 * Whether a failure may be tried again here, because no layer above does so.
 *
 * @category getters
 * @since 0.1.0
 */
export const isOurs = (isUnknown: boolean): Effect.Effect<boolean> =>
  Effect.map(Retrying, (above) => above === "nothing" || above === "harmless" && isUnknown)

/**
 * Runs an effect again when it fails, unless a layer above does.
 *
 * @category combinators
 * @since 0.1.0
 */
export const retry: {
  <E>(options: Options<NoInfer<E>>): <A, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, options: Options<E>): Effect.Effect<A, E, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, options: Options<E>): Effect.Effect<A, E, R> =>
  Effect.retry(
    self,
    Schedule.while(
      options.schedule,
      ({ input }) => options.while(input) && isOurs(options.isUnknown?.(input) ?? false)
    )
  ))

/**
 * Runs an effect as one of which every failure is retried above.
 *
 * @category combinators
 * @since 0.1.0
 */
export const marked = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(self, Retrying, "everything")

/**
 * Runs an effect as one above which nothing retries: a worker that is forked inside a call and outlives it.
 *
 * @category combinators
 * @since 0.1.0
 */
export const outermost = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(self, Retrying, "nothing")
