import { assert, layer } from "@effect/vitest"
import { Analytics } from "@strata/conversations/analytics/Analytics"
import { MessageAnalytics } from "@strata/conversations/analytics/MessageAnalytics"
import { exactUpTo } from "@strata/conversations/analytics/ResponseFigures"
import { ConversationId, MessageId, type Metadata, UserId } from "@strata/conversations/domain/Conversation"
import { ConversationEvents, MessageSent } from "@strata/conversations/domain/ConversationEvent"
import * as Conversations from "@strata/conversations/write/Conversations"
import { EventStore } from "@strata/event-store/EventStore"
import { type Fact, streamId } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Replay from "@strata/projections/Replay"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { Application, project } from "../Application.ts"

const instant = (text: string) => Option.getOrThrow(Timestamp.parse(text))
const start = instant("2026-03-01T00:00:00Z")
const after = (seconds: number) => Timestamp.fromMicros(start + BigInt(seconds) * 1_000_000n)
const [ada, bob] = [UserId.make("ada"), UserId.make("bob")]

const talk = Effect.fnUntraced(function*(
  name: string,
  messages: ReadonlyArray<readonly [by: UserId, at: Timestamp.Timestamp, content?: string]>,
  metadata: Metadata | null = null
) {
  const conversations = yield* Conversations.Conversations
  const id = ConversationId.make(name)
  yield* conversations.execute(id, [{
    _tag: "Start",
    at: start,
    context: { type: "SERVICE", id: "s1", metadata },
    participants: [{ userId: ada, role: "CUSTOMER" }, { userId: bob, role: "SERVICE_PROVIDER" }]
  }])
  for (const part of Arr.chunksOf(messages.map((message, index) => ({ message, index })), 250)) {
    yield* conversations.execute(
      id,
      Arr.map(part, ({ index, message: [senderId, at, content = "hello"] }): Conversations.Command => ({
        _tag: "Send",
        at,
        messageId: MessageId.make(`m${index + 1}`),
        senderId,
        content
      }))
    )
  }
})

/** The facts of a conversation's messages. */
const messagesOf = Effect.fnUntraced(function*(name: string) {
  const store = yield* EventStore
  const facts = yield* store.readStream(streamId("conversation", name))
  return facts.filter(({ type }) => type === "MessageSent")
})

const correct = Effect.fnUntraced(function*(fact: Fact, sentAt: Timestamp.Timestamp) {
  const store = yield* EventStore
  const event = yield* Effect.fromResult(ConversationEvents.decode(fact))
  if (event._tag !== "MessageSent") return
  yield* store.revise(
    ConversationEvents.encodeCorrection(MessageSent.make({ ...event, sentAt }), {
      revises: fact.eventId,
      reason: "the clock was wrong",
      actor: "ada"
    })
  )
})

const everything = Effect.gen(function*() {
  const analytics = yield* Analytics
  return {
    activity: yield* analytics.activity({}),
    responseTimes: yield* analytics.responseTimes({}),
    volume: yield* analytics.volume({}),
    day: yield* analytics.day({ day: after(3600) })
  }
})

layer(Layer.fresh(Application), { excludeTestServices: true })("analytics", (it) => {
  it.effect("tell volume by context, category and type, and a day by conversation, page by page", () =>
    Effect.gen(function*() {
      const analytics = yield* Analytics
      yield* talk("a", [[ada, after(0)], [bob, after(120)], [ada, after(86_400)]], { category: "plumbing" })
      yield* talk("b", [[ada, after(10), "grüße"]], { category: { en: "plumbing", de: "Klempner" } })
      yield* talk("c", [[ada, after(20)]])
      yield* project()
      const { groups } = yield* analytics.volume({})
      const figures = { messages: 4, uniqueUsers: 2, bytes: 22, averageBytes: 5.5 }
      const other = { messages: 1, uniqueUsers: 1, bytes: 5, averageBytes: 5 }
      assert.deepStrictEqual(groups, [
        {
          contextType: "SERVICE",
          category: "plumbing",
          conversations: 2,
          ...figures,
          types: [{ type: "TEXT", ...figures }]
        },
        { contextType: "SERVICE", category: null, conversations: 1, ...other, types: [{ type: "TEXT", ...other }] }
      ])
      const first = yield* analytics.day({ day: after(3600), limit: 2 })
      const row = {
        date: "2026-03-01",
        contextType: "SERVICE",
        senderRole: "CUSTOMER",
        messageType: "TEXT",
        totalConversations: 1,
        uniqueSenders: 1
      }
      assert.deepStrictEqual<unknown>(first, {
        totals: [
          {
            ...row,
            conversationId: null,
            totalMessages: 3,
            totalConversations: 3,
            averageResponseTime: 2,
            totalSize: 17
          },
          {
            ...row,
            conversationId: null,
            senderRole: "SERVICE_PROVIDER",
            totalMessages: 1,
            averageResponseTime: null,
            totalSize: 5
          }
        ],
        conversations: [
          { ...row, conversationId: "a", totalMessages: 1, averageResponseTime: 2, totalSize: 5 },
          {
            ...row,
            conversationId: "a",
            senderRole: "SERVICE_PROVIDER",
            totalMessages: 1,
            averageResponseTime: null,
            totalSize: 5
          },
          { ...row, conversationId: "b", totalMessages: 1, averageResponseTime: null, totalSize: 7 }
        ],
        next: "b"
      })
      const second = yield* analytics.day({ day: after(3600), limit: 2, after: first.next! })
      assert.deepStrictEqual(second.conversations.map(({ conversationId }) => conversationId), [
        ConversationId.make("c")
      ])
      assert.isNull(second.next)
    }))

  it.effect("follow corrections and retractions, and tell what was known before them", () =>
    Effect.gen(function*() {
      const analytics = yield* Analytics
      const store = yield* EventStore
      const before = yield* everything
      const known = { position: yield* store.head }
      const [first, response] = yield* messagesOf("a")
      yield* correct(response!, after(60))
      yield* store.revise({
        _tag: "Retraction",
        revises: (yield* messagesOf("b"))[0]!.eventId,
        reason: "spam",
        actor: "ada"
      })
      yield* project()
      const now = yield* everything
      assert.strictEqual(before.responseTimes.mean, 2)
      assert.strictEqual(now.responseTimes.mean, 1)
      assert.strictEqual(now.activity.totals.messages, before.activity.totals.messages - 1)
      assert.strictEqual(now.activity.totals.conversations, 2)
      assert.strictEqual(now.volume.groups[0]?.conversations, 1)
      assert.deepStrictEqual(yield* analytics.activity({ knownAt: known }), before.activity)
      assert.deepStrictEqual(yield* analytics.responseTimes({ knownAt: known }), before.responseTimes)
      assert.deepStrictEqual(yield* analytics.volume({ knownAt: known }), before.volume)
      assert.deepStrictEqual(yield* analytics.day({ day: after(3600), knownAt: known }), before.day)
      assert.strictEqual((yield* analytics.activity({ knownAt: { position: first!.position } })).totals.messages, 1)
      const { sql } = yield* Postgres
      assert.deepStrictEqual(yield* sql`select from projection_replay`, [])
      assert.deepStrictEqual(yield* sql`select from pg_namespace where nspname like 'asked%'`, [])
    }))

  it.effect(
    "with more response times than are sorted, give percentiles within 2 %, and all else exactly",
    () =>
      Effect.gen(function*() {
        const analytics = yield* Analytics
        const { sql } = yield* Postgres
        // A request every 7 seconds, and a response at the end of each conversation.
        yield* Effect.forEach(Arr.range(1, 18), (number) =>
          talk(`many ${number}`, [
            ...Arr.makeBy(1200, (index) => [ada, after(number * 86_400 * 9 + index * 7)] as const),
            [bob, after(number * 86_400 * 9 + 1200 * 7)]
          ]), { concurrency: 3, discard: true })
        yield* project()
        for (
          const period of [{}, { from: after(9 * 86_400 + 700) }, {
            from: after(9 * 86_400 + 1),
            to: after(162 * 86_400 + 7000)
          }]
        ) {
          const figures = yield* analytics.responseTimes(period)
          const [exact] = yield* sql<
            { count: number; mean: number; min: number; max: number; p: ReadonlyArray<number> }
          >`
            select count(*)::integer as count, avg(minutes) as mean, min(minutes), max(minutes),
              percentile_cont(array[0.5, 0.9, 0.95]) within group (order by minutes) as p
            from response_time
            where responded_at is not null and extract(epoch from sent_at) * 1000000 >= ${Number(period.from ?? 0)}
              and extract(epoch from sent_at) * 1000000 < ${Number(period.to ?? 4e15)}`
          assert.isAbove(exact!.count, exactUpTo)
          assert.strictEqual(figures.relativeError, 0.02)
          assert.deepInclude(figures, { count: exact!.count, min: exact!.min, max: exact!.max })
          assert.closeTo(figures.mean!, exact!.mean, 1e-9)
          for (const [index, value] of [figures.p50, figures.p90, figures.p95].entries()) {
            assert.closeTo(value! / exact!.p[index]!, 1, 0.02)
          }
          assert.strictEqual(figures.contexts[0]?.count, exact!.count)
        }
        const month = yield* analytics.activity({ from: after(9 * 86_400), to: after(200 * 86_400) })
        assert.strictEqual(month.totals.messages, 18 * 1201)
        assert.strictEqual(month.totals.conversations, 18)
      }),
    60_000
  )

  it.effect("refuse a past with too many facts, unless a replay of it was made", () =>
    Effect.gen(function*() {
      const analytics = yield* Analytics
      const store = yield* EventStore
      const knownAt = { position: yield* store.head }
      const error = yield* Effect.flip(analytics.activity({ knownAt }))
      assert.strictEqual(error._tag, "HistoryTooLong")
      assert.include(error.message, `npm run replay -- message-analytics --known-at ${knownAt.position}`)
      const now = yield* analytics.activity({})
      yield* Replay.run(MessageAnalytics, { into: "as_known", knownAt })
      assert.deepStrictEqual(yield* analytics.activity({ knownAt }), now)
    }), 60_000)
})
