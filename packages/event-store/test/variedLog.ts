/** A log in which some of what may be asked for is frequent, some rare, and questions that try all of it. */
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { EventStore } from "@strata/event-store/EventStore"
import * as Fact from "@strata/event-store/Fact"
import type { FactQuery, LogFilter } from "@strata/event-store/FactQuery"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"

type Store = EventStore["Service"]

export const tenants = ["default", "acme"] as const
export const eventId = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${String(n).padStart(12, "0")}`)
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
export const write = Effect.fnUntraced(function*(store: Store, from: number, to: number) {
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

export const answers = (store: Store, known: ReadonlyArray<bigint>) =>
  Effect.forEach(
    tenants,
    (tenant) =>
      Effect.forEach(known, (position) =>
        Effect.forEach(questions, (query) =>
          pages(store, { ...query, knownAt: { position: Fact.Position.make(position) } }), { concurrency: 4 })).pipe(
          Effect.provideService(CurrentTenant, tenant)
        )
  )

export const logFilters: ReadonlyArray<LogFilter> = [
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
export const logAnswers = (store: Store) =>
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

export const counts = (store: Store) =>
  Effect.forEach(
    tenants,
    (tenant) =>
      Effect.all([store.streams.categories, store.streams.types]).pipe(Effect.provideService(CurrentTenant, tenant))
  )
