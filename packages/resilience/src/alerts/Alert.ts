/**
 * What somebody is told when something is wrong: what, how bad, how often, since when.
 *
 * **Details**
 *
 * An alert is raised under a *key*, and while it is active all that is raised under that key is the same alert. What goes
 * to the channels is a `Notification` of it; see `AlertPolicy` for when.
 *
 * **Example** (An alert as somebody reads it)
 *
 * ```ts import.meta.vitest
 * import * as Timestamp from "@strata/postgres/Timestamp"
 * import * as Alert from "@strata/resilience/alerts/Alert"
 *
 * const at = Timestamp.fromMillis(0)
 * const alert: Alert.Active = {
 *   name: "queue_depth",
 *   key: "queue_depth/orders",
 *   severity: "critical",
 *   summary: "12000 messages wait",
 *   details: { queue: "orders" },
 *   count: 3,
 *   firstAt: at,
 *   lastAt: at,
 *   acknowledgedBy: undefined
 * }
 * Alert.format({ id: "1", kind: "summary", alert }) // => "CRITICAL queue_depth: 12000 messages wait (summary, 3 times)"
 * ```
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/**
 * How bad it is, the least first.
 *
 * @category constants
 * @since 0.1.0
 */
export const severities = ["info", "warning", "critical"] as const

/**
 * How bad it is: worth knowing, to be looked at today, or now.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Severity = Schema.Literals(severities)

/**
 * @category models
 * @since 0.1.0
 */
export type Severity = typeof Severity.Type

/**
 * True when the first is worse than the second.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isWorse = (self: Severity, than: Severity): boolean => severities.indexOf(self) > severities.indexOf(than)

/**
 * What a channel shows beside the summary. Whatever reads it may be outside of the company: no secrets, no payloads.
 *
 * @category models
 * @since 0.1.0
 */
export type Details = Readonly<Record<string, string | number | boolean>>

/**
 * What is raised.
 *
 * @category models
 * @since 0.1.0
 */
export interface Alert {
  /** What is wrong, in lower case: the same for all of its kind. */
  readonly name: string
  readonly severity: Severity
  /** One sentence for whoever is woken up. */
  readonly summary: string
  readonly details?: Details | undefined
  /** What is the same alert. Default: its name. */
  readonly key?: string | undefined
  /**
   * Resolved by itself when it is not raised again for so long: for what happens, and does not last. Default: active until
   * somebody resolves it.
   */
  readonly expireAfter?: Duration.Input | undefined
}

/**
 * An alert that was raised and not resolved yet.
 *
 * @category models
 * @since 0.1.0
 */
export interface Active {
  readonly name: string
  readonly key: string
  readonly severity: Severity
  readonly summary: string
  readonly details: Details
  /** How often it was raised. */
  readonly count: number
  readonly firstAt: Timestamp.Timestamp
  readonly lastAt: Timestamp.Timestamp
  /** Who looks after it. */
  readonly acknowledgedBy: string | undefined
}

/**
 * Why somebody is told.
 *
 * - `raised`: it is new, or worse than it was.
 * - `summary`: it was raised again since, so often.
 * - `repeated`: it is still active, and nobody looks after it.
 * - `escalated`: likewise, so the next ones are told.
 * - `resolved`: it is over.
 *
 * @category models
 * @since 0.1.0
 */
export type Kind = "raised" | "summary" | "repeated" | "escalated" | "resolved"

/**
 * What a channel is given.
 *
 * @category models
 * @since 0.1.0
 */
export interface Notification {
  /** The same when it is delivered twice. */
  readonly id: string
  readonly kind: Kind
  readonly alert: Active
}

/**
 * A notification as one line to read.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = ({ alert, kind }: Notification): string =>
  `${kind === "resolved" ? "RESOLVED" : alert.severity.toUpperCase()} ${alert.name}: ${alert.summary}${
    kind === "raised" || kind === "resolved" ? "" : ` (${kind}, ${alert.count} ${alert.count === 1 ? "time" : "times"})`
  }`

/**
 * A notification as JSON has it: its fields in one object, times in ISO-8601, `text` as `format` writes it.
 *
 * @category formatting
 * @since 0.1.0
 */
export const toJson = (notification: Notification) => {
  const { alert, id, kind } = notification
  return {
    id,
    kind,
    text: format(notification),
    name: alert.name,
    key: alert.key,
    severity: alert.severity,
    summary: alert.summary,
    details: alert.details,
    count: alert.count,
    firstAt: Timestamp.format(alert.firstAt),
    lastAt: Timestamp.format(alert.lastAt),
    acknowledgedBy: alert.acknowledgedBy ?? null
  }
}
