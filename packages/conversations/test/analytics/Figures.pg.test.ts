import { assert, layer } from "@effect/vitest"
import { Analytics } from "@strata/conversations/analytics/Analytics"
import {
  type ContextType,
  ConversationId,
  MessageId,
  type Role,
  UserId
} from "@strata/conversations/domain/Conversation"
import * as ConversationQueries from "@strata/conversations/read/ConversationQueries"
import * as Conversations from "@strata/conversations/write/Conversations"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { Application, project } from "../Application.ts"

const instant = (text: string) => Option.getOrThrow(Timestamp.parse(text))
const minutes = (count: number, micros = 0n) =>
  Timestamp.fromMicros(instant("2026-03-01T00:00:00Z") + BigInt(count) * 60_000_000n + micros)
const day = 24 * 60

const people: { readonly [name: string]: Role } = {
  ada: "CUSTOMER",
  cy: "CUSTOMER",
  bob: "SERVICE_PROVIDER",
  dee: "SERVICE_PROVIDER",
  root: "ADMIN"
}

/** Messages are recorded in the order given. */
const talk = Effect.fnUntraced(function*(
  name: string,
  messages: ReadonlyArray<readonly [by: string, at: Timestamp.Timestamp]>,
  type: ContextType = "GENERAL"
) {
  const conversations = yield* Conversations.Conversations
  yield* conversations.execute(ConversationId.make(name), [
    {
      _tag: "Start",
      at: minutes(0),
      context: { type },
      participants: Object.entries(people).map(([name, role]) => ({ userId: UserId.make(name), role }))
    },
    ...messages.map(([by, at], index): Conversations.Command => ({
      _tag: "Send",
      at,
      messageId: MessageId.make(`${index}-${at}`),
      senderId: UserId.make(by),
      content: "hello"
    }))
  ])
})

layer(Layer.fresh(Application), { excludeTestServices: true })("response times", (it) => {
  it.effect("run from each customer message to the first response, strictly later and within 24 hours", () =>
    Effect.gen(function*() {
      const analytics = yield* Analytics
      yield* talk("several wait for one", [["ada", minutes(0)], ["cy", minutes(4)], ["bob", minutes(10)], [
        "dee",
        minutes(11)
      ]])
      yield* talk("at the same moment is no response", [["ada", minutes(0)], ["bob", minutes(0)]])
      yield* talk("24 hours is too late", [["ada", minutes(0)], ["bob", minutes(day)]])
      yield* talk("a microsecond less is not", [["ada", minutes(0)], ["bob", minutes(day, -1n)]])
      yield* talk("others do not respond", [["ada", minutes(0)], ["root", minutes(1)], ["cy", minutes(2)]])
      yield* project()
      const all = yield* analytics.responseTimes({})
      assert.strictEqual(all.count, 3)
      assert.strictEqual(all.min, 6)
      assert.strictEqual(all.p50, 10)
      assert.closeTo(all.max!, day, 1e-6)
      assert.deepInclude(all, { within5Minutes: 0, within15Minutes: 2, within60Minutes: 2 })
    }))

  it.effect("are the same when messages are recorded late", () =>
    Effect.gen(function*() {
      const analytics = yield* Analytics
      const before = yield* analytics.responseTimes({})
      yield* talk("late response", [["ada", minutes(0)], ["bob", minutes(90)]], "SUPPORT")
      yield* talk("late request", [["bob", minutes(90)]], "SUPPORT")
      yield* project()
      assert.strictEqual((yield* analytics.responseTimes({ contextType: "SUPPORT" })).p50, 90)
      yield* talk("late response", [["dee", minutes(30)]], "SUPPORT")
      yield* talk("late request", [["ada", minutes(60)]], "SUPPORT")
      yield* project()
      const support = yield* analytics.responseTimes({ contextType: "SUPPORT" })
      const expected = {
        count: 2,
        mean: 30,
        min: 30,
        max: 30,
        p50: 30,
        p90: 30,
        p95: 30,
        within5Minutes: 0,
        within15Minutes: 0,
        within60Minutes: 2
      } as const
      assert.deepStrictEqual(support, {
        ...expected,
        relativeError: 0,
        contexts: [{ contextType: "SUPPORT", ...expected }]
      })
      assert.strictEqual((yield* analytics.responseTimes({})).count, before.count + 2)
    }))

  it.effect("can be asked for by provider and by a period of the request, its end excluded", () =>
    Effect.gen(function*() {
      const analytics = yield* Analytics
      yield* talk("by dee", [["ada", minutes(3 * day)], ["dee", minutes(3 * day + 2)]], "BOOKING")
      yield* project()
      const dee = UserId.make("dee")
      assert.strictEqual((yield* analytics.responseTimes({ provider: dee, contextType: "BOOKING" })).count, 1)
      const from = minutes(3 * day)
      assert.strictEqual((yield* analytics.responseTimes({ from })).count, 1)
      const none = yield* analytics.responseTimes({ from: Timestamp.fromMicros(from + 1n) })
      assert.deepInclude(none, { count: 0, mean: null, p50: null, p95: null, min: null, max: null, within5Minutes: 0 })
      assert.strictEqual((yield* analytics.responseTimes({ contextType: "BOOKING", to: from })).count, 0)
    }))
})

layer(Layer.fresh(Application), { excludeTestServices: true })("activity by day", (it) => {
  it.effect("counts messages, conversations and people by day of UTC", () =>
    Effect.gen(function*() {
      const analytics = yield* Analytics
      yield* talk("one", [
        ["ada", instant("2026-03-01T23:59:59.999999Z")],
        ["bob", instant("2026-03-02T00:00:00Z")],
        ["bob", instant("2026-03-02T01:30:00+01:00")]
      ])
      yield* talk("two", [["ada", instant("2026-03-02T10:00:00Z")]])
      yield* project()
      const first = {
        date: "2026-03-01",
        messages: 1,
        activeConversations: 1,
        activeUsers: 1,
        bytes: 5,
        averageBytes: 5
      }
      const second = {
        date: "2026-03-02",
        messages: 3,
        activeConversations: 2,
        activeUsers: 2,
        bytes: 15,
        averageBytes: 5,
        previousMessages: 1,
        growthRate: 200
      }
      assert.deepStrictEqual(yield* analytics.activity({}), {
        days: [{ ...first, previousMessages: 0, growthRate: null }, second],
        totals: { conversations: 2, messages: 4, bytes: 20, participants: 2 }
      })
      const from = instant("2026-03-02T00:00:00Z")
      assert.deepStrictEqual((yield* analytics.activity({ from })).days, [second])
      assert.deepStrictEqual((yield* analytics.activity({ to: from })).totals, {
        conversations: 1,
        messages: 1,
        bytes: 5,
        participants: 1
      })
      assert.deepStrictEqual(yield* (yield* ConversationQueries.ConversationQueries).totals({}), {
        conversations: 2,
        messages: 4,
        participants: 5
      })
      const empty = yield* analytics.activity({ from: instant("2030-01-01T00:00:00Z") })
      assert.deepStrictEqual(empty, { days: [], totals: { conversations: 0, messages: 0, bytes: 0, participants: 0 } })
    }))
})
