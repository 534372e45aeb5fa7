/**
 * The agreed numbers of queues.
 *
 * @since 0.1.0
 */
import type { Goal, RowName } from "../Suite.ts"

/**
 * Messages a second that come and go at once.
 *
 * @category constants
 * @since 0.1.0
 */
export const sustainedRate = 50_000

/**
 * Messages of a call that sends many.
 *
 * @category constants
 * @since 0.1.0
 */
export const batches = [500, 5000] as const

const strata = (work: string): RowName => ({ work, system: "Strata" })
const apart = (work: string): RowName => ({ work, system: "Strata, producer apart" })

const against = (work: string, ...systems: ReadonlyArray<string>): Pick<Goal, "against" | "theirs"> => ({
  against: systems.length === 1 ? systems[0]! : `${systems[0]!} at its best`,
  theirs: systems.map((system) => ({ work, system }))
})

const graphileWorker = ["graphile-worker", "graphile-worker, batching"] as const

/** Milliseconds that something may take. */
const within = (ours: RowName, millis: number): Goal => ({ ours, against: `${millis} ms`, theirs: millis, goal: 1 })

/**
 * What must be reached. A ratio is larger when Strata is better.
 *
 * @category constants
 * @since 0.1.0
 */
export const goals: ReadonlyArray<Goal> = [
  { ours: strata("enqueue-1@10"), ...against("enqueue-1@10", "pg-boss"), goal: 6 },
  { ours: strata("enqueue-1@256"), ...against("enqueue-1@256", "plain SQL, single inserts"), goal: 1.5 },
  ...batches.map((batch): Goal => ({
    ours: strata(`enqueue-batch@${batch}`),
    ...against(`enqueue-batch@${batch}`, "graphile-worker"),
    goal: 2
  })),
  { ours: strata("drain"), ...against("drain", ...graphileWorker), goal: 2 },
  { ours: strata("drain"), ...against("drain", "plain SQL, update then delete"), goal: 0.75 },
  ...[50, 99].map((share): Goal => ({
    ours: strata(`latency p${share}`),
    ...against(`latency p${share}`, ...graphileWorker),
    goal: 1
  })),
  {
    ours: apart("sustained"),
    against: `${sustainedRate.toLocaleString("en")}/s`,
    theirs: sustainedRate,
    goal: 1
  },
  within(apart("sustained, time in the queue"), 50),
  within(apart("mixed, P0 p95"), 100),
  within(apart("mixed, P0 p99"), 200),
  within(apart("mixed, P1 p95"), 500),
  {
    ours: strata("held, a transaction is open"),
    against: "none is open",
    theirs: [strata("held, none is open")],
    goal: 0.8
  },
  {
    ours: strata("size, at the end"),
    against: "at the beginning",
    theirs: [strata("size, at the beginning")],
    goal: 1 / 1.5
  },
  { ours: strata("depth, deep"), against: "shallow", theirs: [strata("depth, shallow")], goal: 0.8 }
]
