/**
 * The agreed numbers of resilience.
 *
 * @since 0.1.0
 */
import type { Goal, RowName } from "../Suite.ts"
import * as Parts from "./Parts.ts"

/**
 * The load that is offered, in times of what the server sustains.
 *
 * @category constants
 * @since 0.1.0
 */
export const factors = [1, 2, 5, 10] as const

const strata = (work: string): RowName => ({ work, system: "Strata" })

/** What 15 µs a call are in calls a second. */
const fifteenMicros = 1_000_000 / 15

/** The parts that have a peer. The whole stack has a limit of its own. */
const compared = ["retry", "breaker", "bulkhead", "time-out", "fallback"] as const

/**
 * What must be reached. A ratio is larger when Strata is better.
 *
 * @category constants
 * @since 0.1.0
 */
export const goals: ReadonlyArray<Goal> = [
  { ours: strata(Parts.workOf("full stack")), against: "15 µs a call", theirs: fifteenMicros, goal: 1 },
  ...compared.map((part): Goal => {
    const work = Parts.workOf(part)
    return {
      ours: strata(work),
      against: part === "retry" ? "cockatiel" : "the faster of cockatiel and opossum",
      theirs: [{ work, system: "cockatiel" }, { work, system: "opossum" }],
      goal: 1
    }
  }),
  ...factors.map((factor): Goal => ({
    ours: strata(`goodput@${factor}x`),
    against: "the best at any load",
    theirs: factors.map((other) => strata(`goodput@${other}x`)),
    goal: 0.9
  })),
  ...factors.map((factor): Goal => ({
    ours: strata(`P0 p99@${factor}x`),
    against: "idle",
    theirs: [strata("P0 p99, idle")],
    goal: 0.5
  }))
]
