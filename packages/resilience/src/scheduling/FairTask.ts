/**
 * A piece of work for a `FairScheduler`: whose it is, how urgent, and why it may not be begun.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Quota from "../limits/Quota.ts"
import * as Priority from "./Priority.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * Of what an effect is a part. All of it has defaults.
 *
 * @category models
 * @since 0.1.0
 */
export interface Task {
  /** Default: `Priority.Current`. */
  readonly priority?: Priority.Priority | undefined
  /** Default: `default`. */
  readonly tenant?: string | undefined
  /** Effects of a tenant with the same key run one at a time, in the order they came. */
  readonly key?: string | undefined
  /** What kind of work it is, for the average of how long it takes: few names, no ids. Default: its class. */
  readonly name?: string | undefined
  /** What it is expected to take, in the scheduler's unit. Default: what work of its name took on average. */
  readonly cost?: number | undefined
  /** How large it is, for the quota of its tenant. Default: 0. */
  readonly bytes?: number | undefined
  /** How long it waited somewhere else before: it is as old as that. Default: not at all. */
  readonly waited?: Duration.Input | undefined
  /**
   * It may be interrupted for P0 that has no slot, and started again, until it is `committing`. At most three times;
   * then it is left alone. Default: false.
   */
  readonly preemptible?: boolean | undefined
}

/**
 * When to try again after which error. Without, an effect is tried once.
 *
 * @category models
 * @since 0.1.0
 */
export interface Retry<in E, out R> {
  readonly retry?: Schedule.Schedule<unknown, E, never, R> | undefined
}

/**
 * Work that has been running for more than twice as long as work of its name does on average. It goes on.
 *
 * @category models
 * @since 0.1.0
 */
export interface Overrun {
  readonly scheduler: string
  readonly name: string
  readonly priority: Priority.Priority
  readonly tenant: string
  /** How long it has been running. */
  readonly ran: Duration.Duration
  readonly average: Duration.Duration
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * As many of the class wait as may. Nothing was started.
 *
 * @category errors
 * @since 0.1.0
 */
export class SchedulerFull extends Schema.TaggedError<SchedulerFull>("@strata/resilience/SchedulerFull")(
  "SchedulerFull",
  {
    scheduler: Schema.String,
    priority: Priority.Priority,
    waiting: Schema.Finite,
    /** When about all that wait will have had their turn. */
    retryAfter: Schema.Duration
  }
) {
  override get message(): string {
    return `${this.scheduler}: ${this.waiting} of class ${this.priority} wait already: ` +
      `try again in ${Duration.format(this.retryAfter)}`
  }
}

/**
 * More urgent work has no slot, and this was not begun yet. It counts as no attempt: whoever holds it may give it to
 * somebody else.
 *
 * @category errors
 * @since 0.1.0
 */
export class HandedBack extends Schema.TaggedError<HandedBack>("@strata/resilience/HandedBack")("HandedBack", {
  scheduler: Schema.String,
  priority: Priority.Priority,
  tenant: Schema.String,
  /** When about all the urgent work will have had its turn. */
  retryAfter: Schema.Duration
}) {
  override get message(): string {
    return `${this.scheduler}: work of class ${this.priority} of tenant ${this.tenant} was handed back before it began: ` +
      `more urgent work has no slot for about ${Duration.format(this.retryAfter)}`
  }
}

/**
 * Why work was not begun.
 *
 * @category errors
 * @since 0.1.0
 */
export type NotBegun = SchedulerFull | Quota.QuotaExceeded
