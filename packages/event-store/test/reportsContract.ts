/**
 * What reports, audits and periods ask of both time axes, whatever the store is made of.
 */
import type * as Vitest from "@effect/vitest"
import { assert } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { FactQuery, KnownAt, Point } from "@strata/event-store/FactQuery"
import * as PlaneDiff from "@strata/event-store/PlaneDiff"
import * as PlaneState from "@strata/event-store/PlaneState"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

type Store = EventStore["Service"]

const Traded = EventDefinition.make("Traded", { fields: { quantity: Schema.Int } })
const trades = EventDefinition.set([Traded])
/** How much of something is held: bought less sold. */
const Holding = {
  category: "holding",
  events: trades,
  initial: 0,
  evolve: (held: number, { quantity }: typeof Traded.schema.Type) => held + quantity
}

const id = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`)
/** Days since the epoch. */
const day = (n: number) => Timestamp.fromMicros(BigInt(n) * 86_400_000_000n)
const because = (reason: string) => ({ reason, actor: "ada" })

/** A figure with a name of its own, that holds in `[from, to)`. */
const figure = (
  n: number,
  value: Schema.Json,
  from: number,
  to?: number,
  stream = Fact.streamId("figure", "1")
): Fact.NewFact => ({
  stream,
  type: "figure.told",
  data: value,
  eventId: id(n),
  validFrom: day(from),
  validTo: to === undefined ? undefined : day(to)
})

const told = (store: Store, query: FactQuery) =>
  Effect.map(store.read(query), ({ facts }) => facts.map((fact) => fact.data))
const known = (position: bigint): KnownAt => ({ position: Fact.Position.make(position) })

/** Declares the contract's tests. `open` gives an empty store at each call. */
export const reportsContract = <R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<Store, EventStoreError, R | Scope.Scope>
) => {
  it.effect("a figure that was corrected is told as it was reported, as it is, and what changed it", () =>
    Effect.gen(function*() {
      const store = yield* open
      const stream = Fact.streamId("figure", "1")
      const { recordedAt } = yield* store.append({ facts: [figure(1, 95, 30)] })
      yield* store.revise({ _tag: "Correction", revises: id(1), data: 96, ...because("a price came late") })
      const reported = { knownAt: { time: recordedAt }, validAt: day(30) }
      const current = { validAt: day(30) }
      deepStrictEqual([yield* told(store, reported), yield* told(store, current)], [[95], [96]])
      const [difference, ...others] = yield* PlaneDiff.diff({ stream }, reported, current).pipe(
        Effect.provideService(EventStore, store)
      )
      deepStrictEqual(
        [difference?.before?.data, difference?.after?.data, difference?.after?.reason, others.length],
        [95, 96, "a price came late", 0]
      )
      deepStrictEqual([difference?.weLearned, difference?.worldMoved], [true, false])
      // By how much, for whoever has to report a change of more than half a per cent.
      const [was, is] = [Number(difference?.before?.data), Number(difference?.after?.data)]
      deepStrictEqual([((is - was) / was * 100).toFixed(2), (is - was) / was > 0.005], ["1.05", true])
    }))

  it.effect("points that both know all there is now differ in nothing but time, whoever writes meanwhile", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [figure(1, 95, 1)] })
      const write = store.append({ facts: [{ ...figure(2, 96, 1), eventId: undefined }] })
      // Somebody writes after every look at the store.
      const busy: Store = {
        ...store,
        head: Effect.tap(store.head, write),
        read: (query) => Effect.tap(store.read(query), write),
        positionAt: (moment) => Effect.tap(store.positionAt(moment), write)
      }
      const diff = (a: Point, b: Point) =>
        Effect.provideService(PlaneDiff.diff({ stream: Fact.streamId("figure", "1") }, a, b), EventStore, busy)
      deepStrictEqual(yield* diff({}, {}), [])
      deepStrictEqual(yield* diff({ validAt: day(10) }, { validAt: day(20) }), [])
      for (const time of [Number.NaN, "now", null]) {
        const { reason } = yield* Effect.flip(diff({ validAt: time as never }, {}))
        deepStrictEqual(reason._tag === "InvalidQuery" ? reason.path : reason._tag, "validAt")
      }
      const learned = yield* diff({ knownAt: known(1n), validAt: day(10) }, { validAt: day(10) })
      assert.isAbove(learned.length, 0)
      assert.isTrue(learned.every(({ before, weLearned, worldMoved }) => before === null && weLearned && !worldMoved))
    }))

  it.effect("what is held follows from buys and sells by their dates, also from one that was told late", () =>
    Effect.gen(function*() {
      const store = yield* open
      const trade = (quantity: number, on: number) =>
        store.append({
          facts: [trades.encode(Traded.make({ quantity }), {
            stream: Fact.streamId("holding", "gold"),
            validFrom: day(on)
          })]
        })
      const held = (on: number, position: bigint) =>
        PlaneState.at(Holding, "gold", { validAt: day(on), knownAt: known(position) }).pipe(
          Effect.provideService(EventStore, store)
        )
      yield* trade(100, 10)
      yield* trade(-100, 20)
      yield* trade(-40, 30)
      yield* trade(-25, 15)
      const days = [5, 10, 16, 20, 30]
      const before = yield* Effect.forEach(days, (on) => held(on, 3n))
      const after = yield* Effect.forEach(days, (on) => held(on, 4n))
      deepStrictEqual(before, [0, 100, 100, 0, -40])
      deepStrictEqual(after, [0, 100, 75, -25, -65])
    }))

  it.effect("a day's report gets the late trade of that day, and not the trades of the next one", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [figure(1, "first", 10, 11)] })
      const closing = yield* store.head
      yield* store.append({ facts: [figure(2, "next day", 11, 12), figure(3, "late", 10, 11)] })
      const report = (on: number, at: bigint) => told(store, { validAt: day(on), knownAt: known(at) })
      deepStrictEqual(yield* report(10, closing), ["first"])
      deepStrictEqual(yield* report(10, 3n), ["first", "late"])
      deepStrictEqual(yield* report(11, 3n), ["next day"])
      deepStrictEqual(yield* report(10, closing), ["first"])
    }))

  it.effect("an address that changes on a day told before it leaves two facts to believe and three to read", () =>
    Effect.gen(function*() {
      const store = yield* open
      // Known from 1 on: here, for ever. From 2 on: here until day 10. From 3 on: there, from day 10.
      yield* store.append({ facts: [figure(1, "here", 1)] })
      yield* store.revise({ _tag: "Correction", revises: id(1), validTo: day(10), ...because("moves") })
      yield* store.append({ facts: [figure(2, "there", 10)] })
      const at = (position: bigint, ...days: ReadonlyArray<number>) =>
        Effect.forEach(days, (on) => told(store, { knownAt: known(position), validAt: day(on) }))
      deepStrictEqual(yield* at(0n, 5), [[]])
      deepStrictEqual(yield* at(1n, 0, 1, 9, 10), [[], ["here"], ["here"], ["here"]])
      deepStrictEqual(yield* at(3n, 0, 1, 9, 10, 99), [[], ["here"], ["here"], ["there"], ["there"]])
      const rows = (query: FactQuery) =>
        Effect.map(store.read(query), ({ facts }) => facts.map((fact) => [fact.data, fact.validFrom, fact.validTo]))
      const [open1, closed1, open2] = [
        ["here", day(1), Timestamp.infinity],
        ["here", day(1), day(10)],
        ["there", day(10), Timestamp.infinity]
      ]
      deepStrictEqual(yield* rows({}), [closed1, open2])
      deepStrictEqual(yield* rows({ revisions: "all" }), [open1, closed1, open2])
    }))

  it.effect("a period meets a window in the nine ways that share a moment, and not in the four that do not", () =>
    Effect.gen(function*() {
      const store = yield* open
      // James F. Allen, *Maintaining knowledge about temporal intervals* (1983): the window is [10, 20).
      const relations = {
        "before": [1, 5, false],
        "meets": [5, 10, false],
        "overlaps": [5, 15, true],
        "finished by": [5, 20, true],
        "contains": [5, 25, true],
        "starts": [10, 15, true],
        "equals": [10, 20, true],
        "started by": [10, 25, true],
        "during": [12, 15, true],
        "finishes": [15, 20, true],
        "overlapped by": [15, 25, true],
        "met by": [20, 25, false],
        "after": [22, 25, false]
      } as const
      const all = Object.entries(relations)
      yield* store.append({ facts: all.map(([name, [from, to]], n) => figure(n + 1, name, from, to)) })
      const expected = all.filter(([, [, , meets]]) => meets).map(([name]) => name)
      deepStrictEqual(yield* told(store, { validDuring: { from: day(10), to: day(20) } }), expected)
      for (const n of Array.range(0, 26)) {
        deepStrictEqual(
          yield* told(store, { validAt: day(n) }),
          all.filter(([, [from, to]]) => from <= n && n < to).map(([name]) => name)
        )
      }
      const everything = { from: Timestamp.negativeInfinity, to: Timestamp.infinity }
      deepStrictEqual((yield* told(store, { validDuring: everything })).length, all.length)
    }))

  it.effect("corrections are audited by when they were recorded, and by what they are about", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [figure(1, 1, 10, 20), figure(2, 2, 20, 30)] })
      const correct = (n: number, data: number) =>
        store.revise({ _tag: "Correction", revises: id(n), data, ...because("audit") })
      const first = yield* correct(1, 10)
      yield* store.append({ facts: [figure(3, 3, 10, 20)] })
      const second = yield* correct(2, 20)
      /** Revisions recorded in `[from, to)`, of facts that hold at a moment when one is given. */
      const audit = Effect.fnUntraced(function*(from: Timestamp.Timestamp, to: Timestamp.Timestamp, on?: number) {
        const validAt = on === undefined ? undefined : day(on)
        const after = yield* store.positionAt({ time: Timestamp.fromMicros(from - 1n) })
        const { facts } = yield* store.read({
          revisions: "all",
          knownAt: { time: Timestamp.fromMicros(to - 1n) },
          validAt
        })
        return facts.filter((fact) => fact.position > after && fact.revision > 0).map((fact) => fact.data)
      })
      deepStrictEqual(yield* audit(first.recordedAt, Timestamp.fromMicros(second.recordedAt + 1n)), [10, 20])
      deepStrictEqual(yield* audit(first.recordedAt, second.recordedAt), [10])
      deepStrictEqual(yield* audit(first.recordedAt, Timestamp.fromMicros(second.recordedAt + 1n), 25), [20])
      deepStrictEqual(yield* audit(Timestamp.fromMicros(first.recordedAt + 1n), second.recordedAt), [])
      deepStrictEqual(yield* audit(first.recordedAt, second.recordedAt, 25), [])
      assert.isTrue(first.recordedAt < second.recordedAt)
    }))
}
