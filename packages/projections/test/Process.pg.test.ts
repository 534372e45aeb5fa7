import { assert, layer } from "@effect/vitest"
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { Position, streamId } from "@strata/event-store/Fact"
import { Postgres } from "@strata/postgres/Postgres"
import * as ProcessProjection from "@strata/projections/ProcessProjection"
import { FactRefused } from "@strata/projections/Projection"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

const Opened = EventDefinition.make("Opened", { fields: { owner: Schema.String } })
const Accounts = EventDefinition.set([Opened])

const Store = EventStorePostgres.layer().pipe(Layer.provideMerge(PostgresTest.layer({
  migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations]
})))
const inFreshStore = <A, E>(test: Effect.Effect<A, E, EventStore | Postgres | PostgresTest | Scope.Scope>) =>
  Effect.scoped(test).pipe(Effect.provide(Layer.fresh(Store)))

/** Greets by an append of its own; refuses one owner while `refusing` says so. */
const welcome = (refusing: Ref.Ref<boolean>) =>
  ProcessProjection.make({
    name: "welcome",
    events: Accounts,
    handle: Effect.fnUntraced(function*({ event, fact }) {
      const store = yield* EventStore
      if (event.owner === "eve" && (yield* Ref.get(refusing))) {
        return yield* new FactRefused({ position: fact.position, detail: "we do not greet her" })
      }
      return yield* store.appendInTransaction({
        facts: [{ stream: streamId("greeting", fact.stream), type: "Greeted", data: { owner: event.owner } }]
      })
    })
  })

const open = (account: number, owner: string) =>
  Effect.flatMap(
    EventStore,
    (store) =>
      store.append({
        facts: [Accounts.encode(Opened.make({ owner }), { stream: streamId("account", String(account)) })]
      })
  )

const greeted = Effect.gen(function*() {
  const { sql } = yield* Postgres
  const rows = yield* sql<{ owner: string }>`
    select data ->> 'owner' as owner from fact where type = 'Greeted' order by position`
  return rows.map(({ owner }) => owner)
})
const until = (count: number) =>
  Effect.repeat(greeted, { until: (owners) => owners.length >= count, schedule: Schedule.spaced("10 millis") }).pipe(
    Effect.timeout("10 seconds")
  )
const policy = RetryPolicy.make({ attempts: 2, base: "10 millis", total: "1 second" })

layer(Layer.empty, { excludeTestServices: true })("a process", (it) => {
  it.effect("handles each fact once that comes after it was started, also when its checkpoint is set back", () =>
    inFreshStore(Effect.gen(function*() {
      const refusing = yield* Ref.make(false)
      yield* open(1, "before")
      const { subscription } = yield* ProcessProjection.run(welcome(refusing), { policy })
      yield* open(1, "ada")
      yield* open(2, "bob")
      yield* until(2)
      yield* subscription.seek("end")
      yield* subscription.seek({ position: (yield* open(3, "cid")).position })
      yield* subscription.seek("beginning")
      yield* open(1, "dan")
      yield* until(3)
      yield* Effect.repeat(subscription.status, {
        until: ({ partitions }) => partitions.every(({ lag }) => lag === 0n),
        schedule: Schedule.spaced("10 millis")
      })
      const owners = yield* greeted
      assert.strictEqual(new Set(owners).size, owners.length)
    })))

  it.effect("puts a fact aside with its stream, in order, until somebody tries again or leaves it out", () =>
    inFreshStore(Effect.gen(function*() {
      const refusing = yield* Ref.make(true)
      const process = yield* ProcessProjection.run(welcome(refusing), { policy })
      yield* open(1, "ada")
      yield* open(1, "eve")
      yield* open(1, "cid")
      yield* open(2, "bob")
      yield* until(2)
      const [waiting] = yield* Effect.repeat(process.waiting, {
        until: (keys) => keys[0]?.held === 1n,
        schedule: Schedule.spaced("10 millis")
      }).pipe(Effect.timeout("10 seconds"))
      assert.deepInclude(waiting, { key: "default/account-1", position: Position.make(2n) })
      assert.instanceOf(yield* Effect.flip(process.retry("default/account-1")), FactRefused)
      yield* Ref.set(refusing, false)
      yield* process.retry("default/account-1")
      assert.deepStrictEqual((yield* until(4)).slice(2), ["eve", "cid"])

      yield* Ref.set(refusing, true)
      yield* open(2, "eve")
      yield* open(2, "dan")
      yield* Effect.repeat(process.waiting, {
        until: (keys) => keys[0]?.held === 1n,
        schedule: Schedule.spaced("10 millis")
      }).pipe(Effect.timeout("10 seconds"))
      yield* process.skip("default/account-2")
      yield* open(2, "fay")
      assert.deepStrictEqual((yield* until(6)).slice(4), ["dan", "fay"])
      assert.deepStrictEqual(yield* process.waiting, [])
    })))
})
