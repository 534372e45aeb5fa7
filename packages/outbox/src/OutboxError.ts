/**
 * Why something was not published.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * What was given cannot be published: `path` names the field, `problem` says what is wrong with it.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidPublication extends Schema.TaggedError<InvalidPublication>()("InvalidPublication", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.problem}`
  }
}

/**
 * The destination takes nothing now: most likely nobody would read it.
 *
 * @category errors
 * @since 0.1.0
 */
export class DestinationClosed extends Schema.TaggedError<DestinationClosed>()("DestinationClosed", {
  /** What it is, its name and why. */
  destination: Schema.String
}) {
  override get message(): string {
    return `Nothing is published to ${this.destination}`
  }
}

/**
 * The database did not do what it was asked. Outside a transaction nobody may know whether it did.
 *
 * @category errors
 * @since 0.1.0
 */
export class OutboxUnavailable extends Schema.TaggedError<OutboxUnavailable>()("OutboxUnavailable", {
  cause: Schema.Defect()
}) {
  override get message(): string {
    return "The outbox could not be written to"
  }
}

/**
 * Why something was not published. Nothing of it was.
 *
 * @category errors
 * @since 0.1.0
 */
export class OutboxError extends Schema.TaggedError<OutboxError>()("OutboxError", {
  reason: Schema.Union([InvalidPublication, DestinationClosed, OutboxUnavailable])
}) {
  override get message(): string {
    return this.reason.message
  }
}
