/**
 * What every event store refuses by the name of the field before it looks, whatever it is made of.
 */
import type * as Vitest from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { Append, EventStore, EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { FactFilter, FactQuery, KnownAt, LogFilter } from "@strata/event-store/FactQuery"
import type { Revision } from "@strata/event-store/Revision"
import { aboutStream, type ListStreams, type StreamState } from "@strata/event-store/StreamCatalog"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { account, correct, id, price } from "./priceList.ts"

type Store = EventStore["Service"]

/** Which field was refused, and as what. */
const refused = <A>(effect: Effect.Effect<A, EventStoreError>) =>
  Effect.match(effect, {
    onSuccess: () => "answered",
    onFailure: ({ reason }) => "path" in reason ? `${reason._tag} ${reason.path}` : reason._tag
  })

const unchecked = { disableChecks: true } as const
const streamOf = (text: string) => Fact.StreamId.make(text, unchecked)
const stateOf = (text: string) => text as StreamState
const questionOf = (fields: Record<string, unknown>) => fields as FactQuery
const momentOf = (value: unknown) => value as KnownAt
const revisionOf = (fields: Record<string, unknown>) => ({ ...correct(id(1), { data: 1 }), ...fields }) as Revision
const positionOf = (n: bigint) => Fact.Position.make(n, unchecked)

/** Text that cannot be stored, or names nothing. */
const noLabels = ["", "a\0b", "a\ud800", "\udc00b", "x".repeat(513)]
const noStreams = [...["", "nohyphen", "-a", "a-", "a-\0", "a-\ud800"].map(streamOf), streamOf(`a-${"x".repeat(511)}`)]
const noIds = ["", "1", "00000000-0000-7000-8000-00000000000G", id(10).toUpperCase(), `${id(1)} `].map((text) =>
  Fact.EventId.make(text, unchecked)
)
/** Numbers that count nothing. */
const noCounts = [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 31]

/** Declares the contract's tests. `open` gives an empty store at each call. */
export const refusalsContract = <R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<Store, EventStoreError, R | Scope.Scope>
) => {
  it.effect("a number that JSON has no word for is refused, and null stays null", () =>
    Effect.gen(function*() {
      const store = yield* open
      const nulls = { a: null, b: [null, { c: null }], "null": "null" }
      yield* store.append({ facts: [price(1, { eventId: id(1), data: nulls, metadata: nulls })] })
      const [fact] = yield* store.readStream(account)
      deepStrictEqual([fact?.data, fact?.metadata], [nulls, nulls])
      const saying = { actor: "ada", reason: "audit" }
      for (const none of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
        const values: ReadonlyArray<Schema.Json> = [none, [none], { a: [null, { b: none }] }]
        for (const value of values) {
          const append = (fact: Partial<Fact.NewFact>, more: Partial<Append> = {}) =>
            refused(store.append({ facts: [price(1), price(2, fact)], ...more }))
          deepStrictEqual(yield* append({ data: value }), "InvalidAppend facts[1].data")
          deepStrictEqual(yield* append({ metadata: { value } }), "InvalidAppend facts[1].metadata")
          deepStrictEqual(
            yield* append({}, { idempotency: { key: "k", fingerprint: "f", answer: value } }),
            "InvalidAppend idempotency.answer"
          )
          const condition = { after: Fact.beginning, noneOf: [{ category: "none" }, { metadata: { value } }] }
          deepStrictEqual(yield* append({}, { condition }), "InvalidAppend condition.noneOf[1].metadata")
          deepStrictEqual(yield* refused(store.revise(correct(id(1), { data: value }))), "InvalidAppend data")
          deepStrictEqual(
            yield* refused(store.revise(correct(id(1), { data: 1, metadata: { value } }))),
            "InvalidAppend metadata"
          )
          deepStrictEqual(
            yield* refused(store.saveSnapshot({
              stream: account,
              version: 1,
              position: positionOf(1n),
              schemaVersion: 1,
              state: value
            })),
            "InvalidAppend state"
          )
          deepStrictEqual(
            yield* refused(store.streams.setMetadata(account, { value }, saying)),
            "InvalidAppend metadata"
          )
          deepStrictEqual(yield* refused(store.read({ metadata: { value } })), "InvalidQuery metadata")
        }
      }
      deepStrictEqual(yield* store.head, 1n)
    }))

  it.effect("data may be nested a thousand levels deep, and can be sent again", () =>
    Effect.gen(function*() {
      const store = yield* open
      const nested = (levels: number): Schema.Json =>
        Array.from({ length: levels }).reduce<Schema.Json>((all) => [all], "]\\")
      const append = (levels: number) => store.append({ facts: [price(1, { eventId: id(1), data: nested(levels) })] })
      yield* append(1000)
      deepStrictEqual((yield* append(1000)).duplicate, true)
      for (const levels of [1001, 3000, 20_000]) {
        deepStrictEqual(yield* refused(append(levels)), "InvalidAppend facts[0].data")
        deepStrictEqual(yield* refused(store.revise(correct(id(1), { data: nested(levels) }))), "InvalidAppend data")
      }
      // Brackets in text are no levels.
      yield* store.append({ facts: [price(2, { data: { text: "\"[{".repeat(2000) } })] })
      deepStrictEqual(yield* store.head, 2n)
    }))

  it.effect("a field that nobody knows is refused by its name, and so is what is no object", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      const position = positionOf(1n)
      const saying = { actor: "ada", reason: "audit" }
      const snapshot = { stream: account, version: 1, position, schemaVersion: 1, state: 1 }
      const retraction = { _tag: "Retraction", revises: id(1), ...saying }
      // As programs without types call.
      const append = (value: unknown) => refused(store.append(value as Append))
      const fact = (value: unknown) => append({ facts: [price(2), value] })
      const condition = (value: unknown) => append({ facts: [price(2)], condition: value })
      const revise = (value: unknown) => refused(store.revise(value as Revision))
      const read = (value: unknown) => refused(store.read(value as FactQuery))
      const readStream = (value: unknown) => refused(store.readStream(account, value as {}))
      const readLog = (value: unknown) => refused(store.readLog(value as { after: Fact.Position }))
      const history = (value: unknown) => refused(store.history(id(1), value as {}))
      const list = (value: unknown) => refused(store.streams.list(value as {}))
      const archive = (value: unknown) => refused(store.streams.setState(account, "archived", value as typeof saying))
      const save = (value: unknown) => refused(store.saveSnapshot(value as typeof snapshot))

      const refusals: ReadonlyArray<readonly [string, Effect.Effect<string, never, R>]> = [
        ["InvalidAppend expects", append({ facts: [price(2)], expects: { [account]: 0 } })],
        ["InvalidAppend facts[1].validfrom", fact({ ...price(3), validfrom: 1n })],
        ["InvalidAppend condition.before", condition({ after: position, before: 2n, noneOf: [{ stream: account }] })],
        ["InvalidAppend condition.noneOf[0].kind", condition({ after: position, noneOf: [{ kind: "a" }] })],
        [
          "InvalidAppend idempotency.print",
          append({ facts: [price(2)], idempotency: { key: "k", fingerprint: "f", print: "f", answer: 1 } })
        ],
        ["InvalidAppend validTill", revise(revisionOf({ validTill: 1n }))],
        ["InvalidAppend data", revise({ ...retraction, data: 1 })],
        ["InvalidQuery knownBy", read({ knownBy: { position } })],
        ["InvalidQuery from", readStream({ from: 1 })],
        ["InvalidQuery from", readLog({ after: Fact.beginning, from: 1 })],
        ["InvalidQuery filter.kind", readLog({ after: Fact.beginning, filter: { kind: "a" } })],
        ["InvalidQuery fromVersion", history({ fromVersion: 1 })],
        ["InvalidQuery state", list({ state: "open" })],
        ["InvalidAppend why", archive({ ...saying, why: "audit" })],
        ["InvalidAppend at", save({ ...snapshot, at: position })],
        ...[null, "x", 1, [price(2)]].flatMap((none) =>
          [
            ["InvalidAppend append", append(none)],
            ["InvalidAppend facts[1]", fact(none)],
            ["InvalidAppend condition", condition(none)],
            ["InvalidAppend condition.noneOf[0]", condition({ after: position, noneOf: [none] })],
            ["InvalidAppend idempotency", append({ facts: [price(2)], idempotency: none })],
            ["InvalidAppend expect", append({ facts: [price(2)], expect: none })],
            ["InvalidAppend revision", revise(none)],
            ["InvalidQuery query", read(none)],
            ["InvalidQuery options", readStream(none)],
            ["InvalidQuery options", readLog(none)],
            ["InvalidQuery filter", readLog({ after: Fact.beginning, filter: none })],
            ["InvalidQuery options", history(none)],
            ["InvalidQuery options", list(none)],
            ["InvalidAppend snapshot", save(none)]
          ] as const
        ),
        ["InvalidAppend facts", append({ facts: "x" })],
        ["InvalidAppend facts", append({})],
        ["InvalidAppend condition.noneOf", condition({ after: position, noneOf: {} })],
        ["InvalidQuery states", list({ states: "open" })]
      ]
      for (const [index, [expected, refusal]] of refusals.entries()) {
        deepStrictEqual([index, yield* refusal], [index, expected])
      }
      // What is not given is not there.
      deepStrictEqual(yield* append({ facts: [{ ...price(2), validfrom: undefined }], expects: undefined }), "answered")
      deepStrictEqual(yield* store.head, 2n)
    }))

  it.effect("a type that a query could not ask for is refused", () =>
    Effect.gen(function*() {
      const store = yield* open
      for (const type of ["*", "price.*", "*.set", "a.*.b"]) {
        deepStrictEqual([type, yield* refused(store.append({ facts: [{ ...price(1), type }] }))], [
          type,
          "InvalidAppend facts[0].type"
        ])
      }
      yield* store.append({ facts: [{ ...price(1), type: "price.*set" }] })
    }))

  it.effect("a filter that no fact could fit is refused by the name of its field", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1)] })
      const read = (query: FactQuery) => refused(store.read(query))
      const readLog = (filter: LogFilter) => refused(store.readLog({ after: Fact.beginning, filter }))
      const list = (options: ListStreams) => refused(store.streams.list(options))
      const append = (filter: FactFilter) =>
        refused(store.append({
          facts: [price(2)],
          condition: { after: Fact.beginning, noneOf: [{ category: "none" }, filter] }
        }))
      for (const text of noLabels) {
        deepStrictEqual([text, yield* read({ category: text })], [text, "InvalidQuery category"])
        deepStrictEqual([text, yield* read({ types: ["a", text] })], [text, "InvalidQuery types"])
        deepStrictEqual([text, yield* read({ correlationId: text })], [text, "InvalidQuery correlationId"])
        deepStrictEqual([text, yield* read({ causationId: text })], [text, "InvalidQuery causationId"])
        deepStrictEqual([text, yield* readLog({ category: text })], [text, "InvalidQuery filter.category"])
        deepStrictEqual([text, yield* readLog({ types: [text] })], [text, "InvalidQuery filter.types"])
        deepStrictEqual([text, yield* readLog({ tenant: text })], [text, "InvalidQuery filter.tenant"])
        deepStrictEqual([text, yield* list({ category: text })], [text, "InvalidQuery category"])
        deepStrictEqual([text, yield* append({ category: text })], [text, "InvalidAppend condition.noneOf[1].category"])
        deepStrictEqual([text, yield* append({ types: [text] })], [text, "InvalidAppend condition.noneOf[1].types"])
        deepStrictEqual(
          [text, yield* append({ correlationId: text })],
          [text, "InvalidAppend condition.noneOf[1].correlationId"]
        )
        deepStrictEqual(
          [text, yield* append({ causationId: text })],
          [text, "InvalidAppend condition.noneOf[1].causationId"]
        )
      }
      for (const stream of noStreams) {
        deepStrictEqual([stream, yield* read({ stream })], [stream, "InvalidQuery stream"])
        deepStrictEqual([stream, yield* readLog({ stream })], [stream, "InvalidQuery filter.stream"])
        deepStrictEqual([stream, yield* list({ after: stream })], [stream, "InvalidQuery after"])
        deepStrictEqual([stream, yield* append({ stream })], [stream, "InvalidAppend condition.noneOf[1].stream"])
      }
      for (const metadata of [{ a: "\0" }, { a: ["\ud800"] }, { "\0": 1 }]) {
        deepStrictEqual(yield* read({ metadata }), "InvalidQuery metadata")
        deepStrictEqual(yield* append({ metadata }), "InvalidAppend condition.noneOf[1].metadata")
      }
      deepStrictEqual(yield* read({ types: [] }), "InvalidQuery types")
      deepStrictEqual(yield* readLog({ types: [] }), "InvalidQuery filter.types")
      deepStrictEqual(yield* list({ states: [stateOf("shut")] }), "InvalidQuery states")
      deepStrictEqual(yield* read({ metadata: {}, stream: account, category: "a" }), "answered")
      deepStrictEqual(yield* read({ metadata: {}, stream: account, category: "a-b" }), "InvalidQuery category")
      deepStrictEqual(yield* store.head, 1n)
    }))

  it.effect("a filter of a condition must restrict something, and may not rule out everything", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1)] })
      const append = (filter: FactFilter) =>
        refused(store.append({ facts: [price(2)], condition: { after: Fact.beginning, noneOf: [filter] } }))
      deepStrictEqual(yield* append({}), "InvalidAppend condition.noneOf[0]")
      deepStrictEqual(yield* append({ types: undefined, metadata: undefined }), "InvalidAppend condition.noneOf[0]")
      deepStrictEqual(yield* append({ metadata: {} }), "InvalidAppend condition.noneOf[0]")
      deepStrictEqual(yield* append({ types: [] }), "InvalidAppend condition.noneOf[0].types")
      deepStrictEqual(yield* append({ types: [], category: "account" }), "InvalidAppend condition.noneOf[0].types")
      deepStrictEqual(yield* append({ metadata: {}, category: "account" }), "ConditionFailed")
      deepStrictEqual(yield* append({ metadata: {}, category: "none" }), "answered")
    }))

  it.effect("an id that is none is refused", () =>
    Effect.gen(function*() {
      const store = yield* open
      const saying = { actor: "ada", reason: "audit" }
      for (const eventId of noIds) {
        deepStrictEqual([eventId, yield* refused(store.get(eventId))], [eventId, "InvalidQuery eventId"])
        deepStrictEqual([eventId, yield* refused(store.history(eventId))], [eventId, "InvalidQuery eventId"])
        const writes = [
          store.streams.setState(account, "archived", { ...saying, eventId }),
          store.revise(correct(id(1), { data: 1, eventId })),
          store.append({ facts: [price(1, { eventId })] })
        ]
        for (const [n, write] of writes.entries()) {
          const path = n < 2 ? "eventId" : "facts[0].eventId"
          deepStrictEqual([eventId, yield* refused<unknown>(write)], [eventId, `InvalidAppend ${path}`])
        }
      }
      const snapshot = { stream: account, version: 1, position: positionOf(1n), schemaVersion: 1, state: 1 }
      for (const stream of noStreams) {
        const questions = [
          store.readStream(stream),
          store.streamVersion(stream),
          store.streams.get(stream),
          store.loadSnapshot(stream, 1)
        ]
        for (const question of questions) {
          deepStrictEqual([stream, yield* refused<unknown>(question)], [stream, "InvalidQuery stream"])
        }
        const writes = [
          store.saveSnapshot({ ...snapshot, stream }),
          store.streams.setMetadata(stream, {}, saying),
          store.streams.setState(stream, "archived", saying)
        ]
        for (const write of writes) {
          deepStrictEqual([stream, yield* refused<unknown>(write)], [stream, "InvalidAppend stream"])
        }
        deepStrictEqual(
          [stream, yield* refused(store.append({ facts: [price(1)], expect: { [stream]: 0 } }))],
          [stream, `InvalidAppend expect[${stream}]`]
        )
      }
      for (const key of noLabels) {
        deepStrictEqual([key, yield* refused(store.idempotencyRecord(key))], [key, "InvalidQuery key"])
      }
      deepStrictEqual(yield* store.head, Fact.beginning)
    }))

  it.effect("a number of facts or a version that counts nothing is refused", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1)] })
      const snapshot = { stream: account, version: 1, position: positionOf(1n), schemaVersion: 1, state: 1 }
      for (const n of noCounts) {
        for (const direction of ["forwards", "backwards"] as const) {
          const stream = (options: Parameters<Store["readStream"]>[1]) =>
            refused(store.readStream(account, { ...options, direction }))
          deepStrictEqual([n, yield* stream({ limit: n })], [n, "InvalidQuery limit"])
          deepStrictEqual([n, yield* stream({ fromVersion: n })], [n, "InvalidQuery fromVersion"])
        }
        deepStrictEqual([n, yield* refused(store.readLog({ after: Fact.beginning, limit: n }))], [
          n,
          "InvalidQuery limit"
        ])
        deepStrictEqual(
          [n, yield* refused(Stream.runHead(store.subscribe({ after: Fact.beginning, limit: n })))],
          [n, "InvalidQuery limit"]
        )
        deepStrictEqual([n, yield* refused(store.streams.list({ limit: n }))], [n, "InvalidQuery limit"])
        deepStrictEqual([n, yield* refused(store.loadSnapshot(account, n))], [n, "InvalidQuery schemaVersion"])
        deepStrictEqual([n, yield* refused(store.saveSnapshot({ ...snapshot, schemaVersion: n }))], [
          n,
          "InvalidAppend schemaVersion"
        ])
        deepStrictEqual([n, yield* refused(store.saveSnapshot({ ...snapshot, version: n }))], [
          n,
          "InvalidAppend version"
        ])
      }
      for (const position of [-1n, 2n ** 63n].map(positionOf)) {
        deepStrictEqual(yield* refused(store.saveSnapshot({ ...snapshot, position })), "InvalidAppend position")
      }
      deepStrictEqual((yield* store.readStream(account, { limit: 2 ** 31 - 1, fromVersion: 1 })).length, 1)
      deepStrictEqual((yield* store.readLog({ after: Fact.beginning, limit: 2 ** 31 - 1 })).length, 1)
    }))

  it.effect("the log is read between positions that it has", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1), price(2)] })
      const { readLog, subscribe } = store
      for (const filter of [undefined, { category: "account" }]) {
        for (const after of [-1n, -(10n ** 30n), 2n ** 63n, 10n ** 30n].map(positionOf)) {
          deepStrictEqual([after, yield* refused(readLog({ after, filter }))], [after, "InvalidQuery after"])
          deepStrictEqual([after, yield* refused(Stream.runHead(subscribe({ after })))], [after, "InvalidQuery after"])
        }
        for (const upTo of [-1n, 3n, 2n ** 63n - 1n, 10n ** 30n].map(positionOf)) {
          deepStrictEqual(
            [upTo, yield* refused(readLog({ after: Fact.beginning, filter, upTo }))],
            [upTo, "InvalidQuery upTo"]
          )
        }
        const between = (after: bigint, upTo: bigint) =>
          Effect.map(
            readLog({ after: positionOf(after), upTo: positionOf(upTo), filter }),
            (facts) => facts.map(({ version }) => version)
          )
        deepStrictEqual(yield* between(0n, 0n), [])
        deepStrictEqual(yield* between(0n, 1n), [1])
        deepStrictEqual(yield* between(0n, 2n), [1, 2])
        deepStrictEqual(yield* between(1n, 2n), [2])
        deepStrictEqual(yield* between(2n, 1n), [])
        deepStrictEqual(yield* between(2n ** 63n - 1n, 2n), [])
      }
    }))

  it.effect("a moment that is none is refused", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1)] })
      const far = [10n ** 30n, -(10n ** 30n), 9_224_318_016_000_000_000n].map(Timestamp.fromMicros)
      for (const time of [...far, Timestamp.infinity]) {
        deepStrictEqual([time, yield* refused(store.positionAt({ time }))], [time, "InvalidQuery knownAt"])
        deepStrictEqual([time, yield* refused(store.read({ knownAt: { time } }))], [time, "InvalidQuery knownAt"])
      }
      deepStrictEqual(yield* store.positionAt({ time: Timestamp.negativeInfinity }), Fact.beginning)
    }))

  it.effect("a stream becomes open, archived or tombstoned, and nothing else", () =>
    Effect.gen(function*() {
      const store = yield* open
      const saying = { actor: "ada", reason: "audit" }
      for (const state of ["shut", "", "OPEN"].map(stateOf)) {
        deepStrictEqual([state, yield* refused(store.streams.setState(account, state, saying))], [
          state,
          "InvalidAppend state"
        ])
      }
      deepStrictEqual(yield* store.head, Fact.beginning)
    }))

  it.effect("a stream whose id is as long as it may be can be described, and what was said of it read", () =>
    Effect.gen(function*() {
      const store = yield* open
      const long = streamOf(`a-${"x".repeat(510)}`)
      yield* store.append({ facts: [price(1, { stream: long })] })
      yield* store.streams.setState(long, "archived", { actor: "ada", reason: "audit" })
      const about = aboutStream(long)
      deepStrictEqual((yield* store.readStream(about)).map(({ type }) => type), ["$stream.archived"])
      deepStrictEqual((yield* store.read({ stream: about })).facts.length, 1)
      deepStrictEqual((yield* store.readLog({ after: Fact.beginning, filter: { stream: about } })).length, 1)
      deepStrictEqual(yield* store.streamVersion(about), 1)
      const states = ["open", "archived"] as const
      const listed = yield* store.streams.list({ states, after: about })
      deepStrictEqual(listed.map(({ stream }) => stream), [long])
    }))

  it.effect("a question that is asked for no tenant, or in no known order, is refused by the name of its field", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1)] })
      for (const tenant of noLabels) {
        for (const ask of [store.readStream(account), store.read({}), store.streams.list(), store.get(id(1))]) {
          const asked = Effect.provideService(refused<unknown>(ask), CurrentTenant, tenant)
          deepStrictEqual(yield* asked, "InvalidQuery tenant")
        }
      }
      const questions = { direction: "sideways", orderBy: "price", revisions: "some" }
      for (const [field, value] of Object.entries(questions)) {
        deepStrictEqual(yield* refused(store.read(questionOf({ [field]: value }))), `InvalidQuery ${field}`)
      }
    }))

  it.effect("what is stored can be read: a fact and an append have bytes at most, and what has more is refused", () =>
    Effect.gen(function*() {
      const store = yield* open
      const euros = (bytes: number) => "€".repeat((bytes - 2) / 3)
      yield* store.append({ facts: [price(1, { data: euros(8_388_608) })] })
      deepStrictEqual((yield* store.readStream(account)).map(({ data }) => data), [euros(8_388_608)])
      const long = { facts: [price(2, { data: euros(8_388_611) })] }
      deepStrictEqual(yield* refused(store.append(long)), "InvalidAppend facts[0].data")
      const metadata = { text: "x".repeat(131_072) }
      deepStrictEqual(
        yield* refused(store.append({ facts: [price(2, { metadata })] })),
        "InvalidAppend facts[0].metadata"
      )
      const data = "x".repeat(4_000_000)
      const many = { facts: Array.from({ length: 9 }, (_, n) => price(n + 2, { data })) }
      deepStrictEqual(yield* refused(store.append(many)), "InvalidAppend facts")
      const [fact] = yield* store.readStream(account)
      deepStrictEqual(
        yield* refused(store.revise(correct(fact!.eventId, { data: euros(8_388_611) }))),
        "InvalidAppend data"
      )
      deepStrictEqual(yield* store.head, fact!.position)
    }))

  it.effect("a field of another type than it should have is refused by its name", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1), metadata: { a: 1 } })] })
      const revisions: ReadonlyArray<readonly [field: string, values: ReadonlyArray<unknown>]> = [
        ["_tag", [undefined, null, "Correct", 1]],
        ["revises", [undefined, null, 1]],
        ["eventId", [null, 1]],
        ["reason", [undefined, null, 1, ["r"]]],
        ["actor", [undefined, null, 1]],
        ["correlationId", [null, 1]],
        ["causationId", [null, 1]],
        ["metadata", [null, 1, "a", [1], { a: 1n }]],
        ["expectedRevision", [null, "1", 1n]],
        ["schemaVersion", [null, "1", 1n]],
        ["data", [() => 1, 1n]],
        ["validFrom", [null, 1, "2026-01-01"]],
        ["validTo", [null, 1, "2026-01-01"]]
      ]
      for (const [field, values] of revisions) {
        for (const value of values) {
          const answer = yield* refused(store.revise(revisionOf({ [field]: value })))
          deepStrictEqual([field, value, answer], [field, value, `InvalidAppend ${field}`])
        }
      }
      const notJson = [null, 1, "a", [1], { a: undefined }, { a: { b: [undefined] } }, { a: () => 1 }, { a: 1n }]
      const times = [null, 1, "2026-01-01"]
      const queries: ReadonlyArray<readonly [field: string, values: ReadonlyArray<unknown>]> = [
        ["metadata", notJson],
        ["types", ["price.set", 1, [1], [undefined]]],
        ["stream", [null, 1]],
        ["category", [null, 1]],
        ["correlationId", [null, 1]],
        ["knownAt", [null, 1, {}, { time: 1 }, { time: undefined }, { position: undefined }, { position: 1 }]],
        ["knownAt", [{ position: -1n }, { position: 1n, time: Timestamp.fromMicros(1n) }]],
        ["validAt", times],
        ["validDuring", [null, 1]],
        ["validDuring.from", [{}, { to: Timestamp.fromMicros(1n) }, { from: 1, to: Timestamp.fromMicros(1n) }]],
        ["validDuring.to", [{ from: Timestamp.fromMicros(1n) }, { from: Timestamp.fromMicros(1n), to: null }]],
        ["versions", [{ from: "1" }, { to: null }, 1, null]],
        ["limit", [null, "1", 1n]],
        ["cursor", [null, 1]]
      ]
      for (const [field, values] of queries) {
        for (const value of values) {
          const answer = yield* refused(store.read(questionOf({ [field.split(".")[0]!]: value })))
          deepStrictEqual([field, value, answer], [field, value, `InvalidQuery ${field}`])
        }
      }
      for (const value of [null, 1, {}, { time: 1 }, { position: 1 }, { position: -1n }]) {
        deepStrictEqual([value, yield* refused(store.positionAt(momentOf(value)))], [value, "InvalidQuery knownAt"])
      }
      for (const metadata of notJson) {
        const condition = { after: positionOf(1n), noneOf: [questionOf({ metadata, category: "account" })] }
        const append = store.append({ facts: [price(2)], condition })
        deepStrictEqual([metadata, yield* refused(append)], [metadata, "InvalidAppend condition.noneOf[0].metadata"])
      }
      const past = yield* Effect.flip(store.read({ knownAt: { position: positionOf(-1n) } }))
      deepStrictEqual(past.message, "expected a position of the log")
      deepStrictEqual(yield* store.head, 1n)
    }))

  it.effect("outside a transaction, what belongs into one names the operation that does not", () =>
    Effect.gen(function*() {
      const store = yield* open
      const append = yield* Effect.flip(Effect.asVoid(store.appendInTransaction({ facts: [price(1)] })))
      deepStrictEqual(append.message, "outside a transaction, use append")
      const revise = yield* Effect.flip(Effect.asVoid(store.reviseInTransaction(correct(id(1), { data: 1 }))))
      deepStrictEqual(revise.message, "outside a transaction, use revise")
    }))
}
