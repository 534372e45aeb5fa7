import { assert, layer } from "@effect/vitest"
import { EventStore } from "@strata/event-store/EventStore"
import { streamId } from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type Answer, conversation, keys, layerServer, TestServer } from "./testServer.ts"

const s = "/api/v1/eventstores/default/default"
const unknown = "018f2c5e-0000-7000-8000-00000000dead"

// oxlint-disable-next-line typescript/no-explicit-any -- answers of any shape
type Any = any

const get = Effect.fnUntraced(function*(path: string, key: string = keys.viewer) {
  const { send } = yield* TestServer
  return yield* send("GET", `${s}${path}`, { key })
})
const post = Effect.fnUntraced(function*(path: string, body: unknown, key: string = keys.admin, once?: string) {
  const { send } = yield* TestServer
  return yield* send("POST", `${s}${path}`, { key, body, ...(once && { headers: { "idempotency-key": once } }) })
})
/** A price of a stream of its own, and what its answer says. */
const append = Effect.fnUntraced(function*(streamId: string, price: number, fields: object = {}) {
  const answer = yield* post("/events", { streamId, eventType: "price.set", eventData: { price }, ...fields })
  assert.strictEqual(answer.status, 201, answer.text)
  return answer.json
})
const correct = Effect.fnUntraced(function*(id: string, price: number, fields: object = {}) {
  const answer = yield* post(`/events/${id}/corrections`, {
    eventData: { price },
    correctionReason: "typing error",
    ...fields
  }, keys.corrector)
  assert.strictEqual(answer.status, 201, answer.text)
  return answer.json
})
const retract = (id: string) => post(`/events/${id}/retraction`, { reason: "never happened" }, keys.corrector)
/** The least that a revision of each kind says. */
const revisions = Object.entries({ corrections: { eventData: 2, reason: "r" }, retraction: { reason: "r" } })
const prices = (answer: Answer) => answer.json.events.map((event: Any) => event.eventData.price)
const revisionsOf = (answer: Answer) => answer.json.events.map((event: Any) => event.revision)
const head = Effect.flatMap(EventStore, (store) => store.head)

layer(layerServer(), { excludeTestServices: true })("revisions over HTTP", (it) => {
  it.effect("an event corrected twice has the same three versions from its root, its middle and its leaf", () =>
    Effect.gen(function*() {
      const root = yield* append("price-1", 1)
      const middle = yield* correct(root.eventId, 2)
      const leaf = yield* correct(root.eventId, 3)
      for (const { eventId } of [root, middle, leaf]) {
        const answer = yield* get(`/events/${eventId}/versions`)
        assert.deepStrictEqual([prices(answer), revisionsOf(answer)], [[1, 2, 3], [0, 1, 2]])
        assert.deepStrictEqual([answer.json.eventCount, answer.json.hasMore], [3, false])
      }
    }))

  it.effect("a chain of ten corrections, each of the one before, is read whole and page by page", () =>
    Effect.gen(function*() {
      const root = yield* append("price-2", 0)
      let last = root
      let middle = root
      for (let n = 1; n <= 10; n++) {
        last = yield* correct(last.eventId, n)
        if (n === 5) middle = last
      }
      const whole = yield* get(`/events/${middle.eventId}/versions`)
      assert.deepStrictEqual(revisionsOf(whole), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
      const positions = whole.json.events.map(({ position }: Any) => Number(position))
      assert.deepStrictEqual(positions, positions.toSorted((a: number, b: number) => a - b))
      const first = yield* get(`/events/${middle.eventId}/versions?limit=8`)
      const rest = yield* get(`/events/${middle.eventId}/versions?limit=8&cursor=${first.json.nextCursor}`)
      assert.deepStrictEqual([...prices(first), ...prices(rest), rest.json.nextCursor], [...prices(whole), null])
    }))

  it.effect("corrections that come at once make one chain, and one addressed to the middle goes to its end", () =>
    Effect.gen(function*() {
      const root = yield* append("price-3", 0)
      const made = yield* Effect.all(Array.from({ length: 8 }, (_, n) => correct(root.eventId, n + 1)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(made.map(({ revision }) => revision).toSorted(), [1, 2, 3, 4, 5, 6, 7, 8])
      const late = yield* correct(made[3]!.eventId, 99)
      assert.deepStrictEqual([late.revision, late.revises], [9, root.eventId])
      assert.deepStrictEqual(prices(yield* get("/events?streamId=price-3")), [99])
    }))

  it.effect("as known before, at, between and after two recorded times: not yet, first, first, second", () =>
    Effect.gen(function*() {
      const first = yield* append("price-4", 95)
      const second = yield* correct(first.eventId, 96)
      const at = (time: string) => get(`/events/${first.eventId}/at?transactionTime=${time}`)
      const early = yield* at(shift(first.recordedAt, -1n))
      assert.deepStrictEqual([early.status, early.json.reason], [404, "notYetKnown"])
      for (
        const [time, event] of [
          [first.recordedAt, first],
          [shift(second.recordedAt, -1n), first],
          [second.transactionTime, second],
          [first.position, first],
          [second.position, second]
        ]
      ) {
        const answer = yield* at(time)
        assert.deepStrictEqual({ ...answer.json, duplicate: false }, event)
      }
      const gone = (yield* retract(first.eventId)).json
      assert.deepStrictEqual((yield* at(second.recordedAt)).json.eventData, { price: 96 })
      const retracted = yield* at(gone.recordedAt)
      assert.deepStrictEqual([retracted.status, retracted.json.reason], [404, "retracted"])
      assert.include(retracted.json.detail, gone.eventId)
    }))

  it.effect("two chains of one stream do not touch each other", () =>
    Effect.gen(function*() {
      const a = yield* append("price-5", 1)
      const b = yield* append("price-5", 10)
      const before = yield* get(`/events/${b.eventId}/versions`)
      const corrected = yield* correct(a.eventId, 2)
      assert.strictEqual(corrected.revision, 1)
      assert.deepStrictEqual((yield* get(`/events/${b.eventId}/versions`)).json.events, before.json.events)
      const at = yield* get(`/events/${b.eventId}/at?knownAt=${corrected.position}`)
      assert.deepStrictEqual(at.json.eventData, { price: 10 })
      assert.strictEqual((yield* correct(b.eventId, 11)).revision, 1)
    }))

  it.effect("a correction keeps the row it corrects, and inherits what it does not give", () =>
    Effect.gen(function*() {
      const fields = {
        validFrom: "2026-01-01T00:00:00Z",
        validTo: "2026-02-01T00:00:00Z",
        correlationId: "request 7",
        causationId: "import",
        metadata: { source: "till" }
      }
      const first = yield* append("price-6", 1, fields)
      const kept = (yield* get(`/events/${first.eventId}`)).text
      const second = yield* correct(first.eventId, 2)
      const { causationId, correlationId, metadata, validFrom, validTo } = second
      assert.deepStrictEqual(
        { causationId, correlationId, metadata, validFrom, validTo },
        { ...fields, validFrom: first.validFrom, validTo: first.validTo }
      )
      const { actor, aggregateId, eventType, reason, retracted, revises, version } = second
      assert.deepStrictEqual([actor, aggregateId, eventType, reason, retracted, revises, version], [
        "cora",
        "price-6",
        "price.set",
        "typing error",
        false,
        first.eventId,
        2
      ])
      const changes = { validTo: null, metadata: { audit: true }, causationId: "audit", correlationId: "request 8" }
      const third = yield* correct(first.eventId, 3, changes)
      assert.deepStrictEqual(
        [third.validFrom, third.validTo, third.metadata, third.causationId, third.correlationId],
        [first.validFrom, null, { audit: true }, "audit", "request 8"]
      )
      assert.strictEqual((yield* get(`/events/${first.eventId}`)).text, kept)
    }))

  it.effect("content may be null, and validity alone may be corrected", () =>
    Effect.gen(function*() {
      const first = yield* append("price-7", 1)
      const answer = yield* post(`/events/${first.eventId}/corrections`, { payload: null, reason: "unknown after all" })
      assert.deepStrictEqual([answer.status, answer.json.eventData], [201, null])
      const moved = yield* post(`/events/${first.eventId}/corrections`, {
        validFrom: "2026-01-01T00:00:00Z",
        reason: "r"
      })
      assert.deepStrictEqual([moved.status, moved.json.eventData, moved.json.validFrom], [
        201,
        null,
        "2026-01-01T00:00:00.000000Z"
      ])
    }))

  it.effect("a retraction hides an event until it is retracted itself", () =>
    Effect.gen(function*() {
      const first = yield* append("price-8", 1)
      const retraction = yield* retract(first.eventId)
      assert.deepStrictEqual([retraction.status, retraction.json.retracted, retraction.json.reason], [
        201,
        true,
        "never happened"
      ])
      assert.strictEqual(retraction.headers["strata-position"], retraction.json.position)
      assert.deepStrictEqual(prices(yield* get("/events?streamId=price-8")), [])
      assert.deepStrictEqual(prices(yield* get("/events?streamId=price-8&revisions=all")), [1, 1])
      assert.strictEqual((yield* get(`/events/${first.eventId}`)).status, 200)
      for (
        const refused of [
          yield* retract(first.eventId),
          yield* post(`/events/${first.eventId}/corrections`, { eventData: 2, reason: "r" })
        ]
      ) assert.deepStrictEqual([refused.status, refused.json.retraction], [409, retraction.json.eventId])
      const restored = yield* retract(retraction.json.eventId)
      assert.deepStrictEqual([restored.status, restored.json.retracted], [201, false])
      assert.deepStrictEqual(prices(yield* get("/events?streamId=price-8")), [1])
      const late = yield* retract(retraction.json.eventId)
      assert.deepStrictEqual([late.status, late.json.actualRevision], [409, 2], late.text)
      assert.deepStrictEqual(prices(yield* get("/events?streamId=price-8")), [1])
    }))

  it.effect("a correction says of which version its data is, and otherwise keeps the one before", () =>
    Effect.gen(function*() {
      const first = yield* append("price-15", 1)
      const versions = [undefined, 2, undefined]
      const made = yield* Effect.forEach(versions, (schemaVersion) => correct(first.eventId, 2, { schemaVersion }))
      assert.deepStrictEqual(made.map(({ schemaVersion }: Any) => schemaVersion), [1, 2, 2])
      const none = yield* post(`/events/${first.eventId}/corrections`, { eventData: 1, reason: "r", schemaVersion: 0 })
      assert.deepStrictEqual([none.status, none.json.errors[0].path], [400, "body.schemaVersion"], none.text)
    }))

  it.effect("an expected revision that is not the last is a conflict that tells the actual one", () =>
    Effect.gen(function*() {
      const first = yield* append("price-9", 1)
      yield* correct(first.eventId, 2, { expectedRevision: 0 })
      for (const [path, body] of revisions) {
        const late = yield* post(`/events/${first.eventId}/${path}`, { ...body, expectedRevision: 0 })
        assert.deepStrictEqual([late.status, late.json.actualRevision], [409, 1], late.text)
      }
    }))

  it.effect("what is not a revision is refused with its place, and nothing is stored", () =>
    Effect.gen(function*() {
      const first = yield* append("price-10", 1, { validFrom: "2026-01-05T00:00:00Z", validTo: "2026-01-09T00:00:00Z" })
      const before = yield* head
      const reason = "r"
      const cases: ReadonlyArray<readonly [path: string, body: unknown, status: number, at: string | undefined]> = [
        ["corrections", { eventData: 1 }, 400, "body.correctionReason"],
        ["corrections", { eventData: 1, reason: " " }, 400, "body.reason"],
        ["corrections", { eventData: 1, correctionReason: "\n" }, 400, "body.correctionReason"],
        ["corrections", { eventData: 1, correctionReason: "" }, 400, "body.correctionReason"],
        ["corrections", { correctionReason: reason }, 400, "body.eventData"],
        ["corrections", { eventData: 1, reason, correctionReason: "another" }, 400, "body.correctionReason"],
        ["corrections", { eventData: 1, payload: 2, reason }, 400, "body.payload"],
        ["corrections", { eventData: ["\0"], reason }, 400, "body.eventData"],
        ["corrections", { reason, validTo: "2026-01-05T00:00:00Z" }, 400, "body.validTo"],
        ["corrections", { reason, validFrom: "2026-01-09T00:00:00Z" }, 400, "body.validTo"],
        [
          "corrections",
          { reason, validFrom: "2026-01-03T00:00:00Z", validTo: "2026-01-02T00:00:00Z" },
          400,
          "body.validTo"
        ],
        ["corrections", { reason, validFrom: "infinity" }, 400, "body.validFrom"],
        ["corrections", { reason, validFrom: "yesterday" }, 400, "body.validFrom"],
        ["corrections", { eventData: 1, reason, eventId: "x" }, 400, "body.eventId"],
        ["corrections", { eventData: 1, reason, expectedRevision: -1 }, 400, "body.expectedRevision"],
        ["corrections", { eventData: 1, reason, metadata: [] }, 400, "body.metadata"],
        ["corrections", { eventData: 1, reason, eventId: first.eventId }, 409, undefined],
        ["retraction", {}, 400, "body.reason"],
        ["retraction", { reason: "  " }, 400, "body.reason"]
      ]
      for (const [path, body, status, at] of cases) {
        const answer = yield* post(`/events/${first.eventId}/${path}`, body)
        assert.strictEqual(answer.status, status, answer.text)
        if (at !== undefined) assert.include(answer.json.errors.map((error: Any) => error.path), at, answer.text)
      }
      for (const [path, body] of revisions) {
        const answer = yield* post(`/events/${unknown}/${path}`, body)
        assert.deepStrictEqual([answer.status, answer.json.reason], [404, "unknown"])
        assert.strictEqual((yield* post(`/events/nothing/${path}`, body)).status, 400)
      }
      for (const path of ["", "/versions", "/at?transactionTime=1"]) {
        assert.strictEqual((yield* get(`/events/${unknown}${path}`)).status, 404)
      }
      assert.strictEqual(yield* head, before)
    }))

  it.effect("only a corrector revises, only what is theirs, and nothing of the messaging application or the store", () =>
    Effect.gen(function*() {
      const { send } = yield* TestServer
      const first = yield* append("price-11", 1)
      yield* send("POST", "/api/v1/conversations", { body: conversation("c") })
      const [message] = (yield* get("/events?streamId=conversation-c")).json.events
      const { streams } = yield* EventStore
      yield* streams.setMetadata(streamId("price", "11"), { currency: "EUR" }, { actor: "ada", reason: "r" })
      const [said] = (yield* get("/events?streamId=$stream-price-11")).json.events
      for (const [path, body] of revisions) {
        for (const key of [keys.operator, keys.viewer, keys.other]) {
          assert.strictEqual((yield* post(`/events/${first.eventId}/${path}`, body, key)).status, 403)
        }
        const theirs = yield* post(`/events/${first.eventId}/${path}`, body, keys.otherCorrector)
        assert.deepStrictEqual([theirs.status, theirs.json.detail], [404, `There is no event ${first.eventId}`])
        for (const { eventId } of [message, said]) {
          const reserved = yield* post(`/events/${eventId}/${path}`, body)
          assert.deepStrictEqual([reserved.status, reserved.json.rule], [422, "ReservedEvent"])
        }
      }
      for (
        const path of [`/events/${first.eventId}/versions`, `/events/${first.eventId}/at?knownAt=${first.position}`]
      ) {
        assert.strictEqual((yield* get(path, keys.other)).status, 404)
      }
      assert.strictEqual(
        (yield* post("/events", { streamId: "price-11", eventType: "x", eventData: 1 }, keys.corrector)).status,
        403
      )
    }))

  it.effect("a revision is stored once under its id", () =>
    Effect.gen(function*() {
      const first = yield* append("price-12", 1)
      const body = { eventData: { price: 2 }, reason: "r", eventId: "018f2c5e-0000-7000-8000-00000000000c" }
      const made = yield* post(`/events/${first.eventId}/corrections`, body)
      const again = yield* post(`/events/${first.eventId}/corrections`, body)
      assert.deepStrictEqual([made.status, again.status, again.json.duplicate], [201, 200, true])
      assert.deepStrictEqual({ ...again.json, duplicate: false }, made.json)
      const taken = yield* post(`/events/${first.eventId}/corrections`, { ...body, eventData: { price: 3 } })
      assert.strictEqual(taken.status, 409)
    }))

  it.effect("a key gives the first answer, whole, and takes no other request", () =>
    Effect.gen(function*() {
      const first = yield* append("price-13", 1)
      const other = yield* append("price-13", 5)
      const path = `/events/${first.eventId}/corrections`
      const body = { eventData: { price: 2 }, correctionReason: "r", expectedRevision: 0 }
      const made = yield* post(path, body, keys.corrector, "a correction")
      assert.deepStrictEqual([made.status, made.json.duplicate], [201, false])
      yield* correct(first.eventId, 3)
      const again = yield* post(path, body, keys.corrector, "a correction")
      assert.deepStrictEqual([again.status, again.text], [201, made.text])
      const gone = yield* post(`/events/${first.eventId}/retraction`, { reason: "r" }, keys.corrector, "a retraction")
      const twice = yield* post(`/events/${first.eventId}/retraction`, { reason: "r" }, keys.corrector, "a retraction")
      assert.deepStrictEqual([twice.status, twice.text], [201, gone.text])
      for (
        const [at, changed, key] of [
          [path, { ...body, eventData: { price: 4 } }, keys.corrector],
          [path, { ...body, correctionReason: "another" }, keys.corrector],
          [path, { ...body, metadata: { a: 1 } }, keys.corrector],
          [path, { ...body, correlationId: "another" }, keys.corrector],
          [path, { ...body, validTo: "2999-01-01T00:00:00Z" }, keys.corrector],
          [path, { ...body, expectedRevision: 1 }, keys.corrector],
          [path, body, keys.admin],
          [`/events/${other.eventId}/corrections`, { ...body, expectedRevision: 0 }, keys.corrector],
          [`/events/${first.eventId}/retraction`, { reason: "r" }, keys.corrector]
        ] as const
      ) {
        const answer = yield* post(at, changed, key, "a correction")
        assert.deepStrictEqual([answer.status, answer.json.rule], [422, "IdempotencyKeyReused"], answer.text)
      }
      const both = yield* post(path, { ...body, eventId: unknown }, keys.corrector, "another key")
      assert.deepStrictEqual([both.status, both.json.errors[0].path], [400, "body.eventId"])
      const appended = { streamId: "price-13", eventType: "price.set", eventData: 1 }
      yield* post("/events", appended, keys.admin, "an append first")
      assert.strictEqual((yield* post(path, body, keys.admin, "an append first")).status, 422)
      // A request that failed keeps nothing: its key is free.
      const late = yield* post(
        `/events/${other.eventId}/corrections`,
        { ...body, expectedRevision: 9 },
        keys.corrector,
        "too late"
      )
      const fit = yield* post(`/events/${other.eventId}/corrections`, body, keys.corrector, "too late")
      assert.deepStrictEqual([late.status, fit.status], [409, 201])
    }))

  it.effect("the same keyed correction sent many times at once happens once", () =>
    Effect.gen(function*() {
      const first = yield* append("price-14", 1)
      const before = yield* head
      const body = { eventData: { price: 2 }, reason: "r" }
      const answers = yield* Effect.all(
        Array.from({ length: 8 }, () =>
          post(`/events/${first.eventId}/corrections`, body, keys.corrector, "all at once")),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(
        new Set(answers.map(({ status, text }) =>
          `${status} ${text}`
        )).size,
        1
      )
      assert.deepStrictEqual([answers[0]!.status, (yield* head) - before], [201, 1n])
    }))
})

/** A recorded time some microseconds later. */
const shift = (time: string, micros: bigint): string =>
  Timestamp.format(Timestamp.fromMicros(Option.getOrThrow(Timestamp.parse(time)) + micros))
