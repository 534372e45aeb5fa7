/**
 * Which event store a request is about.
 *
 * @since 0.1.0
 */
import { EventStore } from "@strata/event-store/EventStore"
import { NotFound } from "@strata/http-api/Problem"
import * as Effect from "effect/Effect"
import * as Reads from "./Reads.ts"

/** The setup of the database the server starts on. */
const defaultSetup = "default"

/**
 * The place of a store, as paths name it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Place {
  readonly setup: string
  readonly store: string
}

/**
 * Makes what finds stores.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const store = yield* EventStore
  const waitForPosition = yield* Reads.makeForLog

  /** Refuses places without a store. */
  const find = (params: Place): Effect.Effect<void, NotFound> =>
    params.setup === defaultSetup && params.store === store.name
      ? Effect.void
      : Effect.fail(new NotFound({ detail: `There is no event store ${params.store} in the setup ${params.setup}` }))

  /** Finds the store, and waits until its log has reached what the caller has seen. */
  const ready = (asked: Reads.Asked & { readonly params: Place }) =>
    Effect.andThen(find(asked.params), waitForPosition(asked))

  return { find, ready }
})
