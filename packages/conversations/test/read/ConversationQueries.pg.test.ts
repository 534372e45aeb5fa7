import { assert, layer } from "@effect/vitest"
import { ConversationId, MessageId, Tenant, UserId } from "@strata/conversations/domain/Conversation"
import * as ConversationQueries from "@strata/conversations/read/ConversationQueries"
import * as Conversations from "@strata/conversations/write/Conversations"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { Application, project } from "../Application.ts"

const ada = UserId.make("ada")
const bob = UserId.make("bob")
const participants = [{ userId: ada, role: "CUSTOMER" }, { userId: bob, role: "SERVICE_PROVIDER" }] as const
const second = (seconds: number) => Timestamp.fromMillis(seconds * 1000)
const conversation = (number: number) => ConversationId.make(`c${number}`)
const messageId = (number: number) => MessageId.make(`m${number}`)

const send = Effect.fnUntraced(function*(
  conversationId: ConversationId,
  messages: ReadonlyArray<
    { readonly id: number; readonly at: number; readonly by?: UserId; readonly content?: string }
  >,
  context: Conversations.Start["context"] = {}
) {
  const conversations = yield* Conversations.Conversations
  return yield* conversations.execute(conversationId, [
    { _tag: "Start", at: second(0), participants, context },
    ...messages.map(({ at, by = ada, content, id }): Conversations.Command => ({
      _tag: "Send",
      at: second(at),
      messageId: messageId(id),
      senderId: by,
      content: content ?? `message ${id}`
    }))
  ])
})

const ids = (page: { readonly messages: ReadonlyArray<{ readonly messageId: MessageId }> }) =>
  page.messages.map(({ messageId }) => Number(messageId.slice(1)))

const page = Effect.fnUntraced(function*(options: ConversationQueries.MessagesOptions) {
  const queries = yield* ConversationQueries.ConversationQueries
  return yield* Effect.orDie(Effect.fromOption(yield* queries.messages(options)))
})

layer(Layer.fresh(Application), { excludeTestServices: true })("lists of conversations", (it) => {
  it.effect("show the last message by sent time, counts, and what a participant has not read", () =>
    Effect.gen(function*() {
      const conversations = yield* Conversations.Conversations
      const queries = yield* ConversationQueries.ConversationQueries
      for (let number = 1; number <= 5; number++) {
        yield* send(
          conversation(number),
          [{ id: 1, at: number * 10 }, { id: 2, at: number * 10 - 5, by: bob, content: "late" }],
          number === 4 ? { type: "BOOKING", id: "booking-1", metadata: { seats: 2 } } : {}
        )
      }
      yield* conversations.start({ conversationId: conversation(6), participants: [participants[1]] }, {
        at: second(1)
      })
      yield* conversations.archive(conversation(5))
      yield* conversations.markRead({ conversationId: conversation(3), userId: bob })
      yield* conversations.start({ participants }, { tenant: Tenant.make("acme") })
      yield* project()

      const names = (page: ConversationQueries.ConversationPage) =>
        page.conversations.map(({ conversationId }) => Number(conversationId.slice(1)))
      const all = yield* queries.list({})
      assert.deepStrictEqual(names(all), [5, 4, 3, 2, 1, 6])
      assert.deepStrictEqual(all.conversations[1], {
        conversationId: conversation(4),
        status: "ACTIVE",
        context: { type: "BOOKING", id: "booking-1", metadata: { seats: 2 } },
        participantCount: 2,
        messageCount: 2,
        lastMessage: { messageId: messageId(1), senderId: ada, type: "TEXT", preview: "message 1", sentAt: second(40) },
        startedAt: second(0),
        archivedAt: null,
        lastActivityAt: second(40),
        unreadCount: null
      })

      const first = yield* queries.list({ limit: 4 })
      const rest = yield* queries.list({ limit: 4, cursor: first.next! })
      assert.deepStrictEqual([...names(first), ...names(rest)], names(all))
      assert.isNull(rest.next)

      assert.deepStrictEqual(names(yield* queries.list({ status: "ARCHIVED" })), [5])
      assert.deepStrictEqual(names(yield* queries.list({ contextType: "BOOKING" })), [4])
      assert.deepStrictEqual(names(yield* queries.list({ contextId: "booking-1" })), [4])
      assert.deepStrictEqual(names(yield* queries.list({ participant: ada })), [5, 4, 3, 2, 1])
      const unread = yield* queries.list({ participant: bob, unreadOnly: true })
      assert.deepStrictEqual(names(unread), [5, 4, 2, 1])
      assert.deepStrictEqual(unread.conversations.map(({ unreadCount }) => unreadCount), [1, 1, 1, 1])
      assert.strictEqual((yield* queries.list({ tenant: Tenant.make("acme") })).conversations.length, 1)

      const unreadOfBob = yield* queries.unread({ userId: bob })
      assert.strictEqual(unreadOfBob.total, 4)
      assert.deepStrictEqual(unreadOfBob.conversations[0], { conversationId: conversation(1), unreadCount: 1 })
      assert.deepStrictEqual(yield* queries.unread({ userId: UserId.make("eve") }), { total: 0, conversations: [] })

      const detail = yield* Effect.fromOption(yield* queries.get({ conversationId: conversation(3), participant: bob }))
      assert.strictEqual(detail.unreadCount, 0)
      assert.deepInclude(detail.participants[1], { userId: bob, unreadCount: 0, lastReadMessageId: messageId(2) })
      assert.deepInclude(detail.participants[0], { userId: ada, unreadCount: 1, lastReadMessageId: null })
      assert.isTrue(Option.isNone(yield* queries.get({ conversationId: conversation(99) })))
    }))

  it.effect("refuse a cursor that is not theirs", () =>
    Effect.gen(function*() {
      const queries = yield* ConversationQueries.ConversationQueries
      for (const cursor of ["", "nonsense", "bnVsbA", "WzEsMl0"]) {
        const error = yield* Effect.flip(queries.list({ cursor }))
        assert.instanceOf(error, ConversationQueries.InvalidCursor)
      }
    }))
})

layer(Layer.fresh(Application), { excludeTestServices: true })("messages of a conversation", (it) => {
  it.effect("come in pages in both directions, in the order they were sent", () =>
    Effect.gen(function*() {
      const queries = yield* ConversationQueries.ConversationQueries
      const conversationId = conversation(1)
      // Recorded 1 to 9, but the fifth was sent before all others; the eighth and ninth at the same moment.
      yield* send(
        conversationId,
        [1, 2, 3, 4, 5, 6, 7, 8, 9].map((id) => ({ id, at: id === 5 ? 0 : id === 9 ? 8 : id }))
      )
      yield* project()
      const all = [5, 1, 2, 3, 4, 6, 7, 8, 9]

      const newest = yield* page({ conversationId, limit: 4 })
      assert.deepStrictEqual(ids(newest), all.slice(5))
      const older = yield* page({ conversationId, limit: 4, cursor: newest.older! })
      assert.deepStrictEqual(ids(older), all.slice(1, 5))
      const oldest = yield* page({ conversationId, limit: 4, cursor: older.older! })
      assert.deepStrictEqual(ids(oldest), all.slice(0, 1))
      assert.isNull(oldest.older)

      const forth = yield* page({ conversationId, limit: 4, direction: "newer", cursor: oldest.newer! })
      assert.deepStrictEqual(ids(forth), all.slice(1, 5))
      assert.deepStrictEqual(ids(yield* page({ conversationId, limit: 4, cursor: forth.older! })), all.slice(0, 1))
      assert.deepStrictEqual(ids(yield* page({ conversationId, limit: 3, direction: "newer" })), all.slice(0, 3))

      const around = yield* page({ conversationId, limit: 5, around: messageId(4) })
      assert.deepStrictEqual(ids(around), [2, 3, 4, 6, 7])
      assert.deepStrictEqual(ids(yield* page({ conversationId, limit: 2, cursor: around.older! })), [5, 1])
      assert.deepStrictEqual(ids(yield* page({ conversationId, limit: 5, around: messageId(5) })), [5, 1, 2, 3, 4])

      const end = yield* page({ conversationId, direction: "newer", cursor: newest.newer! })
      assert.deepStrictEqual(ids(end), [])
      yield* send(conversationId, [{ id: 10, at: 100 }])
      yield* project()
      assert.deepStrictEqual(ids(yield* page({ conversationId, direction: "newer", cursor: end.newer! })), [10])

      const tenth = yield* Effect.fromOption(yield* queries.message({ conversationId, messageId: messageId(10) }))
      assert.deepInclude(tenth, {
        ordinal: 10,
        senderId: ada,
        senderRole: "CUSTOMER",
        content: "message 10",
        size: 10,
        replyTo: null,
        metadata: null,
        sentAt: second(100)
      })
      assert.isTrue(Option.isNone(yield* queries.messages({ conversationId: conversation(99) })))
      assert.isTrue(Option.isNone(yield* queries.messages({ conversationId, around: messageId(99) })))
    }))
})
