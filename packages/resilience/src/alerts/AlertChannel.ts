/**
 * Where alerts are told: the log, a webhook, or whatever else can deliver a notification.
 *
 * **When to use**
 *
 * Give channels to `Alerts.layer`. Use `queued` for one of your own.
 *
 * **Details**
 *
 * A channel takes a notification and never makes anybody wait. What has to be sent over a network stands in a bounded
 * queue, from which one fiber delivers in order, with a time-out and retries of its own. What finds no room is dropped
 * and counted, and what cannot be delivered is counted and logged: neither is the business of whoever raised the alert.
 * When the scope closes, what is queued is still delivered for as long as one time-out.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_alert_notifications_total` | counter | `channel`, `outcome`: delivered, failed, dropped |
 *
 * **Gotchas**
 *
 * The address of a webhook is often its only secret, so it is neither logged nor traced.
 *
 * **Example** (A room that is told beside the log)
 *
 * ```ts
 * import * as AlertChannel from "@strata/resilience/alerts/AlertChannel"
 * import * as Alerts from "@strata/resilience/alerts/Alerts"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 *
 * declare const url: Redacted.Redacted<string>
 *
 * Alerts.layer({ channels: [AlertChannel.log, AlertChannel.webhook({ name: "room", url })] }).pipe(
 *   Layer.provide(FetchHttpClient.layer)
 * )
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Headers from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Deadline from "../bounds/Deadline.ts"
import * as FailureClass from "../retry/FailureClass.ts"
import * as RetryPolicy from "../retry/RetryPolicy.ts"
import * as Alert from "./Alert.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * Where notifications go.
 *
 * @category models
 * @since 0.1.0
 */
export interface AlertChannel {
  /** What the steps of an escalation call it; a label of metrics. */
  readonly name: string
  /** Takes a notification, and does not wait for its delivery. */
  readonly offer: (notification: Alert.Notification) => Effect.Effect<void>
}

/**
 * A channel before it is opened.
 *
 * @category models
 * @since 0.1.0
 */
export type Opening<R = never> = Effect.Effect<AlertChannel, never, R | Scope.Scope>

// ------------------------------------------------------------------------------------------------------------ log

const levels: Readonly<Record<Alert.Severity, "Info" | "Warn" | "Error">> = {
  info: "Info",
  warning: "Warn",
  critical: "Error"
}

/**
 * The channel `log`: critical as errors, warnings as such, and what is resolved as information.
 *
 * @category channels
 * @since 0.1.0
 */
export const log: Opening = Effect.succeed({
  name: "log",
  offer: (notification) => {
    const { alert, kind } = notification
    return Effect.logWithLevel(kind === "resolved" ? "Info" : levels[alert.severity])(Alert.format(notification)).pipe(
      Effect.annotateLogs({ ...alert.details, alert: alert.key })
    )
  }
})

// --------------------------------------------------------------------------------------------------------- queued

/**
 * What a channel with a queue is made from.
 *
 * @category options
 * @since 0.1.0
 */
export interface QueuedOptions {
  readonly name: string
  /** How many notifications may wait for delivery. Default: 100. */
  readonly capacity?: number | undefined
  /** For one try. Default: 5 seconds. */
  readonly timeout?: Duration.Input | undefined
  /** Default: `RetryPolicy.standard`. */
  readonly retry?: RetryPolicy.RetryPolicy | undefined
}

/**
 * A channel that delivers in a fiber of its own, one notification after the other. A notification may be delivered twice,
 * with one `id`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const queued = Effect.fnUntraced(function*<E, R>(
  options: QueuedOptions & {
    readonly deliver: (notification: Alert.Notification) => Effect.Effect<void, E, R>
    /** Tells the class of a failure. Default: `FailureClass.classify`. */
    readonly classify?: FailureClass.Classifier<E | Cause.TimeoutError> | undefined
  }
): Effect.fn.Return<AlertChannel, never, R | Scope.Scope> {
  const { name } = options
  const timeout = Duration.fromInputUnsafe(options.timeout ?? "5 seconds")
  const queue = yield* Queue.dropping<Alert.Notification, Cause.Done>(options.capacity ?? 100)
  const counted = (outcome: string) =>
    Metric.update(Metric.withAttributes(notifications, { channel: name, outcome }), 1)
  const retry = { policy: options.retry ?? RetryPolicy.standard, classify: options.classify, idempotent: true }

  const deliver = (notification: Alert.Notification) =>
    options.deliver(notification).pipe(
      Effect.timeout(timeout),
      RetryPolicy.retry(retry),
      Effect.matchCauseEffect({
        onSuccess: () => counted("delivered"),
        onFailure: (cause) => Effect.andThen(counted("failed"), undelivered(name, notification, cause))
      })
    )
  const worker = yield* Effect.flatMap(Queue.take(queue), deliver).pipe(
    Effect.forever,
    Effect.ignore,
    RetryPolicy.outermost,
    Deadline.without,
    Effect.withTracerEnabled(false),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* Effect.addFinalizer(() => Effect.andThen(Queue.end(queue), Effect.timeoutOption(Fiber.await(worker), timeout)))

  let isDropping = false
  return {
    name,
    offer: (notification) =>
      Effect.suspend(() => {
        const wasDropping = isDropping
        isDropping = !Queue.offerUnsafe(queue, notification)
        if (!isDropping) return Effect.void
        // Said once, since there is more to come where this came from.
        return wasDropping ? counted("dropped") : Effect.andThen(
          counted("dropped"),
          Effect.logWarning(`Alert channel "${name}" has no room: notifications are dropped until it has`)
        )
      })
  }
})

const notifications = Metric.counter("strata_alert_notifications_total", {
  description: "Notifications of alerts, by channel",
  incremental: true
})

const undelivered = (channel: string, notification: Alert.Notification, cause: Cause.Cause<unknown>) =>
  Effect.logError(`Alert channel "${channel}" could not deliver: ${Alert.format(notification)}`, cause)

// -------------------------------------------------------------------------------------------------------- webhook

/**
 * A webhook did not take a notification. Where it stands is left out, since that is often a secret.
 *
 * @category errors
 * @since 0.1.0
 */
export class WebhookRefused
  extends Schema.TaggedError<WebhookRefused>("@strata/resilience/AlertChannel/WebhookRefused")(
    "WebhookRefused",
    {
      /** What it answered; none when it did not. */
      status: Schema.UndefinedOr(Schema.Int),
      problem: Schema.String,
      retryAfter: Schema.UndefinedOr(Schema.Duration)
    }
  )
{
  override get message(): string {
    return `The webhook did not take the notification: ${this.problem}`
  }
}

/**
 * What a webhook is made from.
 *
 * @category options
 * @since 0.1.0
 */
export interface WebhookOptions extends Omit<QueuedOptions, "name"> {
  /** Default: webhook. */
  readonly name?: string | undefined
  readonly url: string | Redacted.Redacted<string>
  /** Sent with each request, for instance what tells who we are. */
  readonly headers?: Headers.Input | undefined
}

/**
 * A channel that posts each notification as JSON, as `Alert.toJson` writes it, with its `id` as `Idempotency-Key`.
 *
 * **Details**
 *
 * Every status from 200 to 299 is a delivery, and what else is answered is not read. After 408, 425, 429, a status from
 * 500 up, a time-out or no answer it is tried again, after 429 and 503 no sooner than they ask for in seconds.
 *
 * @category constructors
 * @since 0.1.0
 */
export const webhook = Effect.fnUntraced(function*(
  { headers = {}, url, ...options }: WebhookOptions
): Effect.fn.Return<AlertChannel, never, HttpClient.HttpClient | Scope.Scope> {
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)
  const address = Redacted.isRedacted(url) ? Redacted.value(url) : url
  const deliver = (notification: Alert.Notification) =>
    client.execute(
      HttpClientRequest.post(address).pipe(
        HttpClientRequest.setHeaders(headers),
        HttpClientRequest.setHeader("idempotency-key", notification.id),
        HttpClientRequest.bodyJsonUnsafe(Alert.toJson(notification))
      )
    ).pipe(
      Effect.mapError(({ reason }) =>
        new WebhookRefused({ status: undefined, problem: reason._tag, retryAfter: undefined })
      ),
      Effect.flatMap(answered),
      Effect.scoped,
      Effect.provideService(HttpClient.TracerPropagationEnabled, false)
    )
  return yield* queued({ ...options, name: options.name ?? "webhook", deliver, classify })
})

const answered = ({ headers, status }: HttpClientResponse.HttpClientResponse) => {
  if (status >= 200 && status < 300) return Effect.void
  const asked = status === 429 || status === 503 ? headers["retry-after"] : undefined
  const retryAfter = asked !== undefined && /^\d{1,9}$/.test(asked) ? Duration.seconds(Number(asked)) : undefined
  return Effect.fail(new WebhookRefused({ status, problem: `it answered ${status}`, retryAfter }))
}

const classify = FailureClass.extend((error: WebhookRefused | Cause.TimeoutError) => {
  if (error._tag === "TimeoutError") return undefined
  if (error.retryAfter !== undefined) return FailureClass.throttled(error.retryAfter)
  if (error.status === undefined) return error.problem === "TransportError" ? FailureClass.transient : undefined
  const { status } = error
  return status >= 500 || status === 408 || status === 425 || status === 429 ? FailureClass.transient : undefined
})

// --------------------------------------------------------------------------------------------------------- memory

/**
 * The channel `memory`, which keeps the last 1000 notifications: for tests.
 *
 * @category services
 * @since 0.1.0
 */
export class Memory extends Context.Service<
  Memory,
  AlertChannel & {
    /** The oldest first. */
    readonly notifications: Effect.Effect<ReadonlyArray<Alert.Notification>>
  }
>()("@strata/resilience/AlertChannel/Memory") {
  static readonly layer: Layer.Layer<Memory> = Layer.sync(Memory, () => {
    const kept: Array<Alert.Notification> = []
    return Memory.of({
      name: "memory",
      offer: (notification) =>
        Effect.sync(() => {
          kept.push(notification)
          if (kept.length > 1000) kept.shift()
        }),
      notifications: Effect.sync(() => kept.slice())
    })
  })
}
