import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, it as bare, layer } from "@effect/vitest"
import { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import * as Client from "@strata/http-api/Client"
import * as Server from "@strata/server/Server"
import { PostgresTest } from "@strata/testing/PostgresTest"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Sse from "effect/encoding/Sse"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { keys, layerServer, onDatabase, TestServer } from "./testServer.ts"

const s = "/api/v1/eventstores/default/default"

const Message = Schema.fromJsonString(Schema.Struct({
  eventType: Schema.String,
  streamId: Schema.String,
  position: Schema.String
}))
const parse = Schema.decodeSync(Message)

const append = Effect.fnUntraced(function*(streamId: string, fields: object = {}, key: string = keys.operator) {
  const { send } = yield* TestServer
  const body = { streamId, eventType: "counted", eventData: "line\nbreak", ...fields }
  const answer = yield* send("POST", `${s}/events`, { key, body })
  assert.strictEqual(answer.status, 201, answer.text)
  return answer.json.position
})

/** Opens a feed; its text comes in pieces. */
const open = Effect.fnUntraced(
  function*(query: string, headers: Record<string, string> = {}, key: string = keys.viewer) {
    const { url } = yield* TestServer
    const response = yield* HttpClient.execute(
      HttpClientRequest.get(`${url}${s}/events/stream?${query}`).pipe(
        HttpClientRequest.setHeaders({ "x-api-key": key, ...headers })
      )
    )
    assert.strictEqual(response.status, 200)
    assert.include(response.headers["content-type"], "text/event-stream")
    return Stream.decodeText(response.stream)
  }
)

/** Opens a feed, and gives its messages one by one. */
const follow = Effect.fnUntraced(function*(query: string, headers?: Record<string, string>, key?: string) {
  const messages = yield* Queue.unbounded<Sse.Event, Cause.Done>()
  const feed = yield* open(query, headers, key)
  yield* feed.pipe(
    Stream.pipeThroughChannel(Sse.decode()),
    Stream.orDie,
    Stream.runIntoQueue(messages),
    Effect.forkScoped
  )
  return messages
})
const idsOf = (messages: ReadonlyArray<Sse.Event>) => messages.map(({ id }) => id)
const take = (messages: Queue.Dequeue<Sse.Event, Cause.Done>, count: number) =>
  Effect.map(Queue.takeN(messages, count), idsOf)

layer(layerServer({ heartbeatInterval: Duration.millis(100) }), { excludeTestServices: true })(
  "the feed over HTTP",
  (it) => {
    it.effect("what is there is replayed from a position, then each event comes as it is recorded", () =>
      Effect.gen(function*() {
        const before = yield* Effect.forEach([1, 2, 3], () => append("feed-1"))
        const messages = yield* follow(`after=${before[0]}&streamId=feed-1`)
        const [first, second] = yield* Queue.takeN(messages, 2)
        assert.deepStrictEqual([first!.id, second!.id, first!.event], [before[1], before[2], "message"])
        assert.deepStrictEqual(parse(first!.data), {
          eventType: "counted",
          streamId: "feed-1",
          position: before[1]
        })
        const live = yield* Effect.forEach([4, 5], () => append("feed-1"))
        assert.deepStrictEqual(yield* take(messages, 2), live)
      }))

    it.effect("without a position it begins with what comes next", () =>
      Effect.gen(function*() {
        yield* append("next-1")
        const messages = yield* follow("category=next")
        const next = yield* append("next-1")
        assert.deepStrictEqual(yield* take(messages, 1), [next])
      }))

    it.effect("a client that comes back with the last id it saw misses nothing and sees nothing twice", () =>
      Effect.gen(function*() {
        const store = yield* EventStore
        const facts = Array.from({ length: 250 }, (_, n) => ({
          stream: Fact.streamId("gap", String(n % 7)),
          type: "counted",
          data: n
        }))
        const first = yield* append("gap-0")
        const { position } = yield* store.append({ facts })
        const seen: Array<string | undefined> = []
        let last = first
        while (BigInt(last) < position) {
          const some = yield* Effect.scoped(
            Effect.flatMap(
              follow(`after=0&category=gap`, { "last-event-id": last }),
              (messages) => take(messages, Math.min(40, Number(position - BigInt(last))))
            )
          )
          seen.push(...some)
          last = some.at(-1)
        }
        assert.deepStrictEqual(seen, facts.map((_, n) => String(BigInt(first) + 1n + BigInt(n))))
      }))

    it.effect("filters combine, and revisions are events of the feed", () =>
      Effect.gen(function*() {
        const { send } = yield* TestServer
        const start = yield* append("filter-0")
        const paid = yield* append("filter-1", {
          eventType: "order.paid",
          correlationId: "c1",
          metadata: { region: "eu" }
        })
        const sent = yield* append("filter-1", { eventType: "order.sent", correlationId: "c1", causationId: "paid" })
        const other = yield* append("filters-1", { eventType: "order.item.paid", correlationId: "c2" })
        const { json } = yield* send("GET", `${s}/events?streamId=filter-1&eventType=order.sent`)
        const path = `${s}/events/${json.events[0].eventId}/retraction`
        const gone = yield* send("POST", path, { body: { reason: "r" }, key: keys.corrector })
        const cases = [
          ["streamId=filter-1", [paid, sent, gone.json.position]],
          ["aggregateId=filters-1", [other]],
          ["category=filter&eventType=order.*", [paid, sent, gone.json.position]],
          ["eventType=order.paid,order.item.*", [paid, other]],
          ["eventType=order.paid&eventType=order.item.*", [paid, other]],
          ["correlationId=c2", [other]],
          ["causationId=paid", [sent, gone.json.position]],
          [`metadata=${encodeURIComponent(`{"region":"eu"}`)}`, [paid]]
        ] as const
        for (const [query, expected] of cases) {
          const messages = yield* follow(`after=${start}&${query}`)
          assert.deepStrictEqual(yield* take(messages, expected.length), [...expected], query)
        }
      }))

    it.effect("a tenant is fed its own events only", () =>
      Effect.gen(function*() {
        const theirs = yield* follow("", {}, keys.other)
        const ours = yield* follow("category=tenant")
        const mine = yield* append("tenant-1")
        const foreign = yield* append("tenant-2", {}, keys.other)
        const again = yield* append("tenant-1")
        assert.deepStrictEqual([yield* take(theirs, 1), yield* take(ours, 2)], [[foreign], [mine, again]])
        const replayed = yield* follow("after=0", {}, keys.other)
        assert.deepStrictEqual(yield* take(replayed, 1), [foreign])
      }))

    it.effect("a quiet feed gives signs of life, whose ids move past what is left out", () =>
      Effect.gen(function*() {
        const feed = yield* open("category=nothing")
        const skipped = yield* append("quiet-1")
        const text = yield* feed.pipe(
          Stream.scan(() => "", (seen, text) => seen + text),
          Stream.takeUntil((seen) => seen.includes(`: heartbeat\nid: ${skipped}\n\n`)),
          Stream.runLast
        )
        assert.notInclude(String(text), "data:")
      }))

    it.effect("the typed client follows with values", () =>
      Effect.gen(function*() {
        const { url } = yield* TestServer
        const { eventStores } = yield* Client.make({ baseUrl: url, apiKey: Redacted.make(keys.viewer) })
        const position = Fact.Position.make(BigInt(yield* append("typed-1")))
        const feed = yield* eventStores.feed({
          params: { setup: "default", store: "default" },
          headers: {},
          query: { after: Fact.Position.make(position - 1n), category: "typed", minPosition: position }
        })
        const [message] = yield* Stream.runCollect(Stream.take(feed, 1))
        assert.deepStrictEqual([message!.id, message!.data.position, message!.data.eventData], [
          position,
          position,
          "line\nbreak"
        ])
      }))

    it.effect("a position nobody has reached and other mistakes are refused with their place", () =>
      Effect.gen(function*() {
        const { send } = yield* TestServer
        const cases = [
          ["after=999999", {}, "query.after"],
          ["after=x", {}, "query.after"],
          ["after=0", { "last-event-id": "999999" }, "headers.last-event-id"],
          ["", { "last-event-id": "x" }, "headers.last-event-id"],
          ["streamId=nocategory", {}, "query.streamId"],
          ["metadata=1", {}, "query.metadata"]
        ] as const
        for (const [query, headers, path] of cases) {
          const { json, status } = yield* send("GET", `${s}/events/stream?${query}`, { headers })
          assert.deepStrictEqual([status, json.errors?.[0].path], [400, path], query)
        }
        assert.strictEqual((yield* send("GET", `${s}/events/stream`, { key: null })).status, 401)
        assert.strictEqual((yield* send("GET", "/api/v1/eventstores/default/none/events/stream")).status, 404)
      }))
  }
)

bare.live("a shutdown ends open feeds cleanly, and is not held up by them", () =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const server = yield* Layer.buildWithScope(onDatabase(), scope)
    const { url } = Context.get(server, TestServer)
    const response = yield* HttpClient.execute(
      HttpClientRequest.get(`${url}${s}/events/stream?after=0`).pipe(
        HttpClientRequest.setHeader("x-api-key", keys.viewer)
      )
    )
    const opened = yield* Queue.unbounded<string, Cause.Done>()
    const whole = yield* Stream.decodeText(response.stream).pipe(
      Stream.tap((text) => Queue.offer(opened, text)),
      Stream.mkString,
      Effect.forkScoped
    )
    yield* Queue.take(opened)
    const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
    // Far less than the five seconds the server would wait for a connection that is kept open.
    assert.isBelow(Duration.toMillis(duration), 3_000)
    assert.strictEqual(yield* Fiber.join(whole), ": heartbeat\nid: 0\n\n")
  }).pipe(
    Effect.provide([NodeHttpClient.layerUndici, PostgresTest.layer({ migrations: Server.migrations })]),
    Effect.scoped
  ))
