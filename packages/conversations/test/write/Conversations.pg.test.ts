import { assert, layer } from "@effect/vitest"
import { ConversationId, MessageId, UserId } from "@strata/conversations/domain/Conversation"
import * as Conversations from "@strata/conversations/write/Conversations"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { streamId } from "@strata/event-store/Fact"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Application } from "../Application.ts"

const ada = UserId.make("ada")
const bob = UserId.make("bob")
const participants = [{ userId: ada, role: "CUSTOMER" }, { userId: bob, role: "SERVICE_PROVIDER" }] as const

/** A store and a write side of its own on the same database, as another process has them. */
const anotherProcess = Effect.map(
  Layer.build(Layer.fresh(Conversations.layer().pipe(Layer.provide(EventStorePostgres.layer())))),
  (context) => Context.get(context, Conversations.Conversations)
)

layer(Application, { excludeTestServices: true })("processes that write to one conversation at the same time", (it) => {
  it.effect("store a message sent through all of them under one id once, and answer every call alike", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const processes = [yield* anotherProcess, yield* anotherProcess, yield* anotherProcess]
      for (let round = 0; round < 20; round++) {
        const conversationId = ConversationId.make(`once-${round}`)
        const messageId = MessageId.make("m1")
        yield* processes[0]!.start({ conversationId, participants })
        const outcomes = yield* Effect.forEach(
          [...processes, ...processes],
          (conversations) => conversations.send({ conversationId, messageId, senderId: ada, content: "hello" }),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(outcomes.filter(({ duplicate }) => !duplicate).length, 1)
        assert.strictEqual(new Set(outcomes.map(({ sentAt }) => sentAt)).size, 1)
        assert.strictEqual(yield* store.streamVersion(streamId("conversation", conversationId)), 2)
      }
    }))

  it.effect("lose no message and number them without a gap", () =>
    Effect.gen(function*() {
      const processes = [yield* anotherProcess, yield* anotherProcess]
      const conversationId = ConversationId.make("busy")
      yield* processes[0]!.start({ conversationId, participants })
      const outcomes = yield* Effect.forEach(
        Array.from({ length: 60 }, (_, index) => index),
        (index) =>
          processes[index % 2]!.send({ conversationId, senderId: index % 3 === 0 ? bob : ada, content: `${index}` }),
        { concurrency: 6 }
      )
      const ordinals = outcomes.map(({ ordinal }) => ordinal).toSorted((a, b) => a - b)
      assert.deepStrictEqual(ordinals, outcomes.map((_, index) => index + 1))
    }))

  it.effect("start it once", () =>
    Effect.gen(function*() {
      const processes = [yield* anotherProcess, yield* anotherProcess]
      const conversationId = ConversationId.make("started")
      const outcomes = yield* Effect.forEach(
        [...processes, ...processes],
        (conversations) => conversations.start({ conversationId, participants }),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(outcomes.filter(({ duplicate }) => !duplicate).length, 1)
      assert.strictEqual(new Set(outcomes.map(({ position }) => position)).size, 1)
    }))
})
