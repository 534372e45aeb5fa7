/**
 * Carries commands out: load the aggregate, decide, append; again when another writer was faster.
 *
 * **Details**
 *
 * The folded states of the aggregates used last are kept in memory, so a command usually costs one append and no read.
 * That is safe: the append names the version that was folded, and a conflict reads what is missing and decides
 * again. A command that is refused, or that leads to no event, is answered only after a read has shown that the state was
 * the newest one.
 *
 * Commands for one aggregate take turns within a process.
 *
 * **Gotchas**
 *
 * Where a layer above retries, it is decided once. That layer has to take a `VersionConflict` for what passes.
 *
 * **Example** (Opening an account)
 *
 * ```ts
 * import * as CommandHandler from "@strata/event-store/CommandHandler"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const accounts = yield* CommandHandler.make(Account)
 *   const { position, state } = yield* accounts.execute("42", [{ _tag: "Deposit", cents: 1000 }])
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { Publication } from "@strata/outbox/Publication"
import * as Retrying from "@strata/postgres/Retrying"
import type * as Timestamp from "@strata/postgres/Timestamp"
import type * as Arr from "effect/Array"
import * as Cache from "effect/Cache"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as RcMap from "effect/RcMap"
import * as Result from "effect/Result"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Belief from "./Belief.ts"
import { CurrentTenant } from "./CurrentTenant.ts"
import type { Decider } from "./Decider.ts"
import type { EventDecodeError } from "./EventDefinition.ts"
import { EventStore, EventStoreError, type IdempotencyRecord } from "./EventStore.ts"
import { EventStorePolicies } from "./EventStorePolicies.ts"
import { beginning, type EventId, type Fact, type Position, streamId } from "./Fact.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What goes with a command and is not part of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommandOptions<Event> {
  /** Who does it. */
  readonly actor?: string | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  /** When an event holds in the world. Default: when it is recorded. */
  readonly validFrom?: ((event: Event) => Timestamp.Timestamp | undefined) | undefined
  /** An event id of the caller's own, so that what is sent again is stored once: see `EventIdTaken`. Default: a new one. */
  readonly eventId?: ((event: Event) => EventId | undefined) | undefined
  /** Kept with the events. Not kept when there are none. */
  readonly idempotency?: IdempotencyRecord | undefined
  /** Whether the world is told of the events, as the handler's `publish` says. Default: true. */
  readonly publish?: boolean | undefined
}

/**
 * What commands led to. Without events, `position` is that of the aggregate's last fact: whoever has seen it has seen the
 * state that was decided on.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommandResult<State, Event> extends Aggregate<State> {
  readonly events: ReadonlyArray<Event>
  /** True when the store had the events before, under the same event ids: this call or the same one elsewhere wrote them. */
  readonly duplicate: boolean
}

/**
 * An aggregate as its stream has it: the folded state, the version it was folded to, and that fact's position.
 * Version and position are 0 before the first fact.
 *
 * @category models
 * @since 0.1.0
 */
export interface Aggregate<State> {
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
  /**
   * Commands for one aggregate: decided in turn, each on the state the one before left, and appended as one.
   * The first one refused refuses them all.
   */
  readonly execute: (
    id: string,
    commands: Arr.NonEmptyReadonlyArray<Command>,
    options?: CommandOptions<Event>
  ) => Effect.Effect<CommandResult<State, Event>, Error | EventStoreError | EventDecodeError>
  /** The aggregate as its stream has it now. */
  readonly load: (id: string) => Effect.Effect<Aggregate<State>, EventStoreError | EventDecodeError>
}

/**
 * Options of a command handler.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<in State = unknown, in Event = unknown> {
  /** Aggregates whose state is kept in memory. Default: 10,000. */
  readonly capacity?: number | undefined
  /** How long an unused state is kept. Default: 10 minutes. */
  readonly timeToLive?: Duration.Input | undefined
  /** How often, and how far apart, to decide again after a conflict. Default: 10 times, at once and then from 5 ms apart. */
  readonly onConflict?: Schedule.Schedule<unknown> | undefined
  /**
   * What to do when an event id of the caller's own is taken: `decideAgain`, as after a conflict, where a decider that has
   * read what was stored tells whether the command is carried out already. Default: `fail`.
   */
  readonly onEventIdTaken?: "fail" | "decideAgain" | undefined
  /** What the world is to be told of an aggregate's new events: published with them. Default: nothing. */
  readonly publish?: ((told: Told<State, Event>) => ReadonlyArray<Publication>) | undefined
}

/**
 * Events that are about to be appended, and the state they lead to.
 *
 * @category models
 * @since 0.1.0
 */
export interface Told<State, Event> {
  readonly id: string
  readonly events: ReadonlyArray<Event>
  readonly state: State
}

// ---------------------------------------------------------------------------------------------------- constructors

/**
 * Puts a decider to work on the store in scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*<State, Command, Event extends { readonly _tag: string }, Error>(
  decider: Decider<State, Command, Event, Error>,
  options: Options<NoInfer<State>, NoInfer<Event>> = {}
): Effect.fn.Return<CommandHandler<State, Command, Event, Error>, never, EventStore | Scope.Scope> {
  const store = yield* EventStore
  const { commands: policies } = yield* EventStorePolicies
  const scope = yield* Effect.scope
  const snapshots = snapshotsOf(store, decider)
  const passes = options.onEventIdTaken === "decideAgain" ? isConflictOrTaken : isConflict
  const turns = yield* RcMap.make({ lookup: (_key: Key) => Semaphore.make(1) })

  const newFacts = (id: string, version: number) =>
    store.readStreamPage(streamId(decider.category, id), { fromVersion: version + 1 })

  const catchUp = Effect.fnUntraced(function*(id: string, from: Aggregate<State>) {
    let aggregate = from
    while (true) {
      const { facts, next } = yield* newFacts(id, aggregate.version)
      // A revision changes what was folded already.
      if (facts.some((fact) => fact.revision > 0)) return yield* foldBelief(id)
      aggregate = yield* Effect.fromResult(fold(decider, aggregate, facts))
      if (next === null) return aggregate
    }
  })

  /** Folds the whole stream as it is believed now, each fact in the place where it first was. */
  const foldBelief = Effect.fnUntraced(function*(id: string) {
    const facts: Array<Fact> = []
    while (true) {
      const page = yield* newFacts(id, facts.at(-1)?.version ?? 0)
      facts.push(...page.facts)
      if (page.next === null) break
    }
    const { state } = yield* Effect.fromResult(fold(decider, nothing(decider), Belief.resolve(facts)))
    const last = facts.at(-1)
    return { state, version: last?.version ?? 0, position: last?.position ?? beginning }
  })

  // Two tenants may have an aggregate of the same id.
  const known = yield* Cache.make({
    capacity: options.capacity ?? 10_000,
    timeToLive: options.timeToLive ?? "10 minutes",
    lookup: ({ id, tenant }: Key) =>
      Effect.flatMap(snapshots.load(id), (start) => catchUp(id, start)).pipe(
        Effect.provideService(CurrentTenant, tenant)
      )
  })
  const keyOf = (id: string) => Effect.map(CurrentTenant, (tenant) => new Key({ tenant, id }))

  /** Reads what the state in memory has not seen. */
  const refresh = Effect.fnUntraced(function*(id: string) {
    const key = yield* keyOf(id)
    const current = yield* catchUp(id, yield* Cache.get(known, key))
    yield* Cache.set(known, key, current)
    return current
  })

  const append = Effect.fnUntraced(function*(
    id: string,
    current: Aggregate<State>,
    decided: Decided<State, Event>,
    commandOptions: CommandOptions<Event>
  ) {
    const stream = streamId(decider.category, id)
    const appended = yield* store.append({
      facts: decided.events.map((event) =>
        decider.events.encode(event, {
          stream,
          eventId: commandOptions.eventId?.(event),
          validFrom: commandOptions.validFrom?.(event),
          correlationId: commandOptions.correlationId,
          causationId: commandOptions.causationId
        })
      ),
      expect: { [stream]: current.version },
      actor: commandOptions.actor,
      idempotency: commandOptions.idempotency,
      publications: commandOptions.publish === false ? undefined : options.publish?.({ id, ...decided })
    })
    // Event ids that were there before leave the aggregate as it is; the next command reads what that is.
    if (appended.duplicate) {
      const found = yield* refresh(id)
      return { ...found, position: appended.position, events: decided.events, duplicate: true }
    }
    const next = { state: decided.state, version: current.version + decided.events.length, position: appended.position }
    yield* Cache.set(known, yield* keyOf(id), next)
    yield* Effect.forkIn(snapshots.save(id, current.version, next), scope)
    return { ...next, events: decided.events, duplicate: false }
  })

  const attempt = Effect.fnUntraced(function*(
    id: string,
    commands: ReadonlyArray<Command>,
    options: CommandOptions<Event>
  ) {
    let current = yield* Cache.get(known, yield* keyOf(id))
    let decided = decide(decider, current.state, commands)
    if (Result.isFailure(decided) || decided.success.events.length === 0) {
      const newest = yield* refresh(id)
      if (newest.version !== current.version) decided = decide(decider, newest.state, commands)
      current = newest
    }
    const { events, state } = yield* Effect.fromResult(decided)
    if (events.length === 0) return { ...current, events, duplicate: false }
    return yield* append(id, current, { events, state }, options)
  })

  const execute: CommandHandler<State, Command, Event, Error>["execute"] = Effect.fn("CommandHandler.execute")(
    function*(id, commands, commandOptions = {}) {
      yield* Effect.annotateCurrentSpan({ "strata.category": decider.category, "strata.commands": commands.length })
      const turn = yield* RcMap.get(turns, yield* keyOf(id))
      return yield* attempt(id, commands, commandOptions).pipe(
        Effect.tapError((error) => isConflictOrTaken(error) ? refresh(id) : Effect.void),
        // Marks nothing: below nobody retries a conflict, and the store goes on to retry what it does.
        Retrying.retry({ schedule: options.onConflict ?? policies.onConflict, while: passes }),
        turn.withPermit
      )
    },
    Effect.scoped
  )

  return { execute, load: refresh }
})

/** An aggregate among all tenants'. */
class Key extends Data.Class<{ readonly tenant: string; readonly id: string }> {}

// ------------------------------------------------------------------------------------------------------ deciding

interface Decided<State, Event> {
  readonly events: ReadonlyArray<Event>
  readonly state: State
}

const decide = <State, Command, Event extends { readonly _tag: string }, Error>(
  decider: Decider<State, Command, Event, Error>,
  start: State,
  commands: ReadonlyArray<Command>
): Result.Result<Decided<State, Event>, Error> => {
  const events: Array<Event> = []
  let state = start
  for (const command of commands) {
    const decided = decider.decide(command, state)
    if (Result.isFailure(decided)) return Result.fail(decided.failure)
    for (const event of decided.success) {
      events.push(event)
      state = decider.evolve(state, event)
    }
  }
  return Result.succeed({ events, state })
}

const isConflict = (error: unknown): boolean => isStoreError(error) && error.reason._tag === "VersionConflict"
/** Of events that were stored before under these ids, the state in memory may know nothing yet. */
const isConflictOrTaken = (error: unknown): boolean =>
  isConflict(error) || isStoreError(error) && error.reason._tag === "EventIdTaken"
const isStoreError = Schema.is(EventStoreError)

// -------------------------------------------------------------------------------------------------------- folding

const nothing = <State, Command, Event extends { readonly _tag: string }, Error>(
  decider: Decider<State, Command, Event, Error>
): Aggregate<State> => ({ state: decider.initial, version: 0, position: beginning })

const fold = <State, Command, Event extends { readonly _tag: string }, Error>(
  decider: Decider<State, Command, Event, Error>,
  from: Aggregate<State>,
  facts: ReadonlyArray<Fact>
): Result.Result<Aggregate<State>, EventDecodeError> => {
  let { position, state, version } = from
  for (const fact of facts) {
    const event = decider.events.decode(fact)
    if (Result.isFailure(event)) return Result.fail(event.failure)
    state = decider.evolve(state, event.success)
    version = fact.version
    position = fact.position
  }
  return Result.succeed({ state, version, position })
}

const snapshotsOf = <State, Command, Event extends { readonly _tag: string }, Error>(
  store: EventStore["Service"],
  decider: Decider<State, Command, Event, Error>
) => {
  const empty = nothing(decider)
  const policy = decider.snapshot
  if (policy === undefined) return { load: (_id: string) => Effect.succeed(empty), save: () => Effect.void }

  const json = Schema.toCodecJson(policy.schema)
  const encode = Schema.encodeEffect(json)
  const decode = Schema.decodeUnknownOption(json)
  return {
    /** A snapshot that cannot be read is as good as none. */
    load: (id: string): Effect.Effect<Aggregate<State>, EventStoreError> =>
      Effect.map(
        store.loadSnapshot(streamId(decider.category, id), policy.version),
        (found) =>
          Option.match(
            Option.flatMap(
              found,
              (snapshot) => Option.map(decode(snapshot.state), (state) => ({ ...snapshot, state }))
            ),
            {
              onNone: () => empty,
              onSome: ({ position, state, version }) => ({ state, version, position })
            }
          )
      ),
    /** Saves when the aggregate has passed a multiple of `every` since `before`. Failing to is no loss. */
    save: Effect.fnUntraced(function*(id: string, before: number, { position, state, version }: Aggregate<State>) {
      if (Math.floor(before / policy.every) === Math.floor(version / policy.every)) return
      const stream = streamId(decider.category, id)
      yield* store.saveSnapshot({
        stream,
        version,
        position,
        schemaVersion: policy.version,
        state: yield* encode(state)
      })
    }, Effect.ignore({ log: "Debug", message: "A snapshot was not saved" }))
  }
}
