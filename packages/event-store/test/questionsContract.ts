/**
 * What every event store answers of what facts hold and of what came of them, whatever it is made of.
 */
import type * as Vitest from "@effect/vitest"
import { assertNone, assertSome, deepStrictEqual } from "@effect/vitest/utils"
import * as CausationTree from "@strata/event-store/CausationTree"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { EventStore, type EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { DataCondition, FactQuery } from "@strata/event-store/FactQuery"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { day, id } from "./priceList.ts"

type Store = EventStore["Service"]

const stream = Fact.streamId("order", "1")

/** Declares the contract's tests. `open` gives an empty store at each call. */
export const questionsContract = <R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<Store, EventStoreError, R | Scope.Scope>
) => {
  it.effect("facts are found by what stands at a path of their data, together with when they hold", () =>
    Effect.gen(function*() {
      const store = yield* open
      const data: ReadonlyArray<Schema.Json> = [
        { customer: { tier: "gold" }, cents: 10_000, lines: [{ sku: "a" }, { sku: "b" }] },
        { customer: { tier: "gold" }, cents: 9_999.5, lines: [{ sku: "b" }] },
        { customer: { tier: "silver" }, cents: "10000", "a/b": { "m~n": null }, 0: "zero" },
        { customer: null, text: "\u0000", cents: 1 },
        { customer: { tier: "goldé" }, escaped: "\\u0000 and \u0001", cents: -5 },
        ["gold", { tier: "gold" }],
        "gold",
        7
      ]
      yield* store.append({
        facts: data.map((data, n) => ({ stream, type: "order.placed", data, validFrom: day(n), validTo: day(n + 10) }))
      })
      const found = (...asked: ReadonlyArray<DataCondition>) =>
        Effect.map(store.read({ data: asked }), ({ facts }) => facts.map(({ version }) => version))
      const at = (path: string, value: Schema.Json, is: DataCondition["is"] = "equal"): DataCondition => ({
        path,
        is,
        value
      })

      deepStrictEqual(yield* found(at("/customer/tier", "gold")), [1, 2])
      deepStrictEqual(yield* found(at("/customer/tier", "gold"), at("/cents", 10_000, "atLeast")), [1])
      deepStrictEqual(yield* found(at("/customer/tier", "gold"), at("/cents", 10_000, "below")), [2])
      deepStrictEqual(yield* found(at("/cents", 10_000)), [1])
      deepStrictEqual(yield* found(at("/cents", 0, "below")), [5])
      deepStrictEqual(yield* found(at("/cents", 9_999.5, "atMost")), [2, 5])
      deepStrictEqual(yield* found(at("/cents", 9_999.5, "above")), [1])
      deepStrictEqual(yield* found(at("/cents", "1", "above")), [3])
      deepStrictEqual(yield* found(at("/customer/tier", "gold", "above")), [3, 5])
      deepStrictEqual(yield* found(at("/customer/tier", "goldz", "above")), [3, 5])
      deepStrictEqual(yield* found(at("/customer", { tier: "gold" })), [1, 2])
      deepStrictEqual(yield* found(at("/lines/1", { sku: "b" })), [1])
      deepStrictEqual(yield* found(at("/lines/-1", { sku: "b" })), [])
      deepStrictEqual(yield* found(at("/lines/01/sku", "b")), [])
      deepStrictEqual(yield* found(at("/lines/0/sku", "b")), [2])
      deepStrictEqual(yield* found(at("/a~1b/m~0n", null)), [3])
      deepStrictEqual(yield* found(at("/0", "zero")), [3])
      deepStrictEqual(yield* found(at("/0", "gold")), [6])
      deepStrictEqual(yield* found(at("", "gold")), [7])
      deepStrictEqual(yield* found(at("", 5, "above")), [8])
      deepStrictEqual(yield* found(at("/nothing", null)), [])
      // What jsonb cannot hold fits nothing; what only looks like it is all right.
      deepStrictEqual(yield* found(at("/cents", 1)), [])
      deepStrictEqual(yield* found(at("/escaped", "\\u0000 and \u0001")), [5])

      const valid = yield* store.read({ data: [at("/customer/tier", "gold")], validAt: day(10), types: ["order.*"] })
      deepStrictEqual(valid.facts.map(({ version }) => version), [2])
      const first = yield* store.read({ data: [at("/customer/tier", "gold")], limit: 1 })
      const second = yield* store.read({ data: [at("/customer/tier", "gold")], limit: 1, cursor: first.next! })
      deepStrictEqual([second.facts[0]?.version, second.next], [2, null])

      const path = (asked: unknown) =>
        Effect.map(
          Effect.flip(store.read({ data: asked as ReadonlyArray<DataCondition>, cursor: first.next! })),
          ({ reason }) => reason._tag === "InvalidQuery" ? reason.path : reason._tag
        )
      deepStrictEqual(yield* path([at("/customer/tier", "silver")]), "cursor")
      deepStrictEqual(yield* path([]), "data")
      deepStrictEqual(yield* path("gold"), "data")
      deepStrictEqual(yield* path([at("/a", 1), "gold"]), "data[1]")
      deepStrictEqual(yield* path([at("customer", 1)]), "data[0].path")
      deepStrictEqual(yield* path([at("/a~2", 1)]), "data[0].path")
      deepStrictEqual(yield* path([{ path: "/a", is: "like", value: "a" }]), "data[0].is")
      deepStrictEqual(yield* path([at("/a", true, "above")]), "data[0].value")
      deepStrictEqual(yield* path([at("/a", Number.NaN)]), "data[0].value")
      deepStrictEqual(yield* path([{ path: "/a", is: "equal" }]), "data[0].value")
      deepStrictEqual(yield* path([at("/a", "\u0000")]), "data[0].value")
    }))

  it.effect("a field that nobody knows is refused, since nobody would look at it", () =>
    Effect.gen(function*() {
      const store = yield* open
      const data = [{ path: "/a", is: "equal", value: 1 }]
      const path = <A>(asked: Effect.Effect<A, EventStoreError>) =>
        Effect.map(Effect.flip(asked), ({ reason }) => "path" in reason ? reason.path : reason._tag)
      const filter = { types: ["told"], data }
      deepStrictEqual(
        yield* path(store.append({
          facts: [{ stream, type: "told", data: 1 }],
          condition: { after: Fact.beginning, noneOf: [{ types: ["told"] }, filter] }
        })),
        "condition.noneOf[1].data"
      )
      deepStrictEqual(yield* path(store.readLog({ after: Fact.beginning, filter })), "filter.data")
      deepStrictEqual(yield* path(store.read({ stream, kind: "told" } as FactQuery)), "kind")
    }))

  it.effect("the facts that answer a question are counted, whatever a page of them holds", () =>
    Effect.gen(function*() {
      const store = yield* open
      const other = Fact.streamId("order", "2")
      yield* store.append({
        facts: Array.from({ length: 7 }, (_, n) => ({
          stream: n < 5 ? stream : other,
          type: n % 2 === 0 ? "order.placed" : "order.paid",
          data: { n },
          validFrom: day(n),
          validTo: day(n + 1)
        }))
      })
      const [first] = yield* store.readStream(stream)
      yield* store.revise({ _tag: "Retraction", revises: first!.eventId, reason: "never was", actor: "ada" })
      const counted = (query: FactQuery) =>
        Effect.map(store.count(query), ({ exact, knownAt, value }) => [value, exact, Number(knownAt)])
      deepStrictEqual(yield* counted({}), [6, true, 8])
      deepStrictEqual(yield* counted({ limit: 2, orderBy: "validity", direction: "backwards" }), [6, true, 8])
      deepStrictEqual(yield* counted({ revisions: "all" }), [8, true, 8])
      deepStrictEqual(yield* counted({ knownAt: { position: Fact.Position.make(7n) } }), [7, true, 7])
      deepStrictEqual(yield* counted({ stream }), [4, true, 8])
      deepStrictEqual(yield* counted({ stream, types: ["order.placed"] }), [2, true, 8])
      deepStrictEqual(yield* counted({ category: "order", types: ["order.placed"] }), [3, true, 8])
      deepStrictEqual(yield* counted({ category: "parcel" }), [0, true, 8])
      deepStrictEqual(yield* counted({ validAt: day(3) }), [1, true, 8])
      deepStrictEqual(yield* Effect.provideService(counted({}), CurrentTenant, "other"), [0, true, 8])
      const wrong = yield* Effect.flip(store.count({ limit: 0 }))
      deepStrictEqual(wrong.reason._tag, "InvalidQuery")
    }))

  it.effect("no more facts are counted than 10,000", () =>
    Effect.gen(function*() {
      const store = yield* open
      for (let n = 0; n < 10_001; n += 1000) {
        yield* store.append({
          facts: Array.from(
            { length: Math.min(1000, 10_001 - n) },
            () => ({ stream, type: "order.placed", data: null })
          )
        })
        if (n === 9000) {
          deepStrictEqual(yield* store.count({}), { value: 10_000, exact: true, knownAt: Fact.Position.make(10_000n) })
        }
      }
      for (const query of [{}, { stream }, { category: "order" }]) {
        deepStrictEqual(yield* store.count(query), {
          value: 10_000,
          exact: false,
          knownAt: Fact.Position.make(10_001n)
        })
      }
    }))

  it.effect("what came of a fact is a tree, and its causes are the way to it", () =>
    Effect.gen(function*() {
      const store = yield* open
      const asked = <A, E>(effect: Effect.Effect<A, E, EventStore>) => Effect.provideService(effect, EventStore, store)
      const told = (n: number, cause: string | undefined) =>
        store.append({ facts: [{ stream, type: "told", data: n, eventId: id(n), causationId: cause }] })
      yield* told(1, "request 7")
      yield* told(2, id(1))
      yield* told(3, id(1))
      yield* told(4, id(2))
      yield* told(5, id(4))
      yield* told(6, undefined)
      // Of another tenant, and no part of it.
      yield* told(7, id(1)).pipe(Effect.provideService(CurrentTenant, "acme"))
      const before = yield* store.head
      // The reaction to a correction hangs below the fact that was corrected.
      yield* store.revise({ _tag: "Correction", revises: id(2), eventId: id(20), data: 20, reason: "r", actor: "a" })
      yield* told(8, id(20))
      yield* store.revise({ _tag: "Retraction", revises: id(3), eventId: id(30), reason: "r", actor: "a" })
      // A circle, and one by itself.
      yield* told(9, id(10))
      yield* told(10, id(9))
      yield* told(11, id(11))

      const shown = ({ effects, fact }: CausationTree.CausationTree): Schema.Json => [fact.data, ...effects.map(shown)]
      const tree = (n: number, options?: CausationTree.Options) =>
        Effect.map(asked(CausationTree.effects(id(n), options)), Option.map(shown))
      assertSome(yield* tree(1), [1, [20, [4, [5]], [8]]])
      assertSome(yield* tree(1, { knownAt: { position: before } }), [1, [2, [4, [5]]], [3]])
      assertSome(yield* tree(20), [20, [4, [5]], [8]])
      assertSome(yield* tree(6), [6])
      assertSome(yield* tree(9), [9, [10]])
      assertSome(yield* tree(11), [11])
      assertNone(yield* tree(3))
      assertNone(yield* tree(8, { knownAt: { position: before } }))

      const way = (n: number) =>
        Effect.map(asked(CausationTree.causes(id(n))), (facts) => facts.map(({ data }) => data))
      deepStrictEqual(yield* way(5), [1, 20, 4, 5])
      deepStrictEqual(yield* way(8), [1, 20, 8])
      deepStrictEqual(yield* way(1), [1])
      deepStrictEqual(yield* way(10), [9, 10])

      const refused = <A>(effect: Effect.Effect<A, EventStoreError, EventStore>) =>
        Effect.map(Effect.flip(asked(effect)), ({ reason }) => reason._tag)
      deepStrictEqual(yield* refused(CausationTree.effects(id(99))), "UnknownFact")
      deepStrictEqual(yield* refused(CausationTree.causes(id(99))), "UnknownFact")
      deepStrictEqual(yield* refused(CausationTree.effects(id(1), { maxFacts: 3 })), "InvalidQuery")
      deepStrictEqual(yield* refused(CausationTree.causes(id(5), { maxFacts: 3 })), "InvalidQuery")
      for (const maxFacts of [0, -1, 1.5, Number.NaN]) {
        deepStrictEqual(yield* refused(CausationTree.effects(id(6), { maxFacts })), "InvalidQuery")
        deepStrictEqual(yield* refused(CausationTree.causes(id(6), { maxFacts })), "InvalidQuery")
      }
    }))
}
