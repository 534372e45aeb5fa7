/**
 * What every event store takes for the same thing sent again, whatever it is made of.
 */
import type * as Vitest from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import type { Append, EventStore, EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { Correction, Revision } from "@strata/event-store/Revision"
import { aboutStream } from "@strata/event-store/StreamCatalog"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { account, correct, day, id, other, price, retract } from "./priceList.ts"

type Store = EventStore["Service"]

/** What is answered: that it was there before or was not, or the refusal. */
const answer = <A extends { readonly duplicate: boolean }>(effect: Effect.Effect<A, EventStoreError>) =>
  Effect.match(effect, {
    onSuccess: ({ duplicate }) => duplicate ? "duplicate" : "written",
    onFailure: ({ reason }) => reason._tag
  })

/** Declares the contract's tests. `open` gives an empty store at each call. */
export const repetitionContract = <R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<Store, EventStoreError, R | Scope.Scope>
) => {
  it.effect("an append is the same again when every field of its facts is, and otherwise its event id is taken", () =>
    Effect.gen(function*() {
      const store = yield* open
      const full = price(1, {
        eventId: id(1),
        schemaVersion: 2,
        data: { price: 1, of: { a: 1, b: [null, 2] } },
        metadata: { a: 1, b: 2 },
        correlationId: "c",
        causationId: "x",
        validFrom: day(1),
        validTo: day(9)
      })
      const send = (changes: Partial<Fact.NewFact>, more: Partial<Append> = {}) =>
        answer(store.append({ facts: [{ ...full, ...changes }], actor: "ada", ...more }))
      deepStrictEqual(yield* send({}), "written")
      const same: ReadonlyArray<Partial<Fact.NewFact>> = [
        {},
        { data: { of: { b: [null, 2], a: 1 }, price: 1 } },
        { metadata: { b: 2, a: 1 } }
      ]
      for (const changes of same) deepStrictEqual(yield* send(changes), "duplicate")
      const notCompared: ReadonlyArray<Partial<Append>> = [
        { expect: { [account]: 7 } },
        { condition: { after: Fact.beginning, noneOf: [{ category: "account" }] } }
      ]
      for (const more of notCompared) deepStrictEqual(yield* send({}, more), "duplicate")
      const others: ReadonlyArray<Partial<Fact.NewFact>> = [
        { stream: other },
        { type: "price.left" },
        { schemaVersion: 3 },
        { schemaVersion: undefined },
        { data: { price: 1, of: { a: 1, b: [2, null] } } },
        { metadata: { a: 1 } },
        { metadata: undefined },
        { correlationId: "d" },
        { correlationId: undefined },
        { causationId: "y" },
        { causationId: undefined },
        { validFrom: day(2) },
        { validFrom: undefined, validTo: undefined },
        { validTo: day(8) },
        { validTo: undefined },
        { validTo: Timestamp.infinity }
      ]
      for (const changes of others) deepStrictEqual([changes, yield* send(changes)], [changes, "EventIdTaken"])
      for (const actor of ["bob", undefined]) deepStrictEqual(yield* send({}, { actor }), "EventIdTaken")
      deepStrictEqual(yield* store.head, 1n)
    }))

  it.effect("what an append leaves out is its default when it is sent again, and stands for it when it is given", () =>
    Effect.gen(function*() {
      const store = yield* open
      const bare = [price(1, { eventId: id(1) }), price(2, { eventId: id(2) })]
      const { recordedAt } = yield* store.append({ facts: bare })
      const defaults = {
        schemaVersion: 1,
        metadata: {},
        correlationId: id(1),
        validFrom: recordedAt,
        validTo: Timestamp.infinity
      }
      const send = (facts: ReadonlyArray<Fact.NewFact>) => answer(store.append({ facts }))
      deepStrictEqual(yield* send(bare), "duplicate")
      deepStrictEqual(yield* send(bare.map((fact) => ({ ...fact, ...defaults }))), "duplicate")
      deepStrictEqual(yield* send([price(1, { eventId: id(1) })]), "duplicate")
      // Its correlation is by default the first fact's of the append, also when that is not sent again.
      deepStrictEqual(yield* send([price(2, { eventId: id(2) })]), "duplicate")
      deepStrictEqual(yield* send([price(2, { eventId: id(2), correlationId: id(1) })]), "duplicate")
      for (
        const changes of [
          { validFrom: Timestamp.fromMicros(recordedAt - 1n) },
          { validTo: day(1_000_000) },
          { correlationId: "c" },
          { causationId: "c" },
          { metadata: { a: null } }
        ]
      ) {
        deepStrictEqual(
          [changes, yield* send([price(1, { eventId: id(1), ...changes })])],
          [changes, "EventIdTaken"]
        )
      }
      deepStrictEqual(yield* store.head, 2n)
    }))

  it.effect("an append is no revision sent again, and a revision is no append", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1), correlationId: "c" })], actor: "ada" })
      const { recordedAt } = yield* store.revise(correct(id(1), { data: { price: 2 }, eventId: id(2) }))
      const [first] = yield* store.history(id(1))
      const alike = price(2, { eventId: id(2), correlationId: "c", validFrom: first?.validFrom })
      deepStrictEqual(yield* answer(store.append({ facts: [alike], actor: "ada" })), "EventIdTaken")
      deepStrictEqual(
        yield* answer(store.append({ facts: [{ ...alike, validFrom: recordedAt }], actor: "ada" })),
        "EventIdTaken"
      )
      deepStrictEqual(
        yield* answer(store.revise(correct(id(1), { data: { price: 1 }, eventId: id(1) }))),
        "EventIdTaken"
      )
    }))

  it.effect("a revision is the same again when it leads from the one before it to what is stored", () =>
    Effect.gen(function*() {
      const store = yield* open
      const given = { schemaVersion: 2, metadata: { a: 1 }, correlationId: "c", causationId: "x" }
      yield* store.append({ facts: [price(1, { ...given, eventId: id(1), validFrom: day(1), validTo: day(9) })] })
      yield* store.revise(correct(id(1), { data: { price: 2 }, eventId: id(2) }))
      const full = correct(id(1), {
        eventId: id(3),
        data: { price: 3 },
        schemaVersion: 3,
        metadata: { b: 2 },
        correlationId: "d",
        causationId: "y",
        validFrom: day(2),
        validTo: day(8),
        expectedRevision: 1
      })
      const send = (revision: Revision) => answer(store.revise(revision))
      deepStrictEqual(yield* send(full), "written")
      yield* store.revise(correct(id(1), { data: { price: 4 }, eventId: id(4) }))

      // What was left out is as it was in the revision before, whether it is given by now or not.
      const second = correct(id(1), { data: { price: 2 }, eventId: id(2) })
      for (const changes of [{}, given, { validFrom: day(1), validTo: day(9), expectedRevision: 0 }]) {
        deepStrictEqual(yield* send({ ...second, ...changes }), "duplicate")
      }
      const same: ReadonlyArray<Partial<Correction>> = [{}, { revises: id(2) }, { expectedRevision: undefined }]
      for (const changes of same) {
        deepStrictEqual([changes, yield* send({ ...full, ...changes })], [changes, "duplicate"])
      }
      const others: ReadonlyArray<Partial<Correction>> = [
        { revises: id(3) },
        { revises: id(4) },
        { revises: id(9) },
        { reason: "another" },
        { actor: "bob" },
        { expectedRevision: 2 },
        { data: { price: 4 } },
        { data: undefined },
        { schemaVersion: 2 },
        { schemaVersion: undefined },
        { metadata: { b: 3 } },
        { metadata: undefined },
        { correlationId: "c" },
        { correlationId: undefined },
        { causationId: "x" },
        { causationId: undefined },
        { validFrom: day(1) },
        { validFrom: undefined },
        { validTo: day(9) },
        { validTo: undefined }
      ]
      for (const changes of others) {
        deepStrictEqual([changes, yield* send({ ...full, ...changes })], [changes, "EventIdTaken"])
      }
      deepStrictEqual(yield* store.head, 4n)
    }))

  it.effect("a retraction is no correction sent again, and what it did is told by the revision it names", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [price(1, { eventId: id(1) })] })
      const chain: ReadonlyArray<Revision> = [
        correct(id(1), { reason: "r", data: { price: 2 }, eventId: id(2) }),
        { ...retract(id(1)), reason: "r", eventId: id(3) },
        { ...retract(id(3)), reason: "r", eventId: id(4) },
        { ...retract(id(4)), reason: "r", eventId: id(5) }
      ]
      const send = (revision: Revision) => answer(store.revise(revision))
      for (const revision of chain) deepStrictEqual(yield* send(revision), "written")
      for (const revision of chain) deepStrictEqual(yield* send(revision), "duplicate")
      const others: ReadonlyArray<Revision> = [
        { ...retract(id(1)), reason: "r", eventId: id(2) },
        correct(id(1), { reason: "r", data: { price: 2 }, eventId: id(3) }),
        // Only the retraction itself is what is retracted to have the fact back.
        { ...retract(id(1)), reason: "r", eventId: id(4) },
        correct(id(3), { reason: "r", data: { price: 2 }, eventId: id(4) }),
        // To retract a retraction that was retracted already leads to nothing.
        { ...retract(id(3)), reason: "r", eventId: id(5) }
      ]
      for (const revision of others) deepStrictEqual([revision, yield* send(revision)], [revision, "EventIdTaken"])
      deepStrictEqual(yield* store.head, 5n)
    }))

  it.effect("what is said of a stream again under an id is the same, or the id is taken", () =>
    Effect.gen(function*() {
      const store = yield* open
      const saying = { actor: "ada", reason: "audit" }
      const alike = { type: "$stream.open", data: { stream: account, metadata: null, reason: saying.reason } }
      yield* store.append({
        facts: [price(1, { eventId: id(1) }), price(1, { ...alike, eventId: id(4) })],
        actor: "ada"
      })
      const { setMetadata, setState } = store.streams
      const said = (effect: Effect.Effect<Fact.Position, EventStoreError>) =>
        Effect.match(effect, {
          onSuccess: (position) => Number(position),
          onFailure: ({ reason }) => reason._tag
        })
      const archive = { ...saying, eventId: id(2) }
      const describe = { ...saying, eventId: id(3) }
      deepStrictEqual(yield* said(setState(account, "archived", archive)), 3)
      deepStrictEqual(yield* said(setMetadata(account, { a: { x: 1, y: 2 } }, describe)), 4)
      deepStrictEqual(yield* said(setState(account, "tombstoned", saying)), 5)
      deepStrictEqual(yield* said(setState(account, "archived", archive)), 3)
      deepStrictEqual(yield* said(setMetadata(account, { a: { y: 2, x: 1 } }, describe)), 4)
      const others = [
        setState(account, "open", archive),
        setState(account, "archived", { ...archive, actor: "bob" }),
        setState(account, "archived", { ...archive, reason: "another" }),
        setState(other, "archived", archive),
        setMetadata(account, {}, archive),
        setMetadata(account, { a: 1 }, describe),
        setMetadata(account, { a: { x: 1, y: 2 } }, { ...describe, reason: "another" }),
        // The ids of facts of the stream itself, of which one looks as if it told of it.
        setState(account, "open", { ...saying, eventId: id(1) }),
        setState(account, "open", { ...saying, eventId: id(4) })
      ]
      for (const [n, each] of others.entries()) deepStrictEqual([n, yield* said(each)], [n, "EventIdTaken"])
      deepStrictEqual(yield* store.streams.get(other), Option.none())
      deepStrictEqual((yield* store.readStream(aboutStream(account))).length, 3)
      deepStrictEqual(yield* store.head, 5n)
    }))
}
