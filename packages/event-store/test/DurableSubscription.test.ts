import { assert, describe, it } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Belief from "@strata/event-store/Belief"
import * as DurableSubscriptionFilter from "@strata/event-store/DurableSubscriptionFilter"
import * as DurableSubscriptionLeases from "@strata/event-store/DurableSubscriptionLeases"
import * as DurableSubscriptionPages from "@strata/event-store/DurableSubscriptionPages"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as Fact from "@strata/event-store/Fact"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Arr from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

const fact = (type: string, stream = Fact.streamId("order", "1"), tenant = "default"): Fact.Fact => ({
  position: Fact.Position.make(1n),
  stream,
  version: 1,
  origin: Fact.Position.make(1n),
  eventId: Fact.EventId.make("00000000-0000-7000-8000-000000000000"),
  type,
  schemaVersion: 1,
  data: null,
  metadata: {},
  correlationId: "c",
  causationId: null,
  tenant,
  actor: null,
  traceparent: null,
  validFrom: Timestamp.fromMicros(0n),
  validTo: Timestamp.infinity,
  recordedAt: Timestamp.fromMicros(0n),
  revision: 0,
  revises: null,
  retracted: false,
  reason: null
})

describe("DurableSubscription", () => {
  it("a star in a type stands for exactly one segment, and a dot for itself", () => {
    const fits = (types: ReadonlyArray<string>, type: string) =>
      DurableSubscriptionFilter.matches({ types })(fact(type))
    deepStrictEqual(
      ["order.placed", "order", "order.line.added", "orders.placed", "order."].filter((type) =>
        fits(["order.*"], type)
      ),
      ["order.placed"]
    )
    deepStrictEqual(["a.b", "a_b", "a.b.c", "xa.b"].filter((type) => fits(["a.b"], type)), ["a.b"])
    deepStrictEqual(["a.x.c", "a.c", "a.x.y.c", "b"].filter((type) => fits(["a.*.c", "b"], type)), ["a.x.c", "b"])
  })

  it("category, stream and tenant must be equal, not just alike", () => {
    const a = fact("t", Fact.streamId("order", "1"), "red")
    const fits = (filter: DurableSubscriptionFilter.Filter) => DurableSubscriptionFilter.matches(filter)(a)
    assert.isTrue(fits({}))
    assert.isTrue(fits({ category: "order", stream: a.stream, tenant: "red", types: ["t"] }))
    assert.isFalse(fits({ category: "ord" }))
    assert.isFalse(fits({ category: "order", tenant: "blue" }))
    assert.isFalse(fits({ stream: Fact.streamId("order", "11") }))
  })

  it.effect("pages of few facts hold all that fit, once and in order, and readers from anywhere soon share them", () =>
    Effect.gen(function*() {
      const store = yield* EventStoreMemory.make()
      const filter = { category: "rare", types: ["found"] }
      for (const n of Arr.range(0, 199)) {
        yield* store.append({
          facts: Arr.range(0, 99).map((m) => ({
            stream: Fact.streamId(n < 100 || m % 10 === 3 ? "rare" : "order", `${m}`),
            type: m % 3 === 0 ? "found" : "lost",
            data: null
          }))
        })
      }
      let read = 0
      const pages = yield* DurableSubscriptionPages.make({
        head: store.head,
        readLogPage: (range) =>
          Effect.tap(store.readLogPage(range), ({ facts }) => Effect.sync(() => read += facts.length))
      }, { partitions: 2, filter, key: (fact) => fact.stream })
      const walk = Effect.fnUntraced(function*(from: bigint) {
        const ends: Array<Fact.Position> = []
        const facts: Array<Fact.Fact> = []
        let after = Fact.Position.make(from)
        while (true) {
          const { end, partitions } = yield* pages(after)
          if (end === null) return { ends, facts }
          assert.isAbove(Number(end - after), 0)
          facts.push(...partitions.flat().toSorted(Belief.byPosition))
          ends.push(end)
          after = end
        }
      })
      const log = (yield* store.readLog({ after: Fact.beginning, limit: 20_000 })).filter(
        DurableSubscriptionFilter.matches(filter)
      )
      const first = yield* walk(0n)
      deepStrictEqual(first.facts, log)
      assert.isBelow(first.ends.length, 12)
      assert.isBelow(read, log.length * 2)
      for (const from of [3n, 777n, 4999n, 15_000n]) {
        const other = yield* walk(from)
        deepStrictEqual(other.facts, log.filter((each) => each.position > from))
        const shared = other.ends.filter((end) => first.ends.includes(end))
        assert.isAtMost(other.ends.length - shared.length, 1)
      }
      deepStrictEqual((yield* walk(20_000n)).ends, [])
    }).pipe(Effect.provide(SecureRandom.layerWebCrypto)))

  it.effect("what is for all is given to every partition, in the order of the log", () =>
    Effect.gen(function*() {
      const store = yield* EventStoreMemory.make()
      yield* store.append({
        facts: Arr.range(1, 40).map((n) => ({
          stream: Fact.streamId("order", `${n % 7}`),
          type: n % 10 === 0 ? "closed" : "placed",
          data: null
        }))
      })
      const pages = yield* DurableSubscriptionPages.make(store, {
        partitions: 3,
        filter: undefined,
        key: (fact) => fact.stream,
        toAll: (fact) => fact.type === "closed"
      })
      const { partitions } = yield* pages(Fact.beginning)
      const closed = (facts: ReadonlyArray<Fact.Fact>) =>
        facts.filter(({ type }) => type === "closed").map(({ position }) => position)
      for (const facts of partitions) {
        deepStrictEqual(closed(facts), [10n, 20n, 30n, 40n])
        deepStrictEqual(facts, facts.toSorted(Belief.byPosition))
      }
      deepStrictEqual(partitions.flat().length, 36 + 3 * 4)
    }).pipe(Effect.provide(SecureRandom.layerWebCrypto)))

  it("a key keeps its partition over versions of this package", () => {
    deepStrictEqual(
      ["", "order-1", "order-2", "order-3", "käse-🧀"].map((key) => DurableSubscriptionFilter.partitionOf(key, 8)),
      [3, 4, 0, 6, 1]
    )
  })

  it("keys spread over the partitions", () => {
    const counts = Arr.makeBy(8, () => 0)
    for (let n = 0; n < 8000; n++) {
      const partition = DurableSubscriptionFilter.partitionOf(`order-${n}`, 8)
      counts[partition] = (counts[partition] ?? 0) + 1
    }
    for (const count of counts) assert.isTrue(count > 850 && count < 1150, counts.join(" "))
  })

  const Count = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 256 })))
  it.effect.prop(
    "shares add up to all partitions and differ by one at most",
    [Count, Count],
    ([partitions, members]) =>
      Effect.sync(() => {
        const shares = Arr.makeBy(members, (rank) => DurableSubscriptionLeases.shareOf({ partitions, members, rank }))
        assert.strictEqual(shares.reduce((sum, share) => sum + share, 0), partitions)
        assert.isTrue(Math.max(...shares) - Math.min(...shares) <= 1)
        deepStrictEqual(shares, shares.toSorted((a, b) => b - a))
      })
  )
})
