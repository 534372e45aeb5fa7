import * as NodeServices from "@effect/platform-node/NodeServices"
import { layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Queues from "@strata/queues/Queues"
import { migrations } from "@strata/queues/QueuesMigrations"
import * as ChildProgram from "@strata/testing/ChildProgram"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { killed } from "./killedQueue.ts"

const start = (name: string, url: Redacted.Redacted) =>
  Effect.tap(
    ChildProgram.start(new URL("./programs/worker.ts", import.meta.url), { args: [name], env: { DATABASE_URL: url } }),
    (child) => child.waitFor((line) => line === "ready")
  )

/** Messages of a key are sent one after the other, so their order is known. */
const send = Effect.fnUntraced(function*(count: number) {
  const queues = yield* Queues.Queues
  const sent: Array<bigint> = []
  for (let n = 0; n < count; n += 50) {
    const messages = Array.from({ length: 50 }, (_, index) => ({
      payload: { n: n + index },
      key: index % 3 === 0 ? `key-${(n + index) % 5}` : undefined,
      priority: (n + index) % 11
    }))
    sent.push(...(yield* queues.send(killed, messages)).map(({ id }) => id))
  }
  return sent
})

/** What must hold when all is quiet: nothing lost, nothing twice, keys in order, nothing left over. */
const check = Effect.fnUntraced(function*(sent: ReadonlyArray<bigint>) {
  const { sql } = yield* Postgres.Postgres
  const queues = yield* Queues.Queues
  const effects = yield* sql<{ id: bigint; key: string | null }>`select id, key from effect order by at`
  deepStrictEqual(effects.map(({ id }) => id).sort(), [...sent].sort())
  const byKey = Map.groupBy(effects.filter(({ key }) => key !== null), ({ key }) => key)
  for (const ofKey of byKey.values()) {
    deepStrictEqual(ofKey.map(({ id }) => id), ofKey.map(({ id }) => id).sort((one, other) => one < other ? -1 : 1))
  }
  const { dead, done, later, leased, parked, ready } = yield* queues.stats(killed)
  deepStrictEqual({ dead, done, later, leased, parked, ready }, {
    dead: 0,
    done: sent.length,
    later: 0,
    leased: 0,
    parked: 0,
    ready: 0
  })
})

const untilQuiet = (count: number) =>
  Effect.flatMap(Queues.Queues, (queues) =>
    Effect.repeat(Effect.delay(queues.stats(killed), "50 millis"), {
      until: ({ dead, done }) => done + dead >= count
    }))

layer(NodeServices.layer, { excludeTestServices: true })("queues, several processes", (it) => {
  const inDatabase = <A, E, R>(
    test: (server: PrivatePostgres.PrivatePostgres) => Effect.Effect<A, E, R>
  ) =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      const Database = Postgres.layer({ url: server.url, maxConnections: 4 })
      yield* Effect.gen(function*() {
        yield* Migrations.run([migrations])
        const { sql } = yield* Postgres.Postgres
        yield* sql`
          create table effect (
            id bigint primary key, key text, n int not null, attempt int not null, worker text not null,
            at bigint generated always as identity
          )`
        yield* (yield* Queues.Queues).declare(killed)
        yield* test(server)
      }).pipe(Effect.provide(Queues.layer.pipe(Layer.provideMerge(Database))))
    }).pipe(Effect.scoped)

  it.effect(
    "workers that are killed at any time lose nothing, do nothing twice, and keep every key in order",
    () =>
      inDatabase((server) =>
        Effect.gen(function*() {
          const workers = yield* Effect.forEach(
            ["a", "b", "c", "d"],
            (name) => start(name, server.url),
            { concurrency: "unbounded" }
          )
          const sent = yield* send(1500)
          for (let kill = 0; kill < 6; kill++) {
            yield* Effect.sleep(150)
            const victim = yield* Random.nextIntBetween(0, workers.length - 1)
            yield* workers[victim]!.kill9
            workers[victim] = yield* start(`again-${kill}`, server.url)
          }
          yield* untilQuiet(sent.length)
          yield* check(sent)
        })
      ),
    120_000
  )

  it.effect(
    "a worker that stands still for longer than its lease changes nothing when it goes on",
    () =>
      inDatabase((server) =>
        Effect.gen(function*() {
          const first = yield* start("stopped", server.url)
          const sent = yield* send(500)
          yield* Effect.sleep(100)
          yield* first.pause
          yield* start("other", server.url)
          yield* untilQuiet(sent.length)
          yield* first.resume
          yield* Effect.sleep(500)
          yield* check(sent)
        })
      ),
    120_000
  )

  it.effect(
    "a database that is killed and started again loses nothing that was acknowledged",
    () =>
      inDatabase((server) =>
        Effect.gen(function*() {
          yield* Effect.forEach(["a", "b"], (name) => start(name, server.url), { concurrency: "unbounded" })
          const sent = yield* send(800)
          for (let kill = 0; kill < 2; kill++) {
            yield* Effect.sleep(200)
            yield* server.kill9
            yield* server.start()
          }
          yield* Effect.retry(untilQuiet(sent.length), { schedule: Schedule.spaced("200 millis"), times: 50 })
          yield* check(sent)
        })
      ),
    120_000
  )
})
