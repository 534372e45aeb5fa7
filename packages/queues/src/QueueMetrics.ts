/**
 * What queues measure in this process, by queue.
 *
 * **Details**
 *
 * The names are those of OpenTelemetry's semantic conventions for messaging where there are some. Prometheus gets them with `_` for
 * each dot.
 *
 * | name | kind | what |
 * | --- | --- | --- |
 * | `messaging.client.sent.messages` | counter | messages that were sent, those of a transaction when it may still roll back |
 * | `messaging.client.consumed.messages` | counter | messages that were claimed |
 * | `messaging.client.operation.duration` | histogram | seconds a claim took, or what tells what became of messages |
 * | `messaging.process.duration` | histogram | seconds a handler ran, for a message or for a batch |
 * | `strata_queue_settled_total` | counter | messages by what became of them: `outcome` |
 * | `strata_queue_wait_seconds` | histogram | from the sending of a message to the beginning of its first try |
 * | `strata_queue_running` | gauge | messages that have begun and are not over |
 * | `strata_queue_held` | gauge | messages that were claimed and have not begun |
 *
 * Each has `messaging.system`, which is `strata`, and `messaging.destination.name`, the queue. The outcomes are `done`,
 * `retried` (also those that were snoozed), `released` and `dead`; what was said too late counts as none.
 *
 * They are plain numbers that are read when metrics are collected, so counting costs next to nothing. How many messages wait is
 * told by `Queues.stats`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"

// --------------------------------------------------------------------------------------------------------- models

/** Seconds, as the conventions have it. */
const durations = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]

/** Who waits may do so for long. */
const waits = [...durations, 30, 60, 300, 1800, 3600, 21_600, 86_400]

/** What became of a message. */
const outcomes = ["done", "retried", "released", "dead"] as const

/**
 * What works on a queue.
 *
 * @category models
 * @since 0.1.0
 */
export interface Working {
  /** Messages that have begun. */
  readonly running: number
  /** Messages that have not. */
  readonly waiting: number
}

/** How often values up to each of some boundaries were seen. */
class Tally {
  readonly #boundaries: ReadonlyArray<number>
  readonly #counts: Float64Array
  #count = 0
  #sum = 0
  #min = Number.MAX_VALUE
  #max = -Number.MAX_VALUE

  constructor(boundaries: ReadonlyArray<number>) {
    this.#boundaries = boundaries
    this.#counts = new Float64Array(boundaries.length + 1)
  }

  record(value: number): void {
    let place = 0
    while (place < this.#boundaries.length && value > this.#boundaries[place]!) place++
    this.#counts[place]!++
    this.#count++
    this.#sum += value
    if (value < this.#min) this.#min = value
    if (value > this.#max) this.#max = value
  }

  get state(): Metric.HistogramState {
    let cumulated = 0
    const buckets = this.#boundaries.map((boundary, place): [number, number] => {
      cumulated += this.#counts[place]!
      return [boundary, cumulated]
    })
    return { buckets, count: this.#count, min: this.#min, max: this.#max, sum: this.#sum }
  }
}

/**
 * The numbers of one queue.
 *
 * @category models
 * @since 0.1.0
 */
export class QueueMetrics {
  sent = 0
  claimed = 0
  readonly settled = { done: 0, retried: 0, released: 0, dead: 0 }
  /** In seconds, as all that follow. */
  readonly claims = new Tally(durations)
  readonly settles = new Tally(durations)
  readonly handled = new Tally(durations)
  readonly waited = new Tally(waits)
  /** All that work on it now. */
  readonly working = new Set<Working>()
}

// --------------------------------------------------------------------------------------------------- constructors

/** Those of each registry: whoever works on a queue, or sends to it, counts with the others. */
const known = new WeakMap<Metric.MetricRegistry, Map<string, QueueMetrics>>()

/**
 * The numbers of a queue. They are registered when they are asked for the first time, and stay.
 *
 * @category constructors
 * @since 0.1.0
 */
export const of = (context: Context.Context<never>, queue: string): QueueMetrics => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const queues = known.get(registry) ?? new Map<string, QueueMetrics>()
  known.set(registry, queues)
  const found = queues.get(queue)
  if (found !== undefined) return found
  const metrics = new QueueMetrics()
  queues.set(queue, metrics)
  register(context, queue, metrics)
  return metrics
}

const register = (context: Context.Context<never>, queue: string, metrics: QueueMetrics): void => {
  const attributesOf = (more: Record<string, string>) => ({
    "messaging.system": "strata",
    "messaging.destination.name": queue,
    ...more
  })
  const counter = (name: string, description: string, more: Record<string, string>, read: () => number) =>
    Metric.registerUnsafe(
      Metric.counter(name, { description, attributes: attributesOf(more), incremental: true }),
      context,
      { ...observed, get: () => ({ count: read(), incremental: true }) }
    )
  const histogram = (name: string, description: string, more: Record<string, string>, tally: Tally) =>
    Metric.registerUnsafe(
      Metric.histogram(name, { description, attributes: attributesOf(more), boundaries: durations }),
      context,
      { ...observed, get: () => tally.state }
    )
  const gauge = (name: string, description: string, of: (working: Working) => number) =>
    Metric.registerUnsafe(
      Metric.gauge(name, { description, attributes: attributesOf({}) }),
      context,
      { ...observed, get: () => ({ value: Array.from(metrics.working, of).reduce((sum, count) => sum + count, 0) }) }
    )

  counter("messaging.client.sent.messages", "Messages that were sent", operation("send"), () => metrics.sent)
  counter("messaging.client.consumed.messages", "Messages that were claimed", operation("claim"), () => metrics.claimed)
  for (const outcome of outcomes) {
    const description = "Messages by what became of them"
    counter("strata_queue_settled_total", description, { outcome }, () => metrics.settled[outcome])
  }
  const asked = "Time of what is asked of the database"
  histogram("messaging.client.operation.duration", asked, operation("claim", "receive"), metrics.claims)
  histogram("messaging.client.operation.duration", asked, operation("settle", "settle"), metrics.settles)
  histogram("messaging.process.duration", "Time a handler ran", operation("process"), metrics.handled)
  histogram("strata_queue_wait_seconds", "From sending to the beginning of the first try", {}, metrics.waited)
  gauge("strata_queue_running", "Messages that have begun and are not over", ({ running }) => running)
  gauge("strata_queue_held", "Messages that were claimed and have not begun", ({ waiting }) => waiting)
}

const operation = (name: string, type?: string): Record<string, string> => ({
  "messaging.operation.name": name,
  ...(type === undefined ? {} : { "messaging.operation.type": type })
})

/** Whoever asks for the same series by hand changes nothing. */
const observed = { update: () => {}, modify: () => {} }
