/**
 * What is answered when a call was refused or failed: a value, the last good answer, or what another effect says.
 *
 * **When to use**
 *
 * Use outside a breaker, a limit or a bulkhead, where a worse answer is better than none: a default, yesterday's price, another
 * provider. Not for writes: who falls back on a value there says that something was done.
 *
 * **Details**
 *
 * By default only refusals of a circuit breaker are answered for; `when` says which errors are. Fallbacks add up: what one does not
 * answer for, or fails to answer, is left to the next one outside it. A defect or an interruption is never answered for.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_fallbacks_total` | counter: answers given instead of the call's | `kind`: Value, LastGood, Other |
 *
 * **Example** (Yesterday's price, or none)
 *
 * ```ts
 * import * as Fallback from "@strata/resilience/bounds/Fallback"
 * import * as Effect from "effect/Effect"
 *
 * declare const price: Effect.Effect<number, Error>
 *
 * const program = Effect.gen(function*() {
 *   const prices = yield* Fallback.makeLastGood<number>({ timeToLive: "1 day" })
 *   return yield* price.pipe(
 *     Fallback.apply(Fallback.lastGood(prices, "gold"), { when: () => true }),
 *     Fallback.apply(Fallback.value(0), { when: () => true })
 *   )
 * })
 * ```
 *
 * @since 0.1.0
 */
import { Clock } from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as CircuitBreaker from "effect/persistence/CircuitBreaker"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * Where an answer comes from when the call has none. `In` is what the call itself may answer, where that is remembered.
 *
 * @category models
 * @since 0.1.0
 */
export type Fallback<A, E = never, R = never, In = unknown> =
  | { readonly _tag: "Value"; readonly value: A }
  | { readonly _tag: "LastGood"; readonly answers: LastGood<A, In>; readonly key: string }
  | { readonly _tag: "Other"; readonly effect: (error: unknown) => Effect.Effect<A, E, R> }

/**
 * The last good answers, by key.
 *
 * @category models
 * @since 0.1.0
 */
export interface LastGood<out A, in In = A> {
  readonly remember: (key: string, answer: In) => Effect.Effect<void>
  /** The last one, unless it is too old. */
  readonly recall: (key: string) => Effect.Effect<Option.Option<A>>
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Answers with a value.
 *
 * @category constructors
 * @since 0.1.0
 */
export const value = <A>(value: A): Fallback<A> => ({ _tag: "Value", value })

/**
 * Answers with the last good answer for a key, and remembers the answers of the call for that.
 *
 * @category constructors
 * @since 0.1.0
 */
export const lastGood = <A>(answers: LastGood<A>, key: string): Fallback<A, never, never, A> => ({
  _tag: "LastGood",
  answers,
  key
})

/**
 * Answers with what another effect says, which is given the error.
 *
 * @category constructors
 * @since 0.1.0
 */
export const other = <A, E, R>(effect: (error: unknown) => Effect.Effect<A, E, R>): Fallback<A, E, R> => ({
  _tag: "Other",
  effect
})

/**
 * A memory for last good answers, in the process.
 *
 * **Details**
 *
 * - `capacity` (1000): how many keys are remembered. A new one takes the place of the one answered for the longest ago.
 * - `timeToLive` (1 hour): an older answer is no longer good.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeLastGood = Effect.fnUntraced(function*<A>(options: {
  readonly capacity?: number | undefined
  readonly timeToLive?: Duration.Input | undefined
} = {}): Effect.fn.Return<LastGood<A>> {
  const clock = yield* Clock
  const capacity = options.capacity ?? 1000
  const timeToLive = Duration.toNanosUnsafe(options.timeToLive ?? "1 hour")
  const answers = new Map<string, { readonly answer: A; readonly at: bigint }>()
  return {
    remember: (key, answer) =>
      Effect.sync(() => {
        answers.delete(key)
        const [oldest] = answers.keys()
        if (answers.size >= capacity && oldest !== undefined) answers.delete(oldest)
        answers.set(key, { answer, at: clock.monotonicTimeNanosUnsafe() })
      }),
    recall: (key) =>
      Effect.sync(() => {
        const found = answers.get(key)
        if (found === undefined) return Option.none()
        if (clock.monotonicTimeNanosUnsafe() - found.at < timeToLive) return Option.some(found.answer)
        answers.delete(key)
        return Option.none()
      })
  }
})

// ----------------------------------------------------------------------------------------------------- combinators

/**
 * True for the refusals of a circuit breaker, not for the failure of its store.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isRefusal = (error: unknown): boolean =>
  error instanceof CircuitBreaker.CircuitBreakerError && error.reason._tag !== "CircuitBreakerStoreError"

/**
 * Lets a fallback answer for the errors that `when` is true for. Default: `isRefusal`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const apply: {
  <B, E2, R2, In, E>(
    fallback: Fallback<B, E2, R2, In>,
    options?: { readonly when?: ((error: E) => boolean) | undefined }
  ): <A extends In, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A | B, E | E2, R | R2>
  <A extends In, E, R, B, E2, R2, In>(
    self: Effect.Effect<A, E, R>,
    fallback: Fallback<B, E2, R2, In>,
    options?: { readonly when?: ((error: E) => boolean) | undefined }
  ): Effect.Effect<A | B, E | E2, R | R2>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A extends In, E, R, B, E2, R2, In>(
    self: Effect.Effect<A, E, R>,
    fallback: Fallback<B, E2, R2, In>,
    options?: { readonly when?: ((error: E) => boolean) | undefined }
  ): Effect.Effect<A | B, E | E2, R | R2> => {
    const when = options?.when ?? isRefusal
    const answerFor = (error: E): Effect.Effect<B, E | E2, R2> =>
      when(error) ? answer(fallback, error) : Effect.fail(error)
    if (fallback._tag !== "LastGood") return Effect.catch(self, answerFor)
    return Effect.matchEffect(self, {
      onSuccess: (answer): Effect.Effect<A | B, E | E2, R2> =>
        Effect.as(fallback.answers.remember(fallback.key, answer), answer),
      onFailure: answerFor
    })
  }
)

const answer = <B, E, E2, R2, In>(fallback: Fallback<B, E2, R2, In>, error: E): Effect.Effect<B, E | E2, R2> => {
  switch (fallback._tag) {
    case "Value":
      return answered("Value", Effect.succeed(fallback.value))
    case "Other":
      return answered("Other", fallback.effect(error))
    case "LastGood":
      return Effect.flatMap(
        fallback.answers.recall(fallback.key),
        (found): Effect.Effect<B, E> =>
          found._tag === "Some" ? answered("LastGood", Effect.succeed(found.value)) : Effect.fail(error)
      )
  }
}

const fallbacks = Metric.counter("strata_fallbacks_total", {
  description: "Answers given instead of the call's own",
  incremental: true
})

const countOf: Readonly<Record<Fallback<unknown>["_tag"], Effect.Effect<void>>> = {
  Value: Metric.update(Metric.withAttributes(fallbacks, { kind: "Value" }), 1),
  LastGood: Metric.update(Metric.withAttributes(fallbacks, { kind: "LastGood" }), 1),
  Other: Metric.update(Metric.withAttributes(fallbacks, { kind: "Other" }), 1)
}

const answered = <A, E, R>(kind: Fallback<A>["_tag"], effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.tap(effect, () => countOf[kind])
