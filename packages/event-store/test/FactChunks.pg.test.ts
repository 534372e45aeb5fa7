import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import * as DurableSubscriptionFilter from "@strata/event-store/DurableSubscriptionFilter"
import type { EventStore } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as FactChunks from "@strata/event-store/FactChunks"
import type { FactQuery, LogFilter } from "@strata/event-store/FactQuery"
import { Postgres } from "@strata/postgres/Postgres"
import * as Timestamp from "@strata/postgres/Timestamp"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Array from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"

const Database = Layer.merge(PostgresTest.layer({ migrations: [migrations] }), SecureRandom.layerWebCrypto)
type Store = EventStore["Service"]

const tenants = ["default", "acme"] as const
const eventId = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${String(n).padStart(12, "0")}`)
const second = (n: number) => Timestamp.fromMicros(BigInt(n) * 1_000_000n)

/** Facts of which some are many, some few and some alone, whatever is asked for. */
const fact = (n: number): Fact.NewFact => ({
  stream: Fact.streamId(n % 400 === 7 ? "rare" : n % 3 === 0 ? "order" : "mail", `${n % 11}`),
  type: n % 500 === 9 ? "thing.found" : `thing.set.${n % 5}`,
  data: n,
  eventId: eventId(n),
  metadata: n % 2 === 0 ? { even: true, n: n % 300 } : { n: n % 300, of: { third: n % 3 } },
  // Where the thousands are odd, facts begin in turn and end soon; elsewhere every seventh began long before, and few end.
  validFrom: second(n % 2000 < 1000 && n % 7 === 0 ? n * 37 % 3000 : n),
  validTo: n % 2000 >= 1000 ? second(n + 100) : n % 3 === 0 ? second(n + 3000) : undefined,
  // Every thousandth fact begins a correlation that goes on far from it.
  correlationId: n % 100 === 0 ? undefined : eventId(n % 97 === 0 ? n - n % 1000 : n - n % 4 + 1),
  causationId: n % 5 === 0 ? undefined : `cause ${n - n % 5}`
})

/** Appends facts, a batch of each tenant in turn, and revises some of them. */
const write = Effect.fnUntraced(function*(store: Store, from: number, to: number) {
  for (let n = from; n < to; n += 100) {
    const tenant = tenants[n / 100 % 4 === 3 ? 1 : 0]
    yield* store.append({ facts: Array.range(n, Math.min(n + 99, to - 1)).map(fact) }).pipe(
      Effect.provideService(CurrentTenant, tenant)
    )
    const revision = { revises: eventId(n), reason: "r", actor: "a" }
    yield* store.revise(
      n % 300 === 0
        ? { ...revision, _tag: "Retraction" }
        : {
          ...revision,
          _tag: "Correction",
          data: -n,
          validFrom: n % 2000 < 1000 ? second(n / 2) : undefined,
          metadata: { n: 1 }
        }
    ).pipe(Effect.provideService(CurrentTenant, tenant))
  }
})

const filters: ReadonlyArray<FactQuery> = [
  {},
  { category: "rare" },
  { category: "order" },
  { category: "none" },
  { types: ["thing.found"] },
  { types: ["thing.found", "thing.set.2", "thing.none"] },
  { types: ["thing.set.*"], category: "rare" },
  { category: "mail", types: ["thing.found"] },
  { correlationId: eventId(1000), revisions: "all" },
  { correlationId: eventId(1005), types: ["thing.set.1"] },
  { correlationId: "nothing" },
  { causationId: "cause 700" },
  { metadata: { n: 7 } },
  { metadata: { even: true, n: 8 } },
  { metadata: { of: { third: 1 } }, category: "rare" },
  { metadata: { n: 7.5 } },
  { validAt: second(1100) },
  { validAt: second(1275) },
  { validAt: second(1350) },
  { validAt: second(4400), types: ["thing.set.1"] },
  { validDuring: { from: second(1380), to: second(1381) } },
  { validDuring: { from: second(3900), to: second(3920) }, category: "order" },
  { versions: { from: 300 } }
]

const questions: ReadonlyArray<FactQuery> = filters.flatMap((filter, n) =>
  (["position", "validity"] as const).flatMap((orderBy) =>
    (["forwards", "backwards"] as const).map((direction) => ({ ...filter, orderBy, direction, limit: n % 2 ? 300 : 5 }))
  )
)

/** The first three pages of an answer. */
const pages = Effect.fnUntraced(function*(store: Store, query: FactQuery) {
  const found: Array<ReadonlyArray<Fact.Position>> = []
  let cursor: string | undefined
  while (found.length < 3) {
    const page = yield* store.read({ ...query, cursor })
    found.push(page.facts.map((each) => each.position))
    if (page.next === null) break
    cursor = page.next
  }
  return found
})

const answers = (store: Store, known: ReadonlyArray<bigint>) =>
  Effect.forEach(
    tenants,
    (tenant) =>
      Effect.forEach(known, (position) =>
        Effect.forEach(questions, (query) =>
          pages(store, { ...query, knownAt: { position: Fact.Position.make(position) } }), { concurrency: 4 })).pipe(
          Effect.provideService(CurrentTenant, tenant)
        )
  )

const logFilters: ReadonlyArray<LogFilter> = [
  { category: "rare" },
  { category: "order", tenant: "acme" },
  { types: ["thing.found"] },
  { types: ["thing.found", "thing.set.1"], tenant: "default" },
  { types: ["thing.*"], category: "rare" },
  { tenant: "acme" },
  { tenant: "nobody" },
  { stream: Fact.streamId("rare", "3") },
  { stream: Fact.streamId("order", "3"), tenant: "acme", types: ["thing.set.*"] },
  { stream: Fact.streamId("order", "none") }
]

/** What is found in the log with each filter after a position, in pages. */
const logAnswers = (store: Store) =>
  Effect.forEach(logFilters, (filter) =>
    Effect.forEach([0n, 700n, 2900n], (from) =>
      Effect.gen(function*() {
        const found: Array<Fact.Fact> = []
        while (true) {
          const after = found.at(-1)?.position ?? Fact.Position.make(from)
          const page = yield* store.readLog({ after, filter, limit: 100 })
          if (page.length === 0) return found
          found.push(...page)
        }
      })))

const counts = (store: Store) =>
  Effect.forEach(
    tenants,
    (tenant) =>
      Effect.all([store.streams.categories, store.streams.types]).pipe(Effect.provideService(CurrentTenant, tenant))
  )

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
})
