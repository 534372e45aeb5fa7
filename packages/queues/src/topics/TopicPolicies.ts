/**
 * Every wait, limit and number of tries of topics and consumer groups that is no option of them, in one place.
 *
 * @since 0.1.0
 */
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"

/**
 * The policies of topics.
 *
 * @category models
 * @since 0.1.0
 */
export interface Policies {
  /** How long the relay stays with a process that gives no sign of life. */
  readonly relayLease: Duration.Duration
  /** How long a relay that found nothing, or is not the one, waits for a hint before it looks again. */
  readonly relayPoll: Duration.Duration
  /** Rows and messages that the relay moves together, if it is more than one row. */
  readonly relayRows: number
  readonly relayMessages: number
  /**
   * How long the relay rests for each message that it has moved, and at most: where many are published, it costs as much to move what
   * several statements have published as what one has. Who publishes a few does not notice.
   */
  readonly relayRest: Duration.Duration
  readonly relayLongestRest: Duration.Duration
  /** How large a table of the outbox grows before another one is written to, in bytes; and how often that is looked at. */
  readonly tableSize: number
  readonly rotation: Duration.Duration
  /** How long a consumer that has read all waits for a hint before it looks again. */
  readonly poll: Duration.Duration
  /** How often a position is saved that only passed over messages of others. */
  readonly checkpoint: Duration.Duration
  /** How often a group that handles at least once saves how far it is: what it has handled since, it handles again after a crash. */
  readonly commit: Duration.Duration
  /** Waits while the database cannot be reached; without end. */
  readonly reconnect: RetryPolicy.RetryPolicy
  /** How long a member that stops waits for what it is handling. */
  readonly stop: Duration.Duration
  /** How long others may go on joining before they are given partitions, together. The first one gets them at once. */
  readonly settle: Duration.Duration
  /** How long a member may take to give up what is another's, before it is taken from it. */
  readonly revocation: Duration.Duration
  /** How often groups are looked after and topics trimmed. */
  readonly upkeep: Duration.Duration
  /** How long a group has no member until it counts as dead, and holds nothing back any more. */
  readonly groupTimeout: Duration.Duration
  /** Chunks of a topic that one look removes. */
  readonly trim: number
}

/**
 * What holds unless something else is provided.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaults: Policies = {
  relayLease: Duration.seconds(5),
  relayPoll: Duration.seconds(1),
  relayRows: 500,
  relayMessages: 5000,
  relayRest: Duration.micros(100n),
  relayLongestRest: Duration.millis(20),
  tableSize: 4_194_304,
  rotation: Duration.millis(500),
  poll: Duration.seconds(1),
  checkpoint: Duration.seconds(1),
  commit: Duration.millis(200),
  reconnect: RetryPolicy.endless,
  stop: Duration.seconds(30),
  settle: Duration.seconds(1),
  revocation: Duration.seconds(30),
  upkeep: Duration.seconds(20),
  groupTimeout: Duration.minutes(1),
  trim: 1000
}

/**
 * The policies in force.
 *
 * @category references
 * @since 0.1.0
 */
export const TopicPolicies: Context.Reference<Policies> = Context.Reference<Policies>(
  "@strata/queues/TopicPolicies",
  { defaultValue: () => defaults }
)
