import * as Queue from "@strata/queues/Queue"
import * as Schema from "effect/Schema"

/** The queue of workers that are killed: a lease is short, and there are tries for all that happens. */
export const killed = Queue.make({
  name: "killed",
  payload: Schema.Struct({ n: Schema.Int }),
  settings: { lease: "1 second", retry: { attempts: 1000, base: "10 millis", cap: "50 millis", total: "1 hour" } }
})
