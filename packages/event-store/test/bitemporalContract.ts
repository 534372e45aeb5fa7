/**
 * What every event store does on two time axes, whatever it is made of.
 */
import type * as Vitest from "@effect/vitest"
import { assert } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { Append, EventStore, EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { FactFilter, FactQuery, KnownAt } from "@strata/event-store/FactQuery"
import type { Correction } from "@strata/event-store/Revision"
import type { ListStreams } from "@strata/event-store/StreamCatalog"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

type Store = EventStore["Service"]

const account = Fact.streamId("account", "a")
const other = Fact.streamId("account", "b")
const id = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`)
/** Days since the epoch. */
const day = (n: number) => Timestamp.fromMicros(BigInt(n) * 86_400_000_000n)

const price = (n: number, options: Partial<Fact.NewFact> = {}): Fact.NewFact => ({
  stream: account,
  type: "price.set",
  data: { price: n },
  ...options
})
const correct = (revises: Fact.EventId, changes: Partial<Correction>): Correction => ({
  _tag: "Correction",
  revises,
  reason: "typing error",
  actor: "ada",
  ...changes
})
const retract = (revises: Fact.EventId) =>
  ({ _tag: "Retraction", revises, reason: "never happened", actor: "ada" }) as const

const Priced = Schema.Struct({ price: Schema.Int })
const prices = (facts: ReadonlyArray<Fact.Fact>) =>
  facts.map((fact) => Schema.decodeUnknownSync(Priced)(fact.data).price)
const reason = <A>(effect: Effect.Effect<A, EventStoreError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)
const CursorParts = Schema.fromJsonString(Schema.Record(Schema.String, Schema.Json))
const decodeParts = Schema.decodeEffect(CursorParts)
const encodeParts = Schema.encodeSync(CursorParts)
const ask = (store: Store, query: FactQuery) => Effect.map(store.read(query), ({ facts }) => prices(facts))

/** The stream that tells of a stream, when there is one. */
const about = (store: Store, stream: Fact.StreamId) =>
  Effect.map(
    store.streams.get(Fact.streamId("$stream", stream)),
    Option.match({
      onNone: () => [],
      onSome: (info) => [info.stream]
    })
  )

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
      deepStrictEqual(yield* path({ data: 1, expectedRevision: 1 }), "RevisionConflict")
      deepStrictEqual((yield* reason(store.revise(correct(id(2), { data: 1 }))))._tag, "UnknownFact")
      deepStrictEqual(yield* store.head, 1n)
    }))

  it.effect("a period that would end before its recording is refused by name, and writes nothing", () =>
    Effect.gen(function*() {
      const store = yield* open
      const refused = yield* reason(store.append({ facts: [price(1), price(2, { validTo: day(-1) })] }))
      deepStrictEqual(refused._tag === "InvalidAppend" ? refused.path : refused._tag, "validTo")
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

  it.effect("an append is refused when what it decided on has changed since, and by nothing else", () =>
    Effect.gen(function*() {
      const store = yield* open
      const claim = (seat: string, owner: number): Append => ({
        facts: [price(owner, { stream: Fact.streamId("claim", `${owner}`), type: "seat.claimed", metadata: { seat } })]
      })
      const guarded = (seat: string, owner: number, after: bigint) =>
        store.append({
          ...claim(seat, owner),
          condition: { after: Fact.Position.make(after), noneOf: [{ types: ["seat.*"], metadata: { seat } }] }
        })
      const refused = (seat: string, owner: number, after: bigint) =>
        Effect.map(
          reason(guarded(seat, owner, after)),
          (reason) => reason._tag === "ConditionFailed" ? String(reason.position) : reason._tag
        )
      yield* guarded("a1", 1, 0n)
      deepStrictEqual(yield* refused("a1", 2, 0n), "1")
      yield* guarded("a2", 3, 0n)
      deepStrictEqual(yield* refused("a2", 4, 1n), "2")
      yield* guarded("a1", 5, 2n)
      yield* store.append(claim("a3", 6)).pipe(Effect.provideService(CurrentTenant, "acme"))
      yield* guarded("a3", 7, 0n)
      deepStrictEqual(yield* store.head, 5n)
      const path = (noneOf: ReadonlyArray<FactFilter>) =>
        Effect.map(
          reason(store.append({ ...claim("a4", 8), condition: { after: Fact.beginning, noneOf } })),
          (reason) => reason._tag === "InvalidAppend" ? reason.path : reason._tag
        )
      deepStrictEqual(yield* path([]), "condition.noneOf")
      deepStrictEqual(yield* path([{ types: ["a"] }, {}]), "condition.noneOf[1]")
    }))

  it.effect("of 32 appends at once for one boundary, one wins, and others outside it all do", () =>
    Effect.gen(function*() {
      const store = yield* open
      const results = yield* Effect.forEach(
        Array.range(1, 40),
        (n) =>
          Effect.result(store.append({
            facts: [
              price(n, {
                stream: Fact.streamId("claim", `${n}`),
                type: "seat.claimed",
                metadata: { seat: n <= 32 ? 0 : n }
              })
            ],
            condition: { after: Fact.beginning, noneOf: [{ metadata: { seat: n <= 32 ? 0 : n } }] }
          })),
        { concurrency: "unbounded" }
      )
      deepStrictEqual(results.slice(0, 32).filter((result) => result._tag === "Success").length, 1)
      deepStrictEqual(results.slice(32).every((result) => result._tag === "Success"), true)
    }))

  it.effect("streams and categories are listed with what they hold", () =>
    Effect.gen(function*() {
      const store = yield* open
      const named = (id: string) => Fact.StreamId.make(id)
      for (const stream of ["b-2", "b-10", "a-x", "b.c-1", "b-2"]) {
        yield* store.append({ facts: [price(1, { stream: named(stream) })] })
      }
      yield* store.append({
        facts: [price(1, { stream: named("b-2") }), price(2, { stream: named("c-1"), eventId: id(1) })]
      })
      yield* store.revise(correct(id(1), { data: { price: 3 } }))
      const list = (options?: ListStreams) =>
        Effect.map(
          store.streams.list(options),
          (streams) => streams.map(({ stream, version }) => `${stream} ${version}`)
        )
      deepStrictEqual(yield* list(), ["a-x 1", "b-10 1", "b-2 3", "b.c-1 1", "c-1 2"])
      deepStrictEqual(yield* list({ category: "b" }), ["b-10 1", "b-2 3"])
      deepStrictEqual(yield* list({ category: "b", limit: 1 }), ["b-10 1"])
      deepStrictEqual(yield* list({ after: named("b-10"), limit: 2 }), ["b-2 3", "b.c-1 1"])
      deepStrictEqual(yield* store.streams.categories, [
        { category: "a", streams: 1n, facts: 1n },
        { category: "b", streams: 2n, facts: 4n },
        { category: "b.c", streams: 1n, facts: 1n },
        { category: "c", streams: 1n, facts: 2n }
      ])
      yield* store.append({ facts: [{ ...price(1, { stream: named("c-1") }), type: "price.left" }] })
      deepStrictEqual(yield* store.streams.types, [
        { category: "a", type: "price.set", facts: 1n },
        { category: "b", type: "price.set", facts: 4n },
        { category: "b.c", type: "price.set", facts: 1n },
        { category: "c", type: "price.left", facts: 1n },
        { category: "c", type: "price.set", facts: 2n }
      ])
      deepStrictEqual((yield* reason(store.streams.list({ limit: 0 })))._tag, "InvalidQuery")
    }))

  it.effect("what is said again under the same id is said once", () =>
    Effect.gen(function*() {
      const store = yield* open
      const saying = { actor: "ada", reason: "audit", eventId: id(1) }
      const first = yield* store.streams.setState(account, "archived", saying)
      yield* store.streams.setState(account, "open", { actor: "ada", reason: "over" })
      deepStrictEqual(yield* store.streams.setState(account, "archived", saying), first)
      deepStrictEqual((yield* store.readStream(Fact.streamId("$stream", account))).length, 2)
      deepStrictEqual(Option.map(yield* store.streams.get(account), ({ state }) => state), Option.some("open"))
    }))

  it.effect("an archived stream takes no facts until it is reopened, a tombstoned one never", () =>
    Effect.gen(function*() {
      const store = yield* open
      const saying = { actor: "ada", reason: "audit" }
      yield* store.append({ facts: [price(1, { eventId: id(1) }), price(1, { stream: other })] })
      const closed = <A>(effect: Effect.Effect<A, EventStoreError>) =>
        Effect.map(reason(effect), (reason) => reason._tag === "StreamClosed" ? reason.state : reason._tag)
      yield* store.streams.setState(account, "archived", saying)
      deepStrictEqual(yield* closed(store.append({ facts: [price(2)] })), "archived")
      deepStrictEqual(yield* closed(store.append({ facts: [price(2)], expect: { [account]: 1 } })), "archived")
      deepStrictEqual(yield* closed(store.append({ facts: [price(2)], expect: { [account]: 9 } })), "VersionConflict")
      deepStrictEqual(yield* closed(store.append({ facts: [price(2, { stream: other }), price(2)] })), "archived")
      deepStrictEqual(yield* closed(store.revise(correct(id(1), { data: 2 }))), "archived")
      yield* store.append({ facts: [price(3, { stream: other })], expect: { [account]: 1 } })
      deepStrictEqual(prices(yield* store.readStream(account)), [1])
      deepStrictEqual((yield* store.streams.list()).map(({ stream }) => stream), [
        ...yield* about(store, account),
        other
      ])
      yield* store.streams.setState(account, "open", saying)
      yield* store.append({ facts: [price(2)], expect: { [account]: 1 } })
      yield* store.streams.setState(account, "tombstoned", saying)
      deepStrictEqual(yield* closed(store.append({ facts: [price(3)] })), "tombstoned")
      deepStrictEqual(yield* closed(store.streams.setState(account, "open", saying)), "tombstoned")
      const said = yield* store.readStream(Fact.streamId("$stream", account))
      deepStrictEqual(said.map(({ actor, type }) => [actor, type]), [
        ["ada", "$stream.archived"],
        ["ada", "$stream.open"],
        ["ada", "$stream.tombstoned"]
      ])
    }))

  it.effect("metadata may be said of a stream that has no facts yet, and does not make it exist", () =>
    Effect.gen(function*() {
      const store = yield* open
      const saying = { actor: "ada", reason: "set up" }
      yield* store.streams.setMetadata(account, { owner: "sales" }, saying)
      yield* store.streams.setMetadata(account, { owner: "support" }, saying)
      deepStrictEqual(
        yield* store.streams.get(account),
        Option.some({ stream: account, version: 0, state: "open" as const, metadata: { owner: "support" } })
      )
      deepStrictEqual(yield* store.streams.get(other), Option.none())
      const missing = yield* reason(store.append({ facts: [price(1)], expect: { [account]: "streamExists" } }))
      deepStrictEqual(missing._tag, "VersionConflict")
      yield* store.append({ facts: [price(1)], expect: { [account]: "noStream" } })
      deepStrictEqual(
        Option.map(yield* store.streams.get(account), ({ metadata, version }) => [metadata, version]),
        Option.some([{ owner: "support" }, 1])
      )
      const path = (stream: Fact.StreamId, actor: string, why: string) =>
        Effect.map(
          reason(store.streams.setMetadata(stream, {}, { actor, reason: why })),
          (reason) => reason._tag === "InvalidAppend" ? reason.path : reason._tag
        )
      deepStrictEqual(yield* path(account, "", "x"), "actor")
      deepStrictEqual(yield* path(account, "ada", ""), "reason")
      deepStrictEqual(yield* path(Fact.streamId("$stream", account), "ada", "x"), "stream")
    }))
}
