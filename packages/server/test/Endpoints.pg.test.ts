import { assert, layer } from "@effect/vitest"
import { ConversationId, MessageId, UserId } from "@strata/conversations/domain/Conversation"
import type { Position } from "@strata/event-store/Fact"
import * as Client from "@strata/http-api/Client"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as Redacted from "effect/Redacted"
import { conversation, keys, layerServer, TestServer } from "./testServer.ts"

const ada = UserId.make("ada")
const bob = UserId.make("bob")
const participants = [{ userId: ada, role: "CUSTOMER" }, { userId: bob, role: "SERVICE_PROVIDER" }] as const

const makeClient = (apiKey: string) =>
  Effect.flatMap(TestServer, ({ url }) => Client.make({ baseUrl: url, apiKey: Redacted.make(apiKey) }))

layer(layerServer(), { excludeTestServices: true })("the endpoints, through the typed client", (it) => {
  it.effect("a conversation is started, written to, read and archived", () =>
    Effect.gen(function*() {
      const client = yield* makeClient(keys.operator)
      const id = ConversationId.make("booking 7/ä?")
      const params = { id }
      const started = yield* client.conversations.start({
        headers: {},
        payload: { conversationId: id, context: { type: "BOOKING", id: "7" }, participants }
      })
      assert.deepStrictEqual(started.body, {
        conversationId: id,
        position: started.headers["strata-position"],
        duplicate: false
      })

      const first = yield* client.conversations.send({
        params,
        headers: {},
        payload: { senderId: ada, content: "Is it free?" }
      })
      const second = yield* client.conversations.send({
        params,
        headers: {},
        payload: { senderId: bob, content: "It is", messageId: MessageId.make("m2"), replyTo: first.body.messageId }
      })
      const again = yield* client.conversations.send({
        params,
        headers: {},
        payload: { senderId: ada, content: "Is it free?" }
      })
      assert.isTrue(again.body.duplicate)
      assert.strictEqual(again.body.messageId, first.body.messageId)

      const minPosition = second.headers["strata-position"]
      const page = yield* client.conversations.messages({ params, headers: {}, query: { minPosition } })
      assert.deepStrictEqual(page.messages.map(({ content }) => content), ["Is it free?", "It is"])
      assert.isFalse(page.hasMore)

      const got = yield* client.conversations.get({
        params,
        headers: { "strata-min-position": minPosition },
        query: { participant: bob }
      })
      assert.strictEqual(got.messageCount, 2)
      assert.strictEqual(got.unreadCount, 1)
      const read = yield* client.conversations.markRead({ params, headers: {}, payload: { userId: bob } })
      const joined = yield* client.conversations.addParticipant({
        params,
        headers: {},
        payload: { userId: UserId.make("eve"), role: "ADMIN" }
      })
      assert.isTrue(joined.headers["strata-position"] > read.headers["strata-position"])
      const mute = (muted?: boolean) =>
        Effect.map(
          client.conversations.mute({
            params,
            headers: {},
            payload: muted === undefined ? { userId: bob } : { userId: bob, muted }
          }),
          ({ body }) => body
        )
      const mutedAt = (minPosition: Position) =>
        Effect.map(
          client.conversations.get({ params, headers: {}, query: { minPosition } }),
          ({ participants }) => participants.filter(({ muted }) => muted).map(({ userId }) => userId)
        )
      const { duplicate, position } = yield* mute()
      assert.deepStrictEqual([duplicate, yield* mutedAt(position)], [false, [bob]])
      assert.isTrue((yield* mute(true)).duplicate)
      assert.deepStrictEqual(yield* mutedAt((yield* mute(false)).position), [])
      const archived = yield* client.conversations.archive({ params, headers: {} })
      const list = yield* client.conversations.list({
        headers: {},
        query: { participant: bob, status: "ARCHIVED", minPosition: archived.headers["strata-position"] }
      })
      assert.deepStrictEqual(list.conversations.map((one) => [one.conversationId, one.unreadCount]), [[id, 0]])
      assert.isTrue((yield* client.conversations.archive({ params, headers: {} })).body.duplicate)
    }))

  it.effect("lists are keyset pages", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      for (const id of ["p1", "p2", "p3"]) {
        yield* send("POST", "/api/v1/conversations", { body: conversation(id), key: keys.other })
      }
      let position = ""
      for (const n of [1, 2, 3, 4, 5]) {
        const sent = yield* send("POST", "/api/v1/conversations/p1/messages", {
          key: keys.other,
          body: { senderId: "ada", content: `message ${n}` }
        })
        position = sent.headers["strata-position"]!
      }
      const walk = Effect.fnUntraced(function*(path: string, name: string, field: string) {
        const seen: Array<Array<string>> = []
        let cursor: string | null = ""
        while (cursor !== null) {
          const after: string = cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`
          const { json, status } = yield* send("GET", `${path}?limit=2&minPosition=${position}${after}`, {
            key: keys.other
          })
          assert.strictEqual(status, 200)
          assert.strictEqual(json.hasMore, json.nextCursor !== null)
          seen.push(json[name].map((one: Record<string, string>) => one[field]))
          cursor = json.nextCursor
        }
        return seen
      })
      const conversations = yield* walk("/api/v1/conversations", "conversations", "conversationId")
      assert.deepStrictEqual(conversations.map((page) => page.length), [2, 1])
      assert.deepStrictEqual(conversations.flat().toSorted(), ["p1", "p2", "p3"])
      assert.deepStrictEqual(yield* walk("/api/v1/conversations/p1/messages", "messages", "content"), [
        ["message 4", "message 5"],
        ["message 2", "message 3"],
        ["message 1"]
      ])
    }))

  it.effect("a tenant sees nothing of another", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const sent = yield* send("POST", "/api/v1/conversations", { body: conversation("mine"), key: keys.operator })
      const path = `/api/v1/conversations/mine?minPosition=${sent.headers["strata-position"]}`
      assert.strictEqual((yield* send("GET", path, { key: keys.viewer })).status, 200)
      assert.strictEqual((yield* send("GET", path, { key: keys.other })).status, 404)
    }))

  it.effect("figures, projections, session and health are answered", () =>
    Effect.gen(function*() {
      const client = yield* makeClient(keys.viewer)
      const { send } = yield* TestServer
      const times = yield* client.analytics.responseTimes({ headers: {}, query: { provider: bob } })
      assert.isNumber(times.count)
      const daily = yield* client.analytics.conversations({ headers: {}, query: {} })
      assert.isArray(daily.days)
      const period = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00.000001Z"
      assert.deepStrictEqual((yield* send("GET", `/api/v1/analytics/conversations?${period}`)).json.days, [])
      const { projections } = yield* client.projections.list()
      assert.isTrue(projections.length > 0 && projections.every(({ state }) => state === "running"))
      assert.deepStrictEqual((yield* client.session()).roles, ["viewer"])
      assert.strictEqual((yield* client.live()).status, "UP")
      assert.strictEqual((yield* client.ready()).status, "UP")
      const health = yield* client.healthV1()
      assert.strictEqual(health.status, "UP")
      assert.deepStrictEqual(health.checks.map(({ name }) => name), ["database", "event-store", "projections"])
    }))

  it.effect("document, reference, health and metrics need no key", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const document = yield* send("GET", "/openapi.json", { key: null })
      assert.strictEqual(document.json.info.title, "Strata")
      assert.include((yield* send("GET", "/docs", { key: null })).text, "Strata")
      assert.strictEqual((yield* send("GET", "/health", { key: null })).json.status, "UP")
      const metrics = (yield* send("GET", "/metrics", { key: null })).text
      assert.match(metrics, /http_server_request_duration_seconds_count\{.*http_route="\/openapi\.json".*\} \d+/)
      assert.notMatch(metrics, /http_route="\/api\/v1\/conversations\/(?!:id)/)
    }))

  it.effect("HEAD and OPTIONS are answered", () =>
    Effect.gen(function*() {
      const { send, url } = yield* TestServer
      const head = yield* HttpClient.head(`${url}/health/live`)
      assert.strictEqual(head.status, 200)
      const options = yield* send("OPTIONS", "/api/v1/conversations")
      assert.strictEqual(options.status, 204)
      assert.strictEqual(options.headers["allow"], "GET, POST, HEAD, OPTIONS")
    }))
})
