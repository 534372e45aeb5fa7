import { assert, describe, it } from "@effect/vitest"
import { ConversationId, generalContext, MessageId, UserId } from "@strata/conversations/domain/Conversation"
import * as Event from "@strata/conversations/domain/ConversationEvent"
import * as ConversationState from "@strata/conversations/domain/ConversationState"
import { announce, type Announcement, notificationsOf } from "@strata/conversations/notifications/Notification"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Result from "effect/Result"

const conversationId = ConversationId.make("c1")
const [ada, bob, cy] = ["ada", "bob", "cy"].map((name) => UserId.make(name)) as [UserId, UserId, UserId]
const at = Timestamp.fromMicros(0n)

const startedWith = (...users: ReadonlyArray<UserId>) =>
  Event.ConversationStarted.make({
    conversationId,
    context: generalContext,
    participants: users.map((userId) => ({ userId, role: "CUSTOMER" as const })),
    startedAt: at
  })
const sent = (senderId = ada, content = "hello") =>
  Event.MessageSent.make({
    conversationId,
    messageId: MessageId.make("m1"),
    ordinal: 1,
    senderId,
    senderRole: "CUSTOMER",
    type: "TEXT",
    content,
    contentHash: "",
    size: content.length,
    replyTo: null,
    metadata: null,
    sentAt: at
  })
const joined = (userId: UserId) => Event.ParticipantJoined.make({ conversationId, userId, role: "ADMIN", joinedAt: at })
const muted = (userId: UserId) => Event.ParticipantMuted.make({ conversationId, userId, mutedAt: at })
const unmuted = (userId: UserId) => Event.ParticipantUnmuted.make({ conversationId, userId, unmutedAt: at })

/** What is announced of new events, after some that were there. */
const announced = (
  before: ReadonlyArray<Event.ConversationEvent>,
  events: ReadonlyArray<Event.ConversationEvent>
): ReadonlyArray<Announcement> => {
  const state = [...before, ...events].reduce(ConversationState.evolve(0n), ConversationState.initial)
  return announce({ events, state }).flatMap(({ messages, payload }) =>
    messages.map((_, index) => Result.getOrThrow(payload(index)) as Announcement)
  )
}
const recipients = (...events: Parameters<typeof announced>) => announced(...events).map(({ recipients }) => recipients)

describe("of a message", () => {
  it("everybody hears who takes part, but the sender", () =>
    assert.deepStrictEqual(recipients([startedWith(ada, bob, cy)], [sent()]), [[bob, cy]]))

  it("those who have muted the conversation hear nothing, until they unmute it", () => {
    assert.deepStrictEqual(recipients([startedWith(ada, bob, cy), muted(bob)], [sent()]), [[cy]])
    assert.deepStrictEqual(recipients([startedWith(ada, bob, cy), muted(bob), unmuted(bob)], [sent()]), [[bob, cy]])
  })

  it("nothing is said where nobody is to hear of it", () =>
    assert.deepStrictEqual(recipients([startedWith(ada, bob), muted(bob)], [sent()]), []))

  it("those hear who took part when it was sent, whatever came after it in the same append", () => {
    assert.deepStrictEqual(recipients([startedWith(ada, bob)], [sent(), joined(cy)]), [[bob]])
    assert.deepStrictEqual(recipients([startedWith(ada, bob)], [sent(), muted(bob)]), [[bob]])
    assert.deepStrictEqual(recipients([startedWith(ada, bob)], [muted(bob), sent(), unmuted(bob)]), [])
    assert.deepStrictEqual(recipients([startedWith(ada, bob)], [sent(), muted(ada), sent(bob)]), [[bob]])
  })

  it("a large conversation is told in several announcements, each recipient in one of them", () => {
    const users = Array.from({ length: 1200 }, (_, n) => UserId.make(`user-${n}`))
    const told = recipients([startedWith(ada, ...users)], [sent()])
    assert.deepStrictEqual(told.map(({ length }) => length), [500, 500, 200])
    assert.deepStrictEqual(told.flat().toSorted(), users.toSorted())
  })

  it("the beginning is told, and no half of a character", () => {
    const [announcement] = announced([startedWith(ada, bob)], [sent(ada, `${"x".repeat(199)}🎈`)])
    assert.strictEqual(announcement?.preview, "x".repeat(199))
  })
})

it("a notification has an id that follows from tenant, message and recipient", () => {
  const [announcement] = announced([startedWith(ada, bob, cy)], [sent()])
  const ids = ["one", "other"].flatMap((tenant) =>
    notificationsOf(announcement!, tenant).map(({ notificationId }) => notificationId)
  )
  assert.strictEqual(new Set(ids).size, 4)
  assert.deepStrictEqual(
    notificationsOf(announcement!, "one").map(({ notificationId }) => notificationId),
    ids.slice(0, 2)
  )
})
