import { it } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as CommandHandler from "@strata/event-store/CommandHandler"
import * as Decider from "@strata/event-store/Decider"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import * as EventIds from "@strata/event-store/EventIds"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as Fact from "@strata/event-store/Fact"
import * as Retrying from "@strata/postgres/Retrying"
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { describe } from "vitest"

const Added = EventDefinition.make("Added", { fields: { amount: Schema.Int } })
const events = EventDefinition.set([Added])

class TooMuch extends Schema.TaggedError<TooMuch>()("TooMuch", { total: Schema.Int }) {}

let folded = 0
const Counter = Decider.make({
  category: "counter",
  events,
  initial: 0,
  evolve: (state, event: EventDefinition.Event<typeof events>) => {
    folded++
    return state + event.amount
  },
  decide: (amount: number, state: number) =>
    state + amount > 100
      ? Result.fail(new TooMuch({ total: state }))
      : Result.succeed(amount === 0 ? [] : [Added.make({ amount })]),
  snapshot: { schema: Schema.Int, version: 1, every: 10 }
})

const add = (amount: number): EventDefinition.Event<typeof events> => Added.make({ amount })
const stream = Fact.streamId("counter", "1")

/** Another process: it writes to the stream without this one's handler knowing. */
const elsewhere = Effect.fnUntraced(function*(amount: number) {
  const store = yield* EventStore
  yield* store.append({ facts: [events.encode(add(amount), { stream })] })
})

describe("CommandHandler", () => {
  it.effect("commands are decided in turn and appended as one", () =>
    Effect.gen(function*() {
      const counter = yield* CommandHandler.make(Counter)
      const result = yield* counter.execute("1", [40, 0, 60])
      deepStrictEqual([result.state, result.version, result.position, result.events.length], [
        100,
        2,
        Fact.Position.make(2n),
        2
      ])
      const refused = yield* Effect.flip(counter.execute("1", [-10, 20]))
      deepStrictEqual(refused, new TooMuch({ total: 90 }))
      deepStrictEqual((yield* counter.load("1")).version, 2)
    }).pipe(Effect.provide(EventStoreMemory.layer())))

  it.effect("a conflict reads what is missing and decides again", () =>
    Effect.gen(function*() {
      const counter = yield* CommandHandler.make(Counter)
      yield* counter.execute("1", [1])
      yield* elsewhere(50)
      deepStrictEqual((yield* counter.execute("1", [1])).state, 52)
      yield* elsewhere(40)
      deepStrictEqual(yield* Effect.flip(counter.execute("1", [10])), new TooMuch({ total: 92 }))
    }).pipe(Effect.provide(EventStoreMemory.layer())))

  it.effect("a command under a layer that retries is decided once, and the next try has read what is missing", () =>
    Effect.gen(function*() {
      const counter = yield* CommandHandler.make(Counter)
      yield* counter.execute("1", [1])
      yield* elsewhere(50)
      const conflict = yield* Effect.flip(Retrying.marked(counter.execute("1", [1])))
      deepStrictEqual(conflict._tag === "EventStoreError" && conflict.reason._tag, "VersionConflict")
      deepStrictEqual((yield* Retrying.marked(counter.execute("1", [1]))).state, 52)
    }).pipe(Effect.provide(EventStoreMemory.layer())))

  it.effect("what the store retries is left to it", () =>
    Effect.gen(function*() {
      const memory = yield* EventStoreMemory.make()
      const seen: Array<Retrying.Above> = []
      const store = EventStore.of({
        ...memory,
        append: (append) =>
          Effect.flatMap(Retrying.Retrying, (above) => {
            seen.push(above)
            return memory.append(append)
          })
      })
      const counter = yield* Effect.provideService(CommandHandler.make(Counter), EventStore, store)
      yield* counter.execute("1", [1])
      deepStrictEqual(seen, ["nothing"])
    }).pipe(Effect.provide(EventIds.layerRandom)))

  it.effect("a refusal on an old state is checked against the newest one", () =>
    Effect.gen(function*() {
      const counter = yield* CommandHandler.make(Counter)
      yield* counter.execute("1", [100])
      yield* elsewhere(-50)
      deepStrictEqual((yield* counter.execute("1", [30])).state, 80)
      yield* elsewhere(5)
      const nothing = yield* counter.execute("1", [0])
      deepStrictEqual([nothing.state, nothing.events, nothing.position], [85, [], Fact.Position.make(4n)])
    }).pipe(Effect.provide(EventStoreMemory.layer())))

  it.effect("commands at once for one aggregate all succeed", () =>
    Effect.gen(function*() {
      const counter = yield* CommandHandler.make(Counter)
      yield* Effect.forEach(Array.range(1, 50), () => counter.execute("1", [1]), { concurrency: "unbounded" })
      deepStrictEqual((yield* counter.load("1")).state, 50)
    }).pipe(Effect.provide(EventStoreMemory.layer())))

  it.effect("a long stream is folded from its snapshot, and the result is the same", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const counter = yield* CommandHandler.make(Counter)
      yield* Effect.forEach(Array.range(1, 25), () => counter.execute("1", [1]), { discard: true })
      yield* Effect.yieldNow
      deepStrictEqual(
        Option.map(yield* store.loadSnapshot(stream, 1), ({ state, version }) => [state, version]),
        Option.some([20, 20])
      )
      const fresh = yield* CommandHandler.make(Counter)
      folded = 0
      deepStrictEqual(yield* fresh.load("1"), { state: 25, version: 25, position: Fact.Position.make(25n) })
      deepStrictEqual(folded, 5)
    }).pipe(Effect.provide(EventStoreMemory.layer())))

  it.effect("the same event ids twice are stored once and answered alike", () =>
    Effect.gen(function*() {
      const counter = yield* CommandHandler.make(Counter)
      const eventId = () => Fact.EventId.make("00000000-0000-7000-8000-000000000001")
      const first = yield* counter.execute("1", [1], { eventId })
      const again = yield* counter.execute("1", [1], { eventId })
      deepStrictEqual([again.state, again.version, again.position], [1, 1, first.position])
    }).pipe(Effect.provide(EventStoreMemory.layer())))

  const upTo = (options?: CommandHandler.Options) =>
    CommandHandler.make({
      ...Counter,
      decide: (amount: number, state) => Result.succeed(state >= amount ? [] : [Added.make({ amount })])
    }, options)

  it.effect("an event id that is taken is told once, and the next command is decided on what it belongs to", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const counter = yield* upTo()
      yield* counter.load("1")
      const eventId = Fact.EventId.make("00000000-0000-7000-8000-000000000001")
      yield* store.append({ facts: [events.encode(add(5), { stream, eventId, correlationId: "another" })] })
      const set = counter.execute("1", [5], { eventId: () => eventId })
      const taken = yield* Effect.flip(set)
      deepStrictEqual(taken._tag === "EventStoreError" ? taken.reason._tag : taken._tag, "EventIdTaken")
      const { events: more, state } = yield* set
      deepStrictEqual([state, more], [5, []])
    }).pipe(Effect.provide(EventStoreMemory.layer())))

  it.effect("an event id that is taken is no failure where it is decided again", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const counter = yield* upTo({ onEventIdTaken: "decideAgain" })
      yield* counter.load("1")
      const eventId = Fact.EventId.make("00000000-0000-7000-8000-000000000001")
      yield* store.append({ facts: [events.encode(add(5), { stream, eventId, correlationId: "another" })] })
      const { events: more, state } = yield* counter.execute("1", [5], { eventId: () => eventId })
      deepStrictEqual([state, more], [5, []])
    }).pipe(Effect.provide(EventStoreMemory.layer())))
})
