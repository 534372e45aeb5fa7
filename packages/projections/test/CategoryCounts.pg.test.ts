import { assert, layer } from "@effect/vitest"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { StreamId } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as CategoryCounts from "@strata/projections/CategoryCounts"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

const Database = PostgresTest.layer({
  migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations]
})
const Store = EventStorePostgres.layer().pipe(Layer.provideMerge(Database))

const append = Effect.fnUntraced(function*(tenant: string, ids: ReadonlyArray<string>) {
  const store = yield* EventStore
  const facts = ids.map((id) => ({ stream: StreamId.make(id), type: "Counted", data: null }))
  return yield* Effect.provideService(store.append({ facts }), CurrentTenant, tenant)
})

const read = Effect.fnUntraced(function*(tenant: string, limit = 10) {
  const { sql } = yield* Postgres
  return yield* CategoryCounts.read(sql, { store: "default", tenant, limit })
})

/** What the projection comes to, run until it has seen everything. */
const run = (version: number, batchSize: number) =>
  Effect.flatMap(Projections.Projections, (projections) => projections.catchUp()).pipe(
    Effect.provide(Projections.layer([{ ...CategoryCounts.make("default"), version }], { batchSize })),
    Effect.scoped
  )

layer(Store, { excludeTestServices: true })("counts of categories", (it) => {
  it.effect("each tenant's streams and facts are counted once, in batches of any size and again from the start", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual((yield* read("a")).position, 0n)
      yield* append("a", ["b-1", "b-2", "b-1", "b.c-1"])
      yield* append("other", ["b-1"])
      const { facts } = yield* append("a", ["b-1", "a-1"])
      yield* run(1, 2)
      const store = yield* EventStore
      yield* Effect.provideService(
        store.revise({ _tag: "Retraction", revises: facts[0]!.eventId, reason: "r", actor: "ada" }),
        CurrentTenant,
        "a"
      )
      yield* Effect.provideService(
        store.streams.setState(StreamId.make("a-1"), "archived", { actor: "ada", reason: "r" }),
        CurrentTenant,
        "a"
      )
      const expected = {
        position: yield* store.head,
        streams: 5n,
        facts: 8n,
        categoryCount: 4n,
        categories: [
          { category: "b", streams: 2n, facts: 5n },
          { category: "$stream", streams: 1n, facts: 1n },
          { category: "a", streams: 1n, facts: 1n },
          { category: "b.c", streams: 1n, facts: 1n }
        ]
      }
      for (const [version, batchSize] of [[1, 1], [2, 3], [3, 500]] as const) {
        yield* run(version, batchSize)
        assert.deepStrictEqual(yield* read("a"), expected)
      }
      const largest = yield* read("a", 1)
      assert.deepStrictEqual(largest, { ...expected, categories: expected.categories.slice(0, 1) })
      assert.deepStrictEqual((yield* read("other")).categories, [{ category: "b", streams: 1n, facts: 1n }])
      assert.deepStrictEqual(yield* read("none"), {
        position: expected.position,
        streams: 0n,
        facts: 0n,
        categoryCount: 0n,
        categories: []
      })
    }))
})
