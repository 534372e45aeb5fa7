import { assert, describe, it } from "@effect/vitest"
import {
  type Context,
  ConversationId,
  generalContext,
  MessageId,
  type Participant,
  UserId
} from "@strata/conversations/domain/Conversation"
import type { ConversationCommand, SendMessage } from "@strata/conversations/domain/ConversationCommand"
import * as ConversationDecider from "@strata/conversations/domain/ConversationDecider"
import * as Event from "@strata/conversations/domain/ConversationEvent"
import type { ConversationState } from "@strata/conversations/domain/ConversationState"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as HashMap from "effect/HashMap"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Crypto from "node:crypto"

const decider = ConversationDecider.make()
const conversationId = ConversationId.make("c1")
const ada: Participant = { userId: UserId.make("ada"), role: "CUSTOMER" }
const bob: Participant = { userId: UserId.make("bob"), role: "SERVICE_PROVIDER" }
const at = (seconds: number, micros = 0n) => Timestamp.fromMicros(BigInt(seconds) * 1_000_000n + micros)
const sha256 = (content: string) => Crypto.hash("sha256", content, "hex")

// ---------------------------------------------------------------------------------------------- events and commands

const started = Event.ConversationStarted.make({
  conversationId,
  context: generalContext,
  participants: [ada, bob],
  startedAt: at(0)
})
const sent = (fields: Partial<Event.EventOf<"MessageSent">> = {}) => {
  const content = fields.content ?? "hello"
  return Event.MessageSent.make({
    conversationId,
    messageId: MessageId.make("m1"),
    ordinal: 1,
    senderId: ada.userId,
    senderRole: "CUSTOMER",
    type: "TEXT",
    content,
    contentHash: sha256(content),
    size: Buffer.byteLength(content),
    replyTo: null,
    metadata: null,
    sentAt: at(10),
    ...fields
  })
}
const read = (userId: UserId, upTo: string, ordinal: number) =>
  Event.MessagesRead.make({ conversationId, userId, upTo: MessageId.make(upTo), ordinal, readAt: at(20) })
const archived = Event.ConversationArchived.make({ conversationId, archivedAt: at(30) })

const start = (
  participants: ReadonlyArray<Participant> = [ada, bob],
  context: Context = generalContext
): ConversationCommand => ({ _tag: "StartConversation", conversationId, context, participants, at: at(0) })
const send = (fields: Partial<SendMessage> = {}): ConversationCommand => ({
  _tag: "SendMessage",
  conversationId,
  messageId: MessageId.make("m1"),
  idGiven: true,
  senderId: ada.userId,
  type: "TEXT",
  content: "hello",
  contentHash: sha256(fields.content ?? "hello"),
  replyTo: null,
  metadata: null,
  at: at(10),
  ...fields
})
const markRead = (userId: UserId, upTo: string | null): ConversationCommand => ({
  _tag: "MarkRead",
  conversationId,
  userId,
  upTo: upTo === null ? null : MessageId.make(upTo),
  at: at(20)
})
const muted = (userId: UserId) => Event.ParticipantMuted.make({ conversationId, userId, mutedAt: at(25) })
const unmuted = (userId: UserId) => Event.ParticipantUnmuted.make({ conversationId, userId, unmutedAt: at(25) })
const mute = (userId: UserId, muted = true): ConversationCommand => ({
  _tag: "SetMuted",
  conversationId,
  userId,
  muted,
  at: at(25)
})
const archive: ConversationCommand = { _tag: "ArchiveConversation", conversationId, at: at(30) }
const add = (participant: Participant): ConversationCommand => ({
  _tag: "AddParticipant",
  conversationId,
  ...participant,
  at: at(5)
})

// ----------------------------------------------------------------------------------------------------- given-when-then

const given = (...events: ReadonlyArray<Event.ConversationEvent>) => ({
  when: (command: ConversationCommand, by = decider) => {
    const state = events.reduce(by.evolve, by.initial)
    const decided = by.decide(command, state)
    return {
      then: (...expected: ReadonlyArray<Event.ConversationEvent>) =>
        assert.deepStrictEqual(decided, Result.succeed(expected)),
      thenNothing: () => assert.deepStrictEqual(decided, Result.succeed([])),
      thenRefused: (tag: string) =>
        assert.strictEqual(Result.isFailure(decided) ? decided.failure.reason._tag : "not refused", tag)
    }
  }
})

describe("starting", () => {
  it("happens once", () => given().when(start()).then(started))
  it("changes nothing the second time, in whatever order the participants come", () =>
    given(started).when(start([bob, ada, bob])).thenNothing())
  it("is the same start after others have joined", () =>
    given(
      started,
      Event.ParticipantJoined.make({ conversationId, userId: UserId.make("cy"), role: "ADMIN", joinedAt: at(1) })
    )
      .when(start()).thenNothing())
  it("is the same start with equal metadata, and another one with other metadata", () => {
    const about = (seats: number): Context => ({
      type: "BOOKING",
      id: "b1",
      metadata: { seats, rows: [{ letter: "a" }] }
    })
    const before = given(Event.ConversationStarted.make({ ...started, context: about(2) }))
    before.when(start([ada, bob], about(2))).thenNothing()
    before.when(start([ada, bob], about(3))).thenRefused("ConversationExists")
  })
  it("is refused with other participants", () => given(started).when(start([ada])).thenRefused("ConversationExists"))
  it("is refused with another context", () =>
    given(started).when(start([ada, bob], { type: "BOOKING", id: "b1", metadata: null })).thenRefused(
      "ConversationExists"
    ))
  it("needs a participant", () => given().when(start([])).thenRefused("NoParticipants"))
  it("takes no participant in two roles", () =>
    given().when(start([ada, { ...ada, role: "ADMIN" }])).thenRefused("ParticipantHasOtherRole"))
  it("takes at most as many participants as the limit says", () =>
    given().when(start(), ConversationDecider.make({ ...ConversationDecider.defaultLimits, participants: 1 }))
      .thenRefused("TooManyParticipants"))
})

describe("joining", () => {
  const cy: Participant = { userId: UserId.make("cy"), role: "SERVICE_PROVIDER" }
  const joined = Event.ParticipantJoined.make({ conversationId, ...cy, joinedAt: at(5) })
  it("happens once", () => given(started).when(add(cy)).then(joined))
  it("changes nothing the second time", () => given(started, joined).when(add(cy)).thenNothing())
  it("is refused in another role", () =>
    given(started, joined).when(add({ ...cy, role: "ADMIN" })).thenRefused("ParticipantHasOtherRole"))
  it("is refused once archived", () => given(started, archived).when(add(cy)).thenRefused("ConversationArchived"))
  it("needs a conversation", () => given().when(add(cy)).thenRefused("ConversationNotFound"))
})

describe("sending", () => {
  const own = { messageId: MessageId.make("m2"), idGiven: true }
  const made = { messageId: MessageId.make("made"), idGiven: false }

  it("records content, hash, size, role and place", () =>
    given(started, sent()).when(send({ ...own, senderId: bob.userId, content: "grüße" })).then(sent({
      messageId: own.messageId,
      ordinal: 2,
      senderId: bob.userId,
      senderRole: "SERVICE_PROVIDER",
      content: "grüße",
      size: 7
    })))
  it("needs a conversation", () => given().when(send()).thenRefused("ConversationNotFound"))
  it("is refused once archived", () => given(started, archived).when(send()).thenRefused("ConversationArchived"))
  it("is for participants only", () =>
    given(started).when(send({ senderId: UserId.make("eve") })).thenRefused("NotAParticipant"))
  it("needs more than white space", () => given(started).when(send({ content: " \n\t" })).thenRefused("ContentEmpty"))
  it("takes 262,144 bytes", () =>
    given(started).when(send({ content: "é".repeat(131_072) })).then(sent({ content: "é".repeat(131_072) })))
  it("takes no byte more", () =>
    given(started).when(send({ content: "é".repeat(131_072) + "e" })).thenRefused("ContentTooLong"))
  it("takes no NUL", () => given(started).when(send({ content: "a\0b" })).thenRefused("ContentNotText"))
  it("takes no half of a surrogate pair", () =>
    given(started).when(send({ content: "a\ud800" })).thenRefused("ContentNotText"))
  it("replies to a message that is there", () =>
    given(started, sent()).when(send({ ...own, replyTo: MessageId.make("m1") }))
      .then(sent({ messageId: own.messageId, ordinal: 2, replyTo: MessageId.make("m1") })))
  it("replies to no message that is not there", () =>
    given(started).when(send({ replyTo: MessageId.make("m9") })).thenRefused("ReplyToUnknownMessage"))

  it("changes nothing with the same id and content, even once archived", () => {
    given(started, sent()).when(send({ at: at(9_999) })).thenNothing()
    given(started, sent(), archived).when(send()).thenNothing()
  })
  it("is refused with the same id and other content, sender, type or reply", () => {
    const before = given(started, sent())
    before.when(send({ content: "other" })).thenRefused("MessageIdTaken")
    before.when(send({ senderId: bob.userId })).thenRefused("MessageIdTaken")
    before.when(send({ type: "FILE" })).thenRefused("MessageIdTaken")
    before.when(send({ replyTo: MessageId.make("m1") })).thenRefused("MessageIdTaken")
  })
  it("with an id of its own is a new message, whatever was sent before", () =>
    given(started, sent()).when(send(own)).then(sent({ messageId: own.messageId, ordinal: 2 })))

  it("without an id changes nothing when the same was sent 5 minutes before or less", () => {
    given(started, sent()).when(send({ ...made, at: at(10) })).thenNothing()
    given(started, sent()).when(send({ ...made, at: at(310) })).thenNothing()
  })
  it("without an id is a new message a microsecond later", () =>
    given(started, sent()).when(send({ ...made, at: at(310, 1n) }))
      .then(sent({ messageId: made.messageId, ordinal: 2, sentAt: at(310, 1n) })))
  it("without an id is a new message from another sender or with other content", () => {
    given(started, sent()).when(send({ ...made, senderId: bob.userId }))
      .then(sent({ messageId: made.messageId, ordinal: 2, senderId: bob.userId, senderRole: "SERVICE_PROVIDER" }))
    given(started, sent()).when(send({ ...made, content: "Hello" }))
      .then(sent({ messageId: made.messageId, ordinal: 2, content: "Hello" }))
  })
  it("without an id finds its first also after others came between", () => {
    const others = Array.from({ length: 50 }, (_, index) =>
      sent({
        messageId: MessageId.make(`o${index}`),
        ordinal: index + 2,
        content: `other ${index}`,
        sentAt: at(11 + index * 5)
      }))
    given(started, sent(), ...others).when(send({ ...made, at: at(300) })).thenNothing()
  })
  it("without an id is compared within the window that is configured", () => {
    const strict = ConversationDecider.make({ ...ConversationDecider.defaultLimits, duplicateWindow: Duration.zero })
    given(started, sent()).when(send({ ...made, at: at(10) }), strict).thenNothing()
    given(started, sent()).when(send({ ...made, at: at(10, 1n) }), strict)
      .then(sent({ messageId: made.messageId, ordinal: 2, sentAt: at(10, 1n) }))
  })
})

describe("reading", () => {
  const second = sent({ messageId: MessageId.make("m2"), ordinal: 2 })
  it("reaches the last message when none is named", () =>
    given(started, sent(), second).when(markRead(bob.userId, null)).then(read(bob.userId, "m2", 2)))
  it("reaches the message named", () =>
    given(started, sent(), second).when(markRead(bob.userId, "m1")).then(read(bob.userId, "m1", 1)))
  it("never goes back", () =>
    given(started, sent(), second, read(bob.userId, "m2", 2)).when(markRead(bob.userId, "m1")).thenNothing())
  it("changes nothing where nothing was sent", () => given(started).when(markRead(bob.userId, null)).thenNothing())
  it("needs a message that is there", () =>
    given(started).when(markRead(bob.userId, "m1")).thenRefused("UnknownMessage"))
  it("is for participants only", () =>
    given(started, sent()).when(markRead(UserId.make("eve"), null)).thenRefused("NotAParticipant"))
  it("goes on once archived", () =>
    given(started, sent(), archived).when(markRead(bob.userId, null)).then(read(bob.userId, "m1", 1)))
})

describe("muting", () => {
  it("happens once, and so does unmuting", () => {
    given(started).when(mute(bob.userId)).then(muted(bob.userId))
    given(started, muted(bob.userId)).when(mute(bob.userId)).thenNothing()
    given(started, muted(bob.userId)).when(mute(bob.userId, false)).then(unmuted(bob.userId))
    given(started, muted(bob.userId), unmuted(bob.userId)).when(mute(bob.userId, false)).thenNothing()
    given(started).when(mute(bob.userId, false)).thenNothing()
  })
  it("is one's own: others are muted or not as they were", () =>
    given(started, muted(bob.userId)).when(mute(ada.userId)).then(muted(ada.userId)))
  it("is for participants only", () => given(started).when(mute(UserId.make("eve"))).thenRefused("NotAParticipant"))
  it("goes on once archived", () => given(started, archived).when(mute(bob.userId)).then(muted(bob.userId)))
  it("needs a conversation", () => given().when(mute(bob.userId)).thenRefused("ConversationNotFound"))
})

describe("archiving", () => {
  it("happens once", () => given(started).when(archive).then(archived))
  it("changes nothing the second time", () => given(started, archived).when(archive).thenNothing())
  it("needs a conversation", () => given().when(archive).thenRefused("ConversationNotFound"))
})

// ------------------------------------------------------------------------------------------------------------ laws

const pick = (last: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: last })))
const Step = Schema.Struct({ kind: pick(11), user: pick(3), message: pick(5), content: pick(2), second: pick(900) })
const users = ["ada", "bob", "cy", "eve"].map((name) => UserId.make(name))

const commandOf = ({ content, kind, message, second, user }: typeof Step.Type, index: number): ConversationCommand => {
  const userId = users[user]!
  const text = `content ${content}`
  switch (kind) {
    case 0:
      return start()
    case 1:
      return add({ userId, role: user % 2 === 0 ? "CUSTOMER" : "SERVICE_PROVIDER" })
    case 2:
    case 3:
      return markRead(userId, kind === 2 ? `m${message}` : null)
    case 4:
    case 5:
    case 6: {
      const messageId = MessageId.make(`m${message}`)
      return send({ messageId, senderId: userId, content: text, at: at(second) })
    }
    case 9:
      return second > 850 ? archive : start()
    case 10:
    case 11:
      return mute(userId, kind === 10)
    default: {
      const messageId = MessageId.make(`made${index}`)
      return send({ messageId, idGiven: false, senderId: userId, content: text, at: at(second) })
    }
  }
}

describe("any history of commands", () => {
  const run = (steps: ReadonlyArray<typeof Step.Type>) => {
    let state: ConversationState = decider.initial
    const events: Array<Event.ConversationEvent> = []
    for (const [index, step] of [{ kind: 0, user: 0, message: 0, content: 0, second: 0 }, ...steps].entries()) {
      const command = commandOf(step, index)
      const decided = decider.decide(command, state)
      if (Result.isFailure(decided)) continue
      for (const event of decided.success) {
        events.push(event)
        state = decider.evolve(state, event)
      }
      // What was just decided is not decided again.
      const again = decider.decide(command, state)
      assert.deepStrictEqual(again, Result.succeed([]))
    }
    return { events, state }
  }

  it.effect.prop("keeps what is true of every conversation", [Schema.Array(Step)], ([steps]) =>
    Effect.sync(() => {
      const { events, state } = run(steps)
      if (state._tag !== "Started") return assert.fail("The first command starts the conversation")
      const messages = events.filter((event) => event._tag === "MessageSent")
      assert.deepStrictEqual(messages.map(({ ordinal }) => ordinal), messages.map((_, index) => index + 1))
      assert.strictEqual(new Set(messages.map(({ messageId }) => messageId)).size, messages.length)
      assert.strictEqual(HashMap.size(state.messages), messages.length)

      const joined = new Set(started.participants.map(({ userId }) => userId))
      const readUpTo = new Map<UserId, number>()
      let isArchived = false
      for (const event of events) {
        if (event._tag === "ParticipantJoined") {
          assert.isFalse(joined.has(event.userId) || isArchived)
          joined.add(event.userId)
        }
        if (event._tag === "MessageSent") assert.isTrue(joined.has(event.senderId) && !isArchived)
        if (event._tag === "MessagesRead") {
          assert.isTrue(joined.has(event.userId) && event.ordinal > (readUpTo.get(event.userId) ?? 0))
          readUpTo.set(event.userId, event.ordinal)
        }
        if (event._tag === "ConversationArchived") {
          assert.isFalse(isArchived)
          isArchived = true
        }
      }
      assert.strictEqual(events.filter(({ _tag }) => _tag === "ConversationStarted").length, 1)
    }))

  it.effect.prop(
    "is folded to the same state from its events and from its snapshot",
    [Schema.Array(Step)],
    ([steps]) =>
      Effect.gen(function*() {
        const { events, state } = run(steps)
        assert.isTrue(Equal.equals(events.reduce(decider.evolve, decider.initial), state))
        const codec = Schema.fromJsonString(Schema.toCodecJson(decider.snapshot!.schema))
        const json = yield* Schema.encodeEffect(codec)(state)
        assert.isTrue(Equal.equals(yield* Schema.decodeEffect(codec)(json), state))
      })
  )
})

it("a conversation of 20,000 messages is folded in the time of its events, not of their square", () => {
  const fold = (messages: number) => {
    let state = decider.evolve(decider.initial, started)
    for (let index = 1; index <= messages; index++) {
      state = decider.evolve(state, sent({ messageId: MessageId.make(`m${index}`), ordinal: index, sentAt: at(index) }))
    }
    return state
  }
  fold(2_000)
  const from = process.hrtime.bigint()
  const state = fold(20_000)
  const millis = Number(process.hrtime.bigint() - from) / 1e6
  assert.isBelow(millis, 2_000)
  // Hashes of two windows of 300 seconds, one message a second.
  if (state._tag !== "Started") return assert.fail()
  assert.isAtMost(HashMap.size(state.recent.current) + HashMap.size(state.recent.previous), 602)
})
