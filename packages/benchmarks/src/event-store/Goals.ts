/**
 * The agreed numbers of the event store.
 *
 * @since 0.1.0
 */
import type { Goal, RowName } from "../Suite.ts"

const strata = (work: string): RowName => ({ work, system: "Strata" })
const emmett = (...works: ReadonlyArray<string>): Pick<Goal, "against" | "theirs"> => ({
  against: works.length === 1 ? "Emmett" : "Emmett at its best",
  theirs: works.map((work) => ({ work, system: "Emmett" }))
})
const plain = (work: string, system = "plain SQL"): Pick<Goal, "against" | "theirs"> => ({
  against: system,
  theirs: [{ work, system }]
})

/**
 * How many callers Emmett is given, to find the number that suits it best.
 *
 * @category constants
 * @since 0.1.0
 */
export const emmettCallers = [1, 16, 32, 64, 256] as const

/**
 * What must be reached. A ratio is larger when Strata is better.
 *
 * @category constants
 * @since 0.1.0
 */
export const goals: ReadonlyArray<Goal> = [
  { ours: strata("append-1@256"), ...emmett(...emmettCallers.map((callers) => `append-1@${callers}`)), goal: 8 },
  { ours: strata("append-1@256"), ...plain("append-1@256", "plain SQL, batched"), goal: 0.8 },
  { ours: strata("append-1@256 p99"), against: "50 ms", theirs: 50, goal: 1 },
  { ours: strata("append-1@1"), ...emmett("append-1@1"), goal: 1.5 },
  { ours: strata("append-100@32"), ...emmett("append-100@32"), goal: 1.5 },
  { ours: strata("read@1"), ...emmett("read@1"), goal: 2 },
  { ours: strata("read@32"), ...emmett("read@32"), goal: 2 },
  { ours: strata("catch-up"), ...emmett("catch-up"), goal: 15 },
  { ours: strata("catch-up"), ...plain("catch-up"), goal: 0.6 },
  { ours: strata("hot@256"), ...emmett("hot@1", "hot@32", "hot@256"), goal: 10 },
  {
    ours: strata("growth, large store"),
    against: "small store",
    theirs: [strata("growth, small store")],
    goal: 0.85
  },
  {
    ours: strata("known-at, large store"),
    against: "without the time axis",
    theirs: [strata("known-at, without the time axis, large store")],
    goal: 0.7
  },
  {
    ours: strata("known-at, large store"),
    against: "small store",
    theirs: [strata("known-at, small store")],
    goal: 0.8
  },
  {
    ours: strata("memory, end of catch-up"),
    against: "its beginning",
    theirs: [strata("memory, beginning of catch-up")],
    goal: 0.8
  }
]
