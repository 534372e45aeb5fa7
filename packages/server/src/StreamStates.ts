/**
 * The deciders whose states the server can tell, by the category of the streams they fold.
 *
 * **Details**
 *
 * Only a domain's own `evolve` says what its events come to, so a category that nobody registered has no state: it is not
 * guessed from the events' data. An application that embeds the server registers its deciders here.
 *
 * **Example** (Telling the states of accounts)
 *
 * ```ts
 * import * as StreamStates from "@strata/server/StreamStates"
 *
 * const layer = StreamStates.StreamStates.layer([StreamStates.folded(Account, Schema.Struct({ cents: Schema.Int }))])
 * ```
 *
 * @since 0.1.0
 */
import type { Decider } from "@strata/event-store/Decider"
import type { EventDecodeError } from "@strata/event-store/EventDefinition"
import type { EventStore, EventStoreError } from "@strata/event-store/EventStore"
import type { Point } from "@strata/event-store/FactQuery"
import * as PlaneState from "@strata/event-store/PlaneState"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/**
 * A category whose aggregates' states can be told.
 *
 * @category models
 * @since 0.1.0
 */
export interface Folded {
  readonly category: string
  /** The state of the aggregate `id` at a point of the plane, as JSON. */
  readonly at: (
    id: string,
    point: Point
  ) => Effect.Effect<Schema.Json, EventStoreError | EventDecodeError, EventStore>
}

/**
 * Tells states by a decider's `evolve`, encoded by their schema. A state that does not fit it is a defect.
 *
 * @category constructors
 * @since 0.1.0
 */
export const folded = <State, Command, Event extends { readonly _tag: string }, Error>(
  decider: Decider<State, Command, Event, Error>,
  state: Schema.Codec<State, unknown>
): Folded => {
  const encode = Schema.encodeEffect(Schema.toCodecJson(state))
  return {
    category: decider.category,
    at: (id, point) => Effect.flatMap(PlaneState.at(decider, id, point), (state) => Effect.orDie(encode(state)))
  }
}

/**
 * The registered categories.
 *
 * @category services
 * @since 0.1.0
 */
export class StreamStates extends Context.Service<StreamStates, {
  readonly categories: ReadonlyArray<string>
  readonly find: (category: string) => Option.Option<Folded>
}>()("@strata/server/StreamStates") {
  static readonly layer = (folded: ReadonlyArray<Folded>): Layer.Layer<StreamStates> => {
    const byCategory = new Map(folded.map((entry) => [entry.category, entry]))
    return Layer.succeed(StreamStates, {
      categories: [...byCategory.keys()],
      find: (category) => Option.fromUndefinedOr(byCategory.get(category))
    })
  }
}
