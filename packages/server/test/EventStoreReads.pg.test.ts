import { assert, layer } from "@effect/vitest"
import { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import * as Client from "@strata/http-api/Client"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { type Answer, keys, layerServer, TestServer } from "./testServer.ts"

const s = "/api/v1/eventstores/default/default"
const day = (n: number) => `2026-01-${String(n).padStart(2, "0")}T00:00:00Z`

// oxlint-disable-next-line typescript/no-explicit-any -- answers of any shape
type Any = any

const get = Effect.fnUntraced(function*(path: string, key: string = keys.viewer) {
  const { send } = yield* TestServer
  return yield* send("GET", `${s}${path}`, { key })
})
const post = Effect.fnUntraced(function*(path: string, body: unknown) {
  const { send } = yield* TestServer
  const answer = yield* send("POST", `${s}${path}`, { body })
  assert.strictEqual(answer.status, 201, answer.text)
  return answer.json
})
const append = (streamId: string, price: number, fields: object = {}) =>
  post("/events", { streamId, eventType: "price.set", eventData: { price }, ...fields })
const correct = (id: string, price: number, fields: object = {}) =>
  post(`/events/${id}/corrections`, { eventData: { price }, reason: "typing error", ...fields })
const pricesOf = (answer: Answer) => {
  assert.strictEqual(answer.status, 200, answer.text)
  return answer.json.events.map((event: Any) => event.eventData.price)
}
const ask = (query: string) => Effect.map(get(`/events?${query}`), pricesOf)
/** Every page of an answer. */
const walk = Effect.fnUntraced(function*(path: string) {
  const pages: Array<Array<number>> = []
  let cursor: string | null = null
  do {
    const answer: Answer = yield* get(`${path}${cursor === null ? "" : `&cursor=${cursor}`}`)
    assert.deepStrictEqual(answer.json.hasMore, answer.json.nextCursor !== null)
    assert.strictEqual(answer.json.eventCount, answer.json.events.length)
    pages.push(pricesOf(answer))
    cursor = answer.json.nextCursor
  } while (cursor !== null)
  return pages
})

layer(layerServer(), { excludeTestServices: true })("questions on two time axes over HTTP", (it) => {
  it.effect("every filter looks at what is believed, and all of them combine", () =>
    Effect.gen(function*() {
      const q = "category=order"
      const first = yield* append("order-a", 1, { eventType: "order.item.paid", correlationId: "c1" })
      yield* append("order-a", 2, { eventType: "order.paid", causationId: first.eventId })
      yield* append("order-b", 3, { eventType: "order.item.sent", correlationId: "c1" })
      yield* append("orders-1", 4, { eventType: "order_paid", validFrom: day(5), validTo: day(9) })
      yield* correct(first.eventId, 10)
      assert.deepStrictEqual(yield* ask(q), [2, 3, 10])
      assert.deepStrictEqual(yield* ask(`${q}&sort=position,desc`), [10, 3, 2])
      assert.deepStrictEqual(yield* ask("streamId=order-a"), [2, 10])
      assert.deepStrictEqual(yield* ask("aggregateId=order-b"), [3])
      assert.deepStrictEqual(yield* ask(`${q}&eventType=order.*`), [2])
      assert.deepStrictEqual(yield* ask(`${q}&eventType=order.item.paid,order.paid`), [2, 10])
      assert.deepStrictEqual(yield* ask("eventType=*.item.sent&eventType=order_paid"), [3, 4])
      assert.deepStrictEqual(yield* ask(`${q}&eventType=order.paid`), [2])
      assert.deepStrictEqual(yield* ask("correlationId=c1"), [3, 10])
      assert.deepStrictEqual(yield* ask("correlationId=c1&eventType=order.item.paid&category=order&minVersion=2"), [10])
      assert.deepStrictEqual(yield* ask(`causationId=${first.eventId}`), [2])
      assert.deepStrictEqual(yield* ask("streamId=order-a&maxVersion=2"), [2])
      assert.deepStrictEqual(yield* ask("streamId=order-a&revisions=all"), [1, 2, 10])
      const belief = (yield* get("/events?streamId=order-a")).json.events[1]
      assert.deepStrictEqual([belief.revises, belief.revision], [first.eventId, 1])
      assert.deepStrictEqual(yield* ask(`${q}&minPosition=${belief.position}`), [2, 3, 10])
    }))

  it.effect("a type is asked for as it is, with a backslash before its commas and backslashes", () =>
    Effect.gen(function*() {
      const types = ["paid,late", "paid", "late", "App\\Paid", "\\,", ",", "\\"]
      for (const [price, eventType] of types.entries()) yield* append("comma-1", price, { eventType })
      const by = (...texts: ReadonlyArray<string>) =>
        ask(`streamId=comma-1${texts.map((text) => `&eventType=${encodeURIComponent(text)}`).join("")}`)
      for (const [price, type] of types.entries()) {
        assert.deepStrictEqual(yield* by(type.replaceAll(/[\\,]/g, "\\$&")), [price], type)
      }
      assert.deepStrictEqual(yield* by("paid,late"), [1, 2])
      assert.deepStrictEqual(yield* by("late,paid\\,late,App\\\\Paid"), [0, 2, 3])
      assert.deepStrictEqual(yield* by("late", "paid\\,late"), [0, 2])
      const client = yield* Client.make({ baseUrl: (yield* TestServer).url, apiKey: Redacted.make(keys.viewer) })
      const found = yield* client.eventStores.log({
        params: { setup: "default", store: "default" },
        headers: {},
        query: { streamId: Fact.StreamId.make("comma-1"), eventType: ["paid,late", "\\,", "l*te"] }
      })
      assert.deepStrictEqual(found.events.map(({ eventType }) => eventType), ["paid,late", "\\,"])
    }))

  it.effect("two names for one parameter may both be given, and must say the same", () =>
    Effect.gen(function*() {
      const { eventId, position } = yield* append("names-1", 1, { validFrom: day(5) })
      const same = `aggregateId=names-1&from=${day(6)}&fromTime=2026-01-06T01:00:00%2B01:00&to=${day(7)}&toTime=${
        day(7)
      }`
      assert.deepStrictEqual(yield* ask(`streamId=names-1&${same}`), [1])
      const at = yield* get(`/events/${eventId}/at?transactionTime=${position}&knownAt=${position}`)
      assert.strictEqual(at.status, 200, at.text)
      const cases = [
        ["/events?streamId=names-1&aggregateId=names-2", "aggregateId"],
        ["/events/stream?streamId=names-1&aggregateId=names-2", "aggregateId"],
        [`/events?from=${day(1)}&fromTime=${day(2)}`, "fromTime"],
        [`/events?to=${day(1)}&toTime=${day(2)}`, "toTime"],
        [`/events/${eventId}/at?transactionTime=1&knownAt=2`, "knownAt"],
        [`/events/${eventId}/at?transactionTime=1&knownAt=${day(1)}`, "knownAt"]
      ] as const
      for (const [path, parameter] of cases) {
        const { json, status, text } = yield* get(path)
        const paths = json?.errors?.map((error: Any) => error.path)
        assert.deepStrictEqual([status, paths], [400, [`query.${parameter}`]], `${path} ${text}`)
      }
    }))

  it.effect("metadata must be equal, key by key, whatever else there is", () =>
    Effect.gen(function*() {
      const first = yield* append("meta-1", 1, { metadata: { region: "eu", tags: ["a", { b: 1 }], n: 1.5 } })
      yield* append("meta-1", 2, { metadata: { region: "us", tags: [] } })
      yield* append("meta-2", 3, { metadata: { region: "eu" } })
      yield* append("meta-2", 4)
      const by = (metadata: unknown, more = "") => {
        const text = typeof metadata === "string" ? metadata : JSON.stringify(metadata)
        return ask(`category=meta&metadata=${encodeURIComponent(text)}${more}`)
      }
      assert.deepStrictEqual(yield* by({ region: "eu" }), [1, 3])
      assert.deepStrictEqual(yield* by({ region: "eu", n: 1.5 }), [1])
      assert.deepStrictEqual(yield* by({ tags: ["a", { b: 1 }] }), [1])
      assert.deepStrictEqual(yield* by({ tags: [{ b: 1 }, "a"] }), [])
      assert.deepStrictEqual(yield* by("{\"n\": 15e-1}", "&streamId=meta-1"), [1])
      assert.deepStrictEqual(yield* by({ region: null }), [])
      yield* correct(first.eventId, 10, { metadata: { region: "asia" } })
      assert.deepStrictEqual(yield* by({ region: "eu" }), [3])
      assert.deepStrictEqual(yield* by({ region: "eu" }, "&revisions=all"), [1, 3])
    }))

  it.effect("what must stand in the data is asked by path, and what cannot be is refused by its place", () =>
    Effect.gen(function*() {
      yield* append("shop-1", 1, { validFrom: day(1), validTo: day(5) })
      yield* append("shop-1", 2, { validFrom: day(3) })
      yield* append("shop-2", 30)
      const by = (conditions: unknown, more = "") =>
        `category=shop&data=${encodeURIComponent(JSON.stringify(conditions))}${more}`
      const price = (is: string, value: unknown) => ({ path: "/price", is, value })
      assert.deepStrictEqual(yield* ask(by([price("equal", 2)])), [2])
      assert.deepStrictEqual(yield* ask(by([price("atLeast", 2)])), [2, 30])
      assert.deepStrictEqual(yield* ask(by([price("above", 1), price("below", 30)])), [2])
      assert.deepStrictEqual(yield* ask(by([price("atMost", 2)], `&validAt=${day(4)}`)), [1, 2])
      assert.deepStrictEqual(yield* ask(by([price("atMost", 2)], `&validAt=${day(6)}`)), [2])
      for (
        const [conditions, path] of [
          [[], "data"],
          [{}, "data"],
          [[price("near", 1)], "data"],
          [[price("above", true)], "data[0].value"],
          [[price("equal", 1), { path: "price", is: "equal", value: 1 }], "data[1].path"]
        ] as const
      ) {
        const { json, status, text } = yield* get(`/events?${by(conditions)}`)
        const paths = json?.errors?.map((error: Any) => error.path).join()
        assert.strictEqual(status, 400, text)
        assert.include(paths, `query.${path}`)
      }
    }))

  it.effect("an answer ends by what large events weigh, and the cursor goes on", () =>
    Effect.gen(function*() {
      const prices = Array.from({ length: 11 }, (_, n) => n)
      for (const n of prices) yield* append("large-1", n, { eventData: { price: n, text: "y".repeat(950_000) } })
      for (const path of ["/events?streamId=large-1&limit=500", "/streams/large-1?limit=500"]) {
        const first = yield* get(path)
        assert.deepStrictEqual([first.json.eventCount, first.json.hasMore], [9, true], path)
        const second = yield* get(`${path}&cursor=${first.json.nextCursor}`)
        assert.deepStrictEqual([second.json.eventCount, second.json.hasMore], [2, false], path)
        assert.deepStrictEqual(
          [...first.json.events, ...second.json.events].map((event: Any) => event.eventData.price),
          prices
        )
      }
    }))

  it.effect("valid at a moment and valid during a period: a period ends before its end", () =>
    Effect.gen(function*() {
      yield* append("valid-1", 1, { validFrom: day(5), validTo: day(10) })
      yield* append("valid-1", 2, { validFrom: day(10), validTo: day(15) })
      yield* append("valid-1", 3, { validFrom: day(12) })
      const q = "streamId=valid-1"
      assert.deepStrictEqual(yield* ask(`${q}&validAt=${day(4)}`), [])
      assert.deepStrictEqual(yield* ask(`${q}&validAt=${day(5)}`), [1])
      assert.deepStrictEqual(yield* ask(`${q}&validAt=${day(10)}`), [2])
      assert.deepStrictEqual(yield* ask(`${q}&validAt=${day(20)}`), [3])
      assert.deepStrictEqual(yield* ask(`${q}&fromTime=${day(9)}&toTime=${day(10)}`), [1])
      assert.deepStrictEqual(yield* ask(`${q}&from=${day(10)}&to=${day(13)}`), [2, 3])
      assert.deepStrictEqual(yield* ask(`${q}&toTime=${day(11)}`), [1, 2])
      assert.deepStrictEqual(yield* ask(`${q}&fromTime=${day(15)}`), [3])
    }))

  it.effect("a report as known on a day stays the same whatever is learned later", () =>
    Effect.gen(function*() {
      const nav = yield* append("nav-1", 95)
      const other = yield* append("nav-1", 7)
      const reported = yield* get("/events?category=nav")
      yield* correct(nav.eventId, 96)
      yield* post(`/events/${other.eventId}/retraction`, { reason: "never happened" })
      for (const moment of [reported.json.knownAt, reported.json.knownAtPosition]) {
        const again = yield* get(`/events?category=nav&knownAt=${moment}`)
        assert.deepStrictEqual(again.json, reported.json)
      }
      assert.deepStrictEqual([pricesOf(reported), yield* ask("category=nav")], [[95, 7], [96]])
      assert.deepStrictEqual(yield* ask("category=nav&knownAt=-infinity"), [])
      const empty = yield* get("/events?knownAt=0")
      assert.deepStrictEqual([empty.json.eventCount, empty.json.knownAt, empty.json.knownAtPosition], [0, null, "0"])
    }))

  it.effect("corrections of a period are found by when they were recorded and by what they are about", () =>
    Effect.gen(function*() {
      const january = yield* append("trade-1", 1, { validFrom: day(1), validTo: day(10) })
      const later = yield* append("trade-1", 2, { validFrom: day(20), validTo: day(25) })
      const first = yield* correct(january.eventId, 10)
      const second = yield* correct(later.eventId, 20)
      const audit = Effect.fnUntraced(function*(query: string, from: string, to: string) {
        const { json } = yield* get(`/events?streamId=trade-1&revisions=all&${query}&knownAt=${to}`)
        return json.events.filter(({ recordedAt, revision }: Any) => revision > 0 && recordedAt >= from)
          .map(({ eventId }: Any) => eventId)
      })
      const all = [first.eventId, second.eventId]
      assert.deepStrictEqual(yield* audit("", first.recordedAt, second.recordedAt), all)
      assert.deepStrictEqual(yield* audit("", first.recordedAt, first.recordedAt), [first.eventId])
      assert.deepStrictEqual(yield* audit("", january.recordedAt, later.recordedAt), [])
      assert.deepStrictEqual(yield* audit(`validAt=${day(22)}`, first.recordedAt, second.recordedAt), [second.eventId])
      assert.deepStrictEqual(yield* audit(`validAt=${day(15)}`, first.recordedAt, second.recordedAt), [])
    }))

  it.effect("a tree is rebuilt by what caused what", () =>
    Effect.gen(function*() {
      const root = yield* append("tree-1", 0)
      for (const n of [1, 2]) {
        const child = yield* append(`tree-${n}`, n, { causationId: root.eventId, correlationId: root.correlationId })
        yield* append(`tree-${n}`, n * 10, { causationId: child.eventId, correlationId: root.correlationId })
      }
      type Answered = ReturnType<typeof get>
      type Tree = ReadonlyArray<readonly [price: number, effects: Tree]>
      const effects = (id: string): Effect.Effect<Tree, Effect.Error<Answered>, Effect.Services<Answered>> =>
        Effect.flatMap(get(`/events?causationId=${id}`), ({ json }) =>
          Effect.forEach(json.events as ReadonlyArray<Any>, (event) =>
            Effect.map(effects(event.eventId), (tree) =>
              [event.eventData.price, tree] as const)))
      assert.deepStrictEqual(yield* effects(root.eventId), [[1, [[10, []]]], [2, [[20, []]]]])
      assert.deepStrictEqual(yield* ask(`correlationId=${root.correlationId}`), [0, 1, 10, 2, 20])
    }))

  it.effect("250 events are met once each, page by page, for the moment of the first page", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const stream = Fact.streamId("page", "1")
      const numbers = Array.from({ length: 250 }, (_, n) => n)
      // Validity runs against recording, and many begin at the same moment.
      yield* store.append({
        facts: numbers.map((price) => ({
          stream,
          type: "price.set",
          data: { price },
          validFrom: Timestamp.fromMillis(1_000_000 - Math.floor(price / 4))
        }))
      })
      const first = yield* get("/events?category=page&limit=100&sort=validity")
      yield* append("page-2", -1, { validFrom: "1970-01-01T00:16:39.980Z" })
      const pages = yield* walk(`/events?category=page&limit=100&sort=validity&knownAt=${first.json.knownAt}`)
      const byValidity = numbers.toSorted((a, b) => Math.floor(b / 4) - Math.floor(a / 4) || a - b)
      assert.deepStrictEqual([pages.map((page) => page.length), pages.flat()], [[100, 100, 50], byValidity])
      const rest = yield* get(`/events?category=page&limit=100&sort=validity&cursor=${first.json.nextCursor}`)
      assert.deepStrictEqual(pricesOf(rest), byValidity.slice(100, 200))
      const back = yield* walk("/events?streamId=page-1&limit=99&sort=validity,desc")
      assert.deepStrictEqual(back.flat(), byValidity.toReversed())
      assert.deepStrictEqual((yield* walk("/events?streamId=page-1&limit=500")).flat(), numbers)
    }))

  it.effect("an offset skips what a cursor would have read, and tells whether there is more", () =>
    Effect.gen(function*() {
      for (const n of [1, 2, 3, 4, 5]) yield* append("offset-1", n, { eventType: n === 3 ? "other" : "price.set" })
      const page = Effect.fnUntraced(function*(query: string) {
        const answer = yield* get(`/events?streamId=offset-1&eventType=price.set&${query}`)
        return [pricesOf(answer), answer.json.eventCount, answer.json.hasMore]
      })
      assert.deepStrictEqual(yield* page("limit=2&offset=0"), [[1, 2], 2, true])
      assert.deepStrictEqual(yield* page("limit=2&offset=1"), [[2, 4], 2, true])
      assert.deepStrictEqual(yield* page("limit=2&offset=2"), [[4, 5], 2, false])
      assert.deepStrictEqual(yield* page("limit=2&offset=3"), [[5], 1, false])
      assert.deepStrictEqual(yield* page("limit=2&offset=4"), [[], 0, false])
      assert.deepStrictEqual(yield* page("limit=2&offset=10000"), [[], 0, false])
      assert.deepStrictEqual(yield* page("limit=2&offset=1&sort=position,desc"), [[4, 2], 2, true])

      const counted = yield* get("/events?streamId=offset-1&eventType=price.set&limit=2&total=true")
      assert.deepStrictEqual(counted.json.totalCount, { value: "4", exact: true, asOf: counted.json.knownAt })
      assert.isUndefined((yield* get("/events?streamId=offset-1")).json.totalCount)
    }))

  it.effect("a difference says whether the world moved, we learned, or both", () =>
    Effect.gen(function*() {
      const oslo = yield* append("home-1", 1, { validFrom: day(1), validTo: day(10) })
      const bergen = yield* append("home-1", 2, { validFrom: day(10) })
      const corrected = yield* correct(oslo.eventId, 10)
      const compare = Effect.fnUntraced(function*(a: string, b: string) {
        const { json, status, text } = yield* get(`/streams/home-1/diff?a=${a}&b=${b}`)
        assert.strictEqual(status, 200, text)
        assert.strictEqual(json.differenceCount, json.differences.length)
        return json.differences.map(({ after, before, eventId, weLearned, worldMoved }: Any) => [
          eventId,
          before?.eventData.price ?? null,
          after?.eventData.price ?? null,
          worldMoved,
          weLearned
        ])
      })
      assert.deepStrictEqual(yield* compare(`${day(5)},${bergen.position}`, `${day(12)},${bergen.position}`), [
        [oslo.eventId, 1, null, true, false],
        [bergen.eventId, null, 2, true, false]
      ])
      assert.deepStrictEqual(yield* compare(`${day(5)},${bergen.recordedAt}`, `${day(5)},now`), [
        [oslo.eventId, 1, 10, false, true]
      ])
      assert.deepStrictEqual(yield* compare(`${day(5)},${oslo.position}`, `${day(12)},now`), [
        [oslo.eventId, 1, null, true, true],
        [bergen.eventId, null, 2, true, true]
      ])
      const still = yield* get("/streams/home-1/diff?a=now,now&b=now,now")
      assert.deepStrictEqual(still.json.differences, [])
      assert.isTrue(still.json.a.validAt === still.json.b.validAt && still.json.a.knownAtPosition >= corrected.position)
      assert.strictEqual((yield* get("/streams/home-1/diff?a=now,now&b=now,now", keys.other)).status, 404)
      assert.strictEqual((yield* get("/streams/home-9/diff?a=now,now&b=now,now")).status, 404)
    }))

  it.effect("the typed client asks with values", () =>
    Effect.gen(function*() {
      const { url } = yield* TestServer
      const { eventStores } = yield* Client.make({ baseUrl: url, apiKey: Redacted.make(keys.corrector) })
      const place = { setup: "default", store: "default" }
      const streamId = Fact.streamId("client", "1")
      const first = yield* append(streamId, 1, { metadata: { till: 3 } })
      const revised = yield* eventStores.correct({
        params: { ...place, id: first.eventId },
        headers: {},
        payload: { eventData: { price: 2 }, correctionReason: "typing error", validTo: null }
      })
      const list = yield* eventStores.log({
        params: place,
        headers: {},
        query: {
          streamId,
          eventType: ["price.*", "price"],
          metadata: { till: 3 },
          knownAt: { position: revised.headers["strata-position"] },
          sort: "validity,desc"
        }
      })
      assert.deepStrictEqual(list.events.map(({ eventData }) => eventData), [{ price: 2 }])
      const diff = yield* eventStores.diff({
        params: { ...place, id: streamId },
        headers: {},
        query: { a: { knownAt: { time: revised.body.recordedAt } }, b: {} }
      })
      assert.deepStrictEqual([diff.differences, diff.a.knownAt], [[], revised.body.recordedAt])
    }))

  it.effect("a question that cannot be answered names its parameter", () =>
    Effect.gen(function*() {
      const { eventId } = yield* append("wrong-1", 1)
      const cases = [
        ["/events?knownAt=2999-01-01T00:00:00Z", "knownAt"],
        ["/events?knownAt=infinity", "knownAt"],
        ["/events?knownAt=999999999", "knownAt"],
        ["/events?knownAt=9223372036854775808", "knownAt"],
        ["/events?knownAt=yesterday", "knownAt"],
        ["/events?knownAt=", "knownAt"],
        ["/events?validAt=2026-01-01", "validAt"],
        [`/events?fromTime=${day(2)}&toTime=${day(1)}`, "toTime"],
        [`/events?from=${day(1)}&to=${day(1)}`, "to"],
        [`/events?validAt=${day(1)}&fromTime=${day(1)}`, "fromTime"],
        ["/events?minVersion=3&maxVersion=2", "maxVersion"],
        ["/events?minVersion=0", "minVersion"],
        ["/events?eventType=", "eventType[0]"],
        ["/events?eventType=a,,b", "eventType[0]"],
        ["/events?eventType=a&eventType=App%5CPaid", "eventType[1]"],
        ["/events?eventType=a%5C", "eventType[0]"],
        ["/events?streamId=nocategory", "streamId"],
        ["/events?correlationId=%00", "correlationId"],
        ["/events?metadata=region", "metadata"],
        ["/events?metadata=[1]", "metadata"],
        ["/events?metadata={}", "metadata"],
        ["/events?metadata={%22a%22:%22%5Cu0000%22}", "metadata"],
        [`/events?metadata={${Array.from({ length: 17 }, (_, n) => `%22${n}%22:1`).join()}}`, "metadata"],
        ["/events?sort=name", "sort"],
        ["/events?revisions=some", "revisions"],
        ["/events?limit=501", "limit"],
        ["/events?limit=0", "limit"],
        ["/events?cursor=nonsense", "cursor"],
        ["/events?offset=-1", "offset"],
        ["/events?offset=10001", "offset"],
        ["/events?offset=1&cursor=abc", "offset"],
        [`/events/${eventId}/at`, "transactionTime"],
        [`/events/${eventId}/at?transactionTime=2999-01-01T00:00:00Z`, "transactionTime"],
        [`/events/${eventId}/at?knownAt=2999-01-01T00:00:00Z`, "knownAt"],
        [`/events/${eventId}/at?transactionTime=noon`, "transactionTime"],
        [`/events/${eventId}/versions?cursor=x`, "cursor"],
        ["/streams/wrong-1/diff?a=now,now", "b"],
        ["/streams/wrong-1/diff?a=now&b=now,now", "a"],
        ["/streams/wrong-1/diff?a=now,now,now&b=now,now", "a"],
        ["/streams/wrong-1/diff?a=5,now&b=now,now", "a"],
        ["/streams/wrong-1/diff?a=now,now&b=now,999999999", "b"],
        ["/streams/wrong-1/diff?a=now,2999-01-01T00:00:00Z&b=now,now", "a"]
      ] as const
      for (const [path, parameter] of cases) {
        const answer = yield* get(path)
        assert.strictEqual(answer.status, 400, `${path} ${answer.text}`)
        assert.include(answer.json.errors.map((error: Any) => error.path), `query.${parameter}`, path)
      }
    }))

  it.effect("times at and beyond the ends of what can be kept are no defects", () =>
    Effect.gen(function*() {
      for (const time of ["infinity", "-infinity", "%2B999999-01-01T00:00:00Z", "-009999-01-01T00:00:00Z"]) {
        for (const name of ["validAt", "fromTime", "toTime", "knownAt"]) {
          const { status, text } = yield* get(`/events?${name}=${time}`)
          assert.isTrue(status === 200 || status === 400, `${name} ${time} ${text}`)
        }
      }
    }))

  it.effect("a tenant's question meets nothing of another tenant", () =>
    Effect.gen(function*() {
      yield* append("theirs-1", 1)
      for (const query of ["", "?revisions=all", "?streamId=theirs-1", "?offset=1", "?eventType=*.*&sort=validity"]) {
        const answer = yield* get(`/events${query}`, keys.other)
        assert.deepStrictEqual([answer.status, answer.json.events], [200, []])
      }
    }))
})
