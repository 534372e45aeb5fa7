import * as Queue from "@strata/queues/Queue"
import * as Schema from "effect/Schema"

/**
 * What a message asks of its handler: to have an effect, at once, when it is tried again, or when it was put off some time; never, for
 * it refuses; or to end the process it runs in.
 */
export const Task = Schema.Struct({
  n: Schema.Int,
  kind: Schema.Literals(["plain", "fails", "snoozes", "rejected", "kills"])
})
export type Task = typeof Task.Type

/** The queue of workers that are killed: a lease is short, and there are tries for all that happens. */
export const killed = Queue.make({
  name: "killed",
  payload: Task,
  settings: { lease: "1 second", retry: { attempts: 1000, base: "10 millis", cap: "50 millis", total: "1 hour" } }
})

/** The queue of messages that kill, and of those that are refused: they are given up. */
export const risky = Queue.make({
  name: "risky",
  payload: Task,
  settings: { lease: "1 second", retry: { attempts: 2, base: "10 millis", total: "1 hour" } }
})
