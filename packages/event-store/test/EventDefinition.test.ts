import { it } from "@effect/vitest"
import { assertFailure, assertSuccess, deepStrictEqual, throws } from "@effect/vitest/utils"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as Fact from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { describe } from "vitest"

const Opened = EventDefinition.make("Opened", { fields: { owner: Schema.String, at: Timestamp.Timestamp } })
const Deposited = EventDefinition.make("Deposited", {
  version: 3,
  fields: { cents: Schema.Int, currency: Schema.String },
  upcasts: {
    1: ({ euros }) => ({ cents: Number(euros) * 100 }),
    2: (data) => ({ ...data, currency: "EUR" })
  }
})
const events = EventDefinition.set([Opened, Deposited])

const stored = (type: string, schemaVersion: number, data: Schema.Json) =>
  Effect.gen(function*() {
    const store = yield* EventStore
    yield* store.append({ facts: [{ stream: Fact.streamId("account", "1"), type, schemaVersion, data }] })
    return (yield* store.readLog({ after: Fact.beginning }))[0]!
  }).pipe(Effect.provide(EventStoreMemory.layer()))

const problem = (result: Result.Result<unknown, EventDefinition.EventDecodeError>) =>
  Result.match(result, { onFailure: (error) => error.problem, onSuccess: () => "none" })

describe("EventDefinition", () => {
  it.effect("an event is stored without its tag and comes back with it", () =>
    Effect.gen(function*() {
      const event = Opened.make({ owner: "Ada", at: Timestamp.fromMicros(1n) })
      const fact = events.encode(event, { stream: Fact.streamId("account", "1") })
      deepStrictEqual(
        [fact.type, fact.schemaVersion, fact.data],
        ["Opened", 1, { owner: "Ada", at: "1970-01-01T00:00:00.000001Z" }]
      )
      assertSuccess(events.decode(yield* stored("Opened", 1, fact.data)), event)
    }))

  it.effect("older shapes are read as the newest one, through every upcast between", () =>
    Effect.gen(function*() {
      const newest = Deposited.make({ cents: 200, currency: "EUR" })
      assertSuccess(events.decode(yield* stored("Deposited", 1, { euros: 2 })), newest)
      assertSuccess(events.decode(yield* stored("Deposited", 2, { cents: 200 })), newest)
      assertSuccess(events.decode(yield* stored("Deposited", 3, { cents: 200, currency: "EUR" })), newest)
    }))

  it.effect("what cannot be read is a typed error that names the fact", () =>
    Effect.gen(function*() {
      deepStrictEqual(problem(events.decode(yield* stored("Deposited", 4, {}))), "newer version")
      deepStrictEqual(problem(events.decode(yield* stored("Closed", 1, {}))), "unknown type")
      deepStrictEqual(problem(events.decode(yield* stored("Opened", 1, { owner: 7 }))), "wrong shape")
      deepStrictEqual(problem(events.decode(yield* stored("Opened", 1, "text"))), "wrong shape")
      const fact = yield* stored("Closed", 1, {})
      assertFailure(
        Result.mapError(events.decode(fact), (error) => error.message),
        `Fact 1 (Closed version 1, event ${fact.eventId}): unknown type, known types are Opened, Deposited`
      )
    }))

  it.effect("a version newer than the code's is refused with the fact, its event and the newest version known", () =>
    Effect.gen(function*() {
      const fact = yield* stored("Deposited", 4, { cents: 200, currency: "EUR", note: "from the future" })
      const error = Result.getOrThrow(Result.flip(events.decode(fact)))
      deepStrictEqual(
        [error._tag, error.problem, error.type, error.schemaVersion, error.eventId, error.position],
        ["EventDecodeError", "newer version", "Deposited", 4, fact.eventId, 1n]
      )
      deepStrictEqual(
        error.message,
        `Fact 1 (Deposited version 4, event ${fact.eventId}): newer version, the newest known one is 3`
      )
    }))

  it.effect("an upcast that throws is a typed error that names the fact and has what was thrown", () =>
    Effect.gen(function*() {
      const thrown = new Error("no such currency")
      const Paid = EventDefinition.make("Paid", {
        version: 3,
        fields: { cents: Schema.Int },
        upcasts: {
          1: (data) => data,
          2: () => {
            throw thrown
          }
        }
      })
      const fact = yield* stored("Paid", 1, { cents: 1 })
      const error = Result.getOrThrow(Result.flip(EventDefinition.set([Paid]).decode(fact)))
      deepStrictEqual(
        [error._tag, error.problem, error.type, error.schemaVersion, error.eventId, error.position, error.cause],
        ["EventDecodeError", "failed upcast", "Paid", 1, fact.eventId, 1n, thrown]
      )
      deepStrictEqual(
        error.message,
        `Fact 1 (Paid version 1, event ${fact.eventId}): failed upcast, from version 2`
      )
    }))

  it.effect("a fact of an older shape is corrected in the newest one, and read as it", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const stream = Fact.streamId("account", "1")
      const old = { stream, type: "Deposited", schemaVersion: 1, data: { euros: 2 } }
      const { facts: [first] } = yield* store.append({ facts: [old] })
      const newest = Deposited.make({ cents: 250, currency: "CHF" })
      const saying = { revises: first!.eventId, reason: "typing error", actor: "ada" }
      yield* store.revise(events.encodeCorrection(newest, saying))
      const { facts: [corrected] } = yield* store.read({ stream })
      deepStrictEqual([corrected!.schemaVersion, corrected!.revision], [3, 1])
      assertSuccess(events.decode(corrected!), newest)
      throws(() => events.encodeCorrection({ _tag: "Closed" }, saying))
      const other = Opened.make({ owner: "Ada", at: Timestamp.fromMicros(1n) })
      const { reason } = yield* Effect.flip(store.revise(events.encodeCorrection(other, saying)))
      deepStrictEqual(reason._tag === "InvalidAppend" ? reason.path : reason._tag, "type")
    }).pipe(Effect.provide(EventStoreMemory.layer())))

  it("a version without its upcasts cannot be defined", () => {
    throws(() => EventDefinition.make("Moved", { version: 2, fields: {} }))
  })
})
