/**
 * Why something asked of a queue was not done.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/**
 * There is no queue of this name: `Queues.declare` makes one.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownQueue extends Schema.TaggedError<UnknownQueue>()("UnknownQueue", { queue: Schema.String }) {
  override get message(): string {
    return `There is no queue named ${this.queue}`
  }
}

/**
 * What was given cannot be sent: `path` names the field, `problem` says what is wrong with it. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidMessage extends Schema.TaggedError<InvalidMessage>()("InvalidMessage", {
  queue: Schema.String,
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.problem}`
  }
}

/**
 * The queue is as deep as it may be. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class QueueFull extends Schema.TaggedError<QueueFull>()("QueueFull", {
  queue: Schema.String,
  depth: Schema.Int,
  maxDepth: Schema.Int,
  /** When there is likely to be room. */
  retryAfter: Schema.Duration
}) {
  override get message(): string {
    return `Queue ${this.queue} has ${this.depth} messages waiting, and may have ${this.maxDepth}: ` +
      `try again in ${Duration.format(this.retryAfter)}`
  }
}

/**
 * The lease is over: others have, or had, what it held. What was said of it changed nothing.
 *
 * @category errors
 * @since 0.1.0
 */
export class LeaseLost extends Schema.TaggedError<LeaseLost>()("LeaseLost", {
  queue: Schema.String,
  token: Schema.String
}) {
  override get message(): string {
    return `The lease ${this.token} of queue ${this.queue} is over: what it held was given to others`
  }
}

/**
 * The database did not do what it was asked.
 *
 * @category errors
 * @since 0.1.0
 */
export class QueueUnavailable extends Schema.TaggedError<QueueUnavailable>()("QueueUnavailable", {
  operation: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `The queues could not be reached: ${this.operation}`
  }
}

/**
 * Why something asked of a queue was not done.
 *
 * @category errors
 * @since 0.1.0
 */
export class QueueError extends Schema.TaggedError<QueueError>()("QueueError", {
  reason: Schema.Union([UnknownQueue, InvalidMessage, QueueFull, LeaseLost, QueueUnavailable])
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
export const unavailable = (operation: string) => (cause: unknown): QueueError =>
  new QueueError({ reason: new QueueUnavailable({ operation, cause }) })
