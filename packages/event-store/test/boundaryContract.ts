/**
 * What every event store holds of boundaries of consistency that a question draws, whatever it is made of.
 */
import type * as Vitest from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { Append, EventStore, EventStoreError } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { FactFilter } from "@strata/event-store/FactQuery"
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { price, reason } from "./priceList.ts"

type Store = EventStore["Service"]

const id = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`)
const tagged = (type: string, metadata: { readonly [key: string]: Schema.Json } = {}): Fact.NewFact => ({
  stream: Fact.streamId("course", "1"),
  type,
  data: null,
  metadata
})

/** Asks whether an append with this condition would be refused, and by the fact at which position. */
const blocker = (store: Store, noneOf: ReadonlyArray<FactFilter>, after = 0n, tenant = "default") =>
  store.append({
    facts: [{ stream: Fact.streamId("try", "1"), type: "tried", data: null }],
    // Nothing is written either way: this version is never there.
    expect: { [Fact.streamId("never", "1")]: 1 },
    condition: { after: Fact.Position.make(after), noneOf }
  }).pipe(
    Effect.provideService(CurrentTenant, tenant),
    Effect.flip,
    Effect.map(({ reason }) =>
      reason._tag === "ConditionFailed"
        ? Number(reason.position)
        : reason._tag === "VersionConflict"
        ? null
        : reason._tag
    )
  )

/** Declares the contract's tests. `open` gives an empty store at each call. */
export const boundaryContract = <R>(
  it: Vitest.Vitest.MethodsNonLive<R>,
  open: Effect.Effect<Store, EventStoreError, R | Scope.Scope>
) => {
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

  it.effect("a condition after a position that is not there yet is refused", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({ facts: [tagged("course.defined", { course: "c1" })] })
      for (const after of [2n, 10n ** 30n]) {
        const { reason } = yield* Effect.flip(store.append({
          facts: [tagged("course.defined", { course: "c2" })],
          condition: { after: after as Fact.Position, noneOf: [{ types: ["course.defined"] }] }
        }))
        deepStrictEqual([reason._tag, "path" in reason && reason.path], ["InvalidAppend", "condition.after"])
      }
      deepStrictEqual(yield* store.head, 1n)
    }))

  it.effect("of a condition's filters any may match, of one filter's types any, and of its metadata all must", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* store.append({
        facts: [
          tagged("course.defined", { course: "c1" }),
          tagged("student.enrolled", { course: "c1", student: "s1" }),
          tagged("student.enrolled", { course: "c2", student: "s1" })
        ]
      })
      const asked = (...noneOf: ReadonlyArray<FactFilter>) => blocker(store, noneOf)
      deepStrictEqual(yield* asked({ types: ["student.enrolled", "course.defined"] }), 1)
      deepStrictEqual(yield* asked({ types: ["student.enrolled", "student.left"] }), 2)
      deepStrictEqual(yield* asked({ types: ["course.closed", "student.left"] }), null)
      deepStrictEqual(yield* asked({ metadata: { course: "c2", student: "s1" } }), 3)
      deepStrictEqual(yield* asked({ metadata: { course: "c2", student: "s2" } }), null)
      deepStrictEqual(yield* asked({ types: ["course.defined"], metadata: { course: "c2" } }), null)
      deepStrictEqual(yield* asked({ types: ["student.*"], metadata: { course: "c2" } }), 3)
      deepStrictEqual(yield* asked({ metadata: { course: "c9" } }, { metadata: { course: "c2" } }), 3)
      deepStrictEqual(
        yield* asked({ types: ["course.closed"] }, { types: ["student.enrolled"] }, { types: ["x"] }),
        2
      )
      deepStrictEqual(yield* asked({ types: ["course.closed"] }, { metadata: { student: "s2" } }), null)
      deepStrictEqual(yield* asked({ stream: Fact.streamId("course", "2") }), null)
      deepStrictEqual(yield* asked({ stream: Fact.streamId("course", "1"), types: ["student.*"] }), 2)
      deepStrictEqual(yield* asked({ category: "course", types: ["course.*"] }), 1)
      deepStrictEqual(yield* asked({ category: "cours" }), null)
    }))

  it.effect("a condition looks at what came after its position, which may lie past the last match", () =>
    Effect.gen(function*() {
      const store = yield* open
      const match = [{ types: ["match"] }]
      yield* store.append({ facts: [tagged("match"), tagged("other"), tagged("other")] })
      deepStrictEqual(yield* blocker(store, match), 1)
      deepStrictEqual(yield* blocker(store, match, 1n), null)
      deepStrictEqual(yield* blocker(store, match, 3n), null)
      yield* store.append({ facts: [tagged("match")] })
      deepStrictEqual(yield* blocker(store, match, 3n), 4)
      deepStrictEqual(yield* blocker(store, match, 4n), null)
    }))

  it.effect("a condition that goes far back is judged like one that does not", () =>
    Effect.gen(function*() {
      const store = yield* open
      const plain = Array.range(1, 2500).map((n) => tagged("Counted", { n }))
      yield* store.append({ facts: [tagged("Opened", { room: "a" }), ...plain, tagged("Closed", { room: "a" })] })
      deepStrictEqual(yield* blocker(store, [{ types: ["Opened"] }]), 1)
      deepStrictEqual(yield* blocker(store, [{ metadata: { room: "a" } }], 1n), 2502)
      deepStrictEqual(yield* blocker(store, [{ types: ["Moved"] }, { metadata: { n: 2000 } }]), 2001)
      deepStrictEqual(yield* blocker(store, [{ metadata: { n: 2000 } }, { metadata: { n: 1000 } }], 5n), 1001)
      const course = Fact.streamId("course", "1")
      yield* store.append({ facts: [{ ...tagged("Opened"), stream: Fact.streamId("course", "2") }] })
      deepStrictEqual(yield* blocker(store, [{ stream: course, types: ["Closed", "Counted"] }], 3n), 4)
      deepStrictEqual(yield* blocker(store, [{ stream: Fact.streamId("course", "2") }], 3n), 2503)
      deepStrictEqual(yield* blocker(store, [{ stream: course, types: ["Opened"] }], 3n), null)
      deepStrictEqual(yield* blocker(store, [{ category: "course", types: ["Opened"] }], 3n), 2503)
      const told = yield* reason(store.append({
        facts: [tagged("Moved")],
        condition: { after: Fact.Position.make(5n), noneOf: [{ types: ["Counted"] }] }
      }))
      deepStrictEqual(told._tag === "ConditionFailed" && [BigInt(told.after), BigInt(told.position)], [5n, 6n])
      deepStrictEqual(yield* blocker(store, [{ types: ["Moved"] }, { metadata: { room: "b" } }]), null)
      deepStrictEqual(yield* blocker(store, [{ types: ["*"] }], 2503n), null)
      deepStrictEqual(yield* blocker(store, [{ types: ["Moved"] }], 0n, "other"), null)
      const first = { facts: [tagged("Moved")], condition: { after: Fact.beginning, noneOf: [{ types: ["Moved"] }] } }
      const answers = yield* Effect.forEach(Array.range(1, 8), () => Effect.result(store.append(first)), {
        concurrency: "unbounded"
      })
      deepStrictEqual(answers.filter(Result.isSuccess).length, 1)
    }))

  it.effect("plain appends and revisions count for a condition like any fact, those of other tenants do not", () =>
    Effect.gen(function*() {
      const store = yield* open
      const match = [{ types: ["match"] }]
      yield* store.append({ facts: [{ ...tagged("match"), eventId: id(1) }] })
      yield* store.append({ facts: [tagged("match")] }).pipe(Effect.provideService(CurrentTenant, "acme"))
      deepStrictEqual(yield* blocker(store, match, 1n), null)
      deepStrictEqual(yield* blocker(store, match, 1n, "acme"), 2)
      yield* store.revise({ _tag: "Retraction", revises: id(1), reason: "never happened", actor: "ada" })
      deepStrictEqual(yield* blocker(store, match, 2n), 3)
    }))

  it.effect("a repeated append is answered with the first result, although its own facts match its condition", () =>
    Effect.gen(function*() {
      const store = yield* open
      const append = {
        facts: [{ ...tagged("match"), eventId: id(1) }],
        condition: { after: Fact.beginning, noneOf: [{ types: ["match"] }] }
      }
      const first = yield* store.append(append)
      const again = yield* store.append(append)
      deepStrictEqual([again.position, again.duplicate], [first.position, true])
      deepStrictEqual(yield* store.head, 1n)
    }))
}
