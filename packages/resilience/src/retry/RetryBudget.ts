/**
 * How many retries a destination is given, so that whoever is in trouble is not also asked several times as often.
 *
 * **Details**
 *
 * A budget holds tokens. A failure takes one, a success gives back a tenth, and a failure is repeated only while more
 * than half of the tokens are left: the retry throttling of gRPC (proposal A6, *gRPC Retry Design*). So a few failures
 * are repeated at once, an outage is not, and afterwards retries come back with the successes. Calls themselves are
 * never refused; that is the business of a circuit breaker.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What a budget is made from. Every field has a default.
 *
 * - `max` (10): tokens of a destination without failures, from 1 to 1000.
 * - `ratio` (0.1): tokens that a success gives back, in thousandths: from 0.001 to 1.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Allowance = Schema.Struct({
  max: Schema.Int.pipe(
    Schema.check(Schema.isBetween({ minimum: 1, maximum: 1000 })),
    Schema.withDecodingDefaultTypeKey(Effect.succeed(10))
  ),
  ratio: Schema.Finite.pipe(
    Schema.check(Schema.isBetween({ minimum: 0.001, maximum: 1 })),
    Schema.withDecodingDefaultTypeKey(Effect.succeed(0.1))
  )
})
export type Allowance = typeof Allowance.Type

/**
 * An allowance with the defaults for what is not said. Throws on nonsense, so build them where the program starts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const allowance: (options: typeof Allowance.Encoded) => Allowance = Schema.decodeSync(Allowance)

/**
 * The budget of one destination.
 *
 * @category models
 * @since 0.1.0
 */
export interface RetryBudget {
  /** How many tokens are left. */
  readonly tokens: Effect.Effect<number>
  /** A call succeeded. */
  readonly succeeded: Effect.Effect<void>
  /** A call failed in a way that may pass: takes a token, and tells whether the call may be repeated. */
  readonly failed: Effect.Effect<boolean>
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * A budget of its own. It starts full.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Allowance = allowance({})): Effect.Effect<RetryBudget> =>
  Effect.sync(() => makeUnsafe(options))

/** Counts in thousandths of a token, for tenths do not add up. */
const makeUnsafe = (options: Allowance): RetryBudget => {
  const max = options.max * 1000
  const ratio = Math.round(options.ratio * 1000)
  let left = max
  return {
    tokens: Effect.sync(() => left / 1000),
    succeeded: Effect.sync(() => {
      left = Math.min(max, left + ratio)
    }),
    failed: Effect.sync(() => {
      const mayRetry = left * 2 > max
      left = Math.max(0, left - 1000)
      return mayRetry
    })
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * The budgets of this process, one for each destination.
 *
 * **Details**
 *
 * At most `capacity` destinations are kept (default 1000). The one that was asked for the longest time ago makes room,
 * and starts full when it comes back.
 *
 * @category services
 * @since 0.1.0
 */
export class RetryBudgets extends Context.Service<RetryBudgets, {
  readonly of: (destination: string) => Effect.Effect<RetryBudget>
}>()("@strata/resilience/RetryBudget/RetryBudgets") {
  static readonly layer = (options?: BudgetsOptions): Layer.Layer<RetryBudgets> =>
    Layer.effect(RetryBudgets, makeBudgets(options))
}

/**
 * - `allowance`: of each destination; default `allowance({})`.
 * - `capacity` (1000): how many destinations are kept.
 *
 * @category options
 * @since 0.1.0
 */
export interface BudgetsOptions {
  readonly allowance?: Allowance | undefined
  readonly capacity?: number | undefined
}

/**
 * Budgets by destination.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeBudgets = (options: BudgetsOptions = {}): Effect.Effect<RetryBudgets["Service"]> =>
  Effect.sync(() => {
    const each = options.allowance ?? allowance({})
    const capacity = options.capacity ?? 1000
    // The least recently asked for comes first.
    const budgets = new Map<string, RetryBudget>()
    return RetryBudgets.of({
      of: (destination) =>
        Effect.sync(() => {
          const budget = budgets.get(destination) ?? makeUnsafe(each)
          budgets.delete(destination)
          budgets.set(destination, budget)
          const [oldest] = budgets.keys()
          if (budgets.size > capacity && oldest !== undefined) budgets.delete(oldest)
          return budget
        })
    })
  })
