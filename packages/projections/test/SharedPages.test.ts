import { assert, layer } from "@effect/vitest"
import type { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as Fact from "@strata/event-store/Fact"
import * as SharedPages from "@strata/projections/SharedPages"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"

const stream = (n: number) => Fact.StreamId.make(`counter-${n}`)
const ofTenant = (n: number) => ({ tenant: "default", stream: stream(n) })
const positionsOf = (facts: ReadonlyArray<Fact.Fact>) => facts.map(({ position }) => Number(position))
const upTo = (n: number) => Fact.Position.make(BigInt(n))

/** Two facts in each of some streams and then a correction in each, what is shared of them, and what the store was asked for. */
const make = Effect.fnUntraced(function*(streams: number) {
  const store = yield* EventStoreMemory.make()
  const numbers = Array.from({ length: streams }, (_, index) => index + 1)
  for (const n of numbers) {
    const { facts } = yield* store.append({
      facts: [1, 2].map((data) => ({ stream: stream(n), type: "counted", data }))
    })
    yield* store.revise({ _tag: "Correction", revises: facts[0]!.eventId, data: 3, reason: "r", actor: "a" })
  }
  const asked: Array<ReadonlyArray<string>> = []
  const shared = yield* SharedPages.make(
    {
      ...store,
      readStreams: (options) =>
        Effect.suspend(() => {
          asked.push(options.streams.map(({ stream }) => stream))
          return store.readStreams(options)
        })
    } satisfies EventStore["Service"]
  )
  return { asked, shared, readPage: shared.readLogPage({ after: Fact.beginning, upTo: upTo(3 * streams) }) }
})

layer(SecureRandom.layerWebCrypto)("shared pages", (it) => {
  it.effect("are read once with the streams of their revisions, for all who fold those", () =>
    Effect.gen(function*() {
      const { asked, readPage, shared } = yield* make(2)
      const [one, other] = yield* Effect.all([readPage, readPage], { concurrency: 2 })
      assert.deepStrictEqual(positionsOf(one.facts), [1, 2, 3, 4, 5, 6])
      assert.strictEqual(one, other)
      assert.deepStrictEqual(asked, [["counter-1", "counter-2"]])
      const both = yield* shared.readStreams({ streams: [ofTenant(2), ofTenant(1)], upTo: upTo(6) })
      assert.deepStrictEqual(positionsOf(both), [1, 2, 3, 4, 5, 6])
      const earlier = yield* shared.readStreams({ streams: [ofTenant(2)], upTo: upTo(5) })
      assert.deepStrictEqual(positionsOf(earlier), [4, 5])
      assert.strictEqual(asked.length, 1)
    }))

  it.effect("are not asked for other streams, nor for what comes after them", () =>
    Effect.gen(function*() {
      const { asked, shared } = yield* make(2)
      yield* shared.readLogPage({ after: Fact.beginning, upTo: upTo(3) })
      assert.deepStrictEqual(asked, [["counter-1"]])
      yield* shared.readStreams({ streams: [ofTenant(1), ofTenant(2)], upTo: upTo(3) })
      const later = yield* shared.readStreams({ streams: [ofTenant(2)], upTo: upTo(6) })
      assert.deepStrictEqual(positionsOf(later), [4, 5, 6])
      const foreign = yield* shared.readStreams({ streams: [{ ...ofTenant(1), tenant: "acme" }], upTo: upTo(3) })
      assert.deepStrictEqual(foreign, [])
      assert.strictEqual(asked.length, 4)
    }))

  it.effect("end where the log does: one look serves all, until more is known", () =>
    Effect.gen(function*() {
      const store = yield* EventStoreMemory.make()
      let looks = 0
      const shared = yield* SharedPages.make({
        ...store,
        head: Effect.tap(store.head, () => Effect.sync(() => looks++))
      })
      const heads = Effect.all([shared.head, shared.head], { concurrency: 2 })
      assert.deepStrictEqual([yield* heads, looks], [[0n, 0n], 1])
      yield* store.append({ facts: [{ stream: stream(1), type: "counted", data: 1 }] })
      assert.deepStrictEqual([yield* heads, looks], [[1n, 1n], 2])
    }))

  it.effect("leave streams to their readers where many are revised", () =>
    Effect.gen(function*() {
      const { asked, readPage } = yield* make(9)
      yield* readPage
      assert.deepStrictEqual(asked, [])
    }))
})
