import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as DurableSubscriptionFilter from "@strata/event-store/DurableSubscriptionFilter"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as FactChunks from "@strata/event-store/FactChunks"
import * as FactSummaries from "@strata/event-store/FactSummaries"
import { Postgres } from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Array from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { answers, counts, logAnswers, logFilters, write } from "./variedLog.ts"

const Database = Layer.merge(PostgresTest.layer({ migrations: [migrations] }), SecureRandom.layerWebCrypto)

const idOf = Effect.fnUntraced(function*(name: string) {
  const { sql } = yield* Postgres
  return (yield* sql<{ readonly id: number }>`select id from store where name = ${name}`)[0]!.id
})

layer(Database, { excludeTestServices: true })("the summaries of a log", (it) => {
  it.effect("change no answer, however far they are", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const store = yield* EventStorePostgres.make({ name: "steps", summarize: false })
      const id = yield* idOf("steps")
      yield* write(store, 0, 5000)
      const known = [3000n, 5050n]
      const plain = yield* answers(store, known)
      const counted = yield* counts(store)
      const log = yield* store.readLog({ after: Fact.beginning, limit: 10_000 })
      const expected = logFilters.map((filter) =>
        [0n, 700n, 2900n].map((from) =>
          log.filter((each) => each.position > from && DurableSubscriptionFilter.matches(filter)(each))
        )
      )
      deepStrictEqual(yield* logAnswers(store), expected)
      assert.isAbove(plain.flat(3).filter((page) => page.length === 0).length, 10)
      for (const end of [1024n, 2048n, 3072n, 4096n, 4864n]) {
        deepStrictEqual(yield* FactChunks.summarize(sql, id), {
          summarized: Fact.Position.make(end),
          head: Fact.Position.make(5050n)
        })
        if (end === 1024n || end === 3072n) continue
        deepStrictEqual(yield* answers(store, known), plain)
        deepStrictEqual(yield* counts(store), counted)
        deepStrictEqual(yield* logAnswers(store), expected)
      }
    }), { timeout: 120_000 })

  it.effect("are found on both sides of the end of a segment", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const store = yield* EventStorePostgres.make({ name: "segments", summarize: false })
      const id = yield* idOf("segments")
      // A log whose first facts are gone begins four chunks before the end of its first segment.
      yield* sql`update store set head = 4092 * 256 where id = ${id}`
      yield* sql`insert into fact_chunk values (${id}, 4091, 'infinity', '-infinity', '-infinity', '{}')`
      yield* write(store, 0, 2500)
      const known = [4096n * 256n, yield* store.head]
      const plain = yield* answers(store, known)
      yield* Effect.repeat(FactChunks.summarize(sql, id), {
        until: ({ head, summarized }) => summarized !== null && head - summarized < 256n
      })
      deepStrictEqual(yield* answers(store, known), plain)
    }), { timeout: 120_000 })

  it.effect("are made while others append, by one process at a time, each chunk once", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const stores = yield* Effect.forEach(Array.range(1, 3), () => EventStorePostgres.make({ name: "shared" }))
      const id = yield* idOf("shared")
      const [store] = stores
      yield* write(store!, 0, 1200)
      const query = {
        types: ["thing.found", "thing.set.1"],
        knownAt: { position: Fact.Position.make(1212n) },
        limit: 1000
      }
      const read = Effect.map(store!.read(query), ({ facts }) => facts.map(({ position }) => position))
      const first = yield* read
      const writing = yield* Effect.forkChild(write(store!, 1200, 8000), { startImmediately: true })
      const summarized = sql<{ readonly positions: bigint }>`select fact_summarized(${id}) as positions`
      yield* Effect.repeat(
        Effect.andThen(Effect.tap(read, (now) => Effect.sync(() => deepStrictEqual(now, first))), summarized),
        { until: ([row]) => row!.positions === 7168n }
      )
      yield* Fiber.join(writing)
      const numbers = yield* sql<{ readonly number: bigint }>`
        select number from fact_chunk where store = ${id} order by number`
      deepStrictEqual(numbers.map(({ number }) => number), Array.range(0, 27).map(BigInt))
      const [{ facts }] = yield* Effect.map(
        sql<{ readonly facts: string }>`select sum(facts) as facts from fact_count where store = ${id}`,
        (rows) => [rows[0]!] as const
      )
      deepStrictEqual(facts, "7168")
    }), { timeout: 120_000 })

  it.effect("are compared with the log: what was tampered with is told, and made anew", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const store = yield* EventStorePostgres.make({ name: "drift", summarize: false })
      const id = yield* idOf("drift")
      yield* write(store, 0, 3000)
      deepStrictEqual(yield* FactSummaries.verify({ store: "drift" }), { upTo: 0n, chunks: [], counts: [] })
      const upTo = yield* FactSummaries.rebuild({ store: "drift" })
      assert.isAbove(Number(upTo), 2500)
      deepStrictEqual(yield* FactSummaries.verify({ store: "drift" }), { upTo, chunks: [], counts: [] })
      const known = [yield* store.head]
      const plain = [yield* answers(store, known), yield* counts(store)]

      yield* sql`update fact_chunk set labels = labels[2:] where store = ${id} and number = 1`
      yield* sql`update fact_chunk set labels = labels || 1::bigint where store = ${id} and number = 2`
      yield* sql`update fact_chunk set last_from = '-infinity' where store = ${id} and number = 4`
      yield* sql`delete from fact_chunk where store = ${id} and number = 5`
      const [first] = yield* sql<{ readonly tenant: string; readonly category: string; readonly type: string }>`
        update fact_count set facts = facts + 1 where store = ${id} and ctid = (
          select ctid from fact_count where store = ${id} order by category, type limit 1
        )
        returning tenant, category, type`
      const drift = yield* FactSummaries.verify({ store: "drift" })
      deepStrictEqual(drift.chunks, [
        { number: 1n, what: "labels" },
        { number: 2n, what: "labels" },
        { number: 4n, what: "validity" },
        { number: 5n, what: "missing" }
      ])
      deepStrictEqual(drift.counts.map(({ found, summarized, ...kind }) => [kind, summarized.facts - found.facts]), [
        [first, 1n]
      ])

      deepStrictEqual(yield* FactSummaries.rebuild({ store: "drift" }), upTo)
      deepStrictEqual(yield* FactSummaries.verify({ store: "drift" }), { upTo, chunks: [], counts: [] })
      deepStrictEqual([yield* answers(store, known), yield* counts(store)], plain)
      deepStrictEqual((yield* Effect.flip(FactSummaries.verify({ store: "none" })))._tag, "UnknownStore")
      deepStrictEqual((yield* Effect.flip(FactSummaries.rebuild({ store: "none" })))._tag, "UnknownStore")
    }), { timeout: 120_000 })
})
