/**
 * Why a durable subscription cannot be used, and why a process lost a partition of it.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { EventStoreError } from "./EventStore.ts"

/**
 * There is no subscription of this name in the store.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownSubscription extends Schema.TaggedError<UnknownSubscription>()("UnknownSubscription", {
  subscription: Schema.String
}) {
  override get message() {
    return `There is no subscription named ${this.subscription}`
  }
}

/**
 * An option has a value that cannot be used: `path` names it, `message` says what is wrong with it.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSubscription extends Schema.TaggedError<InvalidSubscription>()("InvalidSubscription", {
  path: Schema.String,
  message: Schema.String
}) {}

/**
 * The subscription was made with another number of partitions. With this one, facts of a key could be handled out of
 * order: use the number it has, or a new name.
 *
 * @category errors
 * @since 0.1.0
 */
export class PartitionsDiffer extends Schema.TaggedError<PartitionsDiffer>()("PartitionsDiffer", {
  subscription: Schema.String,
  given: Schema.Int,
  actual: Schema.Int
}) {
  override get message() {
    return `Subscription ${this.subscription} has ${this.actual} partitions, not ${this.given}`
  }
}

/**
 * The database of the checkpoints did not do what it was asked.
 *
 * @category errors
 * @since 0.1.0
 */
export class CheckpointsUnavailable extends Schema.TaggedError<CheckpointsUnavailable>()("CheckpointsUnavailable", {
  operation: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `The checkpoints of subscriptions could not be reached: ${this.operation}`
  }
}

/**
 * Why an operation on a durable subscription failed.
 *
 * @category errors
 * @since 0.1.0
 */
export class SubscriptionError extends Schema.TaggedError<SubscriptionError>()("SubscriptionError", {
  reason: Schema.Union([
    UnknownSubscription,
    InvalidSubscription,
    PartitionsDiffer,
    CheckpointsUnavailable,
    EventStoreError
  ])
}) {
  override get message() {
    return this.reason.message
  }
}

/**
 * The partition is in another epoch: another process has taken it, or somebody moved its checkpoint. The checkpoint stays as
 * it is, and in the transactional style the batch is rolled back.
 *
 * @category errors
 * @since 0.1.0
 */
export class PartitionFenced extends Schema.TaggedError<PartitionFenced>()("PartitionFenced", {
  subscription: Schema.String,
  partition: Schema.Int,
  /** The epoch that is over. */
  epoch: Schema.BigInt
}) {
  override get message() {
    return `Epoch ${this.epoch} of partition ${this.partition} of subscription ${this.subscription} is over`
  }
}
