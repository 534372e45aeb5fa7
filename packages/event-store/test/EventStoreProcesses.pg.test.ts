import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import type { EventStore } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import { EventStorePolicies } from "@strata/event-store/EventStorePolicies"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Array from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { assertInOrder } from "./LogModel.ts"
import { runTogether } from "./writers.ts"

const Services = Layer.mergeAll(
  PostgresTest.layer({ migrations: [migrations] }),
  SecureRandom.layerWebCrypto,
  NodeServices.layer
)

type Store = EventStore["Service"]

const wholeLog = (store: Store) =>
  Effect.flatMap(store.head, (head) =>
    store.subscribe({ after: Fact.beginning }).pipe(
      Stream.flattenIterable,
      Stream.take(Number(head)),
      Stream.runCollect
    ))

const acknowledged = (lines: Iterable<string>) =>
  Array.fromIterable(lines).flatMap((line) => line.startsWith("ack ") ? line.slice(4).split(" ") : [])

const appender = (name: string, url: Effect.Success<typeof PostgresTest.url>, args: ReadonlyArray<number>) =>
  ChildProgram.start(new URL("./programs/appender.ts", import.meta.url), {
    args: [name, ...args.map(String)],
    env: { DATABASE_URL: url }
  })

// They wait more than they work.
describe.concurrent("event store, several processes", () => {
  layer(Services, { excludeTestServices: true })((it) => {
    it.effect(
      "16 writers in 4 processes leave one order, and live subscribers and replays see the same",
      () =>
        Effect.gen(function*() {
          const url = yield* PostgresTest.url
          const store = yield* EventStorePostgres.make({ name: "processes" })
          const live = yield* store.subscribe({ after: Fact.beginning }).pipe(
            Stream.flattenIterable,
            Stream.takeUntil((fact) => fact.type === "Last"),
            Stream.runCollect,
            Effect.forkChild({ startImmediately: true })
          )
          const children = yield* Effect.forEach(
            Array.range(1, 4),
            (seed) => appender("processes", url, [4, 150, seed]),
            {
              concurrency: "unbounded"
            }
          )
          const lines = yield* runTogether(children)
          yield* store.append({ facts: [{ stream: Fact.streamId("end", "1"), type: "Last", data: null }] })

          const log = yield* wholeLog(store)
          assertInOrder(log)
          assert.isAbove(log.length, 1000)
          deepStrictEqual(lines.flatMap((each) => [...each].filter((line) => line.startsWith("failed"))), [])
          const acks = lines.flatMap(acknowledged)
          deepStrictEqual(new Set(log.slice(0, -1).map((fact): string => fact.eventId)), new Set(acks))
          assert.strictEqual(acks.length, log.length - 1)
          deepStrictEqual((yield* Fiber.join(live)).map((fact) => fact.eventId), log.map((fact) => fact.eventId))
          const from = Math.floor(log.length / 3)
          const tail = yield* store.subscribe({ after: Fact.Position.make(BigInt(from)), limit: 7 }).pipe(
            Stream.flattenIterable,
            Stream.take(log.length - from),
            Stream.runCollect
          )
          deepStrictEqual(tail.map((fact) => fact.position), log.slice(from).map((fact) => fact.position))
        }),
      60_000
    )

    it.effect("what a writer was told is there after it was killed", () =>
      Effect.gen(function*() {
        const url = yield* PostgresTest.url
        const store = yield* EventStorePostgres.make({ name: "killed writer" })
        const child = yield* appender("killed writer", url, [4, 100_000, 1])
        yield* child.waitFor((line) => line === "ready")
        yield* child.send("go")
        const told = yield* child.lines.pipe(Stream.take(200), Stream.runCollect)
        yield* child.kill9
        const log = yield* wholeLog(store)
        assertInOrder(log)
        const ids = new Set(log.map((fact): string => fact.eventId))
        deepStrictEqual(acknowledged(told).filter((id) => !ids.has(id)), [])
      }), 60_000)

    it.effect(
      "what was acknowledged is there, once, after the database was killed again and again",
      () =>
        Effect.gen(function*() {
          const server = yield* PrivatePostgres.make()
          const Database = Postgres.layer({ url: server.url, maxConnections: 4 })
          yield* Effect.gen(function*() {
            yield* Migrations.run([migrations])
            const store = yield* EventStorePostgres.make({
              retry: Schedule.max([Schedule.spaced("20 millis"), Schedule.during("20 seconds")])
            })
            const acks: Array<string> = []
            const writing = { on: true }
            const writer = (name: number) =>
              Effect.gen(function*() {
                const stream = Fact.streamId("writer", `${name}`)
                let version = 0
                while (writing.on) {
                  const appended = yield* store.append({
                    facts: [{ stream, type: "Counted", data: { version } }],
                    expect: { [stream]: version }
                  })
                  version = appended.facts[0]!.version
                  acks.push(appended.facts[0]!.eventId)
                }
              })
            const writers = yield* Effect.forkChild(
              Effect.forEach(Array.range(1, 8), writer, { concurrency: "unbounded" })
            )
            const progress = (acknowledged: number) =>
              Effect.sync(() => acks.length).pipe(
                Effect.repeat({ until: (count) => count >= acknowledged, schedule: Schedule.spaced("2 millis") })
              )
            for (const _ of Array.range(1, 3)) {
              yield* progress(acks.length + 200)
              yield* server.kill9
              yield* server.start()
            }
            yield* progress(acks.length + 50)
            writing.on = false
            yield* Fiber.join(writers)
            const log = yield* wholeLog(store)
            assertInOrder(log)
            deepStrictEqual(log.length, acks.length)
            deepStrictEqual(new Set(log.map((fact): string => fact.eventId)), new Set(acks))
          }).pipe(Effect.provide(Database))
        }),
      60_000
    )

    it.effect(
      "an append whose answer was lost after the commit is stored once and answered",
      () =>
        Effect.gen(function*() {
          const { hostname, port } = new URL(Redacted.value(yield* PostgresTest.url))
          const proxy = yield* TcpProxy.make({ host: hostname, port: Number(port) })
          yield* Effect.gen(function*() {
            const store = yield* EventStorePostgres.make({ name: "lost answer" })
            const cut = yield* Effect.forkChild(
              proxy.cutWhen({ from: "server", matches: TcpProxy.contains("outcomes"), deliver: false }),
              { startImmediately: true }
            )
            const stream = Fact.streamId("counter", "1")
            const appended = yield* store.append({
              facts: [{ stream, type: "Counted", data: 1 }],
              expect: { [stream]: "noStream" },
              idempotency: { key: "k", fingerprint: "f", answer: null }
            })
            yield* Fiber.join(cut)
            deepStrictEqual([appended.position, appended.duplicate], [Fact.Position.make(1n), true])
            deepStrictEqual((yield* wholeLog(store)).map((fact) => fact.eventId), [appended.facts[0]!.eventId])
          }).pipe(Effect.provide(Postgres.layer({ url: proxy.through(yield* PostgresTest.url) })))
        }),
      60_000
    )

    it.effect(
      "a store closes within a bound when its database does not answer, and its callers are told",
      () =>
        Effect.gen(function*() {
          const url = yield* PostgresTest.url
          const { hostname, port } = new URL(Redacted.value(url))
          const proxy = yield* TcpProxy.make({ host: hostname, port: Number(port) })
          yield* Effect.gen(function*() {
            const scope = yield* Scope.make()
            const store = yield* Scope.provide(EventStorePostgres.make({ name: "black hole" }), scope)
            yield* store.append({ facts: [{ stream: Fact.streamId("counter", "1"), type: "Counted", data: 1 }] })
            yield* proxy.blackhole
            const waiting = yield* store.append({
              facts: [{ stream: Fact.streamId("counter", "1"), type: "Counted", data: 2 }]
            }).pipe(Effect.flip, Effect.forkChild({ startImmediately: true }))
            yield* Effect.timeout(Scope.close(scope, Exit.void), "7 seconds")
            deepStrictEqual((yield* Fiber.join(waiting)).reason._tag, "StoreUnavailable")
          }).pipe(
            Effect.updateService(EventStorePolicies, (policies) => ({
              ...policies,
              store: { ...policies.store, closeTimeout: Duration.seconds(2) }
            })),
            Effect.provide(
              Postgres.layer({
                url: proxy.through(url),
                statementTimeout: "500 millis",
                socketTimeout: "1 second",
                connectTimeout: "1 second",
                acquireTimeout: "2 seconds"
              })
            )
          )
        }),
      60_000
    )

    it.effect(
      "a subscriber goes on after its connections were cut and its database restarted",
      () =>
        Effect.gen(function*() {
          const server = yield* PrivatePostgres.make()
          yield* Effect.gen(function*() {
            yield* Migrations.run([migrations])
            const store = yield* EventStorePostgres.make({ pollInterval: "200 millis" })
            const append = (n: number) =>
              store.append({ facts: [{ stream: Fact.streamId("counter", "1"), type: "Counted", data: n }] })
            const seen = yield* store.subscribe({ after: Fact.beginning }).pipe(
              Stream.flattenIterable,
              Stream.take(3),
              Stream.runCollect,
              Effect.forkChild({ startImmediately: true })
            )
            yield* append(1)
            const { sql } = yield* Postgres.Postgres
            yield* sql`select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()`
            yield* append(2)
            yield* server.stop
            yield* server.start()
            yield* append(3)
            deepStrictEqual((yield* Fiber.join(seen)).map((fact) => fact.data), [1, 2, 3])
            deepStrictEqual(Option.isSome(Array.head(yield* wholeLog(store))), true)
          }).pipe(Effect.provide(Postgres.layer({ url: server.url, maxConnections: 4 })))
        }),
      60_000
    )
  })
})
