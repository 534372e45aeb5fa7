/**
 * Tells participants of messages: exactly one notification for each of them, tried until it is delivered or is a dead letter.
 *
 * **Details**
 *
 * A message is announced by the statement that stores it (`Conversations.layer({ announce: true })`) and moved to its topic by the
 * `OutboxRelay`. The group `notifications` reads the topic, and puts one notification for each recipient into the queue `notifications`, in
 * the transaction in which its position moves. From there they are delivered by the `NotificationChannel`: those of one recipient in
 * their order, those of others meanwhile. So one recipient's failure is nobody else's business.
 *
 * A delivery that fails is tried again by the queue's policy; in the end the notification is a dead letter, to be looked at, mended and sent
 * again with `DeadLetters` like any other.
 *
 * One trace runs from the request that sent a message to the delivery of its notifications.
 *
 * **Example** (Posting notifications to a webhook)
 *
 * ```ts
 * import * as NotificationChannel from "@strata/conversations/notifications/NotificationChannel"
 * import * as Notifications from "@strata/conversations/notifications/Notifications"
 * import * as Conversations from "@strata/conversations/write/Conversations"
 * import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
 * import * as Layer from "effect/Layer"
 *
 * const Messaging = Layer.mergeAll(Conversations.layer({ announce: true }), OutboxRelay.layer, Notifications.layer).pipe(
 *   Layer.provide(NotificationChannel.layerWebhook({ url: "https://example.org/notify" }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import type { Postgres } from "@strata/postgres/Postgres"
import * as Traceparent from "@strata/postgres/Traceparent"
import * as Queue from "@strata/queues/Queue"
import type { QueueError } from "@strata/queues/QueueError"
import { Queues } from "@strata/queues/Queues"
import * as QueueSettings from "@strata/queues/QueueSettings"
import * as QueueWorker from "@strata/queues/QueueWorker"
import * as ConsumerGroup from "@strata/queues/topics/ConsumerGroup"
import type { TopicMessage } from "@strata/queues/topics/Topic"
import type { TopicError } from "@strata/queues/topics/TopicError"
import type { Topics } from "@strata/queues/topics/Topics"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Tracer from "effect/Tracer"
import { type Announcement, Announcements, Notification, notificationsOf } from "./Notification.ts"
import * as NotificationChannel from "./NotificationChannel.ts"

/**
 * Notifications that wait for their delivery. Its dead letters are those that could not be delivered.
 *
 * @category queues
 * @since 0.1.0
 */
export const notifications: Queue.Queue<Notification> = Queue.make({
  name: "notifications",
  payload: Notification,
  settings: { ...QueueSettings.background, overflow: "spill", timeout: "30 seconds" }
})

/**
 * Makes notifications and delivers them, as long as the layer is there. In any number of processes.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<
  never,
  TopicError | QueueError,
  NotificationChannel.NotificationChannel | Topics | Queues | Postgres
> = Layer.unwrap(Effect.gen(function*() {
  const queues = yield* Queues
  yield* queues.declare(notifications)

  const group = ConsumerGroup.layer({
    name: "notifications",
    topics: [Announcements],
    startFrom: "beginning",
    handler: ConsumerGroup.each(notify)
  })
  const worker = QueueWorker.layer(
    notifications,
    ({ payload }) => Effect.flatMap(NotificationChannel.NotificationChannel, (channel) => channel.deliver(payload)),
    { name: "notifications", classify: FailureClass.extend(NotificationChannel.classify) }
  )
  return Layer.merge(group, worker)
}))

/** In the trace of the message, though several may be handled at once. */
const notify = (message: TopicMessage<Announcement>) => {
  const parent = Traceparent.toSpan(message.traceparent ?? null)
  const sent = Effect.flatMap(Queues, (queues) =>
    queues.send(
      notifications,
      notificationsOf(message.payload, message.tenant).map((payload) => ({
        payload,
        key: `${message.tenant}/${payload.recipientId}`,
        tenant: message.tenant,
        correlationId: message.correlationId,
        causationId: message.id
      }))
    ))
  return parent === undefined ? sent : Effect.provideService(sent, Tracer.ParentSpan, parent)
}
