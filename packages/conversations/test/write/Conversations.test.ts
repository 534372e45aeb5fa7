import { assert, describe, it } from "@effect/vitest"
import { ConversationId, MessageId, Tenant, UserId } from "@strata/conversations/domain/Conversation"
import type { ConversationError } from "@strata/conversations/domain/ConversationError"
import * as Conversations from "@strata/conversations/write/Conversations"
import * as Identity from "@strata/conversations/write/Identity"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import { beginning, Position, streamId } from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"

const ada = UserId.make("ada")
const bob = UserId.make("bob")
const participants = [{ userId: ada, role: "CUSTOMER" }, { userId: bob, role: "SERVICE_PROVIDER" }] as const
const conversationId = ConversationId.make("c1")
const messageId = MessageId.make("m1")

/** A store in memory of its own for each test. */
const Application = Conversations.layer().pipe(Layer.provideMerge(Layer.fresh(EventStoreMemory.layer())))
const provided = Effect.provide(Application)

const refusal = <E extends { readonly _tag: string }>(error: E | ConversationError) =>
  error._tag === "ConversationError" && "reason" in error ? error.reason._tag : error._tag

describe("Conversations", () => {
  it.effect("a repeated start is answered like the first one", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const first = yield* conversations.start({ conversationId, participants })
      assert.deepInclude(first, { conversationId, duplicate: false, version: 1 })
      const again = yield* conversations.start({ conversationId, participants })
      assert.deepStrictEqual(again, { ...first, duplicate: true })
    }).pipe(provided))

  it.effect("a conversation without an id gets one", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const one = yield* conversations.start({ participants })
      const other = yield* conversations.start({ participants })
      assert.notStrictEqual(one.conversationId, other.conversationId)
    }).pipe(provided))

  it.effect("a message sent twice without an id is answered with the first one", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      yield* conversations.start({ conversationId, participants })
      const first = yield* conversations.send({ conversationId, senderId: ada, content: "hello" })
      yield* conversations.send({ conversationId, senderId: bob, content: "yes?" })
      const again = yield* conversations.send({ conversationId, senderId: ada, content: "hello" })
      assert.deepInclude(again, {
        duplicate: true,
        messageId: first.messageId,
        ordinal: 1,
        sentAt: first.sentAt,
        version: 3
      })
    }).pipe(provided))

  it.effect("a message sent many times at once under one id is stored once, and every call is answered", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const store = yield* EventStore
      yield* conversations.start({ conversationId, participants })
      const calls = Array.from(
        { length: 20 },
        (_, index) =>
          conversations.send({ conversationId, messageId, senderId: ada, content: "hello" }, {
            at: Timestamp.fromMillis(index)
          })
      )
      const outcomes = yield* Effect.all(calls, { concurrency: "unbounded" })
      assert.strictEqual(outcomes.filter(({ duplicate }) => !duplicate).length, 1)
      assert.strictEqual(new Set(outcomes.map(({ sentAt }) => sentAt)).size, 1)
      assert.strictEqual(yield* store.streamVersion(streamId("conversation", "c1")), 2)
    }).pipe(provided))

  it.effect("what the domain refuses changes nothing", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const store = yield* EventStore
      const send = { conversationId, senderId: ada, content: "hello" }
      assert.strictEqual(refusal(yield* Effect.flip(conversations.send(send))), "ConversationNotFound")
      yield* conversations.start({ conversationId, participants })
      yield* conversations.archive(conversationId)
      assert.strictEqual(refusal(yield* Effect.flip(conversations.send(send))), "ConversationArchived")
      assert.strictEqual(yield* store.head, 2n)
    }).pipe(provided))

  it.effect("tenants share nothing, whatever their ids look like", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const store = yield* EventStore
      const acme = Tenant.make("acme")
      yield* conversations.start({ conversationId, participants }, { tenant: acme })
      const error = yield* Effect.flip(conversations.send({ conversationId, senderId: ada, content: "hello" }))
      assert.strictEqual(refusal(error), "ConversationNotFound")
      const lookalike = ConversationId.make("@acme/c1")
      assert.isFalse((yield* conversations.start({ conversationId: lookalike, participants })).duplicate)
      const facts = yield* store.readLog({ after: beginning })
      assert.deepStrictEqual(facts.map(({ tenant }) => tenant), ["acme", "default"])
    }).pipe(provided))

  it.effect("facts carry who, for whom, why and when", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const store = yield* EventStore
      const at = Timestamp.fromMillis(1_679_611_203_000)
      yield* conversations.start({ conversationId, participants }, { at })
      yield* conversations.send({ conversationId, messageId, senderId: ada, content: "hello" }, {
        at,
        actor: "gateway",
        correlationId: "request-1",
        causationId: "click-1"
      })
      const [, fact] = yield* store.readStream(streamId("conversation", "c1"))
      assert.deepInclude(fact, {
        type: "MessageSent",
        actor: "gateway",
        correlationId: "request-1",
        causationId: "click-1",
        tenant: "default",
        validFrom: at
      })
    }).pipe(provided))

  it.effect("an idempotency record holds the ids of the answer", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const store = yield* EventStore
      yield* conversations.start({ conversationId, participants })
      const idempotency = (answer: Conversations.AnswerIds) => ({
        key: "key-1",
        fingerprint: "fingerprint-1",
        answer: { messageId: answer.messageId ?? null }
      })
      const sent = yield* conversations.send({ conversationId, senderId: ada, content: "hello" }, { idempotency })
      const record = yield* store.idempotencyRecord("key-1")
      assert.deepStrictEqual(
        Option.map(record, ({ answer, position }) => ({ answer, position })),
        Option.some({ answer: { messageId: sent.messageId }, position: sent.position })
      )
      const error = yield* Effect.flip(
        conversations.send({ conversationId, senderId: ada, content: "another" }, { idempotency })
      )
      assert.strictEqual(error._tag === "EventStoreError" ? error.reason._tag : error._tag, "IdempotencyKeyUsed")
    }).pipe(provided))

  it.effect("many commands are appended as one, and again they change nothing", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const commands: [Conversations.Command, ...Array<Conversations.Command>] = [
        { _tag: "Start", participants: [participants[0]] },
        { _tag: "Send", messageId, senderId: ada, content: "hello" },
        { _tag: "Add", userId: bob, role: "SERVICE_PROVIDER" },
        { _tag: "Send", messageId: MessageId.make("m2"), senderId: bob, content: "hello" },
        { _tag: "Read", userId: bob }
      ]
      const first = yield* conversations.execute(conversationId, commands)
      assert.deepInclude(first, {
        events: 5,
        duplicateMessages: 0,
        duplicate: false,
        version: 5,
        position: Position.make(5n)
      })
      const again = yield* conversations.execute(conversationId, commands)
      assert.deepInclude(again, {
        events: 0,
        duplicateMessages: 2,
        duplicate: true,
        version: 5,
        position: Position.make(5n)
      })
    }).pipe(provided))

  it.effect("one refused command refuses all of them", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const store = yield* EventStore
      const error = yield* Effect.flip(conversations.execute(conversationId, [
        { _tag: "Start", participants },
        { _tag: "Send", senderId: UserId.make("eve"), content: "hello" }
      ]))
      assert.strictEqual(refusal(error), "NotAParticipant")
      assert.strictEqual(yield* store.head, 0n)
    }).pipe(provided))
})

describe("event ids", () => {
  it("follow from the conversation and the message, and are UUIDs of version 8", () => {
    const event = (id: string) =>
      ({ _tag: "MessageSent", messageId: MessageId.make(id) }) as Parameters<typeof Identity.eventId>[1]
    const id = Identity.eventId("c1", event("m1"))
    assert.match(String(id), /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    assert.strictEqual(Identity.eventId("c1", event("m1")), id)
    assert.notStrictEqual(Identity.eventId("c1", event("m2")), id)
    assert.notStrictEqual(Identity.eventId("c2", event("m1")), id)
  })
})
