import { assert, layer } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { VersionConflict } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as FactChunks from "@strata/event-store/FactChunks"
import * as FactPartitions from "@strata/event-store/FactPartitions"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import * as Postgres from "@strata/postgres/Postgres"
import * as SqlState from "@strata/postgres/SqlState"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { findings } from "./tenantFindings.ts"
import { answers, counts, eventId, logAnswers, write } from "./variedLog.ts"

const Database = Layer.merge(
  PostgresTest.layer({ migrations: [migrations], options: { role: applicationRole } }),
  SecureRandom.layerWebCrypto
)

const position = (n: number) => Fact.Position.make(BigInt(n))

const move = (store: string, upTo: number, partition: string) =>
  FactPartitions.move({ store, upTo: position(upTo), partition })

layer(Database, { excludeTestServices: true })("partitions of old facts", (it) => {
  it.effect("change no answer, and facts are appended and revised as before", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const store = yield* EventStorePostgres.make({ name: "moved", summarize: false })
      // A stream of which everything moves.
      const fact = { stream: Fact.streamId("old", "1"), type: "Told", data: 1, eventId: eventId(900_000) }
      const first = yield* store.append({ facts: [fact] })
      yield* write(store, 0, 5000)
      yield* FactChunks.summarize(sql, 1)
      const known = [3000n, 5050n]
      const told = Effect.all([
        answers(store, known),
        counts(store),
        logAnswers(store),
        store.readLog({ after: Fact.beginning, limit: 10_000 }),
        store.history(eventId(200))
      ])
      const before = yield* told

      strictEqual(yield* move("moved", 1500, "fact_first"), 1500n)
      strictEqual(yield* move("moved", 1500, "fact_first"), 0n)
      strictEqual(yield* move("moved", 4000, "fact_second"), 2500n)
      deepStrictEqual(yield* told, before)
      // Summaries are made of facts that have moved.
      yield* FactChunks.summarize(sql, 1)
      deepStrictEqual(yield* told, before)

      // What has moved still decides.
      const again = yield* store.append({ facts: [fact] })
      deepStrictEqual([again.duplicate, again.position], [true, first.position])
      const next = { ...fact, eventId: undefined }
      const refused = yield* Effect.flip(store.append({ facts: [next], expect: { [fact.stream]: "noStream" } }))
      deepStrictEqual(
        refused.reason,
        new VersionConflict({ stream: fact.stream, expected: "noStream", actual: 1 })
      )
      const { facts } = yield* store.append({ facts: [next], expect: { [fact.stream]: 1 } })
      strictEqual(facts[0]!.version, 2)
      const revision = { _tag: "Correction", revises: eventId(200), data: "again", reason: "r", actor: "a" } as const
      yield* store.revise(revision)
      deepStrictEqual((yield* store.history(eventId(200))).map((each) => each.revision), [0, 1, 2])
    }), { timeout: 120_000 })

  it.effect(
    "are filled while others append and read, and no fact is missed or seen twice",
    () =>
      Effect.gen(function*() {
        const store = yield* EventStorePostgres.make({ name: "busy", summarize: false })
        yield* write(store, 0, 30_000)
        const writing = yield* Effect.forkChild(write(store, 30_000, 45_000), { startImmediately: true })
        const moving = yield* Effect.forkChild(move("busy", 30_000, "fact_busy"), { startImmediately: true })
        let looks = 0
        const look = Effect.gen(function*() {
          const from = looks++ * 997 % 29_000
          const log = yield* store.readLog({ after: position(from), limit: 1000 })
          deepStrictEqual(log.map((each) => each.position), log.map((_, n) => BigInt(from + n + 1)))
        })
        yield* Effect.repeat(look, { until: () => moving.pollUnsafe() !== undefined })
        strictEqual(yield* Fiber.join(moving), 30_000n)
        yield* Fiber.join(writing)
        assert.isAbove(looks, 3)
        const log = yield* store.readLog({ after: Fact.beginning, limit: 100_000 })
        deepStrictEqual(log.map((each) => each.position), log.map((_, n) => BigInt(n + 1)))
      }),
    { timeout: 120_000 }
  )

  it.effect("are seen by nobody who does not ask for facts", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const store = yield* EventStorePostgres.make({ name: "private", summarize: false })
      yield* write(store, 0, 400)
      yield* move("private", 400, "fact_private")
      const refused = yield* Effect.flip(sql`select from fact_private`)
      strictEqual(SqlState.codeOf(refused), "42501")
      const of = (tenant: string) =>
        Effect.map(
          Effect.provideService(store.read({ revisions: "all", limit: 1000 }), CurrentTenant, tenant),
          ({ facts }) => [...new Set(facts.map((each) => each.tenant))]
        )
      deepStrictEqual(yield* of("acme"), ["acme"])
      deepStrictEqual(yield* of("default"), ["default"])
      deepStrictEqual(yield* of("nobody"), [])
      deepStrictEqual(yield* findings, [])
    }))

  it.effect("are not made of what makes no sense, and nothing moves", () =>
    Effect.gen(function*() {
      const store = yield* EventStorePostgres.make({ name: "kept", summarize: false })
      yield* write(store, 0, 100)
      const refusal = (options: FactPartitions.Options) =>
        Effect.map(
          Effect.flip(FactPartitions.move(options)),
          (error) => error._tag === "InvalidMove" ? [error.path, error.message] : [error._tag, error.message]
        )
      const options = { store: "kept", upTo: position(10), partition: "fact_kept" }
      deepStrictEqual(yield* refusal({ ...options, partition: "Fact; drop" }), [
        "partition",
        "Fact; drop is not \"fact_\" and 1 to 40 lower-case letters, digits and \"_\""
      ])
      deepStrictEqual(yield* refusal({ ...options, partition: "fact_chunk" }), [
        "partition",
        "fact_chunk is a table that holds no facts"
      ])
      deepStrictEqual(yield* refusal({ ...options, upTo: position(102) }), [
        "upTo",
        "The last position is 101, not 102"
      ])
      deepStrictEqual(yield* refusal({ ...options, store: "none" }), ["store", "There is no store none"])
      deepStrictEqual(yield* refusal({ ...options, tablespace: "none" }), ["tablespace", "There is no tablespace none"])
      const { sql } = yield* Postgres.Postgres
      deepStrictEqual(yield* sql`select to_regclass('fact_kept') as made`, [{ made: null }])
    }))
})
