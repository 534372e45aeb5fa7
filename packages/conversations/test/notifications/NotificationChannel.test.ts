import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, describe, it } from "@effect/vitest"
import { ConversationId, MessageId, UserId } from "@strata/conversations/domain/Conversation"
import type { Notification } from "@strata/conversations/notifications/Notification"
import * as NotificationChannel from "@strata/conversations/notifications/NotificationChannel"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Clock from "effect/Clock"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Crypto from "node:crypto"
import * as WebhookServer from "./webhookServer.ts"

const notification: Notification = {
  notificationId: "6f0b3f2a-4e1d-8b5c-9a7d-0123456789ab",
  tenant: "default",
  recipientId: UserId.make("bob"),
  conversationId: ConversationId.make("c1"),
  messageId: MessageId.make("m1"),
  ordinal: 1,
  senderId: UserId.make("ada"),
  senderRole: "CUSTOMER",
  type: "TEXT",
  preview: "Grüße 🎈",
  sentAt: Timestamp.fromMicros(1_700_000_000_000_001n)
}

const parse = Schema.decodeEffect(Schema.fromJsonString(Schema.Unknown))

const key = Crypto.createHash("sha256").update("key").digest()
const secret = Redacted.make(`whsec_${key.toString("base64")}`)

const open = (options: NotificationChannel.WebhookOptions) =>
  Layer.build(NotificationChannel.layerWebhook(options).pipe(Layer.provide(NodeHttpClient.layerUndici))).pipe(
    Effect.map((context) => Context.get(context, NotificationChannel.NotificationChannel))
  )

describe("a webhook", () => {
  it.live("is posted the notification under its id, signed as Standard Webhooks has it", () =>
    Effect.gen(function*() {
      const server = yield* WebhookServer.make(() => WebhookServer.status(204))
      const { deliver } = yield* open({ url: server.url, secret })
      yield* deliver(notification)
      const { body, headers } = yield* server.next
      assert.deepStrictEqual(yield* parse(body), { ...notification, sentAt: "2023-11-14T22:13:20.000001Z" })
      assert.strictEqual(headers["webhook-id"], notification.notificationId)
      const timestamp = Number(headers["webhook-timestamp"])
      assert.isTrue(Math.abs(timestamp - (yield* Clock.currentTimeMillis) / 1000) < 60)
      const tag = Crypto.createHmac("sha256", key).update(`${notification.notificationId}.${timestamp}.${body}`)
      assert.strictEqual(headers["webhook-signature"], `v1,${tag.digest("base64")}`)
    }))

  it.live("that answers that it cannot now is tried again, no sooner than it asks for; other refusals are final", () =>
    Effect.gen(function*() {
      const answers = [
        WebhookServer.status(500),
        WebhookServer.status(408),
        WebhookServer.status(429, { "retry-after": "7" }),
        WebhookServer.status(503, { "retry-after": "soon" }),
        WebhookServer.status(400),
        WebhookServer.status(302)
      ]
      const server = yield* WebhookServer.make((request) => answers[request - 1]!)
      const { deliver } = yield* open({ url: server.url })
      const classes = yield* Effect.forEach(
        answers,
        () => Effect.map(Effect.flip(deliver(notification)), NotificationChannel.classify)
      )
      assert.deepStrictEqual(classes, [
        FailureClass.transient,
        FailureClass.transient,
        FailureClass.throttled("7 seconds"),
        FailureClass.transient,
        FailureClass.permanent,
        FailureClass.permanent
      ])
      assert.isUndefined((yield* server.next).headers["webhook-signature"])
    }))

  it.live("that does not answer in time may have taken it, and one that is not there has not", () =>
    Effect.gen(function*() {
      const silent = yield* Effect.callback<string>((resume) => {
        import("node:net").then(({ createServer }) => {
          const server = createServer(() => {}).listen(0, "127.0.0.1", () => {
            const address = server.address()
            resume(Effect.succeed(`http://127.0.0.1:${typeof address === "object" ? address?.port : 0}/`))
          })
          server.unref()
        })
      })
      const late = yield* open({ url: silent, timeout: Duration.millis(200) })
      const gone = yield* open({ url: "http://127.0.0.1:1/secret" })
      const failures = yield* Effect.forEach([late, gone], ({ deliver }) => Effect.flip(deliver(notification)))
      assert.deepStrictEqual(failures.map(({ failure }) => failure), ["unknownOutcome", "transient"])
      assert.notInclude(failures.map(({ message }) => message).join(), "127.0.0.1")
    }))

  it.live("has a secret that is one, or is not opened", () =>
    Effect.gen(function*() {
      for (const wrong of ["", "whsec_", "whsec_!!", "0123456789"]) {
        const error = yield* Effect.flip(open({ url: "http://127.0.0.1:1", secret: Redacted.make(wrong) }))
        assert.include(error.message, "whsec_ and a key in Base64")
      }
    }))
})

describe("the environment", () => {
  const delivered = (env: Readonly<Record<string, string>>) =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(String(message)))
      const layer = NotificationChannel.layerConfig.pipe(
        Layer.provide([NodeHttpClient.layerUndici, ConfigProvider.layer(ConfigProvider.fromUnknown(env))])
      )
      const context = yield* Layer.build(layer)
      yield* Context.get(context, NotificationChannel.NotificationChannel).deliver(notification).pipe(
        Effect.provide(Logger.layer([logger]))
      )
      return lines
    })

  it.live("has notifications written to the log, unless it names a webhook", () =>
    Effect.gen(function*() {
      const server = yield* WebhookServer.make(() => WebhookServer.status(200))
      assert.deepStrictEqual(yield* delivered({}), ["A participant is notified of a message"])
      assert.deepStrictEqual(
        yield* delivered({
          STRATA_NOTIFICATIONS_WEBHOOK: server.url,
          STRATA_NOTIFICATIONS_WEBHOOK_SECRET: Redacted.value(secret)
        }),
        []
      )
      assert.isString((yield* server.next).headers["webhook-signature"])
    }))
})
