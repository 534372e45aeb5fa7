import { assert, layer } from "@effect/vitest"
import { ConversationId, MessageId, type Metadata, UserId } from "@strata/conversations/domain/Conversation"
import { ConversationEvents, ConversationStarted, MessageSent } from "@strata/conversations/domain/ConversationEvent"
import { EventStore } from "@strata/event-store/EventStore"
import { type Fact, streamId } from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { keys, layerServer, TestServer } from "./testServer.ts"

const a = "/api/v1/analytics"
const instant = (text: string) => Option.getOrThrow(Timestamp.parse(text))

const [ada, bob] = [UserId.make("ada"), UserId.make("bob")]

/** A message that is to be: who sent it when, and what. */
type Said = readonly [by: UserId, at: string, content?: string]

const messageOf = (conversationId: ConversationId, ordinal: number, [senderId, at, content = "hello"]: Said) =>
  MessageSent.make({
    conversationId,
    messageId: MessageId.make(`m${ordinal}`),
    ordinal,
    senderId,
    senderRole: senderId === ada ? "CUSTOMER" : "SERVICE_PROVIDER",
    type: "TEXT",
    content,
    contentHash: "0".repeat(64),
    size: Buffer.byteLength(content),
    replyTo: null,
    metadata: null,
    sentAt: instant(at)
  })

/** A conversation as an import would write it, with the times at which it was held. Gives the facts of its messages. */
const talk = Effect.fnUntraced(function*(name: string, said: ReadonlyArray<Said>, metadata: Metadata | null = null) {
  const store = yield* EventStore
  const conversationId = ConversationId.make(name)
  const stream = streamId("conversation", name)
  const started = ConversationStarted.make({
    conversationId,
    context: { type: "SERVICE", id: "s1", metadata },
    participants: [{ userId: ada, role: "CUSTOMER" }, { userId: bob, role: "SERVICE_PROVIDER" }],
    startedAt: instant(said[0]![1])
  })
  yield* store.append({ facts: [ConversationEvents.encode(started, { stream })] })
  const { facts } = yield* store.append({
    facts: said.map((each, index) => ConversationEvents.encode(messageOf(conversationId, index + 1, each), { stream }))
  })
  return yield* Effect.forEach(facts, ({ eventId }) => Effect.map(store.get(eventId), Option.getOrThrow))
})

/** What a message should have been, and that one never was. Over HTTP, facts of the application are not revised. */
const correct = Effect.fnUntraced(function*(fact: Fact, name: string, ordinal: number, said: Said) {
  const store = yield* EventStore
  const revised = yield* store.revise(
    ConversationEvents.encodeCorrection(messageOf(ConversationId.make(name), ordinal, said), {
      revises: fact.eventId,
      reason: "the clock was wrong",
      actor: "cora"
    })
  )
  return String(revised.position)
})
const retract = Effect.fnUntraced(function*({ eventId }: Fact) {
  const store = yield* EventStore
  const revised = yield* store.revise({ _tag: "Retraction", revises: eventId, reason: "never happened", actor: "cora" })
  return String(revised.position)
})

const get = Effect.fnUntraced(function*(path: string, key: string = keys.viewer) {
  const { send } = yield* TestServer
  const answer = yield* send("GET", `${a}${path}`, { key })
  assert.strictEqual(answer.status, 200, answer.text)
  return answer.json
})

layer(layerServer(), { excludeTestServices: true })("analytics over HTTP", (it) => {
  it.effect("volume is told by context, category and type, follows corrections, and is told as known before them", () =>
    Effect.gen(function*() {
      const plumbing = yield* talk("volume-1", [
        [ada, "2026-03-01T10:00:00Z"],
        [bob, "2026-03-01T10:02:00Z", "grüße"],
        [ada, "2026-03-02T10:00:00Z"]
      ], { category: "plumbing" })
      const other = yield* talk("volume-2", [[ada, "2026-03-01T11:00:00Z", "hi"]])
      const last = other[0]!
      const period = "from=2026-03-01T00:00:00Z&to=2026-03-02T00:00:00Z"
      const volume = (more: string) => get(`/volume?${period}&${more}`)

      const group = { contextType: "SERVICE", category: "plumbing", conversations: 1 }
      const two = { messages: 2, uniqueUsers: 2, bytes: 12, averageBytes: 6 }
      const one = { messages: 1, uniqueUsers: 1, bytes: 2, averageBytes: 2 }
      const first = {
        groups: [
          { ...group, ...two, types: [{ type: "TEXT", ...two }] },
          { ...group, category: null, ...one, types: [{ type: "TEXT", ...one }] }
        ]
      }
      assert.deepStrictEqual(yield* volume(`minPosition=${last.position}`), first)

      // The third one was sent on the first day too, the second was shorter, and the fourth never was.
      yield* correct(plumbing[2]!, "volume-1", 3, [ada, "2026-03-01T10:05:00Z"])
      yield* correct(plumbing[1]!, "volume-1", 2, [bob, "2026-03-01T10:02:00Z", "hm"])
      const position = yield* retract(last)
      const three = { messages: 3, uniqueUsers: 2, bytes: 12, averageBytes: 4 }
      assert.deepStrictEqual(yield* volume(`minPosition=${position}`), {
        groups: [{ ...group, ...three, types: [{ type: "TEXT", ...three }] }]
      })

      const before = [String(last.position), encodeURIComponent(Timestamp.format(last.recordedAt))]
      for (const moment of before) assert.deepStrictEqual(yield* volume(`knownAt=${moment}`), first)
      assert.deepStrictEqual(yield* volume(`knownAt=${position}`), yield* volume(`minPosition=${position}`))
      assert.deepStrictEqual(yield* volume("knownAt=0"), { groups: [] })
    }))

  it.effect("a day is told in all and by conversation, page by page, now and as known before a correction", () =>
    Effect.gen(function*() {
      const asked = yield* talk("day-1", [
        [ada, "2026-04-01T10:00:00Z"],
        [bob, "2026-04-01T10:10:00Z", "grüße"]
      ])
      const [last] = yield* talk("day-2", [[ada, "2026-04-01T23:59:59.999999Z", "hi"]])
      const row = {
        date: "2026-04-01",
        contextType: "SERVICE",
        senderRole: "CUSTOMER",
        messageType: "TEXT",
        totalMessages: 1,
        totalConversations: 1,
        uniqueSenders: 1,
        averageResponseTime: null,
        totalSize: 5
      }
      const ofOne = { ...row, conversationId: "day-1" }
      const answer = { ...ofOne, senderRole: "SERVICE_PROVIDER", totalSize: 7 }
      const first = {
        totals: [
          {
            ...row,
            conversationId: null,
            totalMessages: 2,
            totalConversations: 2,
            averageResponseTime: 10,
            totalSize: 7
          },
          { ...answer, conversationId: null }
        ],
        conversations: [
          { ...ofOne, averageResponseTime: 10 },
          answer,
          { ...row, conversationId: "day-2", totalSize: 2 }
        ],
        next: null
      }
      const day = (more: string) => get(`/daily/2026-04-01?${more}`)
      assert.deepStrictEqual(yield* day(`minPosition=${last!.position}`), first)

      const page = yield* day(`minPosition=${last!.position}&limit=1`)
      assert.deepStrictEqual(page, { ...first, conversations: first.conversations.slice(0, 2), next: "day-1" })
      const rest = yield* day("limit=1&after=day-1")
      assert.deepStrictEqual(rest, { ...first, conversations: first.conversations.slice(2) })

      const position = yield* correct(asked[1]!, "day-1", 2, [bob, "2026-04-01T10:30:00Z", "grüße"])
      const now = yield* day(`minPosition=${position}`)
      assert.deepStrictEqual(
        [now.totals[0].averageResponseTime, now.conversations[0].averageResponseTime],
        [30, 30]
      )
      assert.deepStrictEqual(yield* day(`knownAt=${last!.position}`), first)
      assert.deepStrictEqual(yield* day(`knownAt=${last!.position}&limit=1`), page)
      assert.deepStrictEqual(yield* day(`knownAt=${position}`), now)
      assert.deepStrictEqual(yield* get("/daily/2026-04-02"), { totals: [], conversations: [], next: null })
    }))

  it.effect("response times and activity are told as known before a correction, after it, and before everything", () =>
    Effect.gen(function*() {
      const facts = yield* talk("known-1", [[ada, "2026-05-01T10:00:00Z"], [bob, "2026-05-01T10:04:00Z"]])
      const before = facts[1]!.position
      const period = "from=2026-05-01T00:00:00Z&to=2026-05-03T00:00:00Z"
      const position = yield* correct(facts[1]!, "known-1", 2, [bob, "2026-05-02T09:00:00Z"])
      const times = (more: string) =>
        Effect.map(
          get(`/response-times?${period}&provider=bob&contextType=SERVICE&${more}`),
          ({ count, mean }) => [count, mean]
        )
      assert.deepStrictEqual(yield* times(`knownAt=${before}`), [1, 4])
      assert.deepStrictEqual(yield* times(`minPosition=${position}`), [1, 23 * 60])
      assert.deepStrictEqual(yield* times("knownAt=0"), [0, null])
      const days = (more: string) =>
        Effect.map(
          get(`/conversations?${period}&${more}`),
          ({ days }) =>
            days.map(({ date, messages }: { readonly date: string; readonly messages: number }) => [date, messages])
        )
      assert.deepStrictEqual(yield* days(`knownAt=${before}`), [["2026-05-01", 2]])
      assert.deepStrictEqual(yield* days(`minPosition=${position}`), [["2026-05-01", 1], ["2026-05-02", 1]])
      assert.deepStrictEqual(yield* days("knownAt=0"), [])
    }))

  it.effect("another tenant has figures of its own, also of the past", () =>
    Effect.gen(function*() {
      const [fact] = yield* talk("tenant-1", [[ada, "2026-06-01T10:00:00Z"]])
      const { position } = fact!
      const empty = { totals: [], conversations: [], next: null }
      for (const more of [`minPosition=${position}`, `knownAt=${position}`]) {
        assert.strictEqual((yield* get(`/daily/2026-06-01?${more}`)).totals.length, 1)
        assert.deepStrictEqual(yield* get(`/daily/2026-06-01?${more}`, keys.other), empty)
        assert.deepStrictEqual(yield* get(`/volume?${more}`, keys.other), { groups: [] })
      }
    }))

  const periods = ["/response-times", "/conversations", "/volume"]
  const all = [...periods, "/daily/2026-03-01"]
  const at = (paths: ReadonlyArray<string>, query: string, place: string) =>
    paths.map((path) => [`${path}?${query}`, place] as const)

  it.effect("every bad parameter is refused and named, by every endpoint that has it", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const later = 9_000_000_000n
      const cases = [
        ...["monday", "2026-03-01", "2026-02-30T00:00:00Z", "2026-03-01T00:00:00", "%00", ""].flatMap((bad) => [
          ...at(periods, `from=${bad}`, "query.from"),
          ...at(periods, `to=${bad}`, "query.to")
        ]),
        ...at(periods, "from=2026-03-01T00:00:00Z&from=2026-03-02T00:00:00Z", "query.from"),
        ...at(periods, "from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z", "query.to"),
        ...at(periods, "from=2026-03-02T00:00:00Z&to=2026-03-02T00:00:00Z", "query.to"),
        ...[
          "last",
          "-1",
          "1.5",
          "1e3",
          "2026-03-01",
          "9223372036854775808",
          "%00",
          "",
          `${later}`,
          "2999-01-01T00:00:00Z"
        ]
          .flatMap((bad) => at(all, `knownAt=${bad}`, "query.knownAt")),
        ...at(all, "knownAt=1&knownAt=2", "query.knownAt"),
        ...["last", "-1", "1.5", "9223372036854775808", ""].flatMap((bad) =>
          at(all, `minPosition=${bad}`, "query.minPosition")
        ),
        ...["", "%00", "u".repeat(256)].flatMap((bad) => at(["/response-times"], `provider=${bad}`, "query.provider")),
        ...["", "WEATHER", "service"].flatMap((bad) =>
          at(["/response-times"], `contextType=${bad}`, "query.contextType")
        ),
        ...["0", "501", "1.5", "many", ""].flatMap((bad) => at(["/daily/2026-03-01"], `limit=${bad}`, "query.limit")),
        ...["", "%00", "c".repeat(256)].flatMap((bad) => at(["/daily/2026-03-01"], `after=${bad}`, "query.after")),
        ...["2026-02-30", "2026-13-01", "2026-3-1", "today", "2026-03-01T00:00:00Z", "infinity", "20260301", "%00"]
          .map((bad) => [`/daily/${bad}`, "path.date"] as const),
        ...at(all, "knownat=1", "query.knownat"),
        ...at(["/volume"], "provider=bob", "query.provider"),
        ...at(["/daily/2026-03-01"], "from=2026-03-01T00:00:00Z", "query.from")
      ]
      const wrong: Array<string> = []
      for (const [path, place] of cases) {
        const { json, status } = yield* send("GET", `${a}${path}`)
        const named: ReadonlyArray<string> = json?.errors?.map((error: { readonly path: string }) => error.path) ?? []
        if (status !== 400 || named.length !== 1 || named[0] !== place) wrong.push(`${path}: ${status} ${named}`)
      }
      assert.deepStrictEqual(wrong, [])
      for (const path of all) {
        const { json, status } = yield* send("GET", `${a}${path}`, { headers: { "strata-min-position": "1e3" } })
        assert.deepStrictEqual([status, json.errors[0].path], [400, "headers.strata-min-position"])
      }
      // A position that no projection has reached is waited for, and then it is 503.
      const waited = yield* Effect.forEach(
        all,
        (path) => Effect.map(send("GET", `${a}${path}?minPosition=${later}`), ({ status }) => status),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(waited, all.map(() => 503))
    }), 60_000)

  it.effect("nobody without a key is told figures", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      for (const path of all) {
        assert.strictEqual((yield* send("GET", `${a}${path}`, { key: null })).status, 401)
      }
    }))
})
