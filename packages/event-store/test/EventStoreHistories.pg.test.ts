import { afterAll, beforeAll, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import type { Append, EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import type { FactQuery } from "@strata/event-store/FactQuery"
import type { Revision } from "@strata/event-store/Revision"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arbitrary from "effect/Arbitrary"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

const Database = Layer.merge(
  PostgresTest.layer({ migrations: [migrations], options: { maxConnections: 4 } }),
  SecureRandom.layerWebCrypto
)

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

// Few streams, ids, keys and moments, so that they meet. A `Pick` stands for one of the facts that are there by then.
const StreamName = Schema.Literals(["counter-1", "counter-2", "meter-1"])
const Pick = between(0, 60)
/** Begins at a moment or when it is recorded, and ends some moments later or never; it is none when that is none later. */
const Period = Schema.Struct({ from: Schema.NullOr(between(0, 4)), moments: between(0, 6) })
/** 0 is meant, and comes once in four times or in eight. */
const Seldom = between(0, 3)
const Rarely = between(0, 7)

const AppendStep = Schema.TaggedStruct("Append", {
  facts: Schema.Array(Schema.Struct({
    stream: StreamName,
    /** One of few ids, which others may have; over 3, one of its own. */
    id: between(1, 12),
    n: between(0, 2),
    period: Period,
    /** What it belongs to and what caused it, one of two each; over 1, what it has of itself. */
    correlation: Seldom,
    causation: Seldom
  })).check(Schema.isMinLength(1), Schema.isMaxLength(3)),
  expects: Seldom,
  expect: Schema.Struct({
    stream: StreamName,
    version: Schema.Union([Schema.Literals(["any", "noStream", "streamExists"]), between(0, 4)])
  }),
  key: between(0, 9)
})
const ReviseStep = Schema.TaggedStruct("Revise", {
  revises: Pick,
  /** Under the id of a fact that is there. */
  again: Rarely,
  retracts: Seldom,
  n: Schema.NullOr(between(0, 2)),
  period: Period,
  expected: between(0, 9)
})
const Filter = Schema.Union([
  Schema.TaggedStruct("None", {}),
  Schema.TaggedStruct("ValidAt", { time: between(0, 4) }),
  Schema.TaggedStruct("During", { from: between(0, 4), to: between(0, 4) }),
  Schema.TaggedStruct("Stream", {
    stream: StreamName,
    from: Schema.NullOr(between(1, 3)),
    to: Schema.NullOr(between(1, 5))
  }),
  Schema.TaggedStruct("Category", { category: Schema.Literals(["counter", "meter"]) }),
  Schema.TaggedStruct("Type", { type: Schema.Literals(["n.*", "n.0", "*.1", "n"]) }),
  Schema.TaggedStruct("Metadata", { n: between(0, 2) }),
  Schema.TaggedStruct("Correlation", { n: between(0, 1) }),
  Schema.TaggedStruct("Causation", { n: between(0, 1) })
])
const ReadStep = Schema.TaggedStruct("Read", {
  known: Schema.NullOr(Pick),
  filters: Schema.Array(Filter).check(Schema.isMaxLength(2)),
  all: Seldom,
  orderBy: Schema.Literals(["position", "validity"]),
  direction: Schema.Literals(["forwards", "backwards"]),
  limit: between(1, 4)
})
const Steps = Schema.Array(Schema.Union([AppendStep, AppendStep, ReviseStep, ReviseStep, ReadStep])).check(
  Schema.isMinLength(4),
  Schema.isMaxLength(10)
)
type Step = typeof Steps.Type[number]
const Moment = between(0, 4)
const History = Schema.Struct({
  steps: Steps,
  /** The moment that the plane is looked at from the last position of the log, and a place from which it is looked at as well. */
  now: Moment,
  then: Schema.Struct({ known: Pick, moment: Moment })
})

/**
 * The id of that number, which the stores of a round share. Those of other rounds have others: a lookup would pass over the
 * rows of thousands of stores that are done with.
 */
const eventId = (round: number, n: number) =>
  Fact.EventId.make(`00000000-0000-7000-8000-${String(round * 1000 + n).padStart(12, "0")}`)
const time = (n: number | null) => n === null ? undefined : Timestamp.fromMicros(BigInt(n) * 1_000_000n)
const validity = ({ from, moments }: typeof Period.Type) => ({
  validFrom: time(from),
  validTo: from === null || moments > 4 ? undefined : time(from + moments)
})

const toAppend = (step: Extract<Step, { _tag: "Append" }>, number: number, round: number): Append => ({
  facts: step.facts.map(({ causation, correlation, id, n, period, stream }, index): Fact.NewFact => ({
    stream: Fact.StreamId.make(stream),
    type: `n.${n}`,
    data: { n },
    eventId: eventId(round, id <= 3 ? id : 100 + number * 10 + index),
    metadata: { n },
    correlationId: correlation > 1 ? undefined : `correlation ${correlation}`,
    causationId: causation > 1 ? undefined : `cause ${causation}`,
    ...validity(period)
  })),
  expect: step.expects > 0 ? {} : { [step.expect.stream]: step.expect.version },
  idempotency: step.key > 1 ? undefined : { key: `key ${step.key}`, fingerprint: "f", answer: { key: step.key } }
})

const pick = (ids: ReadonlyArray<Fact.EventId>, n: number, round: number) => ids[n % ids.length] ?? eventId(round, 99)

const toRevision = (
  step: Extract<Step, { _tag: "Revise" }>,
  number: number,
  ids: ReadonlyArray<Fact.EventId>,
  round: number
): Revision => {
  const fields = {
    revises: pick(ids, step.revises, round),
    eventId: step.again === 0 ? pick(ids, step.revises + 1, round) : eventId(round, 100 + number * 10),
    reason: "r",
    actor: "a",
    expectedRevision: step.expected > 1 ? undefined : step.expected
  }
  if (step.retracts === 0) return { _tag: "Retraction", ...fields }
  return {
    _tag: "Correction",
    ...fields,
    data: step.n === null ? undefined : { n: step.n },
    ...validity(step.period)
  }
}

const toFilter = (filter: typeof Filter.Type): FactQuery => {
  switch (filter._tag) {
    case "None":
      return {}
    case "ValidAt":
      return { validAt: time(filter.time) }
    case "During":
      return { validDuring: { from: time(filter.from)!, to: time(filter.to)! } }
    case "Stream":
      return {
        stream: Fact.StreamId.make(filter.stream),
        versions: { from: filter.from ?? undefined, to: filter.to ?? undefined }
      }
    case "Category":
      return { category: filter.category }
    case "Type":
      return { types: [filter.type] }
    case "Metadata":
      return { metadata: { n: filter.n } }
    case "Correlation":
      return { correlationId: `correlation ${filter.n}` }
    case "Causation":
      return { causationId: `cause ${filter.n}` }
  }
}

const toQuery = (step: Extract<Step, { _tag: "Read" }>, head: number): FactQuery => ({
  ...toFilter(step.filters[0] ?? { _tag: "None" }),
  ...toFilter(step.filters[1] ?? { _tag: "None" }),
  knownAt: step.known === null ? undefined : { position: Fact.Position.make(BigInt(step.known % (head + 2))) },
  revisions: step.all === 0 ? "all" : "belief",
  orderBy: step.orderBy,
  direction: step.direction,
  limit: step.limit
})

/** Everything of a fact that does not hang on the clock. Periods that begin at the recording begin at no moment here. */
const shown = (fact: Fact.Fact) => ({
  ...fact,
  traceparent: null,
  recordedAt: null,
  validFrom: fact.validFrom < 1_000_000_000n ? fact.validFrom : null
})

const readPages = Effect.fnUntraced(function*(store: EventStore["Service"], query: FactQuery) {
  const pages: Array<ReadonlyArray<unknown>> = []
  let cursor: string | undefined
  do {
    const page = yield* store.read({ ...query, cursor })
    pages.push(page.facts.map(shown))
    cursor = page.next ?? undefined
  } while (cursor !== undefined)
  return pages
})

/** Runs a step, and adds the ids of what it wrote to those in the log. */
const run = Effect.fnUntraced(function*(
  store: EventStore["Service"],
  step: Step,
  number: number,
  ids: Array<Fact.EventId>,
  round: number
) {
  switch (step._tag) {
    case "Append": {
      const { duplicate, facts } = yield* store.append(toAppend(step, number, round))
      if (!duplicate) ids.push(...facts.map(({ eventId }) => eventId))
      const places = facts.map(({ eventId, position, stream, version }) => ({ eventId, position, stream, version }))
      return { duplicate, places }
    }
    case "Revise": {
      const { recordedAt: _, ...revised } = yield* store.revise(toRevision(step, number, ids, round))
      if (!revised.duplicate) ids.push(revised.eventId)
      return revised
    }
    case "Read":
      return yield* readPages(store, toQuery(step, ids.length))
  }
})

/** Runs a history, and tells all it answered and left: the log, some chains, and the plane from its last position and another one. */
const observe = Effect.fnUntraced(function*(
  store: EventStore["Service"],
  { now, steps, then }: typeof History.Type,
  round: number
) {
  const answers: Array<unknown> = []
  const ids: Array<Fact.EventId> = []
  for (const [number, step] of steps.entries()) {
    const result = yield* Effect.result(run(store, step, number, ids, round))
    answers.push(Result.isSuccess(result) ? result.success : { ...result.failure.reason })
  }
  const log = (yield* store.readLog({ after: Fact.beginning })).map(shown)
  // Nothing is there but what was answered.
  deepStrictEqual(log.map((fact) => fact.eventId), ids)
  // Each by one of its members.
  const chains = yield* Effect.forEach(
    [...new Map(log.map((fact) => [fact.origin, fact.eventId]))].slice(-2),
    ([origin, last], index) =>
      Effect.map(store.history(index === 0 ? last : ids[Number(origin) - 1]!), (facts) => facts.map(shown))
  )
  const looks = [[log.length, now], [then.known % (log.length + 1), then.moment]] as const
  const plane = yield* Effect.forEach(
    log.length === 0 ? [] : looks,
    ([position, moment]) =>
      readPages(store, {
        knownAt: { position: Fact.Position.make(BigInt(position)) },
        validAt: time(moment),
        orderBy: "validity"
      })
  )
  return { answers, log, chains, plane }
})

/** Histories of a round, each on a store of its own, at the same time. */
const together = 16

/**
 * Rounds after which the stores that are done with are removed. All of them have a fact at position 1, and a chain that
 * begins there: a lookup by the origin passes over those of all stores.
 */
const roundsKept = 16

const beginAfresh = Effect.flatMap(Postgres, ({ sql }) => sql`truncate store, stream, fact, idempotency_key`)

/** By one statement, for which each would take three. */
const makeStores = (names: ReadonlyArray<string>) =>
  Effect.flatMap(Postgres, ({ sql }) => sql`insert into store (name) select unnest(${Pg.textArray(names)})`)

/** Nobody waits for a fact here, so nobody has to be told of one. */
const withoutHints = Effect.updateService(Postgres, (postgres) => ({
  ...postgres,
  wakeups: () => Stream.never,
  wake: () => Effect.void
}))

// A step that is refused is nothing to look for: to note where it was would take a twentieth of the time. Other files come after this
// one in the same process.
const { stackTraceLimit } = Error
beforeAll(() => {
  Error.stackTraceLimit = 1
})
afterAll(() => {
  Error.stackTraceLimit = stackTraceLimit
})

layer(Database, { excludeTestServices: true })("generated histories", (it) => {
  let rounds = 0
  it.effect.prop(
    "leave the same log and the same answers in PostgreSQL and in the model in memory",
    [Arbitrary.schema(Schema.Array(History).check(Schema.isMinLength(together), Schema.isMaxLength(together)))],
    ([histories]) => {
      const round = ++rounds
      const names = histories.map((_, index) => `history ${round}.${index}`)
      return Effect.andThen(
        round % roundsKept === 0 ? beginAfresh : Effect.void,
        Effect.andThen(
          makeStores(names),
          Effect.forEach(histories, (history, index) =>
            Effect.gen(function*() {
              const postgres = yield* EventStorePostgres.make({ name: names[index], summarize: false })
              const memory = yield* EventStoreMemory.make()
              deepStrictEqual(yield* observe(postgres, history, round), yield* observe(memory, history, round))
            }).pipe(Effect.scoped), { concurrency: "unbounded", discard: true })
        )
      ).pipe(withoutHints)
    },
    { arbitrary: { runs: 625 }, timeout: 900_000 }
  )
})
