/**
 * Every wait, limit and number of tries of this package, in one place.
 *
 * **When to use**
 *
 * Look here for how long something takes at most. Use the options of a store, a subscription or a command handler to set
 * what an application sets; provide this reference for the rest, or for the defaults of a whole program.
 *
 * **Example** (A store that gives up after a second)
 *
 * ```ts
 * import { defaults, EventStorePolicies } from "@strata/event-store/EventStorePolicies"
 * import * as Layer from "effect/Layer"
 * import * as Schedule from "effect/Schedule"
 *
 * const Hasty = Layer.succeed(EventStorePolicies, {
 *   ...defaults,
 *   store: { ...defaults.store, retry: Schedule.upTo(Schedule.spaced("100 millis"), { duration: "1 second" }) }
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Schedule from "effect/Schedule"

/**
 * Of a store. `retry` and `pollInterval` are the defaults of its options of the same names.
 *
 * @category models
 * @since 0.1.0
 */
export interface StorePolicies {
  /** Waits before a statement that lost its connection is sent again. */
  readonly retry: Schedule.Schedule<unknown>
  /** How long a subscriber waits for a hint before it reads again. */
  readonly pollInterval: Duration.Duration
  /** How long after a store is opened the work in its background begins: who opens one for a moment only leaves it alone. */
  readonly background: Duration.Duration
  /** How often idempotency keys that are old enough are removed; without end. */
  readonly forgetKeys: Schedule.Schedule<unknown>
  /** How often a caller looks for room among the appends that wait, and closing whether all is written. */
  readonly roomPoll: Duration.Duration
  /** How long closing waits until what was accepted is written. */
  readonly closeTimeout: Duration.Duration
}

/**
 * Of a command handler. `onConflict` is the default of its option of the same name.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommandPolicies {
  /** Waits before it is decided again. */
  readonly onConflict: Schedule.Schedule<unknown>
}

/**
 * Of durable subscriptions. What is also one of their options is that option's default, and described there.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscriptionPolicies {
  readonly retry: Schedule.Schedule<unknown>
  readonly lease: Duration.Duration
  readonly stopTimeout: Duration.Duration
  readonly checkpointInterval: Duration.Duration
  /** Waits for a database that is out of reach; without end, since an outage lasts as long as it lasts. */
  readonly outages: Schedule.Schedule<unknown>
  /** The part of a lease after which it is renewed. */
  readonly renewAfter: number
  /** How much longer than the stop timeout a process that stops tries to hand its partitions over. */
  readonly leaveMargin: Duration.Duration
  /** How often it is measured how far behind the partitions are; without end. */
  readonly lagSampling: Schedule.Schedule<unknown>
  /** How long partitions share a page of the log in which personal data is open. */
  readonly openPages: Duration.Duration
}

/**
 * Of summarizing a log in the background.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChunkPolicies {
  /** How soon it looks again where another process is at work, where nobody told of facts, and where the database failed. */
  readonly patience: Duration.Duration
  /** How many times as long as a step took it rests after it. */
  readonly rest: number
  /** As `rest`, while others append and are far ahead. */
  readonly restFarBehind: number
  /** As `rest`, while others append. */
  readonly restBesideAppends: number
}

/**
 * All of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Policies {
  readonly store: StorePolicies
  readonly commands: CommandPolicies
  readonly subscriptions: SubscriptionPolicies
  readonly chunks: ChunkPolicies
}

/** Waits that double, up to the longest one, each ±20 % so that many who wait do not come back together. */
const doubling = (first: Duration.Input, longest: Duration.Input): Schedule.Schedule<Duration.Duration> =>
  Schedule.jittered(Schedule.min([Schedule.exponential(first), Schedule.spaced(longest)]))

/**
 * What holds unless something else is provided.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaults: Policies = {
  store: {
    retry: Schedule.upTo(doubling("50 millis", "1 second"), { duration: "10 seconds" }),
    pollInterval: Duration.seconds(1),
    background: Duration.seconds(1),
    forgetKeys: Schedule.spaced("1 hour"),
    roomPoll: Duration.millis(1),
    closeTimeout: Duration.seconds(10)
  },
  commands: {
    // At once for the first time: the state has just been read anew.
    onConflict: Schedule.concat(
      Schedule.recurs(1),
      Schedule.exponential("5 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 9 }))
    )
  },
  subscriptions: {
    retry: Schedule.upTo(doubling("100 millis", "10 seconds"), { times: 10 }),
    lease: Duration.seconds(6),
    stopTimeout: Duration.seconds(5),
    checkpointInterval: Duration.seconds(5),
    outages: doubling("100 millis", "5 seconds"),
    renewAfter: 1 / 3,
    leaveMargin: Duration.seconds(3),
    lagSampling: Schedule.spaced("5 seconds"),
    openPages: Duration.seconds(1)
  },
  chunks: {
    patience: Duration.seconds(10),
    rest: 2,
    restFarBehind: 4,
    restBesideAppends: 16
  }
}

/**
 * The policies of this fiber.
 *
 * @category references
 * @since 0.1.0
 */
export const EventStorePolicies: Context.Reference<Policies> = Context.Reference<Policies>(
  "@strata/event-store/EventStorePolicies",
  { defaultValue: () => defaults }
)
