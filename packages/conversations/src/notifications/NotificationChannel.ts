/**
 * How notifications reach people: the log, a webhook, or whatever else can deliver one.
 *
 * **When to use**
 *
 * `layerWebhook` hands notifications to a service that knows people's telephones and mailboxes; `layerLog` is enough to see that they are
 * made. Give `Notifications.layer` a channel of your own by `Layer.succeed(NotificationChannel, …)`.
 *
 * **Details**
 *
 * A channel delivers one notification at a time and says when it could not: then it is tried again, or is a dead letter.
 *
 * A webhook is posted the notification as JSON, as [Standard Webhooks](https://www.standardwebhooks.com) has it: `webhook-id` is the
 * notification's id, which stays the same however often it is sent, and with a secret `webhook-signature` is `v1,` and the Base64 of the
 * HMAC-SHA256 of `<webhook-id>.<webhook-timestamp>.<body>`. Every status from 200 to 299 is a delivery. After 408, 425, 429, a status
 * from 500 up, a time-out or no answer it is tried again, after 429 and 503 no sooner than they ask for in seconds; other answers say that
 * it never will be taken.
 *
 * **Gotchas**
 *
 * The address of a webhook is often a secret too, so it is neither logged nor traced. The `traceparent` is sent along.
 *
 * @since 0.1.0
 */
import * as Traceparent from "@strata/postgres/Traceparent"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Mac from "effect/crypto/Mac"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Notification } from "./Notification.ts"

// --------------------------------------------------------------------------------------------------------- errors

/**
 * A channel could not deliver a notification. Where it delivers to is left out, since that is often a secret.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotDelivered extends Schema.TaggedError<NotDelivered>("@strata/conversations/NotDelivered")(
  "NotDelivered",
  {
    channel: Schema.String,
    problem: Schema.String,
    /** What trying again may lead to. */
    failure: Schema.Literals(["transient", "permanent", "unknownOutcome"]),
    /** How long the other side asks to be left alone. */
    retryAfter: Schema.UndefinedOr(Schema.Duration)
  }
) {
  override get message(): string {
    return `The channel "${this.channel}" did not deliver: ${this.problem}`
  }
}

/**
 * What a failed delivery means for the next try.
 *
 * @category classifiers
 * @since 0.1.0
 */
export const classify = ({ failure, retryAfter }: NotDelivered): FailureClass.FailureClass =>
  retryAfter === undefined ? classes[failure] : FailureClass.throttled(retryAfter)

const classes = {
  transient: FailureClass.transient,
  permanent: FailureClass.permanent,
  unknownOutcome: FailureClass.unknownOutcome
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * Delivers notifications.
 *
 * @category services
 * @since 0.1.0
 */
export class NotificationChannel extends Context.Service<NotificationChannel, {
  /** Ends when the notification is delivered. It may come twice, under one id. */
  readonly deliver: (notification: Notification) => Effect.Effect<void, NotDelivered>
}>()("@strata/conversations/notifications/NotificationChannel") {}

// --------------------------------------------------------------------------------------------------------- layers

/**
 * Writes notifications to the log: who is told of which message, not what it says.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerLog: Layer.Layer<NotificationChannel> = Layer.succeed(
  NotificationChannel,
  NotificationChannel.of({
    deliver: ({ conversationId, messageId, notificationId, recipientId, senderId, tenant }) =>
      Effect.logInfo("A participant is notified of a message").pipe(
        Effect.annotateLogs({ notificationId, tenant, conversationId, messageId, senderId, recipientId })
      )
  })
)

/**
 * Where notifications are posted.
 *
 * @category options
 * @since 0.1.0
 */
export interface WebhookOptions {
  readonly url: string | Redacted.Redacted<string>
  /** Signs what is posted: `whsec_` and the key in Base64. Default: nothing is signed. */
  readonly secret?: Redacted.Redacted<string> | undefined
  /** For one try. Default: 5 seconds. */
  readonly timeout?: Duration.Input | undefined
}

/**
 * The secret of a webhook is none.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidWebhookSecret extends Schema.TaggedError<InvalidWebhookSecret>(
  "@strata/conversations/InvalidWebhookSecret"
)("InvalidWebhookSecret", {}) {
  override get message(): string {
    return "The secret of the webhook must be whsec_ and a key in Base64, for instance from: openssl rand -base64 32"
  }
}

/**
 * Posts notifications to a webhook.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWebhook = (
  options: WebhookOptions
): Layer.Layer<NotificationChannel, InvalidWebhookSecret, HttpClient.HttpClient> =>
  Layer.effect(NotificationChannel, makeWebhook(options)).pipe(
    Layer.provide(Mac.layerWebCrypto.pipe(Layer.provide(SecureRandom.layerWebCrypto)))
  )

/**
 * What the environment says.
 *
 * | variable | |
 * | --- | --- |
 * | `STRATA_NOTIFICATIONS_WEBHOOK` | Where notifications are posted. Default: they go to the log |
 * | `STRATA_NOTIFICATIONS_WEBHOOK_SECRET` | Signs them: `whsec_` and a key in Base64. Default: they are not signed |
 *
 * @category config
 * @since 0.1.0
 */
export const config = Config.all({
  webhook: Config.option(Config.Redacted("STRATA_NOTIFICATIONS_WEBHOOK")),
  secret: Config.option(Config.Redacted("STRATA_NOTIFICATIONS_WEBHOOK_SECRET"))
})

/**
 * Posts notifications to the webhook of the environment, or writes them to the log where there is none.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig: Layer.Layer<
  NotificationChannel,
  Config.ConfigError | InvalidWebhookSecret,
  HttpClient.HttpClient
> = Layer.unwrap(Effect.map(config, ({ secret, webhook }) =>
  Option.match(webhook, {
    onNone: () => layerLog,
    onSome: (url) => layerWebhook({ url, secret: Option.getOrUndefined(secret) })
  })))

// -------------------------------------------------------------------------------------------------------- webhook

const channel = "webhook"

const makeWebhook = Effect.fnUntraced(function*({ secret, timeout = "5 seconds", url }: WebhookOptions) {
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)
  const address = Redacted.isRedacted(url) ? Redacted.value(url) : url
  const sign = yield* makeSign(secret)

  return NotificationChannel.of({
    deliver: Effect.fn("NotificationChannel.deliver")(
      function*(notification) {
        const id = notification.notificationId
        const timestamp = String(Math.floor((yield* Clock.currentTimeMillis) / 1000))
        const body = yield* Effect.orDie(toJson(notification))
        const traceparent = yield* Traceparent.current
        const response = yield* client.execute(
          HttpClientRequest.post(address).pipe(
            HttpClientRequest.bodyText(body, "application/json"),
            HttpClientRequest.setHeaders({
              "webhook-id": id,
              "webhook-timestamp": timestamp,
              ...yield* sign(`${id}.${timestamp}.${body}`),
              ...traceparent === null ? {} : { traceparent }
            })
          )
        ).pipe(
          Effect.mapError(({ reason }) =>
            notDelivered(reason._tag, reason._tag === "TransportError" ? "transient" : "permanent")
          )
        )
        yield* answered(response)
      },
      Effect.scoped,
      Deadline.within(timeout),
      Effect.catchTag(
        "DeadlineExceeded",
        () => Effect.fail(notDelivered("it did not answer in time", "unknownOutcome"))
      ),
      Effect.provideService(HttpClient.TracerDisabledWhen, () => true)
    )
  })
})

const toJson = Schema.encodeEffect(Schema.fromJsonString(Schema.toCodecJson(Notification)))

const notDelivered = (problem: string, failure: NotDelivered["failure"], retryAfter?: Duration.Duration) =>
  new NotDelivered({ channel, problem, failure, retryAfter })

const answered = ({ headers, status }: HttpClientResponse.HttpClientResponse) => {
  if (status >= 200 && status < 300) return Effect.void
  const asked = status === 429 || status === 503 ? headers["retry-after"] : undefined
  const retryAfter = asked !== undefined && /^\d{1,9}$/.test(asked) ? Duration.seconds(Number(asked)) : undefined
  const isTransient = status >= 500 || status === 408 || status === 425 || status === 429
  return Effect.fail(notDelivered(`it answered ${status}`, isTransient ? "transient" : "permanent", retryAfter))
}

/** The headers that sign a text. */
const makeSign = Effect.fnUntraced(function*(secret: Redacted.Redacted<string> | undefined) {
  if (secret === undefined) return (_text: string) => Effect.succeed<Readonly<Record<string, string>>>({})
  const mac = yield* Mac.Mac
  const [, encoded] = /^whsec_(.+)$/.exec(Redacted.value(secret)) ?? []
  const bytes = encoded === undefined ? undefined : Result.getOrUndefined(Base64.decode(encoded))
  if (bytes === undefined || bytes.length === 0) return yield* new InvalidWebhookSecret()
  const key = yield* Effect.orDie(Mac.key(Mac.hmacSha256, bytes))
  return (text: string) =>
    Effect.map(
      Effect.orDie(mac.sign(key, utf8.encode(text))),
      (tag): Readonly<Record<string, string>> => ({ "webhook-signature": `v1,${Base64.encode(tag)}` })
    )
})

const utf8 = new TextEncoder()
