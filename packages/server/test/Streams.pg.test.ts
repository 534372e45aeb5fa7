import { assert, layer } from "@effect/vitest"
import { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import * as Effect from "effect/Effect"
import { type Answer, conversation, keys, layerServer, TestServer } from "./testServer.ts"

const s = "/api/v1/eventstores/default/default"

// oxlint-disable-next-line typescript/no-explicit-any -- answers of any shape
type Any = any

const get = Effect.fnUntraced(function*(path: string, key: string = keys.viewer) {
  const { send } = yield* TestServer
  return yield* send("GET", `${s}${path}`, { key })
})
const send = Effect.fnUntraced(function*(
  method: "POST" | "PUT",
  path: string,
  body: unknown,
  key: string = keys.operator,
  once?: string
) {
  const { send } = yield* TestServer
  return yield* send(method, `${s}${path}`, { key, body, ...(once && { headers: { "idempotency-key": once } }) })
})
const append = Effect.fnUntraced(function*(streamId: string, key: string = keys.operator) {
  const answer = yield* send("POST", "/events", { streamId, eventType: "counted", eventData: 1 }, key)
  assert.strictEqual(answer.status, 201, answer.text)
  return answer.json
})
const change = (stream: string, verb: string, key: string = keys.operator, once?: string) =>
  send("POST", `/streams/${stream}/${verb}`, { reason: "audit" }, key, once)
const describe = (stream: string, metadata: object, once?: string) =>
  send("PUT", `/streams/${stream}/metadata`, { metadata, reason: "set up" }, keys.operator, once)
const idsOf = (answer: Answer) => {
  assert.strictEqual(answer.status, 200, answer.text)
  assert.strictEqual(answer.json.streamCount, answer.json.streams.length)
  assert.strictEqual(answer.json.hasMore, answer.json.nextCursor !== null)
  return answer.json.streams.map(({ streamId }: Any) => streamId)
}

layer(layerServer(), { excludeTestServices: true })("streams over HTTP", (it) => {
  it.effect("streams are listed by category and state, page by page, under both names", () =>
    Effect.gen(function*() {
      for (const id of ["b-2", "b-10", "a-1", "b-2", "b.c-1", "b-3"]) yield* append(id)
      yield* change("b-3", "archive")
      yield* change("b-10", "tombstone", keys.admin)
      assert.deepStrictEqual(idsOf(yield* get("/streams")), ["a-1", "b-2", "b.c-1"])
      assert.deepStrictEqual(idsOf(yield* get("/aggregates?category=b")), ["b-2"])
      const all = "category=b&state=open&state=archived&state=tombstoned"
      assert.deepStrictEqual(idsOf(yield* get(`/streams?${all}`)), ["b-10", "b-2", "b-3"])
      assert.deepStrictEqual(idsOf(yield* get("/streams?state=archived")), ["b-3"])
      const first = yield* get(`/aggregates?${all}&limit=2`)
      assert.deepStrictEqual(first.json.streams[1], {
        streamId: "b-2",
        aggregateId: "b-2",
        category: "b",
        version: 2,
        state: "open",
        metadata: {}
      })
      const rest = yield* get(`/aggregates?${all}&limit=2&cursor=${first.json.nextCursor}`)
      assert.deepStrictEqual([idsOf(first), idsOf(rest), rest.json.hasMore], [["b-10", "b-2"], ["b-3"], false])
      assert.deepStrictEqual(idsOf(yield* get("/streams?category=$stream")), ["$stream-b-10", "$stream-b-3"])
      assert.deepStrictEqual(idsOf(yield* get("/streams?category=none")), [])
    }))

  it.effect("the store's own streams hold up no page, whatever sorts before and behind them", () =>
    Effect.gen(function*() {
      for (const id of ["!walk-1", "walk-1", "walk-2"]) yield* append(id)
      for (const id of ["walk-1", "walk-2", "!walk-1"]) yield* describe(id, { n: 1 })
      const found: Array<string> = []
      let cursor: string | null = ""
      while (cursor !== null) {
        const page: Answer = yield* get(
          `/streams?limit=1${cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`}`
        )
        found.push(...idsOf(page))
        cursor = page.json.nextCursor
      }
      const whole = idsOf(yield* get("/streams?limit=500"))
      assert.deepStrictEqual(found, whole)
      assert.deepStrictEqual(whole.filter((id: string) => id.includes("walk")), ["!walk-1", "walk-1", "walk-2"])
      assert.isFalse(whole.some((id: string) => id.startsWith("$")))
    }))

  it.effect("a stream is archived, reopened and tombstoned; it is always read, and the log has who said so and why", () =>
    Effect.gen(function*() {
      const { eventId } = yield* append("state-1")
      const archived = yield* change("state-1", "archive")
      assert.deepStrictEqual([archived.status, archived.json.state, archived.json.version], [200, "archived", 1])
      const position = archived.headers["strata-position"]
      const read = yield* get(`/streams/state-1/info?minPosition=${position}`)
      assert.deepStrictEqual(read.json, archived.json)
      const body = { streamId: "state-1", eventType: "counted", eventData: 2 }
      const refused = yield* send("POST", "/events", body)
      assert.deepStrictEqual([refused.status, refused.json.rule], [422, "StreamClosed"])
      const correction = yield* send("POST", `/events/${eventId}/retraction`, { reason: "r" }, keys.corrector)
      assert.deepStrictEqual([correction.status, correction.json.rule], [422, "StreamClosed"])
      assert.strictEqual((yield* change("state-1", "reopen")).json.state, "open")
      assert.strictEqual((yield* send("POST", "/events", body)).status, 201)
      for (const key of [keys.viewer, keys.operator, keys.corrector]) {
        assert.strictEqual((yield* change("state-1", "tombstone", key)).status, 403)
      }
      const gone = yield* change("state-1", "tombstone", keys.admin)
      assert.deepStrictEqual([gone.status, gone.json.state, gone.json.version], [200, "tombstoned", 2])
      for (const verb of ["archive", "reopen"]) {
        const late = yield* change("state-1", verb)
        assert.deepStrictEqual([late.status, late.json.rule], [422, "StreamClosed"])
      }
      assert.strictEqual((yield* get("/streams/state-1")).json.eventCount, 2)
      const said = yield* get("/streams/$stream-state-1")
      assert.deepStrictEqual(
        said.json.events.map(({ actor, eventData, eventType }: Any) => [eventType, actor, eventData.reason]),
        [
          ["$stream.archived", "olga", "audit"],
          ["$stream.open", "olga", "audit"],
          ["$stream.tombstoned", "admin", "audit"]
        ]
      )
    }))

  it.effect("metadata is replaced as a whole, also before there are events", () =>
    Effect.gen(function*() {
      const first = yield* describe("meta-1", { owner: "sales", tags: ["a"] })
      assert.deepStrictEqual([first.status, first.json.version, first.json.metadata], [200, 0, {
        owner: "sales",
        tags: ["a"]
      }])
      yield* append("meta-1")
      yield* describe("meta-1", { owner: "support" })
      const info = yield* get("/streams/meta-1/info")
      assert.deepStrictEqual([info.json.version, info.json.metadata], [1, { owner: "support" }])
    }))

  it.effect("a key gives the first answer, whatever was said since, and is free for no other request", () =>
    Effect.gen(function*() {
      yield* append("once-1")
      const described = yield* describe("once-1", { n: 1 }, "describe once")
      const archived = yield* change("once-1", "archive", keys.operator, "archive once")
      yield* change("once-1", "reopen")
      yield* describe("once-1", { n: 2 })
      yield* append("once-1")
      const store = yield* EventStore
      const head = yield* store.head
      const again = [
        yield* describe("once-1", { n: 1 }, "describe once"),
        yield* change("once-1", "archive", keys.operator, "archive once")
      ]
      assert.deepStrictEqual(
        again.map(({ headers, status, text }) => [status, text, headers["strata-position"]]),
        [described, archived].map(({ headers, status, text }) => [status, text, headers["strata-position"]])
      )
      const others = [
        yield* describe("once-1", { n: 2 }, "describe once"),
        yield* describe("once-2", { n: 1 }, "describe once"),
        yield* change("once-1", "reopen", keys.operator, "archive once"),
        yield* change("once-1", "archive", keys.admin, "archive once"),
        yield* send(
          "POST",
          "/events",
          { streamId: "once-1", eventType: "a", eventData: 1 },
          keys.operator,
          "archive once"
        )
      ]
      for (const { json, status, text } of others) {
        assert.deepStrictEqual([status, json.rule], [422, "IdempotencyKeyReused"], text)
      }
      assert.strictEqual(yield* store.head, head)
    }))

  it.effect("an archive sent many times at once under one key is told once", () =>
    Effect.gen(function*() {
      yield* append("once-9")
      const answers = yield* Effect.all(
        Array.from({ length: 8 }, () => change("once-9", "archive", keys.operator, "archive at once")),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size, 1)
      assert.strictEqual((yield* get("/streams/$stream-once-9")).json.eventCount, 1)
    }))

  it.effect("a tenant sees, counts and changes no streams of another", () =>
    Effect.gen(function*() {
      yield* append("theirs-1", keys.other)
      yield* append("ours-1")
      yield* describe("ours-2", {})
      const other = (path: string) => get(path, keys.other)
      assert.deepStrictEqual(idsOf(yield* other("/streams")), ["theirs-1"])
      assert.deepStrictEqual(idsOf(yield* other("/streams?category=$stream")), [])
      assert.notInclude(idsOf(yield* get("/streams?limit=500")), "theirs-1")
      for (const path of ["/streams/ours-1/info", "/streams/ours-2/info", "/streams/ours-1/state"]) {
        assert.strictEqual((yield* other(path)).status, 404, path)
      }
      assert.strictEqual((yield* change("ours-1", "archive", keys.other)).status, 404)
      yield* send("PUT", "/streams/ours-1/metadata", { metadata: { theirs: true }, reason: "r" }, keys.other)
      yield* change("ours-1", "archive", keys.other)
      const info = yield* get("/streams/ours-1/info")
      assert.deepStrictEqual([info.json.state, info.json.metadata], ["open", {}])
      assert.deepStrictEqual((yield* other("/streams/ours-1/info")).json.state, "archived")
      assert.strictEqual((yield* get("/streams/$stream-ours-1")).status, 404)
      const { json } = yield* other(`/stats?minPosition=${(yield* Effect.flatMap(EventStore, ({ head }) => head))}`)
      assert.deepStrictEqual(json.categories.map(({ category }: Any) => category).toSorted(), ["$stream", "theirs"])
    }))

  it.effect("counts say how much the store holds", () =>
    Effect.gen(function*() {
      yield* append("stats-1")
      yield* append("stats-2")
      const last = yield* append("stats-1")
      const { json, status } = yield* get(`/stats?minPosition=${last.position}`)
      assert.deepStrictEqual([status, json.eventStoreName], [200, "default"])
      const found = json.categories.find(({ category }: Any) => category === "stats")
      assert.deepStrictEqual([found.streams.value, found.events.value, found.events.exact], ["2", "3", true])
      assert.match(found.events.asOf, /^\d{4}-.*Z$/)
      const sum = (field: string) =>
        String(json.categories.reduce((total: number, entry: Any) => total + Number(entry[field].value), 0))
      assert.deepStrictEqual([sum("streams"), sum("events")], [json.streams.value, json.events.value])
      assert.strictEqual(json.categoryCount.value, String(json.categories.length))
      assert.isTrue(json.categories.every(({ events }: Any, n: number) =>
        n === 0 || Number(events.value) <= Number(json.categories[n - 1].events.value)
      ))
    }))

  it.effect("the state of a conversation is what its decider folds, as known then and as valid then", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      yield* send("POST", "/api/v1/conversations", { body: conversation("folded") })
      const said = yield* send("POST", "/api/v1/conversations/folded/messages", {
        body: { senderId: "ada", content: "hello", messageId: "m1" }
      })
      yield* send("POST", "/api/v1/conversations/folded/archive", {})
      const path = "/streams/conversation-folded/state"
      const now = yield* get(path)
      assert.strictEqual(now.status, 200, now.text)
      assert.deepStrictEqual([now.json.category, now.json.validAt], ["conversation", null])
      assert.deepStrictEqual([now.json.state._tag, now.json.state.archived, now.json.state.lastMessageId], [
        "Started",
        true,
        "m1"
      ])
      const before = yield* get(`${path}?knownAt=${said.headers["strata-position"]}`)
      assert.deepStrictEqual([before.json.state.archived, before.json.state.lastMessageId], [false, "m1"])
      assert.strictEqual(before.json.knownAtPosition, said.headers["strata-position"])
      const early = yield* get(`${path}?knownAt=${Number(said.headers["strata-position"]) - 1}`)
      assert.deepStrictEqual(early.json.state.messages, [])
      const then = yield* get(`${path}?validAt=2000-01-01T00:00:00Z`)
      assert.deepStrictEqual([then.json.state, then.json.validAt], [
        { _tag: "NotStarted" },
        "2000-01-01T00:00:00.000000Z"
      ])
      const future = yield* get(`${path}?knownAt=2999-01-01T00:00:00Z`)
      assert.deepStrictEqual([future.status, future.json.errors[0].path], [400, "query.knownAt"])
    }))

  it.effect("a category without a decider, a stream without events and one too long have no state", () =>
    Effect.gen(function*() {
      yield* append("plain-1")
      const undecided = yield* get("/streams/plain-1/state")
      assert.deepStrictEqual([undecided.status, undecided.json.rule], [422, "NoDecider"])
      assert.include(undecided.json.detail, "conversation")
      assert.strictEqual((yield* get("/streams/plain-2/state")).status, 404)
      const store = yield* EventStore
      const stream = Fact.streamId("conversation", "long")
      yield* store.append({ facts: Array.from({ length: 10_000 }, () => ({ stream, type: "Said", data: null })) })
      yield* store.append({ facts: [{ stream, type: "Said", data: null }] })
      const long = yield* get("/streams/conversation-long/state")
      assert.deepStrictEqual([long.status, long.json.rule], [422, "StreamTooLong"])
    }))

  it.effect("what is wrong is refused with its place", () =>
    Effect.gen(function*() {
      yield* append("wrong-1")
      assert.strictEqual((yield* change("wrong-2", "archive")).status, 404)
      assert.strictEqual((yield* get("/streams/wrong-2/info")).status, 404)
      for (const stream of ["conversation-c", "$stream-wrong-1"]) {
        const answer = yield* change(stream, "archive")
        assert.deepStrictEqual([answer.status, answer.json.rule], [422, "ReservedEvent"])
      }
      const bodies = [
        [{ metadata: {}, reason: "" }, "body.reason"],
        [{ metadata: {}, reason: " " }, "body.reason"],
        [{ metadata: {} }, "body.reason"],
        [{ metadata: [], reason: "r" }, "body.metadata"],
        [{ metadata: { a: "\0" }, reason: "r" }, "body.metadata"]
      ] as const
      for (const [body, path] of bodies) {
        const answer = yield* send("PUT", "/streams/wrong-1/metadata", body)
        assert.deepStrictEqual([answer.status, answer.json.errors[0].path], [400, path], answer.text)
      }
      for (const [query, path] of [["state=closed", "state"], ["cursor=x", "cursor"], ["limit=501", "limit"]]) {
        const answer = yield* get(`/streams?${query}`)
        assert.strictEqual(answer.status, 400)
        assert.include(answer.json.errors[0].path, `query.${path}`)
      }
      const nowhere = "/api/v1/eventstores/default/none"
      const { send: raw } = yield* TestServer
      for (const path of ["/stats", "/aggregates", "/streams/a-1/info"]) {
        assert.strictEqual((yield* raw("GET", `${nowhere}${path}`)).status, 404)
      }
    }))
})
