/**
 * Carries a command out: load the stream, fold it, decide, append; again when another writer was faster.
 *
 * @since 0.1.0
 */
import type * as Timestamp from "@strata/postgres/Timestamp"
import type * as Effect from "effect/Effect"
import type { EventDecodeError } from "./EventDefinition.ts"
import type { EventStoreError, IdempotencyRecord } from "./EventStore.ts"
import type { EventId, Position } from "./Fact.ts"

/**
 * What goes with a command and is not part of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommandOptions<Event> {
  /** Who does it, for whom. */
  readonly actor?: string | undefined
  readonly tenant?: string | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  /** When the events hold in the world. Default: when they are recorded. */
  readonly validFrom?: ((event: Event) => Timestamp.Timestamp | undefined) | undefined
  /** Event ids of the caller's own, for idempotency by content. Default: new ones. */
  readonly eventId?: ((event: Event) => EventId | undefined) | undefined
  /** Kept together with the events. Not kept when there are none. */
  readonly idempotency?: IdempotencyRecord | undefined
}

/**
 * What a command led to. `position` is the last event's; without events it is a position at which the state that
 * decided so can be read. 
 *
 * @category models
 * @since 0.1.0
 */
export interface CommandResult<State, Event> {
  readonly events: ReadonlyArray<Event>
  readonly state: State
  readonly version: number
  readonly position: Position
}

/**
 * A decider over a store.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommandHandler<State, Command, Event, Error> {
  /** Commands for one aggregate: decided in turn, each on the state the one before left, and appended as one. */
  readonly execute: (
    id: string,
    commands: readonly [Command, ...Array<Command>],
    options?: CommandOptions<Event>
  ) => Effect.Effect<CommandResult<State, Event>, Error | EventStoreError | EventDecodeError>
  /** The aggregate's state as its stream has it now. */
  readonly load: (
    id: string
  ) => Effect.Effect<{ readonly state: State; readonly version: number }, EventStoreError | EventDecodeError>
}
