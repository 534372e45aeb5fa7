/**
 * The generic cell rate algorithm: how much of a limit is used up, in one number for each key.
 *
 * **Details**
 *
 * A limit gives one token back every `interval`, and a key that has rested may take `burst` of them at once. What is kept of a
 * key is the instant at which everything it has taken will have come back, its theoretical arrival time. What it *owes* is how
 * far that lies ahead: tokens may be taken while that and their cost stay within `burst` intervals. So there is no window at
 * whose edge twice the limit passes, nothing is refilled by a timer, and how long to wait is exact to the nanosecond.
 *
 * - *All or nothing*: tokens are taken of every level of a hierarchy, or of none.
 * - *Priorities*: every class has an arrival time of its own. What a class takes counts for itself and for the classes below
 *   it, which it alone is judged by. So P3 decides on its own only, and can take nothing from P0; P0 takes from all, and what
 *   the lower classes owe by that may be up to one burst more for each class above.
 * - *A clock that is set back* takes what is owed along: without that, the key would be shut for as long as the clock went
 *   back. One that leaps ahead gives one burst at most.
 *
 * Times are nanoseconds of one clock that the store chooses. An interval is rounded up to a whole nanosecond, so a limit is
 * never exceeded by rounding.
 *
 * The algorithm is that of ITU-T I.371 (virtual scheduling), as in `throttled` and `redis-cell`; the classes are those of
 * Temporal's priority rate limiter.
 *
 * **Example** (A burst of two, then one a second)
 *
 * ```ts import.meta.vitest
 * import * as Gcra from "@strata/resilience/limits/Gcra"
 *
 * const rule = { interval: 1_000_000_000n, burst: 2 }
 * const first = Gcra.take([{ rule, account: undefined }], { now: 0n, tokens: 2, priority: "P0" })
 * first.passes // => true
 * const second = Gcra.take([{ rule, account: first.levels[0]?.account }], { now: 0n, tokens: 1, priority: "P0" })
 * second.levels[0]?.wait // => 1_000_000_000n
 * ```
 *
 * @since 0.1.0
 */
import type { Priority } from "../scheduling/Priority.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * How fast tokens come back, and how many there are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rule {
  /** Nanoseconds for one token. */
  readonly interval: bigint
  readonly burst: number
}

/**
 * What is kept of a key.
 *
 * @category models
 * @since 0.1.0
 */
export interface Account {
  /** When it was written. A clock that shows less was set back. */
  readonly at: bigint
  /** For each class, when everything it counts will have come back. */
  readonly arrivals: Readonly<Record<Priority, bigint>>
}

/**
 * One level of a hierarchy: a rule, and the account of the key it is asked for; undefined for a key that has rested.
 *
 * @category models
 * @since 0.1.0
 */
export interface Level {
  readonly rule: Rule
  readonly account: Account | undefined
  /** True when these tokens were taken before: then they pass and cost nothing. */
  readonly paid?: boolean | undefined
}

/**
 * Where a key stands after a request, in nanoseconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Standing {
  /** After so long it has its whole burst again. */
  readonly owed: bigint
  /** After so long this level lets the tokens pass; 0 when it does now. */
  readonly wait: bigint
}

/**
 * What became of a request.
 *
 * @category models
 * @since 0.1.0
 */
export interface Outcome {
  readonly passes: boolean
  /** In the order of the levels given. An account that is the one given need not be written. */
  readonly levels: ReadonlyArray<Standing & { readonly account: Account | undefined }>
}

// ------------------------------------------------------------------------------------------------------ decisions

/**
 * Takes tokens of every level, or of none. No tokens is to look only. More tokens than a burst never pass, whatever the
 * `wait` says.
 *
 * @category transitions
 * @since 0.1.0
 */
export const take = (
  levels: ReadonlyArray<Level>,
  { now, priority, tokens }: { readonly now: bigint; readonly priority: Priority; readonly tokens: number }
): Outcome => {
  const asked = levels.map(({ account, paid = false, rule }) => {
    const held = account === undefined ? undefined : settle(account, now)
    const owed = held === undefined ? 0n : later(0n, held.arrivals[priority] - now)
    const cost = paid ? 0n : costOf(rule, tokens)
    return { held, owed, cost, wait: paid ? 0n : later(0n, owed + cost - tolerance(rule)) }
  })
  const passes = asked.every(({ wait }) => wait === 0n)
  return {
    passes,
    levels: asked.map(({ cost, held, owed, wait }) =>
      passes && cost > 0n
        ? { owed: owed + cost, wait, account: charge(held, now, priority, cost) }
        : { owed, wait, account: held }
    )
  }
}

/** Of a clock that was set back, what is owed is kept, and counted from its new time on. */
const settle = (account: Account, now: bigint): Account => {
  if (account.at <= now) return account
  const back = account.at - now
  const { P0, P1, P2, P3 } = account.arrivals
  return { at: now, arrivals: { P0: P0 - back, P1: P1 - back, P2: P2 - back, P3: P3 - back } }
}

const charge = (account: Account | undefined, now: bigint, priority: Priority, cost: bigint): Account => {
  const arrival = (each: Priority) => {
    const held = account?.arrivals[each] ?? now
    return each < priority ? held : later(held, now) + cost
  }
  return { at: now, arrivals: { P0: arrival("P0"), P1: arrival("P1"), P2: arrival("P2"), P3: arrival("P3") } }
}

// -------------------------------------------------------------------------------------------------------- getters

/**
 * How far ahead of now the arrival time of a key may be, in nanoseconds.
 *
 * @category getters
 * @since 0.1.0
 */
export const tolerance = ({ burst, interval }: Rule): bigint => interval * BigInt(burst)

/**
 * By how much tokens move the arrival time, in nanoseconds.
 *
 * @category getters
 * @since 0.1.0
 */
export const costOf = ({ interval }: Rule, tokens: number): bigint => interval * BigInt(tokens)

/**
 * Whole tokens that could be taken at once.
 *
 * @category getters
 * @since 0.1.0
 */
export const remaining = (rule: Rule, owed: bigint): number => Number(later(0n, tolerance(rule) - owed) / rule.interval)

/**
 * From when on an account says no more than none would: the lowest class owes the longest.
 *
 * @category getters
 * @since 0.1.0
 */
export const restedAt = ({ arrivals }: Account): bigint => arrivals.P3

const later = (one: bigint, other: bigint): bigint => one > other ? one : other
