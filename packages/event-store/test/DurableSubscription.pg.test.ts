import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { assertInstanceOf, deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import * as DurableSubscription from "@strata/event-store/DurableSubscription"
import * as Checkpoints from "@strata/event-store/DurableSubscriptionCheckpoints"
import { PartitionFenced } from "@strata/event-store/DurableSubscriptionError"
import * as DurableSubscriptionFilter from "@strata/event-store/DurableSubscriptionFilter"
import * as DurableSubscriptionMetrics from "@strata/event-store/DurableSubscriptionMetrics"
import { EventStore, FactUnreadable } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Postgres from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Arr from "effect/Array"
import type * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"

const Services = Layer.mergeAll(
  EventStorePostgres.layer({ pollInterval: "500 millis" }).pipe(
    Layer.provideMerge(PostgresTest.layer({ migrations: [migrations], options: { maxConnections: 8 } }))
  ),
  NodeServices.layer,
  SecureRandom.layerWebCrypto,
  // Failures are the point of many of these tests.
  Layer.succeed(References.MinimumLogLevel, "None")
)

class Waiting extends Data.TaggedError("Waiting") {}
class Refused extends Data.TaggedError("Refused")<{ readonly message: string }> {}

/** Rows have no key: a fact handled twice is there twice. */
const createTable = Effect.flatMap(Postgres.Postgres, ({ sql }) =>
  sql`
    create table if not exists handled (
      subscription text not null, position bigint not null, number bigint generated always as identity
    )`)

const write = Effect.fnUntraced(function*(name: string, batch: ReadonlyArray<Fact.Fact>) {
  const { sql } = yield* Postgres.Postgres
  yield* sql`
    insert into handled (subscription, position)
    select ${name}, * from unnest(${Pg.bigintArray(batch.map((fact) => fact.position))})`
})

const handledBy = Effect.fnUntraced(function*(name: string) {
  const { sql } = yield* Postgres.Postgres
  const rows = yield* sql<{ position: bigint }>`
    select position from handled where subscription = ${name} order by number`
  return rows.map(({ position }) => Number(position))
})

const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, holds: (value: A) => boolean, timeout = 8000) =>
  effect.pipe(
    Effect.filterOrFail(holds, () => new Waiting()),
    Effect.retry({ while: (error) => error instanceof Waiting, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout(timeout)
  )

const soon = (name: string, count: number, timeout?: number) =>
  eventually(handledBy(name), (positions) => positions.length >= count, timeout)

const append = Effect.fnUntraced(function*(facts: ReadonlyArray<Partial<Fact.NewFact>>, tenant = "default") {
  const store = yield* EventStore
  const { facts: appended } = yield* store.append({
    facts: facts.map((fact) => ({ stream: Fact.streamId("order", "1"), type: "Placed", data: null, ...fact }))
  }).pipe(Effect.provideService(CurrentTenant, tenant))
  return appended.map(({ position }) => Number(position))
})

const some = (count: number, stream = Fact.streamId("order", "1")) => append(Arr.makeBy(count, () => ({ stream })))

const fast = Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 3 }))

const subscribe = (
  name: string,
  options: Partial<DurableSubscription.Options<unknown, Postgres.Postgres>> = {}
) =>
  DurableSubscription.run<unknown, Postgres.Postgres>({
    name,
    startFrom: "end",
    retry: fast,
    handler: (batch) => write(name, batch),
    ...options
  })

layer(Services, { excludeTestServices: true })("DurableSubscription", (it) => {
  it.effect("brings the backlog, then what is appended, once each and in order", () =>
    Effect.gen(function*() {
      yield* createTable
      const before = yield* some(1500)
      yield* subscribe("backlog", { startFrom: { position: Fact.Position.make(BigInt(before[0]! - 1)) } })
      yield* soon("backlog", 1500)
      const after = yield* some(3)
      deepStrictEqual(yield* soon("backlog", 1503), [...before, ...after])
    }))

  it.effect("that lingers handles a fact after a silence at once, and those that follow it closely together", () =>
    Effect.gen(function*() {
      yield* createTable
      const batches: Array<ReadonlyArray<number>> = []
      yield* subscribe("lingering", {
        linger: "1 second",
        handler: (batch) =>
          Effect.andThen(
            write("lingering", batch),
            Effect.sync(() => batches.push(batch.map(({ position }) => Number(position))))
          )
      })
      const first = yield* some(1)
      deepStrictEqual(yield* soon("lingering", 1, 900), first)
      const rest = [...yield* some(1), ...yield* some(1), ...yield* some(1)]
      yield* soon("lingering", 4)
      deepStrictEqual(batches, [first, rest])
    }))

  it.effect("goes on from its checkpoint after its scope was closed, and hands over at once", () =>
    Effect.gen(function*() {
      yield* createTable
      yield* Effect.scoped(Effect.gen(function*() {
        yield* subscribe("resume", { lease: "1 minute" })
        yield* some(3)
        yield* soon("resume", 3)
      }))
      const whileAway = yield* some(2)
      yield* subscribe("resume", { lease: "1 minute", startFrom: "beginning" })
      const positions = yield* soon("resume", 5, 2000)
      deepStrictEqual(positions.slice(3), whileAway)
      deepStrictEqual(new Set(positions).size, 5)
    }))

  it.effect("starts at the beginning, the end, a position or a time", () =>
    Effect.gen(function*() {
      yield* createTable
      const store = yield* EventStore
      const [first] = yield* some(1)
      const [second] = yield* some(1)
      const [fact] = yield* store.readLog({ after: Fact.Position.make(BigInt(second! - 1)), limit: 1 })
      yield* subscribe("from beginning", { startFrom: "beginning" })
      yield* subscribe("from end")
      yield* subscribe("from position", { startFrom: { position: Fact.Position.make(BigInt(first!)) } })
      yield* subscribe("from time", { startFrom: { time: fact!.recordedAt } })
      const [third] = yield* some(1)
      deepStrictEqual(yield* soon("from beginning", third!), Arr.range(1, third!))
      deepStrictEqual(yield* soon("from end", 1), [third])
      deepStrictEqual(yield* soon("from position", 2), [second, third])
      deepStrictEqual(yield* soon("from time", 2), [second, third])
    }))

  it.effect("brings only what fits, and its checkpoint passes over the rest", () =>
    Effect.gen(function*() {
      yield* createTable
      const [start] = yield* some(1)
      const startFrom = { position: Fact.Position.make(BigInt(start!)) }
      const positions = yield* append([
        { type: "order.placed" },
        { type: "order.line.added" },
        { type: "a.b" },
        { type: "a_b" },
        { type: "order.paid", stream: Fact.streamId("invoice", "1") }
      ])
      const [other] = yield* append([{ type: "order.paid", stream: Fact.streamId("invoice", "2") }], "other")
      yield* subscribe("star", { startFrom, filter: { types: ["order.*"] }, checkpointInterval: 50 })
      yield* subscribe("dot", { startFrom, filter: { types: ["a.b"] }, checkpointInterval: 50 })
      yield* subscribe("category", { startFrom, filter: { category: "invoice" } })
      yield* subscribe("stream", { startFrom, filter: { stream: Fact.streamId("invoice", "1") } })
      const tenant = yield* subscribe("tenant", { startFrom, filter: { tenant: "other" } })
      deepStrictEqual(yield* soon("star", 3), [positions[0], positions[4], other])
      deepStrictEqual(yield* soon("dot", 1), [positions[2]])
      deepStrictEqual(yield* soon("category", 2), [positions[4], other])
      deepStrictEqual(yield* soon("stream", 1), [positions[4]])
      deepStrictEqual(yield* soon("tenant", 1), [other])
      const { partitions } = yield* eventually(
        Effect.flatMap(DurableSubscription.open("dot"), ({ status }) => status),
        ({ partitions }) => partitions[0]!.lag === 0n
      )
      deepStrictEqual(Number(partitions[0]!.position), other)
      deepStrictEqual((yield* tenant.status).partitions[0]!.error, null)
    }))

  it.effect("passes over facts without a write for each page, and keeps the place when it stops", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const [start] = yield* some(1)
      const checkpoint = sql<{ position: bigint }>`
        select p.position from subscription_partition p
        join subscription s on s.id = p.subscription where s.name = 'sparse'`
      const reached = Metric.value(DurableSubscriptionMetrics.ofPartition("sparse", 0).position)
      yield* some(2500)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* subscribe("sparse", {
          startFrom: { position: Fact.Position.make(BigInt(start!)) },
          filter: { category: "nothing" },
          checkpointInterval: "1 hour"
        })
        yield* eventually(reached, ({ value }) => value === start! + 2500)
        deepStrictEqual(Number((yield* checkpoint)[0]!.position), start)
      }))
      deepStrictEqual(Number((yield* checkpoint)[0]!.position), start! + 2500)
    }))

  it.effect(
    "32 writers at once: a live subscriber and a later one miss nothing, and each stream is in order",
    () =>
      Effect.gen(function*() {
        yield* createTable
        const options = { partitions: 4, filter: { category: "busy" }, startFrom: "beginning" } as const
        yield* subscribe("busy: live", options)
        yield* Effect.forEach(
          Arr.range(0, 19_999),
          (n) => some(1, Fact.streamId("busy", `${n % 40}`)),
          { concurrency: 32, discard: true }
        )
        yield* subscribe("busy: later", options)
        const store = yield* EventStore
        for (const name of ["busy: live", "busy: later"]) {
          const positions = yield* soon(name, 20_000, 60_000)
          deepStrictEqual([positions.length, new Set(positions).size], [20_000, 20_000])
        }
        const streamOf = new Map<number, Fact.Fact>()
        for (let after = Fact.beginning; streamOf.size < Number(yield* store.head);) {
          const page = yield* store.readLog({ after })
          for (const fact of page) streamOf.set(Number(fact.position), fact)
          after = page.at(-1)!.position
        }
        const versions = new Map<string, number>()
        for (const position of yield* handledBy("busy: live")) {
          const { stream, version } = streamOf.get(position)!
          deepStrictEqual(version, (versions.get(stream) ?? 0) + 1)
          versions.set(stream, version)
        }
      }),
    120_000
  )

  it.effect("corrections and retractions arrive as facts that say what they revise", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const seen: Array<readonly [number, string | null, boolean]> = []
      yield* subscribe("revisions", {
        filter: { category: "account" },
        handler: (batch) =>
          Effect.sync(() => {
            for (const fact of batch) seen.push([fact.revision, fact.revises, fact.retracted])
          })
      })
      const stream = Fact.streamId("account", "7")
      const { facts: [opened] } = yield* store.append({ facts: [{ stream, type: "Opened", data: { n: 1 } }] })
      const eventId = opened!.eventId
      yield* store.revise({ _tag: "Correction", revises: eventId, data: { n: 2 }, reason: "typo", actor: "ada" })
      yield* store.revise({ _tag: "Retraction", revises: eventId, reason: "wrong", actor: "ada" })
      yield* eventually(Effect.sync(() => seen.length), (count) => count === 3)
      deepStrictEqual(seen, [[0, null, false], [1, eventId, false], [2, eventId, true]])
    }))

  it.effect("a killed LISTEN connection loses nothing", () =>
    Effect.gen(function*() {
      yield* createTable
      const { sql } = yield* Postgres.Postgres
      const elsewhere = yield* EventStorePostgres.make()
      yield* subscribe("listen")
      yield* elsewhere.append({ facts: [{ stream: Fact.streamId("order", "1"), type: "Placed", data: null }] })
      yield* soon("listen", 1)
      const killed = yield* sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name like '%wake-ups'`
      assert.isAbove(killed.length, 0)
      yield* elsewhere.append({ facts: [{ stream: Fact.streamId("order", "1"), type: "Placed", data: null }] })
      deepStrictEqual((yield* soon("listen", 2, 4000)).length, 2)
    }))

  it.effect("an open transaction stops nothing, here or in another database of the cluster", () =>
    Effect.gen(function*() {
      yield* createTable
      const other = yield* PostgresTest.database()
      const otherDatabase = yield* Layer.build(Postgres.layer({ url: other.url, maxConnections: 2 }))
      const done = yield* Latch.make()
      const opened = yield* Latch.make()
      const openTransaction = Effect.gen(function*() {
        const { sql, transact } = yield* Postgres.Postgres
        yield* transact(Effect.gen(function*() {
          yield* sql`create table open_transaction (n integer)`
          yield* sql`insert into open_transaction values (1)`
          yield* opened.open
          yield* done.await
        }))
      })
      const fibers = yield* Effect.all([
        Effect.forkChild(openTransaction),
        Effect.forkChild(Effect.provideContext(openTransaction, otherDatabase))
      ])
      yield* opened.await
      yield* subscribe("stalled", { partitions: 2 })
      const positions = yield* some(5)
      deepStrictEqual(yield* soon("stalled", 5, 1000), positions)
      yield* done.open
      yield* Fiber.joinAll(fibers)
    }))

  it.effect("a handler that fails for a while is tried again, and nothing is lost or doubled", () =>
    Effect.gen(function*() {
      yield* createTable
      let failures = 0
      const { status } = yield* subscribe("flaky", {
        handler: (batch) =>
          Effect.andThen(
            write("flaky", batch),
            Effect.suspend(() => failures++ < 3 ? Effect.fail(new Refused({ message: "not now" })) : Effect.void)
          )
      })
      const positions = yield* some(10)
      deepStrictEqual(yield* soon("flaky", 10), positions)
      deepStrictEqual((yield* status).partitions[0]!.error, null)
    }))

  it.effect("a fact that cannot be read stops a subscription before it, and is named in the status", () =>
    Effect.gen(function*() {
      yield* createTable
      const { sql } = yield* Postgres.Postgres
      const store = yield* EventStorePostgres.make({ name: "unreadable" })
      yield* Effect.gen(function*() {
        yield* some(4)
        yield* sql`
          update fact set data = to_json(repeat('€', 6000000))
          from store where store.id = fact.store and store.name = 'unreadable' and fact.position = 3`
        deepStrictEqual((yield* store.readLog({ after: Fact.beginning })).map(({ position }) => position), [1n, 2n])
        const { reason } = yield* Effect.flip(store.readLog({ after: Fact.Position.make(2n) }))
        assertInstanceOf(reason, FactUnreadable)
        deepStrictEqual([reason.position, reason.bytes], [3n, 18_000_004n])
        deepStrictEqual((yield* store.readLog({ after: reason.position })).length, 1)
        for (const [name, filter] of [["all", undefined], ["some", { types: ["Placed"] }]] as const) {
          const { seek, status } = yield* subscribe(`unreadable, ${name}`, { startFrom: "beginning", filter })
          const stopped = yield* eventually(status, ({ partitions }) => partitions[0]!.error !== null)
          deepStrictEqual(stopped.partitions[0]!.error, `After fact 2: ${reason.message}`)
          deepStrictEqual(yield* handledBy(`unreadable, ${name}`), [1, 2])
          yield* seek({ position: reason.position })
          deepStrictEqual(yield* soon(`unreadable, ${name}`, 3), [1, 2, 4])
        }
      }).pipe(Effect.provideService(EventStore, store))
    }))

  it.effect("a poisonous fact is put aside in the transaction that moves on, where somebody says how, and its partition goes on", () =>
    Effect.gen(function*() {
      yield* createTable
      const reached: Array<number> = []
      const { status } = yield* subscribe("parking", {
        handler: (batch) =>
          batch.some(({ type }) => type === "Poison")
            ? Effect.andThen(write("parking", batch), Effect.fail(new Refused({ message: "cannot stomach it" })))
            : write("parking", batch),
        park: ({ attempts, error, fact }) => {
          assert.isAtLeast(attempts, 4)
          assert.strictEqual(error, "cannot stomach it")
          return write("parking, aside", [fact])
        },
        reached: (_partition, position) => Effect.sync(() => void reached.push(Number(position)))
      })
      const positions = yield* append([{}, {}, { type: "Poison" }, {}, {}])
      deepStrictEqual(yield* soon("parking", 4), positions.filter((_, index) => index !== 2))
      deepStrictEqual(yield* handledBy("parking, aside"), [positions[2]])
      yield* eventually(status, ({ partitions }) => partitions[0]!.lag === 0n && partitions[0]!.error === null)
      deepStrictEqual(reached, reached.toSorted((a, b) => a - b))
      assert.isTrue(reached.includes(positions[2]!))
    }))

  it.effect("a paused subscription is brought to exactly the positions that are asked for, and one that is removed is gone", () =>
    Effect.gen(function*() {
      yield* createTable
      const subscription = yield* subscribe("up to", { partitions: 2, key: ({ stream }) => stream })
      yield* subscription.pause
      yield* eventually(subscription.status, ({ partitions }) => partitions.every(({ owner }) => owner === null))
      const positions = yield* append(Arr.makeBy(20, (n) => ({ stream: Fact.streamId("order", `${n}`) })))
      const goal = (index: number) => Fact.Position.make(BigInt(positions[index]!))
      yield* subscription.handleUpTo([{ partition: 0, position: goal(9) }, { partition: 1, position: goal(14) }], {
        key: ({ stream }) => stream,
        handler: (batch) => write("up to", batch)
      })
      const { partitions } = yield* subscription.status
      deepStrictEqual(partitions.map(({ position }) => position), [goal(9), goal(14)])
      const partitionAt = (index: number) =>
        DurableSubscriptionFilter.partitionOf(Fact.streamId("order", `${index}`), 2)
      deepStrictEqual(
        (yield* handledBy("up to")).toSorted((a, b) => a - b),
        positions.filter((_, index) => index <= (partitionAt(index) === 0 ? 9 : 14))
      )
      yield* subscription.resume
      yield* soon("up to", 20)
      yield* subscription.remove
      assert.strictEqual((yield* Effect.flip(subscription.status)).reason._tag, "UnknownSubscription")
    }))

  it.effect("a poisonous fact stops its own partition at that fact, until somebody resumes it or leaves the fact out", () =>
    Effect.gen(function*() {
      yield* createTable
      let poisonous = true
      const poison = Fact.streamId("order", "poison")
      const { resume, seek, status } = yield* subscribe("poison", {
        partitions: 4,
        handler: (batch) =>
          batch.some((fact) => poisonous && fact.stream === poison && fact.type === "Poison")
            ? Effect.andThen(write("poison", batch), Effect.fail(new Refused({ message: "cannot stomach it" })))
            : write("poison", batch)
      })
      const others = Arr.range(1, 12).map((n) => ({ stream: Fact.streamId("order", `${n}`) }))
      const positions = yield* append([{ stream: poison }, { stream: poison, type: "Poison" }, ...others])
      const stopped = yield* eventually(status, ({ partitions }) => partitions.some(({ error }) => error !== null))
      const failed = stopped.partitions.filter(({ error }) => error !== null)
      deepStrictEqual(failed.map(({ error }) => error), [`Fact ${positions[1]}: cannot stomach it`])
      yield* eventually(status, ({ partitions }) => partitions.filter(({ lag }) => lag === 0n).length === 3)
      const handled = yield* handledBy("poison")
      assert.isTrue(handled.includes(positions[0]!))
      assert.isFalse(handled.includes(positions[1]!))

      // Trying again changes nothing while the fact is what it is.
      yield* resume
      yield* eventually(
        status,
        ({ partitions }) =>
          partitions.some(({ epoch, error, partition }) =>
            error !== null && partition === failed[0]!.partition && epoch > failed[0]!.epoch
          )
      )
      poisonous = false
      yield* resume
      deepStrictEqual((yield* soon("poison", 14)).toSorted((a, b) => a - b), positions)

      // Leaving it out.
      poisonous = true
      const [left, next] = yield* append([{ stream: poison, type: "Poison" }, { stream: poison }])
      yield* eventually(status, ({ partitions }) => partitions.some(({ error }) => error !== null))
      yield* seek({ position: Fact.Position.make(BigInt(left!)) }, { partition: failed[0]!.partition })
      deepStrictEqual((yield* soon("poison", 15)).at(-1), next)
    }))

  it.effect("a key that throws, and a handler that interrupts itself, are seen in the status", () =>
    Effect.gen(function*() {
      const key = yield* subscribe("bad key", {
        key: () => {
          throw new RangeError("no key")
        }
      })
      const interrupted = yield* subscribe("interrupted", { handler: () => Effect.interrupt })
      const [position] = yield* some(1)
      const errorOf = (status: typeof key.status) =>
        Effect.map(
          eventually(status, ({ partitions }) => partitions[0]!.error !== null),
          ({ partitions }) => partitions[0]!.error
        )
      deepStrictEqual(yield* errorOf(key.status), `After fact ${position! - 1}: no key`)
      deepStrictEqual(yield* errorOf(interrupted.status), `Fact ${position}: the handler interrupted itself`)
    }))

  it.effect("the status tells the lag in facts and in seconds, and a pause stops the handling", () =>
    Effect.gen(function*() {
      yield* createTable
      const { pause, resume, status } = yield* subscribe("lag", { label: "this process" })
      yield* some(1)
      yield* soon("lag", 1)
      deepStrictEqual((yield* status).partitions.map(({ lag, lagSeconds, owner }) => [lag, lagSeconds, owner]), [
        [0n, 0, "this process"]
      ])
      yield* pause
      yield* eventually(status, ({ partitions }) => partitions[0]!.owner === null)
      yield* some(7)
      yield* Effect.sleep("50 millis")
      const paused = yield* status
      assert.isTrue(paused.paused)
      deepStrictEqual(paused.partitions[0]!.lag, 7n)
      assert.isTrue(paused.partitions[0]!.lagSeconds >= 0.05 && paused.partitions[0]!.lagSeconds < 10)
      yield* resume
      yield* soon("lag", 8)
      deepStrictEqual((yield* status).partitions[0]!.lag, 0n)
    }))

  it.effect("at least once: the checkpoint moves after the handler, and not when it fails", () =>
    Effect.gen(function*() {
      const checkpoints: Array<boolean> = []
      let failures = 0
      const started = yield* some(1)
      const startFrom = { position: Fact.Position.make(BigInt(started[0]!)) }
      const { status } = yield* subscribe("after", {
        startFrom,
        delivery: "atLeastOnce",
        handler: (batch) =>
          Effect.gen(function*() {
            const { partitions } = yield* Effect.flatMap(DurableSubscription.open("after"), ({ status }) => status)
            checkpoints.push(partitions[0]!.position < batch[0].position)
            if (failures++ < 2) return yield* new Refused({ message: "not now" })
          }).pipe(Effect.provide(context))
      })
      const context = yield* Effect.context<EventStore | Postgres.Postgres>()
      const positions = yield* some(3)
      yield* eventually(status, ({ partitions }) => Number(partitions[0]!.position) === positions[2])
      assert.isAbove(checkpoints.length, 2)
      deepStrictEqual(checkpoints.filter((before) => !before), [])
    }))

  it.effect("a late owner's batch fails with a typed error and changes nothing", () =>
    Effect.gen(function*() {
      yield* createTable
      const postgres = yield* Postgres.Postgres
      const store = yield* EventStore
      yield* Effect.scoped(subscribe("late", { startFrom: "beginning" }))
      const row = (yield* Checkpoints.find(postgres.sql, store.name, "late"))!
      const checkpoints = Checkpoints.make(postgres, row)
      const [{ epoch, position }] = (yield* checkpoints.all) as [Checkpoints.PartitionRow]
      const claim = { partition: 0, epoch, position }
      const move = { from: position, to: Fact.Position.make(position + 1n) }
      const [fact] = yield* store.readLog({ after: position, limit: 1 })
      const effect = fact === undefined ? Effect.void : write("late: effect", [fact])
      yield* checkpoints.reset({ position: undefined, partition: undefined, failed: false })
      const late = yield* Effect.flip(checkpoints.moveWith(effect, claim, move))
      assertInstanceOf(late, PartitionFenced)
      assertInstanceOf(yield* Effect.flip(checkpoints.move(claim, move)), PartitionFenced)
      assertInstanceOf(yield* Effect.flip(checkpoints.fail(claim, "too late")), PartitionFenced)
      deepStrictEqual((yield* checkpoints.all).map(({ error, position }) => [position, error]), [[position, null]])
      deepStrictEqual(yield* handledBy("late: effect"), [])
    }))

  it.effect("a checkpoint moves from where it is only, and what was committed is not committed again", () =>
    Effect.gen(function*() {
      yield* createTable
      const postgres = yield* Postgres.Postgres
      const store = yield* EventStore
      yield* some(4)
      yield* Effect.scoped(subscribe("moves", { startFrom: "beginning", handler: () => Effect.never }))
      const checkpoints = Checkpoints.make(postgres, (yield* Checkpoints.find(postgres.sql, store.name, "moves"))!)
      const [{ epoch, position }] = (yield* checkpoints.all) as [Checkpoints.PartitionRow]
      deepStrictEqual(position, 0n)
      const claim = { partition: 0, epoch, position }
      const move = (from: bigint, to: bigint) => ({ from: Fact.Position.make(from), to: Fact.Position.make(to) })
      const effect = Effect.flatMap(store.readLog({ after: position, limit: 2 }), (facts) => write("moves", facts))
      const moved = yield* Effect.gen(function*() {
        yield* checkpoints.moveWith(effect, claim, move(0n, 2n))
        // Its answer was lost, so it comes again.
        yield* checkpoints.moveWith(effect, claim, move(0n, 2n))
        yield* checkpoints.move(claim, move(0n, 2n))
        return yield* checkpoints.all
      })
      deepStrictEqual(moved.map(({ position }) => position), [2n])
      deepStrictEqual(yield* handledBy("moves"), [1, 2])
      // Ahead of it, and behind it.
      for (const elsewhere of [move(3n, 4n), move(1n, 3n), move(0n, 1n)]) {
        assertInstanceOf(yield* Effect.flip(checkpoints.move(claim, elsewhere)), PartitionFenced)
        assertInstanceOf(yield* Effect.flip(checkpoints.moveWith(effect, claim, elsewhere)), PartitionFenced)
      }
      deepStrictEqual((yield* checkpoints.all).map(({ position }) => position), [2n])
      deepStrictEqual(yield* handledBy("moves"), [1, 2])
    }))

  it.effect("a partition taken while its batch is handled is rolled back here and handled once", () =>
    Effect.gen(function*() {
      yield* createTable
      const postgres = yield* Postgres.Postgres
      const store = yield* EventStore
      let taken = 0
      // Another connection begins the next epoch while the transaction of the batch is open.
      const take = Effect.gen(function*() {
        if (taken++ > 0) return
        const row = (yield* Checkpoints.find(postgres.sql, store.name, "taken"))!
        yield* Checkpoints.make(postgres, row).reset({ position: undefined, partition: undefined, failed: false })
      })
      const outside = yield* Effect.context<never>()
      yield* subscribe("taken", {
        handler: (batch) =>
          Effect.andThen(
            write("taken", batch),
            Effect.updateContext(take, (_: Context.Context<never>) => outside)
          )
      })
      const positions = yield* some(3)
      yield* eventually(Effect.sync(() => taken), (count) => count >= 2)
      deepStrictEqual(yield* soon("taken", 3), positions)
    }))

  it.effect("a commit whose answer was lost is not done again", () =>
    Effect.gen(function*() {
      yield* createTable
      const url = yield* PostgresTest.url
      const { hostname, port } = new URL(Redacted.value(url))
      const proxy = yield* TcpProxy.make({ host: hostname, port: Number(port) })
      const proxied = yield* Layer.build(Postgres.layer({ url: proxy.through(url), maxConnections: 3 }))
      let cuts = 0
      let runs = 0
      const { status } = yield* subscribe("lost commit", {
        handler: (batch) =>
          Effect.gen(function*() {
            runs++
            yield* write("lost commit", batch)
            if (cuts++ === 0) {
              yield* Effect.forkDetach(
                proxy.cutWhen({ from: "server", matches: TcpProxy.contains("COMMIT"), deliver: false }),
                { startImmediately: true }
              )
            }
          })
      }).pipe(Effect.provideContext(proxied))
      const positions = yield* some(3)
      yield* eventually(status, ({ partitions }) => Number(partitions[0]!.position) === positions[2])
      const [last] = yield* some(1)
      yield* eventually(handledBy("lost commit"), (handled) => handled.includes(last!))
      deepStrictEqual(yield* handledBy("lost commit"), [...positions, last])
      assert.isAbove(runs, 1)
    }))

  it.effect("the status is told also by a pool whose connections have just been lost", () =>
    Effect.gen(function*() {
      yield* Effect.scoped(subscribe("looked at", { partitions: 2 }))
      const url = yield* PostgresTest.url
      const pool = yield* Layer.build(Postgres.layer({ url, applicationName: "lost", maxConnections: 2 }))
      const { status } = yield* Effect.provideContext(DurableSubscription.open("looked at"), pool)
      const { sql } = yield* Postgres.Postgres
      for (const _ of Arr.range(1, 5)) {
        deepStrictEqual((yield* status).partitions.length, 2)
        yield* sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'lost'`
      }
      deepStrictEqual((yield* status).partitions.length, 2)
    }))

  it.effect("another number of partitions, and options that make no sense, are refused", () =>
    Effect.gen(function*() {
      yield* Effect.scoped(subscribe("fixed", { partitions: 2 }))
      const reasonOf = (options: Parameters<typeof subscribe>[1], name = "fixed") =>
        Effect.map(Effect.flip(Effect.scoped(subscribe(name, options))), ({ reason }) => reason._tag)
      deepStrictEqual(yield* reasonOf({ partitions: 3 }), "PartitionsDiffer")
      deepStrictEqual(yield* reasonOf({ partitions: 0 }), "InvalidSubscription")
      deepStrictEqual(yield* reasonOf({ batchSize: 0 }), "InvalidSubscription")
      deepStrictEqual(yield* reasonOf({ filter: { types: [] } }), "InvalidSubscription")
      deepStrictEqual(yield* reasonOf({ delivery: "once" } as {}), "InvalidSubscription")
      deepStrictEqual(yield* reasonOf({ batchsize: 10 } as {}), "InvalidSubscription")
      deepStrictEqual(yield* reasonOf({ filter: { category: "a\0b" } }), "InvalidSubscription")
      const nonsense = [{ position: -1n }, { position: 1.5 }, {}, { time: 5n, position: 5n }, { time: "noon" }, 7, null]
      for (const startFrom of nonsense) {
        const refused = yield* reasonOf({ startFrom: startFrom as DurableSubscription.StartFrom }, "nonsense")
        deepStrictEqual(refused, "InvalidSubscription")
      }
      const { seek } = yield* DurableSubscription.open("fixed")
      const { reason } = yield* Effect.flip(seek({ position: -1n as Fact.Position }))
      deepStrictEqual(reason._tag === "InvalidSubscription" && reason.path, "to")
      deepStrictEqual(
        yield* reasonOf({ startFrom: { position: Fact.Position.make(1_000_000n) } }, "future"),
        "EventStoreError"
      )
      const unknown = yield* Effect.flip(DurableSubscription.open("nobody made it"))
      deepStrictEqual(unknown.reason._tag, "UnknownSubscription")
    }))
})
