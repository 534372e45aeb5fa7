/**
 * What is asked of the HTTP server, and what came of it: the words between the benchmark and the process that calls.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The classes of requests: the priority a request of it names, and its part of all requests. P0 is small enough for the server
 * to answer all of it at ten times what it sustains.
 *
 * @category constants
 * @since 0.1.0
 */
export const classes = [
  { name: "P0", priority: 10, share: 0.02 },
  { name: "P1", priority: 7, share: 0.18 },
  { name: "P2", priority: 5, share: 0.5 },
  { name: "P3", priority: 1, share: 0.3 }
] as const

/**
 * The name of a class.
 *
 * @category models
 * @since 0.1.0
 */
export type Class = (typeof classes)[number]["name"]

/**
 * How long a caller waits, in milliseconds. Then it hangs up.
 *
 * @category constants
 * @since 0.1.0
 */
export const patience = 1000

/**
 * What a calling process is to do.
 *
 * - `Prepare`: start the conversations.
 * - `Closed`: `callers` call for `seconds`, each when it is answered.
 * - `Open`: `rate` requests are sent a second, whatever is answered. The first `settle` seconds do not count. `urgent`
 *   sends P0 alone.
 *
 * @category models
 * @since 0.1.0
 */
export const Task = Schema.Union([
  Schema.TaggedStruct("Prepare", {}),
  Schema.TaggedStruct("Closed", { callers: Schema.Int, seconds: Schema.Finite }),
  Schema.TaggedStruct("Open", {
    rate: Schema.Finite,
    settle: Schema.Finite,
    seconds: Schema.Finite,
    urgent: Schema.Boolean
  })
])
export type Task = typeof Task.Type

/**
 * A task, and where to do it. `label` is in every message, so that none is the same as that of another task.
 *
 * @category models
 * @since 0.1.0
 */
export const Order = Schema.Struct({
  port: Schema.Int,
  key: Schema.String,
  label: Schema.String,
  conversations: Schema.Int,
  task: Task
})
export type Order = typeof Order.Type

/**
 * What became of the requests of a class.
 *
 * - `good`: answered with success before the caller hung up.
 * - `refused`: 429 or 503. `late`: the caller hung up. `failed`: no answer, or another status of the server's fault.
 * - `unsent`: the calling process had no connection left.
 * - `wrong`: the server says that the request makes no sense.
 * - `p50`, `p99`: milliseconds from the sending of a request to its success. One without counts as the caller's patience.
 *
 * @category models
 * @since 0.1.0
 */
export const Outcome = Schema.Struct({
  good: Schema.Int,
  refused: Schema.Int,
  late: Schema.Int,
  failed: Schema.Int,
  unsent: Schema.Int,
  wrong: Schema.Int,
  p50: Schema.Finite,
  p99: Schema.Finite
})
export type Outcome = typeof Outcome.Type

/**
 * What came of a task, in the seconds that count. `late` is how late the calling process itself was, in milliseconds (p99).
 *
 * @category models
 * @since 0.1.0
 */
export const Result = Schema.Struct({
  seconds: Schema.Finite,
  late: Schema.Finite,
  classes: Schema.Struct({ P0: Outcome, P1: Outcome, P2: Outcome, P3: Outcome })
})
export type Result = typeof Result.Type

/**
 * Requests of a class that were to be sent.
 *
 * @category getters
 * @since 0.1.0
 */
export const offered = ({ failed, good, late, refused, unsent, wrong }: Outcome): number =>
  good + refused + late + failed + unsent + wrong

/**
 * One number of all classes together.
 *
 * @category getters
 * @since 0.1.0
 */
export const sum = ({ classes }: Result, count: (outcome: Outcome) => number): number =>
  Object.values(classes).reduce((total, outcome) => total + count(outcome), 0)
