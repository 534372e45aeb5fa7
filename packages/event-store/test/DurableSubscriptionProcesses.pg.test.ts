import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as DurableSubscription from "@strata/event-store/DurableSubscription"
import { EventStore } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as Arr from "effect/Array"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"

const Services = Layer.mergeAll(
  EventStorePostgres.layer({ name: "shared", pollInterval: "200 millis" }).pipe(
    Layer.provideMerge(PostgresTest.layer({ migrations: [migrations], options: { maxConnections: 6 } }))
  ),
  NodeServices.layer,
  Layer.succeed(References.MinimumLogLevel, "None")
)

class Waiting extends Data.TaggedError("Waiting") {}

const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, holds: (value: A) => boolean) =>
  effect.pipe(
    Effect.filterOrFail(holds, () => new Waiting()),
    Effect.retry({ while: (error) => error instanceof Waiting, schedule: Schedule.spaced("20 millis") }),
    Effect.timeout("1 minute")
  )

interface Handled {
  readonly label: string
  readonly position: bigint
  readonly stream: string
  readonly version: number
}

const createTable = Effect.flatMap(Postgres.Postgres, ({ sql }) =>
  sql`
    create table if not exists handled (
      subscription text not null, label text not null, position bigint not null, stream text not null,
      version integer not null, number bigint generated always as identity
    )`)

const handledBy = Effect.fnUntraced(function*(name: string) {
  const { sql } = yield* Postgres.Postgres
  return yield* sql<Handled>`
    select label, position, stream, version from handled where subscription = ${name} order by number`
})

const distinct = (rows: ReadonlyArray<Handled>) => new Set(rows.map(({ position }) => position)).size

/** In each stream the versions come in order, by commit order of the rows' numbers. */
const assertInOrder = (rows: ReadonlyArray<Handled>) => {
  const versions = new Map<string, number>()
  for (const { stream, version } of rows) {
    assert.strictEqual(version, (versions.get(stream) ?? 0) + 1, stream)
    versions.set(stream, version)
  }
}

interface Subscriber {
  readonly name: string
  readonly label: string
  readonly partitions?: number
  readonly delivery?: "transactional" | "atLeastOnce"
  readonly leaseMillis?: number
  readonly hold?: boolean
}

const toJson = Schema.encodeSync(Schema.fromJsonString(Schema.Unknown))

const subscriber = Effect.fnUntraced(function*(options: Subscriber) {
  const child = yield* ChildProgram.start(new URL("./programs/subscriber.ts", import.meta.url), {
    args: [toJson({ partitions: 1, delivery: "transactional", leaseMillis: 1000, hold: false, ...options })],
    env: { DATABASE_URL: yield* PostgresTest.url }
  })
  return child
})

const isBatch = (line: string) => line.startsWith("batch ")

/** `rounds` facts in each of these streams, each round by one append. */
const append = Effect.fnUntraced(function*(streams: ReadonlyArray<Fact.StreamId>, rounds: number) {
  const store = yield* EventStore
  for (let round = 0; round < rounds; round++) {
    yield* store.append({ facts: streams.map((stream) => ({ stream, type: "Counted", data: null })) })
  }
  return Number(yield* store.head)
})

const statusOf = (name: string) => Effect.flatMap(DurableSubscription.open(name), ({ status }) => status)

layer(Services, { excludeTestServices: true })("DurableSubscription, several processes", (it) => {
  it.effect(
    "three processes share eight partitions; one is killed and one stands still past its lease, and nothing is lost, doubled or reordered",
    () =>
      Effect.gen(function*() {
        yield* createTable
        const streams = Arr.range(1, 24).map((n) => Fact.streamId("shared", `${n}`))
        const name = "shared"
        const [killed, stopped] = yield* Effect.all([
          subscriber({ name, label: "killed", partitions: 8, hold: true }),
          subscriber({ name, label: "stopped", partitions: 8, hold: true }),
          subscriber({ name, label: "steady", partitions: 8 })
        ])
        const owners = Effect.map(statusOf(name), ({ partitions }) => partitions.map(({ owner }) => owner))
        yield* eventually(
          Effect.orElseSucceed(owners, () => []),
          (owners) =>
            ["killed", "stopped", "steady"].every((label) =>
              [2, 3].includes(owners.filter((owner) => owner === label).length)
            )
        )

        // Both hold a batch whose rows are inserted and not committed.
        yield* append(streams, 5)
        yield* Effect.all([killed.waitFor(isBatch), stopped.waitFor(isBatch)])
        const before = yield* Effect.map(statusOf(name), ({ partitions }) => partitions)
        yield* stopped.pause
        yield* killed.kill9
        yield* eventually(owners, (owners) => owners.every((owner) => owner === "steady"))
        const total = yield* append(streams, 5)
        yield* eventually(handledBy(name), (rows) => rows.length >= total)
        yield* eventually(statusOf(name), ({ partitions }) => partitions.every(({ lag }) => lag === 0n))
        const settled = (yield* statusOf(name)).partitions.map(({ position }) => position)

        // The late owner goes on with its batch, and with what it thinks it owns.
        yield* stopped.send("go on")
        yield* stopped.resume
        yield* eventually(owners, (owners) => owners.filter((owner) => owner === "stopped").length === 4)
        const after = (yield* statusOf(name)).partitions
        deepStrictEqual(after.map(({ position }) => position), settled)
        for (const { epoch, owner, partition } of before) {
          if (owner !== "steady") assert.isTrue(after[partition]!.epoch > epoch)
        }
        const rows = yield* handledBy(name)
        deepStrictEqual(rows.length, total)
        deepStrictEqual(distinct(rows), total)
        deepStrictEqual(new Set(rows.map(({ label }) => label)), new Set(["steady"]))
        assertInOrder(rows)
      }),
    120_000
  )

  it.effect(
    "a process killed in the middle of a transactional batch leaves nothing of it, and another does it once",
    () =>
      Effect.gen(function*() {
        yield* createTable
        const name = "killed"
        const store = yield* EventStore
        const child = yield* subscriber({ name, label: "first", hold: true })
        yield* append([Fact.streamId("killed", "1")], 10)
        yield* child.waitFor(isBatch)
        yield* child.kill9
        yield* subscriber({ name, label: "second" })
        const head = Number(yield* store.head)
        const rows = yield* eventually(handledBy(name), (rows) => rows.length >= head)
        deepStrictEqual([rows.length, distinct(rows)], [head, head])
        deepStrictEqual(new Set(rows.map(({ label }) => label)), new Set(["second"]))
      }),
    120_000
  )

  it.effect(
    "a process killed between the effect and the checkpoint: at least once, nothing is lost",
    () =>
      Effect.gen(function*() {
        yield* createTable
        const name = "at least once"
        const store = yield* EventStore
        const child = yield* subscriber({ name, label: "first", delivery: "atLeastOnce", hold: true })
        yield* append([Fact.streamId("once", "1")], 10)
        yield* child.waitFor(isBatch)
        yield* child.kill9
        const begun = (yield* handledBy(name)).length
        assert.isAbove(begun, 0)
        yield* subscriber({ name, label: "second", delivery: "atLeastOnce" })
        const head = Number(yield* store.head)
        const rows = yield* eventually(handledBy(name), (rows) => distinct(rows) >= head)
        // What the first one had begun comes again.
        deepStrictEqual(rows.filter(({ label }) => label === "second").length, head)
      }),
    120_000
  )

  it.effect(
    "a process that joins gets its share, and one that stops hands over at once, whatever the lease",
    () =>
      Effect.gen(function*() {
        yield* createTable
        const { sql } = yield* Postgres.Postgres
        const name = "joining"
        const join = Effect.fnUntraced(function*(label: string) {
          const scope = yield* Scope.make()
          yield* DurableSubscription.run({
            name,
            label,
            startFrom: "end",
            partitions: 5,
            lease: "1 minute",
            batchSize: 10,
            handler: (batch) =>
              Effect.forEach(batch, (fact) =>
                sql`
                insert into handled (subscription, label, position, stream, version)
                values (${name}, ${label}, ${fact.position}, ${fact.stream}, ${fact.version})`)
          }).pipe(Scope.provide(scope))
          return scope
        })
        const shares = Effect.map(statusOf(name), ({ partitions }) =>
          ["a", "b", "c"].map((label) =>
            partitions.filter(({ owner }) => owner === label).length
          ).join(" "))
        const streams = Arr.range(1, 10).map((n) => Fact.streamId("joining", `${n}`))
        const a = yield* join("a")
        yield* eventually(shares, (each) => each === "5 0 0")
        const [b] = yield* Effect.all([join("b"), append(streams, 20)], { concurrency: "unbounded" })
        yield* eventually(shares, (each) => each === "3 2 0")
        const [c] = yield* Effect.all([join("c"), append(streams, 20)], { concurrency: "unbounded" })
        yield* eventually(shares, (each) => each === "2 2 1")
        yield* Effect.all([Scope.close(b, Exit.void), append(streams, 20)], { concurrency: "unbounded" })
        yield* eventually(shares, (each) => each === "3 0 2")
        yield* Scope.close(a, Exit.void)
        yield* eventually(shares, (each) => each === "0 0 5")
        const rows = yield* eventually(handledBy(name), (rows) => rows.length >= 600)
        deepStrictEqual([rows.length, distinct(rows)], [600, 600])
        assertInOrder(rows)
        yield* Scope.close(c, Exit.void)
      }),
    120_000
  )

  it.effect("a subscription goes on after its database was killed and started again", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      const seen: Array<number> = []
      yield* Effect.gen(function*() {
        yield* Migrations.run([migrations])
        yield* createTable
        const { sql } = yield* Postgres.Postgres
        const stream = Fact.streamId("restart", "1")
        yield* DurableSubscription.run({
          name: "restart",
          startFrom: "beginning",
          lease: "1 second",
          handler: (batch) =>
            Effect.forEach(batch, (fact) =>
              Effect.andThen(
                sql`
                  insert into handled (subscription, label, position, stream, version)
                  values ('restart', '', ${fact.position}, ${fact.stream}, ${fact.version})`,
                Effect.sync(() => seen.push(Number(fact.position)))
              ))
        })
        yield* append([stream], 3)
        yield* eventually(Effect.sync(() => seen.length), (count) => count >= 3)
        yield* server.kill9
        yield* server.start()
        yield* eventually(Effect.orElseSucceed(append([stream], 1), () => 0), (head) => head > 0)
        const head = Number(yield* Effect.flatMap(EventStore, (store) => store.head))
        const rows = yield* eventually(handledBy("restart"), (rows) => rows.length >= head)
        deepStrictEqual([rows.length, distinct(rows)], [head, head])
      }).pipe(
        Effect.provide(
          EventStorePostgres.layer({ pollInterval: "200 millis" }).pipe(
            // Its tables come first.
            Layer.provideMerge(Layer.effectDiscard(Migrations.run([migrations]))),
            Layer.provideMerge(Postgres.layer({ url: server.url, maxConnections: 4 }))
          )
        )
      )
    }), 120_000)
})
