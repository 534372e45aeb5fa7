import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type Answer, conversation, keys, layerServer, TestServer } from "./testServer.ts"

const s = "/api/v1/eventstores/default/default"
const opened = (streamId: string) => ({ streamId, eventType: "Opened", eventData: { owner: "Ada", cents: 7 } })

layer(layerServer(), { excludeTestServices: true })("the event store over HTTP", (it) => {
  it.effect("an event is appended once under its id, and read back under all its names", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const body = {
        aggregateId: "account-1",
        eventType: "Opened",
        payload: { owner: "Ada" },
        validFrom: "2026-01-31T10:00:00.123456Z",
        correlationId: "request 7",
        metadata: { source: "test" },
        expectedVersion: 0,
        eventId: "018f2c5e-0000-7000-8000-000000000001"
      }
      const written = yield* send("POST", `${s}/events`, { body, key: keys.operator })
      assert.strictEqual(written.status, 201, written.text)
      const event = written.json
      assert.strictEqual(written.headers["strata-position"], event.position)
      assert.strictEqual(event.duplicate, false)
      assert.deepStrictEqual([event.id, event.aggregateId, event.transactionTime], [
        event.eventId,
        event.streamId,
        event.recordedAt
      ])
      assert.deepStrictEqual([event.version, event.revision, event.retracted, event.revises], [1, 0, false, null])
      assert.deepStrictEqual([event.validFrom, event.validTo], ["2026-01-31T10:00:00.123456Z", null])
      assert.deepStrictEqual([event.actor, event.correlationId, event.metadata], ["olga", "request 7", {
        source: "test"
      }])
      const again = yield* send("POST", `${s}/events`, { body, key: keys.operator })
      assert.deepStrictEqual([again.status, again.json.duplicate, again.json.position], [200, true, event.position])
      const read = yield* send("GET", `${s}/events/${event.eventId}?minPosition=${event.position}`, {
        key: keys.viewer
      })
      assert.deepStrictEqual({ ...read.json, duplicate: false }, event)
    }))

  it.effect("a conflict tells the actual version, and an id that is taken is a conflict", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const first = yield* send("POST", `${s}/events`, { body: opened("account-2") })
      const late = yield* send("POST", `${s}/events`, { body: { ...opened("account-2"), expectedVersion: 5 } })
      assert.deepStrictEqual([late.status, late.json.actualVersion], [409, 1])
      const none = yield* send("POST", `${s}/events`, { body: { ...opened("account-2"), expectedVersion: "noStream" } })
      assert.deepStrictEqual([none.status, none.json.actualVersion], [409, 1])
      const taken = yield* send("POST", `${s}/events`, {
        body: { ...opened("account-2"), eventData: 1, eventId: first.json.eventId }
      })
      assert.strictEqual(taken.status, 409)
    }))

  it.effect("a key gives the first answer, whole", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const asked = { body: opened("account-3"), headers: { "idempotency-key": "an append" } }
      const first = yield* send("POST", `${s}/events`, asked)
      const second = yield* send("POST", `${s}/events`, asked)
      assert.deepStrictEqual([second.status, second.text], [201, first.text])
      assert.strictEqual(first.json.version, 1)
    }))

  it.effect("streams are read in both directions, page by page", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      for (const n of [1, 2, 3, 4, 5]) {
        yield* send("POST", `${s}/events`, { body: { ...opened("account-4"), eventData: n } })
      }
      const walk = Effect.fnUntraced(function*(path: string) {
        const pages: Array<ReadonlyArray<unknown>> = []
        let cursor: string | null = ""
        while (cursor !== null) {
          const { json }: Answer = yield* send("GET", `${path}${cursor === "" ? "" : `&cursor=${cursor}`}`)
          assert.strictEqual(json.eventCount, json.events.length)
          assert.strictEqual(json.hasMore, json.nextCursor !== null)
          assert.isTrue(json.events.every(({ recordedAt }: { recordedAt: string }) => recordedAt <= json.knownAt))
          pages.push(json.events.map(({ eventData }: { eventData: unknown }) => eventData))
          cursor = json.nextCursor
        }
        return pages
      })
      assert.deepStrictEqual(yield* walk(`${s}/streams/account-4?limit=2`), [[1, 2], [3, 4], [5]])
      assert.deepStrictEqual(yield* walk(`${s}/streams/account-4?limit=2&direction=backwards`), [[5, 4], [3, 2], [1]])
    }))

  it.effect("every row of the log is read in the order recorded", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const all = yield* send("GET", `${s}/events?revisions=all&limit=500`)
      const positions = all.json.events.map(({ position }: { position: string }) => Number(position))
      assert.deepStrictEqual(positions, positions.map((_: number, index: number) => index + 1))
      assert.strictEqual(all.json.knownAtPosition, String(positions.length))
    }))

  it.effect("a tenant reads and writes nothing of another", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const mine = yield* send("POST", `${s}/events`, { body: opened("account-5") })
      const other = { key: keys.other }
      assert.strictEqual((yield* send("GET", `${s}/events/${mine.json.eventId}`, other)).status, 404)
      assert.strictEqual((yield* send("GET", `${s}/streams/account-5`, other)).status, 404)
      assert.strictEqual((yield* send("GET", `${s}/events`, other)).json.eventCount, 0)
      const theirs = yield* send("POST", `${s}/events`, {
        ...other,
        body: { ...opened("account-5"), expectedVersion: 0 }
      })
      assert.deepStrictEqual([theirs.status, theirs.json.version], [201, 1])
      const ofMine = yield* send("GET", `${s}/streams/account-5`)
      assert.deepStrictEqual(ofMine.json.events.map(({ eventId }: { eventId: string }) => eventId), [mine.json.eventId])
    }))

  it.effect("what is wrong is refused with its place", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      yield* send("POST", "/api/v1/conversations", { body: conversation("c") })
      const cases = [
        [{ ...opened("account-6"), streamId: "account" }, 400],
        [{ ...opened("account-6"), eventId: "nothing" }, 400],
        [{ ...opened("account-6"), eventType: "" }, 400],
        [{ ...opened("account-6"), eventData: ["\0"] }, 400],
        [{ ...opened("account-6"), expectedVersion: -1 }, 400],
        [{ ...opened("account-6"), validFrom: "2026-01-02T00:00:00Z", validTo: "2026-01-01T00:00:00Z" }, 400],
        [{ ...opened("account-6"), validFrom: "infinity" }, 400],
        [{ ...opened("account-6"), validFrom: "-infinity", validTo: "-infinity" }, 400],
        [{ ...opened("account-6"), validTo: "+294277-01-01T00:00:00Z" }, 400],
        [{ eventType: "Opened", eventData: 1 }, 400],
        [{ streamId: "account-6", eventType: "Opened" }, 400],
        [{ ...opened("account-6"), eventType: "MessageSent" }, 422],
        [opened("conversation-c"), 422],
        [opened("$stream-account-6"), 422],
        [{ ...opened("account-6"), eventType: "$stream.archived" }, 422]
      ] as const
      for (const [body, status] of cases) {
        const answer = yield* send("POST", `${s}/events`, { body })
        assert.strictEqual(answer.status, status, answer.text)
        if (status === 400) assert.isTrue(answer.json.errors.length > 0, answer.text)
      }
      for (const path of ["/api/v1/eventstores/default/none/events", "/api/v1/eventstores/none/default/events"]) {
        assert.strictEqual((yield* send("GET", path)).status, 404)
      }
      assert.strictEqual((yield* send("GET", `${s}/events?cursor=x`)).status, 400)
      assert.strictEqual((yield* send("GET", `${s}/streams/account-1?cursor=0`)).status, 400)
      assert.strictEqual((yield* send("GET", `${s}/events?minPosition=99999`)).status, 503)
    }))
})
