/**
 * The decider: a domain's write side as three pure values.
 *
 * **Details**
 *
 * `initial` is the state before the first event, `evolve` folds an event into it, `decide` answers a command with the
 * events that happen, or with a domain error. Deciding to do nothing is an empty array. None of them reads a clock or
 * a database: what they need comes with the command.
 *
 * Source: Jérémie Chassaing, *Functional Event Sourcing Decider* (2021).
 *
 * **Example** (An account)
 *
 * ```ts
 * import * as Decider from "@strata/event-store/Decider"
 * import * as Result from "effect/Result"
 *
 * const Account = Decider.make({
 *   category: "account",
 *   events: AccountEvents,
 *   initial: { cents: 0 },
 *   evolve: (state, event: AccountEvent) =>
 *     event._tag === "Deposited" ? { cents: state.cents + event.cents } : state,
 *   decide: (command: { readonly _tag: "Deposit"; readonly cents: number }, _state) =>
 *     command.cents > 0
 *       ? Result.succeed([Deposited.make({ cents: command.cents, currency: "EUR" })])
 *       : Result.fail(new NothingToDeposit())
 * })
 * ```
 *
 * @since 0.1.0
 */
import type * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import type { EventSet } from "./EventDefinition.ts"

/**
 * A domain's write side.
 *
 * @category models
 * @since 0.1.0
 */
export interface Decider<State, Command, Event extends { readonly _tag: string }, Error> {
  /** Category of the aggregates' streams: an aggregate `id` has the stream `<category>-<id>`. */
  readonly category: string
  readonly events: EventSet<Event>
  readonly initial: State
  readonly evolve: (state: State, event: Event) => State
  readonly decide: (command: Command, state: State) => Result.Result<ReadonlyArray<Event>, Error>
  /** How the state is kept as a snapshot; without it, a stream is always folded from its first fact. */
  readonly snapshot?: SnapshotPolicy<State> | undefined
}

/**
 * How a state is kept. A snapshot of another `version` is not used, so raise it when the state's shape or `evolve`
 * changes.
 *
 * @category models
 * @since 0.1.0
 */
export interface SnapshotPolicy<State> {
  readonly schema: Schema.Codec<State, unknown>
  readonly version: number
  /** A snapshot is written when this many facts have been folded since the last one. */
  readonly every: number
}

/**
 * Names the parts of a decider.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <State, Command, Event extends { readonly _tag: string }, Error>(
  decider: Decider<State, Command, Event, Error>
): Decider<State, Command, Event, Error> => decider
