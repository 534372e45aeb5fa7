/**
 * What every event store does on two time axes, whatever it is made of.
 */
import type * as Vitest from "@effect/vitest"
import { assert } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { Append, EventStore, EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { FactQuery, KnownAt } from "@strata/event-store/FactQuery"
import { type Correction, FactRetracted, RevisionConflict } from "@strata/event-store/Revision"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { account, correct, day, id, other, price, prices, reason, retract } from "./priceList.ts"

type Store = EventStore["Service"]

const CursorParts = Schema.fromJsonString(Schema.Record(Schema.String, Schema.Json))
const decodeParts = Schema.decodeEffect(CursorParts)
const encodeParts = Schema.encodeSync(CursorParts)
const ask = (store: Store, query: FactQuery) => Effect.map(store.read(query), ({ facts }) => prices(facts))

/** Declares the contract's tests. `open` gives an empty store at each call. */
export const bitemporalContract = <R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<Store, EventStoreError, R | Scope.Scope>
) => {
  it.effect("insert, correct in the past, correct in the future, retract, correct again: the whole grid", () =>
    Effect.gen(function*() {
      const store = yield* open
      // What happens, one position after the other.
      yield* store.append({ facts: [price(100, { eventId: id(1), validFrom: day(10), validTo: day(20) })] })
      yield* store.revise(correct(id(1), { data: { price: 110 }, validFrom: day(5) }))
      yield* store.revise(correct(id(1), { data: { price: 120 }, validTo: day(30) }))
      const retracted = yield* store.revise(retract(id(1)))
      yield* store.append({ facts: [price(130, { eventId: id(2), validFrom: day(8), validTo: day(12) })] })
      yield* store.revise(correct(id(2), { validTo: day(25) }))
      yield* store.revise(retract(retracted.eventId))

      // Rows: known at position 1 to 7. Columns: valid on day 4, 6, 9, 15, 22, 28, 35.
      const days = [4, 6, 9, 15, 22, 28, 35]
      const grid = yield* Effect.forEach(
        Array.range(1, 7),
        (position) =>
          Effect.forEach(
            days,
            (n) => ask(store, { knownAt: { position: Fact.Position.make(BigInt(position)) }, validAt: day(n) })
          )
      )
      deepStrictEqual(grid, [
        [[], [], [], [100], [], [], []],
        [[], [110], [110], [110], [], [], []],
        [[], [120], [120], [120], [120], [120], []],
        [[], [], [], [], [], [], []],
        [[], [], [130], [], [], [], []],
        [[], [], [130], [130], [130], [], []],
        [[], [120], [130, 120], [130, 120], [130, 120], [120], []]
      ])
    }))

  it.effect("several streams are read as they were up to a position, of any tenants, revisions among them, in log order", () =>
    Effect.gen(function*() {
      const store = yield* open
      const as = (tenant: string) => Effect.provideService(CurrentTenant, tenant)
      yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      yield* store.append({ facts: [price(2, { eventId: id(2) })] }).pipe(as("other tenant"))
      yield* store.append({ facts: [{ ...price(3, { eventId: id(3) }), stream: other }] })
      yield* store.append({ facts: [{ ...price(4, { eventId: id(4) }), stream: Fact.streamId("price", "unasked") }] })
      yield* store.revise(correct(id(1), { data: { price: 5 } }))
      yield* store.append({ facts: [price(6, { eventId: id(6) })] })
      const stream = account
      const streams = [
        { tenant: "default", stream },
        { tenant: "default", stream: other },
        { tenant: "other tenant", stream },
        { tenant: "nobody", stream }
      ]
      const facts = yield* store.readStreams({ streams, upTo: Fact.Position.make(5n) })
      deepStrictEqual(
        facts.map(({ position, revision, stream, tenant }) => [Number(position), tenant, stream, revision]),
        [[1, "default", stream, 0], [2, "other tenant", stream, 0], [3, "default", other, 0], [5, "default", stream, 1]]
      )
      deepStrictEqual(yield* store.readStreams({ streams: [], upTo: Fact.Position.make(6n) }), [])
    }))

  it.effect("revisions form one chain, whichever member names it, and keep what they do not change", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({
        facts: [
          price(1, {
            eventId: id(1),
            metadata: { source: "a" },
            validFrom: day(1),
            correlationId: "c",
            causationId: "x"
          })
        ],
        actor: "bob"
      })
      yield* store.append({ facts: [price(9, { eventId: id(9) })] })
      const first = yield* store.revise(correct(id(1), { data: { price: 2 } }))
      const second = yield* store.revise(correct(id(1), { data: { price: 3 } }))
      const third = yield* store.revise(correct(first.eventId, { validTo: day(2) }))
      deepStrictEqual(
        [first, second, third].map((
          { position, revises, revision, version }
        ) => [revises, revision, version, position]),
        [[id(1), 1, 3, 3n], [id(1), 2, 4, 4n], [id(1), 3, 5, 5n]]
      )
      for (const member of [id(1), second.eventId, third.eventId]) {
        const history = yield* store.history(member)
        deepStrictEqual(prices(history), [1, 2, 3, 3])
        deepStrictEqual(history.map((fact) => fact.revision), [0, 1, 2, 3])
      }
      const last = (yield* store.history(id(1)))[3]!
      deepStrictEqual(
        [
          last.validFrom,
          last.validTo,
          last.metadata,
          last.correlationId,
          last.causationId,
          last.actor,
          last.reason,
          last.origin
        ],
        [day(1), day(2), { source: "a" }, "c", "x", "ada", "typing error", Fact.Position.make(1n)]
      )
      deepStrictEqual(prices(yield* store.history(id(9))), [9])
      deepStrictEqual(yield* store.history(id(77)), [])
    }))

  it.effect("corrections that come at once make one chain without a fork", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(0, { eventId: id(1) })] })
      const revised = yield* Effect.forEach(
        Array.range(1, 10),
        (n) => store.revise(correct(id(1), { data: { price: n } })),
        { concurrency: "unbounded" }
      )
      deepStrictEqual(revised.map(({ revision }) => revision).toSorted((a, b) => a - b), Array.range(1, 10))
      deepStrictEqual((yield* store.history(id(1))).length, 11)
      deepStrictEqual((yield* store.read({})).facts.length, 1)
    }))

  it.effect("a retraction hides the fact, and retracting the retraction restores it", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      yield* store.revise(correct(id(1), { data: { price: 2 } }))
      const retraction = yield* store.revise(retract(id(1)))
      deepStrictEqual([retraction.retracted, yield* ask(store, {})], [true, []])
      const again = yield* reason(store.revise(retract(id(1))))
      deepStrictEqual(again._tag === "FactRetracted" ? again.retraction : again._tag, retraction.eventId)
      deepStrictEqual((yield* reason(store.revise(correct(id(1), { data: 1 }))))._tag, "FactRetracted")
      const restored = yield* store.revise(retract(retraction.eventId))
      deepStrictEqual([restored.retracted, yield* ask(store, {})], [false, [2]])
      deepStrictEqual(yield* ask(store, { revisions: "all" }), [1, 2, 2, 2])
    }))

  it.effect("a retraction is retracted once: whoever comes later, the fact stays restored", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      const retraction = yield* store.revise(retract(id(1)))
      const undo = store.revise(retract(retraction.eventId))
      const late = (actual: number, expected = 1) =>
        new RevisionConflict({ eventId: retraction.eventId, expected, actual })
      const undone = yield* Effect.all(Array.makeBy(8, () => Effect.result(undo)), { concurrency: "unbounded" })
      const [won, lost] = Array.partition(undone, (answer) => answer)
      deepStrictEqual(won.map(({ retracted, revision }) => [retracted, revision]), [[false, 2]])
      deepStrictEqual(lost.map((error) => error.reason), Array.makeBy(7, () => late(2)))
      deepStrictEqual([yield* ask(store, {}), yield* store.head], [[1], 3n])
      // Whatever came after it, a correction or another retraction.
      yield* store.revise(correct(retraction.eventId, { data: { price: 2 } }))
      deepStrictEqual(yield* reason(undo), late(3))
      deepStrictEqual([yield* ask(store, {}), yield* store.head], [[2], 4n])
      const { eventId, position } = yield* store.revise(retract(id(1)))
      const elsewhere = new FactRetracted({ eventId: retraction.eventId, retraction: eventId, position })
      deepStrictEqual(yield* reason(undo), elsewhere)
      deepStrictEqual((yield* store.revise(retract(eventId))).retracted, false)
      const expecting = (expectedRevision: number) =>
        reason(store.revise({ ...retract(retraction.eventId), expectedRevision }))
      deepStrictEqual(yield* expecting(4), late(5, 4))
      deepStrictEqual(yield* expecting(5), late(5))
      // An ordinary member names the chain: its end is retracted.
      deepStrictEqual((yield* store.revise(retract(id(1)))).retracted, true)
      deepStrictEqual(yield* ask(store, {}), [])
    }))

  it.effect("what the store itself says is neither corrected nor retracted", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1)] })
      yield* store.streams.setState(account, "archived", { actor: "ada", reason: "audit", eventId: id(2) })
      for (const revision of [retract(id(2)), correct(id(2), { data: 1 }), correct(id(2), { validTo: day(99_999) })]) {
        const refused = yield* reason(store.revise(revision))
        deepStrictEqual(refused._tag === "InvalidAppend" ? refused.path : refused._tag, "revises")
      }
      deepStrictEqual((yield* store.history(id(2))).length, 1)
      deepStrictEqual(yield* store.head, 2n)
    }))

  it.effect("a revision that cannot be is refused by name and changes nothing", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1), validFrom: day(5), validTo: day(9) })] })
      const path = (changes: Partial<Correction>) =>
        Effect.map(
          reason(store.revise(correct(id(1), changes))),
          (reason) => reason._tag === "InvalidAppend" ? reason.path : reason._tag
        )
      deepStrictEqual(yield* path({}), "data")
      deepStrictEqual(yield* path({ data: 1, reason: " " }), "reason")
      deepStrictEqual(yield* path({ data: 1, actor: "" }), "actor")
      deepStrictEqual(yield* path({ data: 1, schemaVersion: 0 }), "schemaVersion")
      deepStrictEqual(yield* path({ validTo: day(5) }), "validTo")
      deepStrictEqual(yield* path({ validFrom: day(9) }), "validTo")
      deepStrictEqual(yield* path({ validFrom: day(3), validTo: day(2) }), "validTo")
      deepStrictEqual(yield* path({ data: 1, metadata: { bad: "\0" } }), "metadata")
      deepStrictEqual(yield* path({ data: 1 }).pipe(Effect.provideService(CurrentTenant, "acme")), "UnknownFact")
      deepStrictEqual(yield* path({ data: 1, type: "Other" }), "type")
      deepStrictEqual(yield* path({ data: 1, type: "" }), "type")
      deepStrictEqual(yield* path({ data: 1, expectedRevision: 1 }), "RevisionConflict")
      deepStrictEqual((yield* reason(store.revise(correct(id(2), { data: 1 }))))._tag, "UnknownFact")
      deepStrictEqual(yield* store.head, 1n)
    }))

  it.effect("a correction that says of which type the fact is corrects one of that type, however often it is sent", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { type } = price(1)
      yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      const correction = correct(id(1), { eventId: id(2), data: 2, type })
      yield* store.revise(correction)
      deepStrictEqual((yield* store.revise(correction)).duplicate, true)
      deepStrictEqual((yield* reason(store.revise({ ...correction, type: "Other" })))._tag, "EventIdTaken")
      deepStrictEqual(yield* store.head, 2n)
    }))

  it.effect("a period that would end before its recording is refused by name, and writes nothing", () =>
    Effect.gen(function*() {
      const store = yield* open
      const refused = yield* reason(store.append({ facts: [price(1), price(2, { validTo: day(-1) })] }))
      deepStrictEqual(refused._tag === "InvalidAppend" ? refused.path : refused._tag, "facts[1].validTo")
      deepStrictEqual(yield* store.head, Fact.beginning)
    }))

  it.effect("a period that would end before its recording is told of an append that nothing else speaks against", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1) }), price(1, { stream: other })] })
      yield* store.streams.setState(other, "archived", { actor: "ada", reason: "audit" })
      const impossible = price(2, { validTo: day(-1) })
      const refused = (append: Append) => Effect.map(reason(store.append(append)), ({ _tag }) => _tag)
      for (const more of [[], [price(3)]]) {
        deepStrictEqual(yield* refused({ facts: [impossible, ...more] }), "InvalidAppend")
        deepStrictEqual(yield* refused({ facts: [impossible, ...more], expect: { [account]: 9 } }), "VersionConflict")
        deepStrictEqual(yield* refused({ facts: [{ ...impossible, stream: other }, ...more] }), "StreamClosed")
        deepStrictEqual(yield* refused({ facts: [{ ...impossible, eventId: id(1) }, ...more] }), "EventIdTaken")
        const fresh = { ...impossible, stream: Fact.streamId("account", "fresh") }
        deepStrictEqual(yield* refused({ facts: [fresh, ...more] }), "InvalidAppend")
        deepStrictEqual(yield* store.streams.get(fresh.stream), Option.none())
      }
      deepStrictEqual(yield* store.head, 3n)
    }))

  it.effect("a revision sent again is answered with the first result, another under its id is refused", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      const first = yield* store.revise(correct(id(1), { data: { price: 2 }, eventId: id(2) }))
      yield* store.revise(correct(id(1), { data: { price: 3 } }))
      const again = yield* store.revise(correct(id(1), { data: { price: 2 }, eventId: id(2) }))
      deepStrictEqual(again, { ...first, duplicate: true })
      const taken = yield* reason(store.revise(correct(id(1), { data: { price: 4 }, eventId: id(2) })))
      deepStrictEqual(taken._tag, "EventIdTaken")
      deepStrictEqual((yield* reason(store.revise(correct(id(1), { data: 1, eventId: id(1) }))))._tag, "EventIdTaken")
      deepStrictEqual(yield* store.head, 3n)
    }))

  it.effect("a read known at a moment stays the same whatever is learned later", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { recordedAt: before } = yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      const { recordedAt: between } = yield* store.append({ facts: [price(2, { eventId: id(2) })] })
      const moments: ReadonlyArray<KnownAt> = [
        { time: Timestamp.fromMicros(before - 1n) },
        { time: before },
        { time: Timestamp.fromMicros(between - 1n) },
        { time: between },
        { position: Fact.Position.make(1n) }
      ]
      const answers = Effect.forEach(moments, (knownAt) => ask(store, { knownAt }))
      const first = yield* answers
      deepStrictEqual(first, [[], [1], [1], [1, 2], [1]])
      yield* store.revise(correct(id(1), { data: { price: 10 } }))
      yield* store.revise(retract(id(2)))
      deepStrictEqual(yield* answers, first)
      deepStrictEqual(yield* ask(store, {}), [10])
    }))

  it.effect("what was asked about is never written to afterwards, and the future is refused", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { recordedAt } = yield* store.append({ facts: [price(1)] })
      const moment = { time: Timestamp.fromMicros(recordedAt + 1n) }
      // The moment may just be passing: it is asked about until it has.
      const answer = yield* ask(store, { knownAt: moment }).pipe(Effect.retry({ times: 1000 }), Effect.option)
      if (answer._tag === "Some") {
        const later = yield* store.append({ facts: [price(2)] })
        assert.isTrue(later.recordedAt > moment.time)
        deepStrictEqual(yield* ask(store, { knownAt: moment }), answer.value)
      }
      const future = yield* reason(store.read({ knownAt: { time: Timestamp.fromMicros(recordedAt + 3_600_000_000n) } }))
      deepStrictEqual(future._tag === "InvalidQuery" ? future.path : future._tag, "knownAt")
      const beyond = yield* reason(store.read({ knownAt: { position: Fact.Position.make(99n) } }))
      deepStrictEqual(beyond._tag === "InvalidQuery" ? beyond.path : beyond._tag, "knownAt")
    }))

  it.effect("every filter looks at the believed revision, and all of them combine", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({
        facts: [
          price(1, { eventId: id(1), type: "order.item.paid", correlationId: "c1", metadata: { region: "eu", n: 1 } }),
          price(2, { type: "order.paid", causationId: "x", metadata: { region: "us" } }),
          price(3, { stream: other, type: "order.item.sent", correlationId: "c1" }),
          price(4, { stream: Fact.streamId("accounts", "1"), type: "order_paid", validFrom: day(-7), validTo: day(-6) })
        ]
      })
      const acme = Effect.provideService(CurrentTenant, "acme")
      yield* acme(store.append({ facts: [price(5, { stream: other })] }))
      yield* store.revise(correct(id(1), { data: { price: 10 } }))
      deepStrictEqual(yield* ask(store, { stream: account }), [2, 10])
      deepStrictEqual(yield* ask(store, { category: "account" }), [2, 3, 10])
      deepStrictEqual(yield* ask(store, { types: ["order.*"] }), [2])
      deepStrictEqual(yield* ask(store, { types: ["order.*.*"] }), [3, 10])
      deepStrictEqual(yield* ask(store, { types: ["*.item.sent", "order_paid"] }), [3, 4])
      deepStrictEqual(yield* ask(store, { correlationId: "c1" }), [3, 10])
      deepStrictEqual(yield* ask(store, { causationId: "x" }), [2])
      deepStrictEqual(yield* ask(store, { metadata: { region: "eu" } }), [10])
      deepStrictEqual(yield* ask(store, { metadata: { region: "eu", n: 2 } }), [])
      deepStrictEqual(yield* acme(ask(store, {})), [5])
      deepStrictEqual(yield* ask(store, { stream: account, versions: { from: 2 } }), [2, 10])
      deepStrictEqual(yield* ask(store, { stream: account, versions: { to: 2 } }), [2])
      deepStrictEqual(yield* ask(store, { validDuring: { from: day(-9), to: day(-7) } }), [])
      deepStrictEqual(yield* ask(store, { validDuring: { from: day(-9), to: day(-6) } }), [4])
      deepStrictEqual(yield* ask(store, { correlationId: "c1", types: ["order.item.paid"], category: "account" }), [10])
    }))

  it.effect("pages in either order and direction meet every fact once, for the moment of the first page", () =>
    Effect.gen(function*() {
      const store = yield* open
      // Validity runs against recording, with equal beginnings among them.
      const facts = Array.makeBy(23, (n) => price(n, { eventId: id(n + 1), validFrom: day(100 - Math.floor(n / 2)) }))
      yield* store.append({ facts })
      const expected = {
        position: Array.makeBy(23, (n) => n),
        validity: [22, 20, 21, 18, 19, 16, 17, 14, 15, 12, 13, 10, 11, 8, 9, 6, 7, 4, 5, 2, 3, 0, 1]
      }
      for (const orderBy of ["position", "validity"] as const) {
        for (const direction of ["forwards", "backwards"] as const) {
          const seen: Array<number> = []
          let cursor: string | undefined
          do {
            const page = yield* store.read({ orderBy, direction, limit: 5, cursor })
            seen.push(...prices(page.facts))
            cursor = page.next ?? undefined
            if (seen.length === 5) yield* store.append({ facts: [price(99, { validFrom: day(50) })] })
          } while (cursor !== undefined)
          const wanted = direction === "forwards" ? expected[orderBy] : expected[orderBy].toReversed()
          deepStrictEqual(seen.filter((n) => n !== 99), wanted)
        }
      }
      const first = yield* store.read({ limit: 5 })
      deepStrictEqual((yield* reason(store.read({ cursor: "nonsense" })))._tag, "InvalidQuery")
      deepStrictEqual((yield* reason(store.read({ limit: 0 })))._tag, "InvalidQuery")
      deepStrictEqual((yield* reason(store.read({ validDuring: { from: day(2), to: day(2) } })))._tag, "InvalidQuery")
      assert.isNotNull(first.next)
    }))

  it.effect("a cursor belongs to its question and knows no more than the log", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: Array.makeBy(9, (n) => price(n, { metadata: { n: n % 2 } })) })
      const asked = { limit: 2, metadata: { n: 1 }, revisions: "all" } as const
      const { next } = yield* store.read(asked)
      const cursor = next ?? ""
      deepStrictEqual((yield* store.read({ ...asked, limit: 5, cursor })).facts.map(({ version }) => version), [6, 8])
      const others: ReadonlyArray<FactQuery> = [
        { ...asked, metadata: { n: 0 } },
        { ...asked, revisions: "belief" },
        { ...asked, orderBy: "validity" },
        { ...asked, direction: "backwards" },
        { ...asked, validAt: day(1) },
        { ...asked, knownAt: { position: Fact.Position.make(5n) } }
      ]
      for (const other of others) {
        const refused = yield* reason(store.read({ ...other, cursor }))
        deepStrictEqual(["path" in refused && refused.path, refused.message], ["cursor", "belongs to another question"])
      }
      // Made up: from a longer log, from nowhere, from behind what is known.
      const text = Option.getOrThrow(Option.getSuccess(Base64Url.decodeString(cursor)))
      const parts = yield* decodeParts(text)
      const made = (changes: { readonly [key: string]: Schema.Json }) =>
        Base64Url.encode(encodeParts({ ...parts, ...changes }))
      for (
        const changes of [
          { known: "10" },
          { known: "9000000000000000000" },
          { known: "99999999999999999999999" },
          { known: "5", position: "99999999999999999999999" },
          { known: "5", position: "6" },
          { position: "0" },
          { position: "-1" }
        ]
      ) {
        const refused = yield* reason(store.read({ ...asked, cursor: made(changes) }))
        deepStrictEqual(["path" in refused && refused.path, refused.message], ["cursor", "not a cursor of this store"])
      }
    }))

  it.effect("a cursor whose position somebody made up goes on after that position, also where it is another stream's", () =>
    Effect.gen(function*() {
      const store = yield* open
      const [one, two] = [Fact.streamId("account", "1"), Fact.streamId("account", "2")]
      // The one has every other position.
      for (let n = 0; n < 4; n++) {
        yield* store.append({ facts: [price(n, { stream: two }), price(n, { stream: one })] })
      }
      for (const direction of ["forwards", "backwards"] as const) {
        const asked = { stream: one, limit: 1, direction } as const
        const { next } = yield* store.read(asked)
        const parts = yield* decodeParts(Option.getOrThrow(Option.getSuccess(Base64Url.decodeString(next ?? ""))))
        for (const position of [1, 2, 3, 5, 6, 7]) {
          const cursor = Base64Url.encode(encodeParts({ ...parts, position: String(position) }))
          const { facts } = yield* store.read({ ...asked, limit: 9, cursor })
          const others = [2, 4, 6, 8].filter((each) => direction === "forwards" ? each > position : each < position)
          deepStrictEqual(
            facts.map((fact) => Number(fact.position)),
            direction === "forwards" ? others : others.toReversed()
          )
        }
      }
    }))

  it.effect("a cursor belongs to its stream, its store and its tenant", () =>
    Effect.gen(function*() {
      const store = yield* open
      const another = yield* open
      const acme = Effect.provideService(CurrentTenant, "acme")
      // These two have one 32-bit hash.
      const [one, two] = [Fact.streamId("account", "73648"), Fact.streamId("account", "86013")]
      const facts = [one, two].flatMap((stream) => Array.makeBy(5, (n) => price(n, { stream })))
      yield* store.append({ facts })
      yield* another.append({ facts })
      yield* acme(store.append({ facts }))
      const asked = { stream: one, limit: 2 }
      const cursor = (yield* store.read(asked)).next ?? ""
      for (
        const elsewhere of [
          store.read({ ...asked, stream: two, cursor }),
          another.read({ ...asked, cursor }),
          acme(store.read({ ...asked, cursor }))
        ]
      ) {
        const refused = yield* reason(elsewhere)
        deepStrictEqual(["path" in refused && refused.path, refused.message], ["cursor", "belongs to another question"])
      }
      deepStrictEqual(prices((yield* store.read({ ...asked, cursor })).facts), [2, 3])
    }))

  it.effect("times that are none are refused by name", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      const far = 10n ** 30n as Timestamp.Timestamp
      const pathOf = <A>(effect: Effect.Effect<A, EventStoreError>) =>
        Effect.map(reason(effect), (reason) => "path" in reason ? reason.path : reason._tag)
      for (const time of [far, -far as Timestamp.Timestamp, Timestamp.negativeInfinity]) {
        deepStrictEqual(yield* pathOf(store.append({ facts: [price(1, { validFrom: time })] })), "facts[0].validFrom")
        deepStrictEqual(yield* pathOf(store.append({ facts: [price(1, { validTo: time })] })), "facts[0].validTo")
        deepStrictEqual(yield* pathOf(store.revise(correct(id(1), { validFrom: time }))), "validFrom")
      }
      deepStrictEqual(
        yield* pathOf(store.append({ facts: [price(1, { validFrom: Timestamp.infinity })] })),
        "facts[0].validFrom"
      )
      deepStrictEqual(yield* pathOf(store.read({ validAt: far })), "validAt")
      deepStrictEqual(yield* pathOf(store.read({ validDuring: { from: day(1), to: far } })), "validDuring.to")
      deepStrictEqual(yield* pathOf(store.read({ knownAt: { position: -1n as Fact.Position } })), "knownAt")
      deepStrictEqual(yield* store.head, 1n)
    }))

  it.effect("a revision reaches subscribers as a fact that says what it revises", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      yield* store.revise(correct(id(1), { data: { price: 2 } }))
      const log = yield* store.readLog({ after: Fact.beginning })
      deepStrictEqual(log.map(({ origin, revises, revision, version }) => [origin, revises, revision, version]), [
        [Fact.Position.make(1n), null, 0, 1],
        [Fact.Position.make(1n), id(1), 1, 2]
      ])
    }))
}
