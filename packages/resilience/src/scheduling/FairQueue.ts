/**
 * In which order work of several classes and tenants is done, when there is not room for all of it.
 *
 * **When to use**
 *
 * For a worker that has to choose among what it holds. `FairScheduler` runs effects in this order; use the queue itself
 * where the work is not an effect, or where it is kept somewhere else.
 *
 * **Details**
 *
 * - Classes share by start-time fair queuing, 8:4:2:1 unless said otherwise: over any time in which two of them are
 *   waited for, what each got divided by its weight differs by at most one piece of work of each.
 * - Inside a class tenants share the same way, by their own weights, whatever each of them has waiting.
 * - Inside a tenant the order is that of arrival, and work with the same key is done one at a time, in that order, also
 *   when some of it is tried again.
 * - A share is charged the estimated cost when work starts and corrected when it ends. Whoever comes back after having
 *   had nothing to do starts level with the others: idling earns no credit.
 * - Work ages. Its rank, the time it came plus its class's budget, never changes while it waits, and once it has passed,
 *   the oldest rank is served before its turn, at most once in ten. P0 has no budget, and is what ageing would harm.
 * - What each share owes can be written down with `snapshot`, so that a worker that takes over goes on where the last
 *   one was. The work itself is not in it.
 *
 * Every call takes the time it is made at, in milliseconds of a clock that does not go back; nothing here waits or
 * reads a clock, so a run can be repeated exactly.
 *
 * **Gotchas**
 *
 * A key belongs to a tenant, not to a class: urgent work waits for work of its key that came before it.
 *
 * **Example** (Four classes with work for all of them)
 *
 * ```ts import.meta.vitest
 * import * as FairQueue from "@strata/resilience/scheduling/FairQueue"
 *
 * const queue = FairQueue.make<string>()
 * for (let n = 1; n <= 3; n++) queue.offer({ value: `report ${n}`, priority: "P3", tenant: "acme" }, 0)
 * queue.offer({ value: "payment", priority: "P0", tenant: "acme" }, 0)
 * queue.next(0)?.value // => "payment"
 * queue.next(0)?.value // => "report 1"
 * ```
 *
 * Sources: "Start-time Fair Queuing" (Goyal, Vin and Cheng, SIGCOMM 1996); the correction by what work took is that of
 * Kubernetes' API Priority and Fairness.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { FairOrder } from "../internal/fairOrder.ts"
import type * as flows from "../internal/flows.ts"
import { positive } from "../internal/virtualTime.ts"
import type * as Priority from "./Priority.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A number for each class.
 *
 * @category models
 * @since 0.1.0
 */
export type ByClass = Readonly<Record<Priority.Priority, number>>

/**
 * Work to be done.
 *
 * @category models
 * @since 0.1.0
 */
export interface Item<A> {
  readonly value: A
  readonly priority: Priority.Priority
  readonly tenant: string
  /** Work of a tenant with the same key is done one at a time, in the order it came. */
  readonly key?: string | undefined
  /**
   * What it is expected to take, in any unit that is the same for all: milliseconds, bytes. What is not above 0 counts
   * as 1, and no cost as more than 2^40. Default: 1.
   */
  readonly cost?: number | undefined
  /** When it came, if it waited somewhere else before: it is as old as this. Default: now. */
  readonly enqueuedAt?: number | undefined
}

/**
 * Work in a queue: its `value`, `priority` and `cost`, how often it was started (`attempt`), when it came (`enqueuedAt`),
 * when it will have aged (`rank`), and whether that is why it was started (`isAged`). The queue alone writes to it.
 *
 * @category models
 * @since 0.1.0
 */
export type Entry<A> = flows.Entry<A>

/**
 * How much of what a class has waiting, running and behind it.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClassState {
  /** Waiting, also behind others of their key. */
  readonly queued: number
  /** Of those, the ones that could start. */
  readonly ready: number
  readonly running: number
  /** Not to be started until they are resumed. */
  readonly held: number
  /** Started since the queue was made. */
  readonly started: number
  /** Of those, the ones whose age brought them forward. */
  readonly aged: number
}

/**
 * How much of what a tenant has.
 *
 * @category models
 * @since 0.1.0
 */
export interface TenantState {
  readonly queued: number
  readonly running: number
  readonly held: number
}

const Debts = Schema.Struct({
  owes: Schema.Finite,
  tenants: Schema.Array(Schema.Tuple([Schema.String, Schema.Finite]))
})

/**
 * How much later than now the next turn of each class and tenant starts, of those that have had more than the others.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Snapshot = Schema.Struct({
  classes: Schema.Struct({ P0: Debts, P1: Debts, P2: Debts, P3: Debts }),
  /** Turns since the last one that age brought forward. */
  sinceAged: Schema.Int
})

/**
 * @category models
 * @since 0.1.0
 */
export type Snapshot = typeof Snapshot.Type

/**
 * How a queue shares. All of it has defaults.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Default: 8, 4, 2 and 1. What is not above 0 counts as 1. */
  readonly weights?: ByClass | undefined
  /** Milliseconds after which work of a class has aged; 0 is never. Default: 0, 2,000, 10,000 and 60,000. */
  readonly budgets?: ByClass | undefined
  /**
   * A tenant's weight inside a class, asked for every piece of work that starts: another answer changes the turns from
   * then on. What is not above 0 counts as 1. Default: 1.
   */
  readonly tenantWeight?: ((tenant: string) => number) | undefined
  /** Where another queue was. Default: nobody owes anything. */
  readonly snapshot?: Snapshot | undefined
}

/**
 * The order of work. See `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface FairQueue<A> {
  /** Adds work. */
  readonly offer: (item: Item<A>, now: number) => Entry<A>
  /** Starts whatever is next, among the classes that may start something now. */
  readonly next: (now: number, mayStart?: (priority: Priority.Priority) => boolean) => Entry<A> | undefined
  /** Ends what runs. `cost` is what it took: a share pays what its work took, not what it was expected to. */
  readonly complete: (entry: Entry<A>, cost?: number) => void
  /**
   * Stops what runs, to be started again: it waits as new, however old it was, but first of its key. `cost` is what it
   * took until then.
   */
  readonly requeue: (entry: Entry<A>, now: number, cost?: number) => void
  /** Stops what runs, to be started again once it is resumed: its key stays its own. */
  readonly hold: (entry: Entry<A>, cost?: number) => void
  /** What was held waits again, as if it were requeued now. */
  readonly resume: (entry: Entry<A>, now: number) => void
  /** Takes out what does not run. False when it runs or is done. */
  readonly cancel: (entry: Entry<A>) => boolean
  /** How much of a class could start. */
  readonly ready: (priority: Priority.Priority) => number
  readonly stateOf: (priority: Priority.Priority) => ClassState
  readonly tenant: (tenant: string) => TenantState
  /** How many tenants have work, or owe for some. */
  readonly tenants: () => number
  readonly snapshot: () => Snapshot
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * The weights of the classes.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultWeights: ByClass = { P0: 8, P1: 4, P2: 2, P3: 1 }

/**
 * Milliseconds after which work of a class has aged; P0 does not age.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultBudgets: ByClass = { P0: 0, P1: 2000, P2: 10_000, P3: 60_000 }

/**
 * An empty queue.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A>(options: Options = {}): FairQueue<A> => {
  const { budgets = defaultBudgets, snapshot, tenantWeight, weights = defaultWeights } = options
  return new FairOrder<A>({ budgets, weights, tenantWeight, snapshot })
}

// -------------------------------------------------------------------------------------------------------- division

/**
 * Divides a capacity so that nobody gets more than asked for, and what somebody leaves goes to those who want more, by
 * their weights (max-min fairness). The shares need not be whole.
 *
 * **Example** (Three who want more than a third, and one who wants less)
 *
 * ```ts import.meta.vitest
 * import * as FairQueue from "@strata/resilience/scheduling/FairQueue"
 *
 * FairQueue.divide([3, 7, 9, 1], 14) // => [3, 5, 5, 1]
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const divide = (
  wanted: ReadonlyArray<number>,
  capacity: number,
  weights: ReadonlyArray<number> = []
): ReadonlyArray<number> => {
  const asked = wanted.map((amount, place) => ({ amount, place, weight: positive(weights[place]) }))
  const given = wanted.map(() => 0)
  let left = capacity
  let weightLeft = asked.reduce((sum, { weight }) => sum + weight, 0)
  // Whoever wants the least for its weight is served first: what it leaves is then known to those who want more.
  for (const { amount, place, weight } of asked.sort((a, b) => a.amount / a.weight - b.amount / b.weight)) {
    const share = Math.min(amount, left * weight / weightLeft)
    given[place] = share
    left -= share
    weightLeft -= weight
  }
  return given
}
