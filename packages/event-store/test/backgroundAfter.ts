import { defaults, EventStorePolicies } from "@strata/event-store/EventStorePolicies"
import type * as Duration from "effect/Duration"
import * as Layer from "effect/Layer"

/** For what opens a store whose work in the background is to begin at once, or never during a test. */
export const backgroundAfter = (background: Duration.Duration) =>
  Layer.succeed(EventStorePolicies, { ...defaults, store: { ...defaults.store, background } })
