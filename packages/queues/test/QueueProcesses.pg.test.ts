import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as DeadLetters from "@strata/queues/DeadLetters"
import * as Queues from "@strata/queues/Queues"
import { migrations } from "@strata/queues/QueuesMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as TcpProxy from "@strata/testing/TcpProxy"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import { makeTables, remains, untilQuiet } from "./correctness/Effects.ts"
import { killed as killedAt, stopped as stoppedAt } from "./correctness/Failpoint.ts"
import * as Fleet from "./correctness/Fleet.ts"
import { all, now, type Place, type Record, type What } from "./correctness/History.ts"
import { violations } from "./correctness/invariants.ts"
import { Database } from "./fixture.ts"
import { killed, risky, type Task } from "./killedQueue.ts"

type Processes = Effect.Success<ReturnType<typeof Fleet.make>>

/** The tables and queues that processes find. */
const prepare = Effect.gen(function*() {
  yield* makeTables
  const queues = yield* Queues.Queues
  yield* queues.declare(killed)
  yield* queues.declare(risky)
})

/** Has all that was sent handled, and everybody go. Then nothing may contradict what must hold. */
const check = Effect.fnUntraced(function*(fleet: Processes) {
  yield* untilQuiet([killed, risky])
  yield* fleet.stop
  deepStrictEqual(violations({ events: fleet.events, remains: yield* remains([killed, risky]) }), [])
})

/** Sends something that kills or is refused, and others of its key behind it. */
const sendRisky = Effect.fnUntraced(function*(record: Record) {
  const queues = yield* Queues.Queues
  const kinds: ReadonlyArray<Task["kind"]> = ["kills", "plain", "rejected", "plain"]
  const messages = kinds.map((kind, n) => ({ payload: { n, kind }, key: "risky" }))
  for (const { key, payload: { n } } of messages) record({ _tag: "Asked", at: now(), n, key })
  const sent = yield* queues.send(risky, messages)
  for (const [n, { id }] of sent.entries()) record({ _tag: "Told", at: now(), n, id: Number(id) })
  return sent.map(({ id }) => id)
})

/**
 * The worker that was stopped at a place, when others have settled all it had. Who was killed before it could write that down has settled it
 * as well, so what the database has no more counts.
 */
const overtaken = (fleet: Processes, place: Place) =>
  Effect.gen(function*() {
    const { ids, worker } = all(fleet.events, "Struck")
      .find((struck) => struck.place === place && struck.signal === "SIGSTOP")!
    yield* fleet.untilSo(
      "others have settled what it had",
      Effect.map(remains([killed, risky]), ({ waiting }) => {
        const byOthers = all(fleet.events, "Settled").filter((settled) => settled.accepted && settled.worker !== worker)
        const settled = new Set(byOthers.flatMap(({ ids }) => ids))
        return ids.every((id) => settled.has(id) || !waiting.some((message) => message.id === id))
      })
    )
    return worker
  })

const workers = ["worker-0-", "worker-1-", "worker-2-"]

// Lost connections are the point of these tests.
const Quiet = Layer.succeed(References.MinimumLogLevel, "None")

layer(Layer.merge(NodeServices.layer, Quiet), { excludeTestServices: true })("queues, several processes", (it) => {
  it.effect(
    "processes that are killed at any place, or stand still for longer than their leases, lose nothing, do nothing twice, and " +
      "keep every key in order",
    () =>
      Effect.gen(function*() {
        yield* prepare
        const fleet = yield* Fleet.make(yield* PostgresTest.url)
        const lives = {
          "worker-0-": [killedAt("after-claim", 3), killedAt("in-ack", 3)],
          "worker-1-": [killedAt("in-handler", 10), killedAt("after-ack", 3)],
          "worker-2-": [killedAt("after-effect", 10), stoppedAt("in-handler", 10)],
          "worker-3-": [killedAt("before-ack", 3), stoppedAt("before-ack", 3)]
        }
        for (const [name, failpoints] of Object.entries(lives)) yield* fleet.work(name, ...failpoints)
        const doomed = yield* fleet.send("doomed", 1_000_000, killedAt("after-send", 10))
        yield* doomed.ended
        const sender = yield* fleet.send("sender", 2_000_000)
        const strikes = Object.values(lives).flat().length + 1
        yield* fleet.until("all of them were struck", (events) => all(events, "Struck").length === strikes)
        const handling = yield* overtaken(fleet, "in-handler")
        const settling = yield* overtaken(fleet, "before-ack")
        yield* fleet.resume("worker-2-")
        yield* fleet.resume("worker-3-")
        yield* fleet.until("the one that stood in its handler finds that its effect is there", (events) =>
          all(events, "Fenced").some(({ worker }) => worker === handling))
        yield* fleet.until("the one that stood before it settled is refused", (events) =>
          all(events, "Settled").some(({ accepted, worker }) =>
            !accepted && worker === settling
          ))

        const [poison] = yield* sendRisky((event) =>
          fleet.events.push(event)
        )
        yield* fleet.kill(`worker-${yield* Random.nextIntBetween(0, 3)}-`)
        yield* fleet.progress(50)
        yield* sender.end
        yield* check(fleet)

        const letters = yield* DeadLetters.DeadLetters
        const dead = yield* letters.list(risky, { ids: [poison!] })
        deepStrictEqual(dead.map(({ attempts, reason }) => ({ attempts, reason })), [{
          attempts: 2,
          reason: "attempts"
        }])
        assert.isAbove(
          all(fleet.events, "Begun").filter(({ attempt }) => attempt > 1).length,
          0
        )
      }).pipe(Effect.provide(Layer.fresh(Database))),
    120_000
  )

  it.effect(
    "a database that is killed and started again loses nothing that was acknowledged",
    () =>
      Effect.gen(function*() {
        const server = yield* PrivatePostgres.make({ settings: { wal_writer_delay: "10s" } })
        yield* Effect.gen(function*() {
          yield* Migrations.run([migrations])
          yield* prepare
          const { sql } = yield* Postgres.Postgres
          const fleet = yield* Fleet.make(server.url)
          for (const name of workers) yield* fleet.work(name)
          const sender = yield* fleet.send("sender", 1_000_000)
          const killBackend = Effect.gen(function*() {
            const [backend] = yield* sql<{ readonly pid: number }>`
              select pid from pg_stat_activity where state <> 'idle' and pid <> pg_backend_pid() and client_port is not null
              limit 1`.pipe(
              Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 500 }),
              Effect.repeat({ until: (rows) => rows.length > 0 })
            )
            yield* server.kill9Backend(backend!.pid)
          })
          const killServer = Effect.andThen(server.kill9, server.start())
          for (const kill of [killServer, killBackend]) {
            yield* fleet.progress(50)
            yield* kill
          }
          yield* fleet.progress(50)
          yield* sender.end
          yield* check(fleet)
        }).pipe(
          Effect.provide(Layer.provideMerge(Queues.layer, Postgres.layer({ url: server.url, maxConnections: 4 })))
        )
      }),
    120_000
  )

  it.effect(
    "connections that are cut after a request was sent and before it is answered lose nothing, and do nothing twice",
    () =>
      Effect.gen(function*() {
        yield* prepare
        const url = yield* PostgresTest.url
        const { hostname, port } = new URL(Redacted.value(url))
        const proxy = yield* TcpProxy.make({ host: hostname, port: Number(port) })
        const fleet = yield* Fleet.make(proxy.through(url))
        for (const name of workers) yield* fleet.work(name)
        const sender = yield* fleet.send("sender", 1_000_000)
        yield* fleet.progress(50)
        const random = SeededScheduler.random(1)
        // One answer of many, whatever it answers.
        const cutting = yield* proxy.cutWhen({ from: "server", matches: () => random() < 0.04, deliver: false }).pipe(
          Effect.forever,
          Effect.forkChild({ startImmediately: true })
        )
        const kinds: ReadonlyArray<What> = ["send", "claim", "settle"]
        yield* fleet.until("each kind of request was cut off from its answer", (events) => {
          const broken = all(events, "Broke")
          return kinds.every((kind) => broken.some(({ what }) => what === kind))
        })
        yield* Fiber.interrupt(cutting)
        yield* fleet.progress(50)
        yield* sender.end
        yield* check(fleet)
      }).pipe(Effect.provide(Layer.fresh(Database))),
    120_000
  )
})
