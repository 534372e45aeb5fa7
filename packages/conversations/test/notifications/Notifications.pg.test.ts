import { assert, layer } from "@effect/vitest"
import { ConversationId, MessageId, UserId } from "@strata/conversations/domain/Conversation"
import type { Notification } from "@strata/conversations/notifications/Notification"
import { NotDelivered, NotificationChannel } from "@strata/conversations/notifications/NotificationChannel"
import * as Notifications from "@strata/conversations/notifications/Notifications"
import * as Conversations from "@strata/conversations/write/Conversations"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as OutboxMigrations from "@strata/outbox/OutboxMigrations"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as Queues from "@strata/queues/Queues"
import * as QueuesMigrations from "@strata/queues/QueuesMigrations"
import * as OutboxRelay from "@strata/queues/topics/OutboxRelay"
import * as Topics from "@strata/queues/topics/Topics"
import * as TopicsMigrations from "@strata/queues/topics/TopicsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"

/** A channel that a test looks into, and that refuses recipients for good, or some tries of each. */
class Channel extends Context.Service<Channel, {
  readonly delivered: Queue.Queue<Notification>
  readonly refused: Set<string>
  readonly failing: Map<string, number>
}>()("@strata/conversations/test/Channel") {
  static readonly layer = Layer.effectContext(Effect.gen(function*() {
    const delivered = yield* Queue.unbounded<Notification>()
    const refused = new Set<string>()
    const failing = new Map<string, number>()
    const fail = (failure: NotDelivered["failure"]) =>
      Effect.fail(new NotDelivered({ channel: "test", problem: "said no", failure, retryAfter: undefined }))
    return Context.make(Channel, { delivered, refused, failing }).pipe(Context.add(
      NotificationChannel,
      NotificationChannel.of({
        deliver: (notification) =>
          Effect.suspend(() => {
            const { recipientId } = notification
            const left = failing.get(recipientId) ?? 0
            failing.set(recipientId, left - 1)
            if (left > 0) return fail("transient")
            return refused.has(recipientId) ? fail("permanent") : Effect.asVoid(Queue.offer(delivered, notification))
          })
      })
    ))
  }))
}

const Application = Layer.mergeAll(
  Conversations.layer({ announce: true }),
  OutboxRelay.layer,
  Notifications.layer
).pipe(
  Layer.provideMerge(Layer.merge(Topics.layer, DeadLetters.layer)),
  Layer.provideMerge([Queues.layer, EventStorePostgres.layer(), Channel.layer]),
  Layer.provideMerge(PostgresTest.layer({
    migrations: [
      EventStoreMigrations.migrations,
      OutboxMigrations.migrations,
      QueuesMigrations.migrations,
      TopicsMigrations.migrations
    ],
    options: { role: applicationRole }
  }))
)

const [ada, bob, cy, dan] = ["ada", "bob", "cy", "dan"].map((name) => UserId.make(name)) as [
  UserId,
  UserId,
  UserId,
  UserId
]

const started = Effect.fnUntraced(function*(id: string) {
  const conversations = yield* Conversations.Conversations
  const conversationId = ConversationId.make(id)
  yield* conversations.start({
    conversationId,
    participants: [ada, bob, cy, dan].map((userId) => ({ userId, role: "CUSTOMER" as const }))
  })
  const send = (content: string, options?: Conversations.CallOptions) =>
    conversations.send({ conversationId, messageId: MessageId.make(content), senderId: ada, content }, options)
  return { ...conversations, conversationId, send }
})

const told = (count: number) =>
  Effect.gen(function*() {
    const { delivered } = yield* Channel
    const taken = yield* Effect.forEach(Array.from({ length: count }), () => Queue.take(delivered))
    return taken.map(({ messageId, recipientId }) => `${messageId} to ${recipientId}`).toSorted()
  })

const soon = { schedule: Schedule.max([Schedule.spaced("20 millis"), Schedule.recurs(1000)]) }

layer(Application, { excludeTestServices: true })("a message", (it) => {
  it.effect("is told once to everybody who takes part, but its sender and those who have muted the conversation", () =>
    Effect.gen(function*() {
      const { conversationId, mute, send } = yield* started("told")
      yield* mute({ conversationId, userId: cy })
      yield* send("first")
      // The same message again is no other message.
      assert.isTrue((yield* send("first")).duplicate)
      assert.deepStrictEqual(yield* told(2), ["first to bob", "first to dan"])
      yield* mute({ conversationId, userId: cy, muted: false })
      yield* send("second")
      assert.deepStrictEqual(yield* told(3), ["second to bob", "second to cy", "second to dan"])
      const { delivered } = yield* Channel
      assert.strictEqual(yield* Queue.size(delivered), 0)
    }))

  it.effect("is told to nobody when it is refused, or comes from an importer that says so", () =>
    Effect.gen(function*() {
      const { send } = yield* started("quiet")
      yield* Effect.flip(send(" "))
      yield* send("long ago", { announce: false })
      yield* send("now")
      assert.deepStrictEqual(yield* told(3), ["now to bob", "now to cy", "now to dan"])
    }))

  it.effect("is told to others while one cannot be reached, who is told when they can be", () =>
    Effect.gen(function*() {
      const { failing } = yield* Channel
      const { send } = yield* started("tried")
      failing.set(bob, 1)
      yield* send("tried")
      assert.deepStrictEqual(yield* told(2), ["tried to cy", "tried to dan"])
      assert.deepStrictEqual(yield* told(1), ["tried to bob"])
    }))

  it.effect("that cannot be told to somebody is a dead letter, and is told when that is sent again", () =>
    Effect.gen(function*() {
      const { refused } = yield* Channel
      const letters = yield* DeadLetters.DeadLetters
      const { send } = yield* started("dead")
      refused.add(dan)
      yield* send("dead")
      assert.deepStrictEqual(yield* told(2), ["dead to bob", "dead to cy"])
      const [letter] = yield* Effect.repeat(letters.list(Notifications.notifications), {
        ...soon,
        until: ({ length }) => length > 0
      })
      assert.deepInclude(letter?.payload, { recipientId: "dan", messageId: "dead" })
      assert.strictEqual(letter?.reason, "permanent")
      assert.include(letter?.error.message, "said no")
      refused.clear()
      assert.strictEqual((yield* letters.reprocess(Notifications.notifications, {})).length, 1)
      assert.deepStrictEqual(yield* told(1), ["dead to dan"])
    }))
})
