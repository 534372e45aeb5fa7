/**
 * What every event store does, whatever it is made of.
 */
import { assert } from "@effect/vitest"
import type * as Vitest from "@effect/vitest"
import { assertNone, deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { type EventStore, type EventStoreError, type SlicePage, VersionConflict } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { FactPage, FactQuery } from "@strata/event-store/FactQuery"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

type Store = EventStore["Service"]

const a = Fact.streamId("account", "a")
const b = Fact.streamId("account", "b")
const id = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`)

const deposited = (stream: Fact.StreamId, cents: number, more: Partial<Fact.NewFact> = {}): Fact.NewFact => ({
  stream,
  type: "Deposited",
  data: { cents },
  ...more
})
const cents = (facts: ReadonlyArray<Fact.Fact>) =>
  facts.map((fact) => Schema.decodeUnknownSync(Schema.Struct({ cents: Schema.Int }))(fact.data).cents)
const reason = <A>(effect: Effect.Effect<A, EventStoreError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

/** Declares the contract's tests. `open` gives an empty store at each call. */
export const eventStoreContract = <R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<Store, EventStoreError, R | Scope.Scope>
) => {
  it.effect("positions count from 1 and versions from 1 in each stream", () =>
    Effect.gen(function*() {
      const store = yield* open
      deepStrictEqual(yield* store.head, Fact.beginning)
      const first = yield* store.append({ facts: [deposited(a, 1), deposited(b, 2), deposited(a, 3)] })
      const second = yield* store.append({ facts: [deposited(b, 4)] })
      deepStrictEqual(first.facts.map(({ position, version }) => [position, version]), [[1n, 1], [2n, 1], [3n, 2]])
      deepStrictEqual(second.facts.map(({ position, version }) => [position, version]), [[4n, 2]])
      deepStrictEqual(yield* store.head, 4n)
      deepStrictEqual(cents(yield* store.readLog({ after: Fact.beginning })), [1, 2, 3, 4])
      assert.isTrue(second.recordedAt > first.recordedAt)
    }))

  it.effect("a fact comes back as it was given, with its defaults filled in", () =>
    Effect.gen(function*() {
      const store = yield* open
      const data = { text: "\u0000 and \ud800 and 😀", list: [1, 1.5, null, { deep: true }] }
      const validFrom = Timestamp.fromMicros(1_600_000_000_123_457n)
      const validTo = Timestamp.fromMicros(1_700_000_000_000_001n)
      const { recordedAt } = yield* store.append({
        facts: [
          {
            stream: a,
            type: "Full",
            data,
            eventId: id(1),
            schemaVersion: 3,
            metadata: { source: "test" },
            validFrom,
            validTo
          },
          { stream: a, type: "Bare", data: 7, eventId: id(2) }
        ],
        actor: "ada"
      }).pipe(Effect.provideService(CurrentTenant, "acme"))
      const [full, bare] = yield* store.readStream(a).pipe(Effect.provideService(CurrentTenant, "acme"))
      const { traceparent: _, ...known } = full!
      deepStrictEqual(known, {
        position: Fact.Position.make(1n),
        stream: a,
        version: 1,
        origin: Fact.Position.make(1n),
        eventId: id(1),
        type: "Full",
        schemaVersion: 3,
        data,
        metadata: { source: "test" },
        correlationId: id(1),
        causationId: null,
        tenant: "acme",
        actor: "ada",
        validFrom,
        validTo,
        recordedAt,
        revision: 0,
        revises: null,
        retracted: false,
        reason: null
      })
      deepStrictEqual([bare!.data, bare!.schemaVersion, bare!.metadata, bare!.correlationId], [7, 1, {}, id(1)])
      deepStrictEqual([bare!.validFrom, bare!.validTo], [recordedAt, Timestamp.infinity])
      deepStrictEqual(yield* store.get(id(2)).pipe(Effect.provideService(CurrentTenant, "acme")), Option.some(bare!))
      assertNone(yield* store.get(id(3)))
    }))

  it.effect("an expected version is kept, and a conflict tells the actual one and writes nothing", () =>
    Effect.gen(function*() {
      const store = yield* open
      const conflict = (expected: "noStream" | "streamExists" | number) =>
        Effect.map(
          reason(store.append({ facts: [deposited(a, 0)], expect: { [a]: expected } })),
          (reason) => reason._tag === "VersionConflict" ? [reason.stream, reason.expected, reason.actual] : reason._tag
        )
      deepStrictEqual(yield* conflict("streamExists"), [a, "streamExists", 0])
      deepStrictEqual(yield* conflict(1), [a, 1, 0])
      yield* store.append({ facts: [deposited(a, 1)], expect: { [a]: "noStream" } })
      deepStrictEqual(yield* conflict("noStream"), [a, "noStream", 1])
      deepStrictEqual(yield* conflict(0), [a, 0, 1])
      deepStrictEqual(yield* conflict(2), [a, 2, 1])
      yield* store.append({ facts: [deposited(a, 2)], expect: { [a]: 1 } })
      yield* store.append({ facts: [deposited(a, 3)], expect: { [a]: "streamExists" } })
      yield* store.append({ facts: [deposited(a, 4)], expect: { [a]: "any" } })
      deepStrictEqual(cents(yield* store.readStream(a)), [1, 2, 3, 4])
      deepStrictEqual(yield* store.streamVersion(a), 4)
      deepStrictEqual(yield* store.streamVersion(b), 0)
    }))

  it.effect("an append over several streams is all or nothing, and may check a stream it does not write", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [deposited(a, 1)] })
      const both = { facts: [deposited(a, 2), deposited(b, 3)] }
      const refused = yield* reason(store.append({ ...both, expect: { [a]: 1, [b]: 5 } }))
      deepStrictEqual(refused._tag, "VersionConflict")
      deepStrictEqual([yield* store.streamVersion(a), yield* store.streamVersion(b)], [1, 0])
      const checked = yield* reason(store.append({ facts: [deposited(b, 3)], expect: { [a]: 2 } }))
      deepStrictEqual(checked._tag, "VersionConflict")
      yield* store.append({ ...both, expect: { [a]: 1, [b]: "noStream" } })
      deepStrictEqual([yield* store.streamVersion(a), yield* store.streamVersion(b)], [2, 1])
    }))

  it.effect("an append over several streams is told all of them that are at another version", () =>
    Effect.gen(function*() {
      const store = yield* open
      const c = Fact.streamId("account", "c")
      yield* store.append({ facts: [deposited(a, 1), deposited(a, 2), deposited(b, 3)] })
      const { message, reason } = yield* Effect.flip(store.append({
        facts: [deposited(a, 4), deposited(b, 5), deposited(c, 6)],
        expect: { [a]: 1, [b]: 1, [c]: "streamExists" }
      }))
      deepStrictEqual(
        reason,
        new VersionConflict({
          stream: a,
          expected: 1,
          actual: 2,
          others: [{ stream: c, expected: "streamExists", actual: 0 }]
        })
      )
      deepStrictEqual(
        message,
        `Stream ${a} is at version 2, expected 1; Stream ${c} is at version 0, expected streamExists`
      )
      deepStrictEqual(yield* store.head, 3n)
    }))

  it.effect("an append repeated with the same event ids is answered with the first result", () =>
    Effect.gen(function*() {
      const store = yield* open
      const append = {
        facts: [deposited(a, 1, { eventId: id(1) }), deposited(a, 2, { eventId: id(2) })],
        expect: { [a]: "noStream" as const }
      }
      const first = yield* store.append(append)
      yield* store.append({ facts: [deposited(a, 3)] })
      const again = yield* store.append(append)
      assert.isFalse(first.duplicate)
      assert.isTrue(again.duplicate)
      deepStrictEqual([again.position, again.recordedAt], [first.position, first.recordedAt])
      deepStrictEqual(again.facts.map((fact) => fact.version), [1, 2])
      const middle = yield* store.append({ facts: [deposited(a, 2, { eventId: id(2), correlationId: id(1) })] })
      deepStrictEqual([middle.duplicate, middle.position], [true, 2n])
      deepStrictEqual(yield* store.head, 3n)
    }))

  it.effect("an event id with other content, or only some of an append's ids, is refused", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [deposited(a, 1, { eventId: id(1) }), deposited(a, 2, { eventId: id(2) })] })
      const taken = (facts: ReadonlyArray<Fact.NewFact>) =>
        Effect.map(reason(store.append({ facts })), ({ _tag }) => _tag)
      deepStrictEqual(yield* taken([deposited(a, 9, { eventId: id(1) })]), "EventIdTaken")
      deepStrictEqual(yield* taken([deposited(b, 1, { eventId: id(1) })]), "EventIdTaken")
      deepStrictEqual(yield* taken([deposited(a, 1, { eventId: id(1), schemaVersion: 2 })]), "EventIdTaken")
      deepStrictEqual(
        yield* taken([deposited(a, 2, { eventId: id(2) }), deposited(a, 3, { eventId: id(3) })]),
        "EventIdTaken"
      )
      deepStrictEqual(
        yield* taken([deposited(a, 2, { eventId: id(2) }), deposited(a, 1, { eventId: id(1) })]),
        "EventIdTaken"
      )
      deepStrictEqual(yield* store.head, 2n)
    }))

  it.effect("an idempotency key is kept with the facts and comes back with the first answer", () =>
    Effect.gen(function*() {
      const store = yield* open
      const idempotency = { key: "request-1", fingerprint: "abc", answer: { status: 201 } }
      yield* store.append({ facts: [deposited(a, 1)], idempotency })
      const used = yield* reason(store.append({ facts: [deposited(a, 1)], idempotency: { ...idempotency, answer: 0 } }))
      deepStrictEqual(
        used._tag === "IdempotencyKeyUsed"
          ? [used.key, used.fingerprint, used.answer, String(used.position)]
          : used._tag,
        ["request-1", "abc", { status: 201 }, "1"]
      )
      deepStrictEqual(
        yield* store.idempotencyRecord("request-1"),
        Option.some({ ...idempotency, position: Fact.Position.make(1n) })
      )
      const acme = Effect.provideService(CurrentTenant, "acme")
      assertNone(yield* acme(store.idempotencyRecord("request-1")))
      yield* acme(store.append({ facts: [deposited(a, 2)], idempotency }))
      deepStrictEqual(cents(yield* store.readStream(a)), [1])
      deepStrictEqual(cents(yield* acme(store.readStream(a))), [2])
    }))

  it.effect("an append that can never succeed names its field and writes nothing", () =>
    Effect.gen(function*() {
      const store = yield* open
      const path = (facts: ReadonlyArray<Fact.NewFact>, more: object = {}) =>
        Effect.map(
          reason(store.append({ facts, ...more })),
          (reason) => reason._tag === "InvalidAppend" ? reason.path : reason._tag
        )
      const one = deposited(a, 1)
      const t = Timestamp.fromMicros(5n)
      deepStrictEqual(yield* path([]), "facts")
      deepStrictEqual(yield* path([one, { ...one, type: "" }]), "facts[1].type")
      deepStrictEqual(yield* path([{ ...one, type: "a\0b" }]), "facts[0].type")
      deepStrictEqual(yield* path([{ ...one, stream: "nohyphen" as Fact.StreamId }]), "facts[0].stream")
      deepStrictEqual(yield* path([{ ...one, stream: Fact.streamId("$stream", a) }]), "facts[0].stream")
      deepStrictEqual(yield* path([{ ...one, eventId: "1" as Fact.EventId }]), "facts[0].eventId")
      deepStrictEqual(yield* path([{ ...one, schemaVersion: 0 }]), "facts[0].schemaVersion")
      deepStrictEqual(yield* path([{ ...one, validFrom: t, validTo: t }]), "facts[0].validTo")
      deepStrictEqual(yield* path([{ ...one, metadata: { bad: "\0" } }]), "facts[0].metadata")
      deepStrictEqual(yield* path([{ ...one, metadata: { bad: "\ud800" } }]), "facts[0].metadata")
      deepStrictEqual(yield* path([{ ...one, eventId: id(1) }, { ...one, eventId: id(1) }]), "facts[1].eventId")
      deepStrictEqual(yield* path([one]).pipe(Effect.provideService(CurrentTenant, "")), "tenant")
      deepStrictEqual(yield* path([one], { expect: { [a]: -1 } }), `expect[${a}]`)
      deepStrictEqual(yield* path([one], { idempotency: { key: "", fingerprint: "f", answer: 1 } }), "idempotency.key")
      deepStrictEqual(yield* store.head, Fact.beginning)
    }))

  it.effect("streams are read forwards and backwards from a version, the log from a position", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: Array.makeBy(10, (n) => deposited(a, n + 1)) })
      yield* store.append({ facts: [deposited(b, 11)] })
      const read = (options?: Parameters<Store["readStream"]>[1]) => Effect.map(store.readStream(a, options), cents)
      deepStrictEqual(yield* read({ limit: 3 }), [1, 2, 3])
      deepStrictEqual(yield* read({ fromVersion: 8 }), [8, 9, 10])
      deepStrictEqual(yield* read({ fromVersion: 11 }), [])
      deepStrictEqual(yield* read({ direction: "backwards", limit: 2 }), [10, 9])
      deepStrictEqual(yield* read({ direction: "backwards", fromVersion: 3 }), [3, 2, 1])
      deepStrictEqual(yield* Effect.map(store.readStream(Fact.streamId("account", "none")), cents), [])
      deepStrictEqual(cents(yield* store.readLog({ after: Fact.Position.make(8n) })), [9, 10, 11])
      deepStrictEqual(cents(yield* store.readLog({ after: Fact.Position.make(3n), limit: 2 })), [4, 5])
      deepStrictEqual(cents(yield* store.readLog({ after: Fact.Position.make(11n) })), [])
    }))

  it.effect("pages of the log end by what large facts weigh, and readers go on from there", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [deposited(a, 1)] })
      for (let n = 2; n <= 6; n++) {
        yield* store.append({ facts: [deposited(a, n, { data: { cents: n, text: "y".repeat(2 ** 21) } })] })
      }
      yield* store.append({ facts: [deposited(a, 7)] })
      const after = Fact.beginning
      deepStrictEqual(cents(yield* store.readLog({ after })), [1, 2, 3, 4, 5])
      deepStrictEqual(cents(yield* store.readLog({ after, limit: 2 })), [1, 2])
      deepStrictEqual(cents(yield* store.readLog({ after: Fact.Position.make(5n) })), [6, 7])
      const filter = { types: ["Deposited"] }
      for (const range of [{}, { filter }, { filter: { ...filter, stream: a } }]) {
        const page = yield* store.readLogPage({ after, ...range })
        deepStrictEqual([cents(page.facts), page.end], [[1, 2, 3, 4, 5], 5n])
        const rest = yield* store.readLogPage({ after: page.end, ...range })
        deepStrictEqual([cents(rest.facts), rest.end], [[6, 7], 7n])
        deepStrictEqual(yield* store.readLogPage({ after: rest.end, ...range }), { facts: [], end: rest.end })
      }
      const none = yield* store.readLogPage({ after, filter: { types: ["Withdrawn"] } })
      deepStrictEqual(none, { facts: [], end: Fact.Position.make(7n) })
      const all = yield* store.subscribe({ after }).pipe(
        Stream.take(2),
        Stream.runCollect
      )
      deepStrictEqual(all.map(cents), [[1, 2, 3, 4, 5], [6, 7]])
    }))

  it.effect("pages of every answer end by what large facts weigh, and cursors go on from there", () =>
    Effect.gen(function*() {
      const store = yield* open
      const text = "y".repeat(2 ** 21)
      const validFrom = (n: number) => Timestamp.fromMicros(BigInt(1_000_000 - n))
      yield* store.append({ facts: [deposited(a, 1, { eventId: id(1), validFrom: validFrom(1) })] })
      for (let n = 2; n <= 6; n++) {
        yield* store.append({ facts: [deposited(a, n, { data: { cents: n, text }, validFrom: validFrom(n) })] })
      }
      yield* store.append({ facts: [deposited(a, 7, { validFrom: validFrom(7) })] })
      const up = [[1, 2, 3, 4, 5], [6, 7]]
      const down = [[7, 6, 5, 4, 3], [2, 1]]

      const pages = Effect.fnUntraced(function*(query: FactQuery) {
        const found: Array<ReadonlyArray<number>> = []
        for (let cursor: string | null | undefined; cursor !== null;) {
          const page: FactPage = yield* store.read({ ...query, cursor: cursor ?? undefined })
          found.push(cents(page.facts))
          cursor = page.next
        }
        return found
      })
      for (const asked of [{}, { stream: a }, { category: "account" }]) {
        deepStrictEqual(yield* pages(asked), up)
        deepStrictEqual(yield* pages({ ...asked, direction: "backwards" }), down)
        deepStrictEqual(yield* pages({ ...asked, orderBy: "validity" }), down)
        deepStrictEqual(yield* pages({ ...asked, limit: 5 }), up)
        deepStrictEqual(yield* pages({ ...asked, limit: 2 }), [[1, 2], [3, 4], [5, 6], [7]])
      }

      const slices = Effect.fnUntraced(
        function*(read: (from: number | undefined) => Effect.Effect<SlicePage, EventStoreError>) {
          const found: Array<ReadonlyArray<number>> = []
          for (let from: number | null | undefined; from !== null;) {
            const page: SlicePage = yield* read(from ?? undefined)
            found.push(cents(page.facts))
            from = page.next
          }
          return found
        }
      )
      for (const direction of ["forwards", "backwards"] as const) {
        const expected = direction === "forwards" ? up : down
        deepStrictEqual(yield* slices((fromVersion) => store.readStreamPage(a, { direction, fromVersion })), expected)
        deepStrictEqual(
          yield* slices((fromVersion) => store.readStreamPage(a, { direction, fromVersion, limit: 4 })),
          direction === "forwards" ? [[1, 2, 3, 4], [5, 6, 7]] : [[7, 6, 5, 4], [3, 2, 1]]
        )
      }
      const none = yield* store.readStreamPage(b)
      deepStrictEqual(none, { facts: [], next: null })

      for (let n = 2; n <= 7; n++) {
        const data = n < 7 ? { cents: n, text } : { cents: n }
        yield* store.revise({ _tag: "Correction", revises: id(1), data, reason: "wrong", actor: "ada" })
      }
      for (const direction of ["forwards", "backwards"] as const) {
        const expected = direction === "forwards" ? up : down
        deepStrictEqual(
          yield* slices((fromRevision) => store.historyPage(id(1), { direction, fromRevision })),
          expected
        )
      }
      deepStrictEqual(cents(yield* store.history(id(1), { fromRevision: 6 })), [7])
      deepStrictEqual(cents(yield* store.history(id(1), { fromRevision: 7 })), [])
      deepStrictEqual(cents(yield* store.history(id(1), { limit: 1 })), [1])
      deepStrictEqual(cents(yield* store.history(id(1), { direction: "backwards", fromRevision: 0 })), [1])
      deepStrictEqual((yield* store.historyPage(id(1), { direction: "backwards", fromRevision: 0 })).next, null)
    }))

  it.effect("what can be compressed weighs what it is, and a direction is one of two", () =>
    Effect.gen(function*() {
      const store = yield* open
      const text = "all work and no play ".repeat(7_000)
      yield* store.append({
        facts: Array.makeBy(70, (n) => deposited(a, n, { data: { cents: n, text }, eventId: id(n + 1) }))
      })
      const first = yield* store.readStreamPage(a)
      assert.isBelow(first.facts.length, 60)
      deepStrictEqual(first.next, first.facts.length + 1)
      deepStrictEqual((yield* store.read({ stream: a, limit: 1000 })).facts.length, first.facts.length)
      deepStrictEqual((yield* store.readLog({ after: Fact.beginning })).length, first.facts.length)
      const rest = yield* store.readStreamPage(a, { fromVersion: first.next ?? 0 })
      deepStrictEqual([...cents(first.facts), ...cents(rest.facts)], Array.range(0, 69))
      const direction = "sideways" as "forwards"
      for (const asked of [store.readStream(a, { direction }), store.history(id(1), { direction })]) {
        const refused = yield* reason(asked)
        deepStrictEqual(refused._tag === "InvalidQuery" && refused.path, "direction")
      }
    }))

  it.effect("32 appends at once to one stream all succeed with dense versions", () =>
    Effect.gen(function*() {
      const store = yield* open
      const appended = yield* Effect.forEach(
        Array.range(1, 32),
        (n) => store.append({ facts: [deposited(a, n)] }),
        { concurrency: "unbounded" }
      )
      const versions = appended.map((append) => append.facts[0]!.version).sort((x, y) => x - y)
      deepStrictEqual(versions, Array.range(1, 32))
    }))

  it.effect("a conflict among appends made at once never fails its neighbours", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [deposited(a, 0)] })
      const results = yield* Effect.forEach(
        Array.range(1, 30),
        (n) =>
          Effect.result(store.append(
            n % 3 === 0
              ? { facts: [deposited(a, n)], expect: { [a]: "noStream" } }
              : {
                facts: [deposited(Fact.streamId("account", `n${n}`), n)],
                expect: { [Fact.streamId("account", `n${n}`)]: 0 }
              }
          )),
        { concurrency: "unbounded" }
      )
      deepStrictEqual(
        results.map((result) => result._tag),
        Array.range(1, 30).map((n) => n % 3 === 0 ? "Failure" : "Success")
      )
      const log = yield* store.readLog({ after: Fact.beginning })
      deepStrictEqual(log.map((fact) => fact.position), Array.range(1, 21).map((n) => Fact.Position.make(BigInt(n))))
    }))

  it.effect("of appends made at once for one version, one wins", () =>
    Effect.gen(function*() {
      const store = yield* open
      const results = yield* Effect.forEach(
        Array.range(1, 16),
        (n) => Effect.result(store.append({ facts: [deposited(a, n)], expect: { [a]: 0 } })),
        { concurrency: "unbounded" }
      )
      deepStrictEqual(results.filter((result) => result._tag === "Success").length, 1)
      deepStrictEqual(yield* store.streamVersion(a), 1)
    }))

  it.effect("a subscriber sees the backlog, then what is appended, once and in order", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: Array.makeBy(5, (n) => deposited(a, n + 1)) })
      const seen = yield* store.subscribe({ after: Fact.Position.make(2n), limit: 2 }).pipe(
        Stream.flattenIterable,
        Stream.take(8),
        Stream.runCollect,
        Effect.forkChild({ startImmediately: true })
      )
      yield* Effect.forEach(Array.range(6, 10), (n) => store.append({ facts: [deposited(b, n)] }), { discard: true })
      deepStrictEqual(cents(yield* Fiber.join(seen)), [3, 4, 5, 6, 7, 8, 9, 10])
    }))

  it.effect("an event id that is there is the first result's, whatever version the append expects by now", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [deposited(a, 1, { eventId: id(1) }), deposited(a, 2, { eventId: id(2) })] })
      yield* store.append({ facts: [deposited(a, 3)] })
      for (const expected of [0, 3, 9, "any", "noStream", "streamExists"] as const) {
        const again = yield* store.append({
          facts: [deposited(a, 1, { eventId: id(1) })],
          expect: { [a]: expected }
        })
        deepStrictEqual([again.position, again.duplicate], [1n, true])
        const more = yield* reason(store.append({
          facts: [
            deposited(a, 1, { eventId: id(1) }),
            deposited(a, 2, { eventId: id(2) }),
            deposited(a, 4, { eventId: id(4) })
          ],
          expect: { [a]: expected }
        }))
        deepStrictEqual(more._tag, "EventIdTaken")
      }
      deepStrictEqual(yield* store.head, 3n)
    }))

  it.effect("nothing is appended to a tombstoned stream, whatever version is expected of it", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [deposited(a, 1)] })
      yield* store.streams.setState(a, "tombstoned", { actor: "ada", reason: "closed for good" })
      for (const expected of ["any", "streamExists", 1, "noStream", 0, 2] as const) {
        const refused = yield* reason(store.append({ facts: [deposited(a, 2)], expect: { [a]: expected } }))
        deepStrictEqual(refused._tag, "StreamClosed")
        // With a stream before it whose version is wrong as well.
        const both = { facts: [deposited(b, 2), deposited(a, 2)], expect: { [b]: 7, [a]: expected } }
        deepStrictEqual((yield* reason(store.append(both)))._tag, "StreamClosed")
      }
      deepStrictEqual(yield* store.streamVersion(a), 1)
    }))

  it.effect("a category is what stands before the first hyphen, and a stream's name is none", () =>
    Effect.gen(function*() {
      const store = yield* open
      const deep = Fact.StreamId.make("account-a-b")
      yield* store.append({
        facts: [deposited(a, 1), deposited(deep, 2), deposited(Fact.streamId("accounts", "a"), 3)]
      })
      const within = (category: string) => Effect.map(store.read({ category }), ({ facts }) => cents(facts))
      deepStrictEqual(yield* within("account"), [1, 2])
      deepStrictEqual((yield* reason(within("account-a")))._tag, "InvalidQuery")
      const listed = (category: string) => Effect.map(store.streams.list({ category }), (found) => found.length)
      deepStrictEqual(yield* listed("account"), 2)
      deepStrictEqual((yield* reason(listed("account-a")))._tag, "InvalidQuery")
      const refused = yield* reason(store.append({
        facts: [deposited(b, 4)],
        condition: { after: Fact.beginning, noneOf: [{ category: "account-a" }] }
      }))
      deepStrictEqual(refused._tag, "InvalidAppend")
    }))

  it.effect("the last fact of a stream, of any type or of one, is a page of one read backwards", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({
        facts: [deposited(a, 1), deposited(a, 2, { type: "Withdrawn" }), deposited(a, 3), deposited(b, 4)]
      })
      const last = (types?: ReadonlyArray<string>) =>
        Effect.map(store.read({ stream: a, types, direction: "backwards", limit: 1 }), ({ facts }) => cents(facts))
      deepStrictEqual(yield* last(), [3])
      deepStrictEqual(yield* last(["Withdrawn"]), [2])
      deepStrictEqual(yield* last(["Closed"]), [])
      deepStrictEqual(cents(yield* store.readStream(a, { direction: "backwards", limit: 1 })), [3])
    }))

  it.effect("a page that is just full is the last one when nothing follows", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: Array.makeBy(10, (n) => deposited(a, n)) })
      const first = yield* store.read({ limit: 5 })
      const second = yield* store.read({ limit: 5, cursor: first.next ?? "" })
      deepStrictEqual([cents(first.facts), cents(second.facts)], [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
      assert.isNotNull(first.next)
      assert.isNull(second.next)
    }))

  it.effect("an append without facts leaves no stream behind", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* reason(store.append({ facts: [], expect: { [a]: "noStream" } }))
      assertNone(yield* store.streams.get(a))
      deepStrictEqual(yield* store.streams.categories, [])
    }))

  it.effect("appendInTransaction is refused where there is no transaction", () =>
    Effect.gen(function*() {
      const store = yield* open
      const refused = yield* reason(Effect.asVoid(store.appendInTransaction({ facts: [deposited(a, 1)] })))
      deepStrictEqual(refused._tag === "InvalidAppend" ? refused.path : refused._tag, "transaction")
    }))

  it.effect("the newest snapshot of a shape is kept", () =>
    Effect.gen(function*() {
      const store = yield* open
      const snapshot = (version: number, schemaVersion = 1) => ({
        stream: a,
        version,
        position: Fact.Position.make(BigInt(version)),
        schemaVersion,
        state: { cents: version }
      })
      assertNone(yield* store.loadSnapshot(a, 1))
      yield* store.saveSnapshot(snapshot(2))
      yield* store.saveSnapshot(snapshot(1))
      yield* store.saveSnapshot(snapshot(7, 2))
      deepStrictEqual(yield* store.loadSnapshot(a, 1), Option.some(snapshot(2)))
      deepStrictEqual(yield* store.loadSnapshot(a, 2), Option.some(snapshot(7, 2)))
      assertNone(yield* store.loadSnapshot(b, 1))
    }))
}
