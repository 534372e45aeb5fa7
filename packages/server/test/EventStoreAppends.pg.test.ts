import { assert, layer } from "@effect/vitest"
import { EventStore } from "@strata/event-store/EventStore"
import * as Effect from "effect/Effect"
import { keys, layerServer, TestServer } from "./testServer.ts"

const s = "/api/v1/eventstores/default/default"
const unknown = "018f2c5e-0000-7000-8000-00000000dead"

// oxlint-disable-next-line typescript/no-explicit-any -- answers of any shape
type Any = any

const get = Effect.fnUntraced(function*(path: string, key: string = keys.viewer) {
  const { send } = yield* TestServer
  return yield* send("GET", `${s}${path}`, { key })
})
const post = Effect.fnUntraced(function*(path: string, body: unknown, key: string = keys.operator, once?: string) {
  const { send } = yield* TestServer
  return yield* send("POST", `${s}${path}`, { key, body, ...(once && { headers: { "idempotency-key": once } }) })
})
const event = (streamId: string, n: number, fields: object = {}) => ({
  streamId,
  eventType: "counted",
  eventData: { n },
  ...fields
})
const batch = (events: ReadonlyArray<unknown>, fields: object = {}) => post("/events/batch", { events, ...fields })
const versionOf = Effect.fnUntraced(function*(streamId: string) {
  const { json, status } = yield* get(`/streams/${streamId}`)
  return status === 404 ? 0 : json.events.at(-1).version
})
const head = Effect.flatMap(EventStore, (store) => store.head)

layer(layerServer(), { excludeTestServices: true })("appends over HTTP", (it) => {
  it.effect("a batch is written over its streams, in the order given and without anything between", () =>
    Effect.gen(function*() {
      const written = yield* batch([
        event("acc-1", 1, { correlationId: "transfer", metadata: { source: "till" } }),
        { aggregateId: "acc-2", eventType: "counted", payload: null, validFrom: "2026-01-01T00:00:00Z" },
        event("acc-1", 3)
      ])
      assert.strictEqual(written.status, 201, written.text)
      const { duplicate, eventCount, events } = written.json
      assert.deepStrictEqual([eventCount, duplicate], [3, false])
      assert.deepStrictEqual(events.map(({ eventData, streamId, version }: Any) => [streamId, version, eventData]), [
        ["acc-1", 1, { n: 1 }],
        ["acc-2", 1, null],
        ["acc-1", 2, { n: 3 }]
      ])
      const positions = events.map(({ position }: Any) => Number(position))
      assert.deepStrictEqual(positions, [positions[0], positions[0] + 1, positions[0] + 2])
      assert.strictEqual(written.headers["strata-position"], events[2].position)
      assert.deepStrictEqual([events[0].actor, events[0].metadata, events[1].validFrom], [
        "olga",
        { source: "till" },
        "2026-01-01T00:00:00.000000Z"
      ])
      const read = yield* get(`/events/${events[1].eventId}?minPosition=${written.headers["strata-position"]}`)
      assert.deepStrictEqual(read.json, events[1])
    }))

  it.effect("one stream at another version refuses the whole batch, and tells that version", () =>
    Effect.gen(function*() {
      yield* batch([event("ver-1", 1), event("ver-1", 2)])
      const refusals = [
        yield* batch([event("ver-2", 1), event("ver-1", 3, { expectedVersion: 1 })]),
        yield* batch([event("ver-2", 1)], { expectedVersions: { "ver-1": "noStream" } }),
        yield* batch([event("ver-2", 1), event("ver-1", 3)], { expectedVersions: { "ver-2": 0, "ver-1": 1 } })
      ]
      assert.deepStrictEqual(refusals.map(({ json, status }) => [status, json.actualVersion]), [[409, 2], [409, 2], [
        409,
        2
      ]])
      assert.strictEqual(yield* versionOf("ver-2"), 0)
      const fit = yield* batch(
        [event("ver-2", 1, { expectedVersion: 0 }), event("ver-1", 3), event("ver-2", 2, { expectedVersion: 0 })],
        { expectedVersions: { "ver-1": 2, "ver-9": "noStream" } }
      )
      assert.strictEqual(fit.status, 201, fit.text)
      assert.deepStrictEqual([yield* versionOf("ver-1"), yield* versionOf("ver-2")], [3, 2])
    }))

  it.effect("a batch sent again under its event ids is stored once; some of its ids alone are a conflict", () =>
    Effect.gen(function*() {
      const ids = [1, 2, 3].map((n) => `018f2c5e-0000-7000-8000-0000000001${String(n).padStart(2, "0")}`)
      const events = ids.map((eventId, n) => event(`dup-${n % 2}`, n, { eventId }))
      const first = yield* batch(events)
      const again = yield* batch(events)
      assert.deepStrictEqual([first.status, again.status, again.json.duplicate], [201, 200, true])
      assert.deepStrictEqual(again.json.events, first.json.events)
      assert.strictEqual((yield* batch([...events, event("dup-1", 4)])).status, 409)
      assert.strictEqual((yield* batch(events.slice(0, 2).toReversed())).status, 409)
      assert.strictEqual((yield* batch([events[0], { ...events[1], eventData: 0 }, events[2]])).status, 409)
    }))

  it.effect("a key gives a batch's first answer, whole, and is free for no other request", () =>
    Effect.gen(function*() {
      const body = { events: [event("key-1", 1), event("key-2", 2)] }
      const first = yield* post("/events/batch", body, keys.operator, "a batch of two")
      const before = yield* head
      const second = yield* post("/events/batch", body, keys.operator, "a batch of two")
      assert.deepStrictEqual([second.status, second.text, second.headers["strata-position"]], [
        201,
        first.text,
        first.headers["strata-position"]
      ])
      assert.strictEqual(yield* head, before)
      const others = [
        yield* post("/events/batch", { events: [event("key-1", 1)] }, keys.operator, "a batch of two"),
        yield* post("/events", body.events[0], keys.operator, "a batch of two"),
        yield* post("/events/batch", body, keys.admin, "a batch of two")
      ]
      assert.deepStrictEqual(others.map(({ json, status }) => [status, json.rule]), [
        [422, "IdempotencyKeyReused"],
        [422, "IdempotencyKeyReused"],
        [422, "IdempotencyKeyReused"]
      ])
    }))

  it.effect("a key that a revision was made under is free for no append", () =>
    Effect.gen(function*() {
      const first = yield* post("/events", event("key-3", 1))
      const path = `/events/${first.json.eventId}/retraction`
      const revised = yield* post(path, { reason: "r" }, keys.corrector, "a revision first")
      assert.strictEqual(revised.status, 201, revised.text)
      for (const [path, body] of [["/events", event("key-3", 2)], ["/events/batch", { events: [event("key-3", 2)] }]]) {
        const answer = yield* post(path as string, body, keys.operator, "a revision first")
        assert.deepStrictEqual([answer.status, answer.json.rule], [422, "IdempotencyKeyReused"])
      }
    }))

  it.effect("a condition refuses what was decided before an event that it forbids, and names the first of them", () =>
    Effect.gen(function*() {
      const seen = yield* post("/events", event("dcb-1", 1))
      const afterPosition = seen.json.position
      const since = yield* post(
        "/events",
        event("dcb-2", 2, {
          eventType: "seat.taken",
          correlationId: "c-dcb",
          causationId: "k-dcb",
          metadata: { seat: 7, row: "a" }
        })
      )
      yield* post("/events", event("dcb-2", 3, { eventType: "seat.taken", correlationId: "c-dcb" }))
      const decide = (noneOf: ReadonlyArray<unknown>, after = afterPosition) =>
        post("/events", event("dcb-3", 1, { condition: { afterPosition: after, noneOf } }))
      const forbidding = [
        { eventType: "seat.taken" },
        { eventTypes: ["other", "seat.*"] },
        { streamId: "dcb-2" },
        { aggregateId: "dcb-2", eventType: "seat.taken" },
        { category: "dcb" },
        { correlationId: "c-dcb" },
        { causationId: "k-dcb" },
        { metadata: { seat: 7 } }
      ]
      for (const filter of forbidding) {
        const answer = yield* decide([{ eventType: "never" }, filter])
        assert.deepStrictEqual([answer.status, answer.json.blockingPosition], [409, since.json.position], answer.text)
      }
      const both = { condition: { afterPosition, noneOf: [forbidding[0]] } }
      const inBatch = yield* batch([event("dcb-3", 1), event("dcb-4", 1)], both)
      assert.deepStrictEqual([inBatch.status, inBatch.json.blockingPosition], [409, since.json.position])
      assert.strictEqual(yield* versionOf("dcb-3"), 0)
      for (const filter of [{ metadata: { seat: 8 } }, { eventType: "seat.taken", streamId: "dcb-1" }]) {
        assert.strictEqual((yield* decide([filter])).status, 201)
      }
      assert.strictEqual((yield* decide([{ correlationId: "c-dcb" }], String(yield* head))).status, 201)
      // What another tenant records forbids nothing.
      yield* post("/events", event("dcb-theirs", 1, { eventType: "dcb.theirs" }), keys.other)
      assert.strictEqual((yield* decide([{ eventType: "dcb.theirs" }])).status, 201)
    }))

  it.effect("tenants write to streams of the same name without meeting", () =>
    Effect.gen(function*() {
      yield* post("/events", event("same-1", 1))
      const theirs = yield* post(
        "/events/batch",
        { events: [event("same-1", 2, { expectedVersion: 0 })], expectedVersions: { "same-2": "noStream" } },
        keys.other
      )
      assert.deepStrictEqual([theirs.status, theirs.json.events[0].version], [201, 1])
      const mine = yield* get("/streams/same-1")
      assert.deepStrictEqual(mine.json.events.map(({ eventData }: Any) => eventData), [{ n: 1 }])
    }))

  it.effect("two names for one value may both be given, and must say the same", () =>
    Effect.gen(function*() {
      const same = event("alias-1", 1, { aggregateId: "alias-1", payload: { n: 1 } })
      const afterPosition = "0"
      const both = [{ streamId: "alias-2", aggregateId: "alias-2" }]
      const written = yield* post("/events", { ...same, condition: { afterPosition, noneOf: both } })
      assert.strictEqual(written.status, 201, written.text)
      const nulls = yield* batch([{ ...same, eventData: null, payload: null }])
      assert.deepStrictEqual([nulls.status, nulls.json.events[0].eventData], [201, null])
      const cases = [
        ["/events", { ...same, aggregateId: "alias-2" }, "aggregateId"],
        ["/events", { ...same, payload: { n: 2 } }, "payload"],
        ["/events", { ...same, eventData: null }, "payload"],
        ["/events/batch", { events: [same, { ...same, payload: [1] }] }, "events[1].payload"],
        [
          "/events",
          { ...same, condition: { afterPosition, noneOf: [...both, { streamId: "a-1", aggregateId: "a-2" }] } },
          "condition.noneOf[1].aggregateId"
        ]
      ] as const
      for (const [path, body, field] of cases) {
        const { json, status, text } = yield* post(path, body)
        assert.deepStrictEqual([status, json.errors?.map(({ path }: Any) => path)], [400, [`body.${field}`]], text)
      }
      assert.strictEqual(yield* versionOf("alias-1"), 2)
    }))

  it.effect("a type may have an asterisk in a segment, and none as a segment", () =>
    Effect.gen(function*() {
      for (const eventType of ["*", "*.paid", "order.*", "order.*.paid", "a\nb.*.c"]) {
        const one = yield* post("/events", event("star-1", 1, { eventType }))
        const many = yield* batch([event("star-1", 1, { eventType })])
        assert.deepStrictEqual([one.status, one.json.errors?.[0].path], [400, "body.eventType"], eventType)
        assert.deepStrictEqual([many.status, many.json.errors?.[0].path], [400, "body.events[0].eventType"], eventType)
      }
      const none = yield* post("/events/batch", { events: [] })
      assert.deepStrictEqual([none.status, none.json.errors.map(({ path }: Any) => path)], [400, ["body.events"]])
      for (const eventType of ["*a", "order.**", "a*.b"]) {
        assert.strictEqual((yield* post("/events", event("star-1", 1, { eventType }))).status, 201, eventType)
      }
      assert.strictEqual((yield* get("/events?streamId=star-1&eventType=order.**")).json.eventCount, 1)
    }))

  it.effect("what is wrong is refused with its place, and nothing is written", () =>
    Effect.gen(function*() {
      const good = event("bad-1", 1)
      const before = yield* head
      const cases: ReadonlyArray<readonly [body: object, path: string]> = [
        [{ events: [good, good, good, { ...good, eventType: "" }] }, "body.events[3].eventType"],
        [{ events: [good, { ...good, streamId: "nocategory" }] }, "body.events[1].streamId"],
        [{ events: [good, { eventType: "counted", eventData: 1 }] }, "body.events[1].streamId"],
        [{ events: [good, { streamId: "bad-1", eventType: "counted" }] }, "body.events[1].eventData"],
        [{ events: [good, { ...good, eventData: ["\0"] }] }, "body.events[1].eventData"],
        [{ events: [{ ...good, eventId: unknown }, { ...good, eventId: unknown }] }, "body.events[1].eventId"],
        [
          { events: [good, { ...good, validFrom: "2026-01-02T00:00:00Z", validTo: "2026-01-01T00:00:00Z" }] },
          "body.events[1].validTo"
        ],
        [
          { events: [{ ...good, validTo: "2999-01-01T00:00:00Z" }, { ...good, validTo: "1999-01-01T00:00:00Z" }] },
          "body.events[1].validTo"
        ],
        [
          { events: [{ ...good, expectedVersion: 1 }, { ...good, expectedVersion: 2 }] },
          "body.events[1].expectedVersion"
        ],
        [
          { events: [{ ...good, expectedVersion: 1 }], expectedVersions: { "bad-1": 2 } },
          "body.events[0].expectedVersion"
        ],
        [{ events: [good], expectedVersions: { nocategory: 1 } }, "body.expectedVersions.nocategory"],
        [{ events: [good], expectedVersions: { "bad-1": -1 } }, "body.expectedVersions.bad-1"],
        [{ events: [] }, "body.events"],
        [{}, "body.events"],
        [{ events: Array.from({ length: 1001 }, () => good) }, "body.events"],
        [{ events: [good], condition: { afterPosition: "0", noneOf: [] } }, "body.condition.noneOf"],
        [{ events: [good], condition: { afterPosition: "0", noneOf: [{}] } }, "body.condition.noneOf[0]"],
        [
          { events: [good], condition: { afterPosition: "x", noneOf: [{ category: "a" }] } },
          "body.condition.afterPosition"
        ]
      ]
      for (const [body, path] of cases) {
        const answer = yield* post("/events/batch", body)
        assert.strictEqual(answer.status, 400, answer.text)
        assert.include(answer.json.errors.map((error: Any) => error.path).join(), path)
      }
      const single = yield* post("/events", { ...good, condition: { afterPosition: "0", noneOf: [{}] } })
      assert.deepStrictEqual([single.status, single.json.errors[0].path], [400, "body.condition.noneOf[0]"])
      const early = yield* post("/events", { ...good, validTo: "1999-01-01T00:00:00Z" })
      assert.deepStrictEqual([early.status, early.json.errors[0].path], [400, "body.validTo"])
      const reserved = yield* batch([good, { ...good, eventType: "MessageSent" }])
      assert.deepStrictEqual([reserved.status, reserved.json.rule], [422, "ReservedEvent"])
      assert.strictEqual((yield* post("/events/batch", { events: [good] }, keys.viewer)).status, 403)
      assert.strictEqual((yield* post("/events/batch", { events: [good] }, keys.corrector)).status, 403)
      assert.strictEqual(yield* head, before)
    }))
})
