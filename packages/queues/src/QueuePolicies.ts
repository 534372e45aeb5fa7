/**
 * Every wait, limit and number of tries of this package that is no setting of a queue, in one place.
 *
 * @since 0.1.0
 */
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import type * as Schedule from "effect/Schedule"

/**
 * The policies of queues.
 *
 * @category models
 * @since 0.1.0
 */
export interface Policies {
  /** Waits before a statement that certainly was not done is sent again. */
  readonly resend: Schedule.Schedule<unknown>
  /** How long what is known of a queue is believed. */
  readonly refresh: Duration.Duration
  /** How long a worker that found nothing waits for a hint before it looks again. */
  readonly poll: Duration.Duration
  /**
   * How long a worker that holds enough and hears of something new waits before it looks whether that is more urgent. Until then
   * it most likely looks for more anyway.
   */
  readonly glance: Duration.Duration
  /** How often a tail looks for what has come. */
  readonly peek: Duration.Duration
  /** Waits while the database cannot be reached; without end. */
  readonly reconnect: RetryPolicy.RetryPolicy
  /** How long it may be away before that is worth a warning. */
  readonly quietFor: Duration.Duration
  /** Time between two warnings of a worker. */
  readonly betweenWarnings: Duration.Duration
  /** How often what ran out, what has grown and what was counted is looked after, by one process at a time. */
  readonly upkeep: Duration.Duration
  /** How often what is done is told of a lease of which something still runs. */
  readonly flush: Duration.Duration
  /** How long a worker that stops waits for what it runs. */
  readonly stop: Duration.Duration
  /** For how long it is known that a consumer has handled a message: see `Inbox`. */
  readonly remember: Duration.Duration
  /**
   * Bytes of a payload, as JSON or as they are, that stand in the row of its message; at most 8 MiB count. Larger ones go to the
   * `PayloadStore`.
   */
  readonly inline: number
  /** Bytes of a payload above which a message is refused. */
  readonly largest: number
  /** Bytes of messages that are claimed together, and that a worker claims ahead, if it is more than one message. */
  readonly claimSize: number
  /** How large a table of messages grows before another one is written to, in bytes. */
  readonly tableSize: number
}

/**
 * What holds unless something else is provided.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaults: Policies = {
  resend: RetryPolicy.schedule(
    RetryPolicy.make({ attempts: 10, base: "50 millis", cap: "250 millis", total: "1 second" }),
    { idempotent: true }
  ),
  refresh: Duration.seconds(1),
  poll: Duration.seconds(1),
  glance: Duration.millis(20),
  peek: Duration.millis(200),
  reconnect: RetryPolicy.endless,
  quietFor: Duration.seconds(1),
  betweenWarnings: Duration.seconds(30),
  upkeep: Duration.millis(500),
  flush: Duration.millis(50),
  stop: Duration.seconds(30),
  remember: Duration.days(30),
  inline: 1_048_576,
  largest: 67_108_864,
  claimSize: 8_388_608,
  tableSize: 4_194_304
}

/**
 * The policies in force.
 *
 * @category references
 * @since 0.1.0
 */
export const QueuePolicies: Context.Reference<Policies> = Context.Reference<Policies>(
  "@strata/queues/QueuePolicies",
  { defaultValue: () => defaults }
)
