import { it } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as CommandHandler from "@strata/event-store/CommandHandler"
import * as Decider from "@strata/event-store/Decider"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as Fact from "@strata/event-store/Fact"
import type { Difference, KnownAt } from "@strata/event-store/FactQuery"
import * as PlaneDiff from "@strata/event-store/PlaneDiff"
import * as PlaneState from "@strata/event-store/PlaneState"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { describe } from "vitest"

const Moved = EventDefinition.make("Moved", { fields: { to: Schema.String } })
const events = EventDefinition.set([Moved])

/** Where somebody lives: the last move wins. */
const Address = Decider.make({
  category: "person",
  events,
  initial: "nowhere",
  evolve: (_, { to }: EventDefinition.Event<typeof events>) => to,
  decide: (to: string, at: string) => Result.succeed(to === at ? [] : [Moved.make({ to })])
})

const ada = Fact.streamId("person", "ada")
const day = (n: number) => Timestamp.fromMicros(BigInt(n) * 86_400_000_000n)
const known = (position: number): KnownAt => ({ position: Fact.Position.make(BigInt(position)) })
const id = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${String(n).padStart(12, "0")}`)

const move = Effect.fnUntraced(function*(n: number, to: string, validFrom: number, validTo?: number) {
  const store = yield* EventStore
  const event = events.encode(Moved.make({ to }), {
    stream: ada,
    eventId: id(n),
    validFrom: day(validFrom),
    validTo: validTo === undefined ? undefined : day(validTo)
  })
  yield* store.append({ facts: [event] })
})
const correct = Effect.fnUntraced(function*(n: number, change: { to?: string; validFrom?: number; validTo?: number }) {
  const store = yield* EventStore
  yield* store.revise({
    _tag: "Correction",
    revises: id(n),
    reason: "found out",
    actor: "clerk",
    ...(change.to === undefined ? {} : { data: { to: change.to } }),
    ...(change.validFrom === undefined ? {} : { validFrom: day(change.validFrom) }),
    ...(change.validTo === undefined ? {} : { validTo: day(change.validTo) })
  })
})
const retract = (n: number) =>
  Effect.flatMap(
    EventStore,
    (store) => store.revise({ _tag: "Retraction", revises: id(n), reason: "found out", actor: "clerk" })
  )

describe("PlaneState", () => {
  it.effect("a late fact comes where it belongs, and what was known then stays what it was", () =>
    Effect.gen(function*() {
      yield* move(1, "Bergen", 60)
      yield* move(2, "Oslo", 30)
      const at = (validAt: number | undefined, position: number) =>
        PlaneState.at(Address, "ada", {
          validAt: validAt === undefined ? undefined : day(validAt),
          knownAt: known(position)
        })
      deepStrictEqual(yield* at(90, 1), "Bergen")
      deepStrictEqual(yield* at(45, 1), "nowhere")
      deepStrictEqual(yield* at(45, 2), "Oslo")
      deepStrictEqual(yield* at(90, 2), "Bergen")
      deepStrictEqual(yield* at(undefined, 2), "Oslo")
      yield* correct(1, { to: "Trondheim" })
      deepStrictEqual([yield* at(90, 2), yield* at(90, 3)], ["Bergen", "Trondheim"])
      yield* retract(1)
      deepStrictEqual([yield* at(90, 3), yield* at(90, 4)], ["Trondheim", "Oslo"])
    }).pipe(Effect.provide(EventStoreMemory.layer())))
})

describe("CommandHandler", () => {
  it.effect("decides on what is believed now, also when a fact it had folded is revised", () =>
    Effect.gen(function*() {
      const addresses = yield* CommandHandler.make(Address)
      yield* addresses.execute("ada", ["Oslo"], { eventId: () => id(1) })
      yield* addresses.execute("ada", ["Bergen"], { eventId: () => id(2) })
      yield* retract(2)
      deepStrictEqual(yield* addresses.load("ada"), { state: "Oslo", version: 3, position: Fact.Position.make(3n) })
      yield* correct(1, { to: "Hamar" })
      deepStrictEqual((yield* addresses.execute("ada", ["Hamar"])).events, [])
      deepStrictEqual((yield* addresses.execute("ada", ["Oslo"])).version, 5)
      const fresh = yield* CommandHandler.make(Address)
      deepStrictEqual((yield* fresh.load("ada")).state, "Oslo")
    }).pipe(Effect.provide(EventStoreMemory.layer())))
})

describe("PlaneDiff", () => {
  const marks = (differences: ReadonlyArray<Difference>) =>
    differences.map(({ after, before, eventId, weLearned, worldMoved }) => [
      eventId,
      before?.data ?? null,
      after?.data ?? null,
      [worldMoved && "world moved", weLearned && "we learned"].filter((mark) => mark !== false).join(", ")
    ])

  it.effect("says of each difference whether the world moved, we learned, or both", () =>
    Effect.gen(function*() {
      yield* move(1, "Oslo", 10, 40)
      yield* move(2, "Bergen", 40)
      yield* move(3, "Hamar", 5)
      yield* correct(3, { to: "Hamar East" })
      yield* move(4, "Molde", 50)
      yield* move(5, "Narvik", 1)
      yield* retract(5)
      const between = (a: readonly [number, number], b: readonly [number, number]) =>
        Effect.map(
          PlaneDiff.diff(
            { stream: ada },
            { validAt: day(a[0]), knownAt: known(a[1]) },
            { validAt: day(b[0]), knownAt: known(b[1]) }
          ),
          marks
        )
      deepStrictEqual(yield* between([20, 3], [45, 3]), [
        [id(1), { to: "Oslo" }, null, "world moved"],
        [id(2), null, { to: "Bergen" }, "world moved"]
      ])
      deepStrictEqual(yield* between([20, 3], [20, 4]), [
        [id(3), { to: "Hamar" }, { to: "Hamar East" }, "we learned"]
      ])
      deepStrictEqual(yield* between([20, 4], [60, 5]), [
        [id(1), { to: "Oslo" }, null, "world moved"],
        [id(2), null, { to: "Bergen" }, "world moved"],
        [id(4), null, { to: "Molde" }, "world moved, we learned"]
      ])
      deepStrictEqual(yield* between([20, 6], [20, 7]), [[id(5), { to: "Narvik" }, null, "we learned"]])
      deepStrictEqual(yield* between([20, 7], [20, 7]), [])
    }).pipe(Effect.provide(EventStoreMemory.layer())))
})
