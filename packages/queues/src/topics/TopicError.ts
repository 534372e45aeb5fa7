/**
 * Why something asked of a topic or of a group was not done.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * There is no topic of this name: `Topics.declare` makes one.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownTopic extends Schema.TaggedError<UnknownTopic>()("UnknownTopic", { topic: Schema.String }) {
  override get message(): string {
    return `There is no topic named ${this.topic}`
  }
}

/**
 * There is no group of this name: its first member makes it.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownGroup extends Schema.TaggedError<UnknownGroup>()("UnknownGroup", { group: Schema.String }) {
  override get message(): string {
    return `There is no consumer group named ${this.group}`
  }
}

/**
 * The group was cancelled, which is for good: its name is not used again.
 *
 * @category errors
 * @since 0.1.0
 */
export class GroupCancelled extends Schema.TaggedError<GroupCancelled>()("GroupCancelled", { group: Schema.String }) {
  override get message(): string {
    return `The consumer group ${this.group} was cancelled`
  }
}

/**
 * The group has as many members as it may have.
 *
 * @category errors
 * @since 0.1.0
 */
export class GroupFull extends Schema.TaggedError<GroupFull>()("GroupFull", {
  group: Schema.String,
  maxMembers: Schema.Int
}) {
  override get message(): string {
    return `The consumer group ${this.group} has ${this.maxMembers} members, and may have no more`
  }
}

/**
 * Another process takes part under the same instance, and took the place of this one.
 *
 * @category errors
 * @since 0.1.0
 */
export class InstanceTaken extends Schema.TaggedError<InstanceTaken>()("InstanceTaken", {
  group: Schema.String,
  instance: Schema.String
}) {
  override get message(): string {
    return `Another process takes part in the consumer group ${this.group} as ${this.instance}`
  }
}

/**
 * What was given makes no sense: `path` names the field, `problem` says what is wrong with it.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidTopicRequest extends Schema.TaggedError<InvalidTopicRequest>()("InvalidTopicRequest", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.problem}`
  }
}

/**
 * The database did not do what it was asked.
 *
 * @category errors
 * @since 0.1.0
 */
export class TopicsUnavailable extends Schema.TaggedError<TopicsUnavailable>()("TopicsUnavailable", {
  operation: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `The topics could not be reached: ${this.operation}`
  }
}

/**
 * Why something asked of a topic or of a group was not done.
 *
 * @category errors
 * @since 0.1.0
 */
export class TopicError extends Schema.TaggedError<TopicError>()("TopicError", {
  reason: Schema.Union([
    UnknownTopic,
    UnknownGroup,
    GroupCancelled,
    GroupFull,
    InstanceTaken,
    InvalidTopicRequest,
    TopicsUnavailable
  ])
}) {
  override get message(): string {
    return this.reason.message
  }
}

/**
 * Wraps what the database said.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unavailable = (operation: string) => (cause: unknown): TopicError =>
  cause instanceof TopicError ? cause : new TopicError({ reason: new TopicsUnavailable({ operation, cause }) })

/**
 * Another owner has the partition, or something else made void what was going on. Nothing of it was committed.
 *
 * @category errors
 * @since 0.1.0
 */
export class Fenced extends Schema.TaggedError<Fenced>()("Fenced", {
  group: Schema.String,
  topic: Schema.String,
  partitions: Schema.Array(Schema.Int)
}) {
  override get message(): string {
    return `Others have partitions ${this.partitions.join(", ")} of topic ${this.topic}, ` +
      `or what was read is read again, in the consumer group ${this.group}`
  }
}
