import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
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
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type Asked, AskedLine, type Attempt, attempt, AttemptLine } from "./Attempt.ts"
import { assertInOrder, explains } from "./LogModel.ts"
import * as RandomWriter from "./RandomWriter.ts"

const Services = Layer.mergeAll(
  PostgresTest.layer({ migrations: [migrations] }),
  NodeServices.layer,
  // Lost connections are the point of these tests.
  Layer.succeed(References.MinimumLogLevel, "None")
)

const show = Schema.encodeSync(AttemptLine)
const decodeAttempt = Schema.decodeEffect(AttemptLine)
const decodeAsked = Schema.decodeEffect(AskedLine)

/** Every answer is explained by the log, and every fact of the log is one that somebody was told of, once. */
const assertExplained = Effect.fnUntraced(function*(attempts: ReadonlyArray<Attempt>) {
  const store = yield* EventStore
  const log = yield* store.readLog({ after: Fact.beginning, limit: Number(yield* store.head) })
  assertInOrder(log)
  deepStrictEqual(attempts.filter((each) => !explains(log, each)).map((each) => show(each)), [])
  const told = attempts.flatMap(({ answer }) => answer._tag === "Written" ? answer.places : [])
  deepStrictEqual(new Set(told.map(({ position }) => position)), new Set(log.map(({ position }) => position)))
  return log
})

const revisions = (attempts: ReadonlyArray<Attempt>) =>
  attempts.filter(({ answer, asked }) => asked._tag === "Revision" && answer._tag === "Written")

layer(Services, { excludeTestServices: true })("a writer's process that is killed while it revises", (it) => {
  it.effect(
    "leaves what it was told, and what it was not told can be asked again and is done once",
    () =>
      Effect.gen(function*() {
        const store = yield* EventStore
        const child = yield* ChildProgram.start(new URL("./programs/randomWriters.ts", import.meta.url), {
          args: [store.name, "1", "1", "4", "100000"],
          env: { DATABASE_URL: yield* PostgresTest.url }
        })
        yield* child.waitFor((line) => line === "ready")
        yield* child.send("go")
        const lines: Array<string> = []
        const reading = yield* Effect.forkChild(
          Stream.runForEach(child.lines, (line) => Effect.sync(() => lines.push(line)))
        )
        const enough = Effect.repeat(Effect.sync(() => lines.length), {
          until: (count) => count >= 900,
          schedule: Schedule.spaced("2 millis")
        })
        yield* Effect.raceFirst(enough, Fiber.join(reading))
        yield* child.kill9
        yield* Fiber.join(reading)
        const told: Array<Attempt> = []
        const untold = new Map<string, { readonly tenant: string; readonly asked: Asked }>()
        for (const line of lines) {
          const [, tenant = "", json = ""] = /^ask (\S+) (.*)$/.exec(line) ?? []
          if (json !== "") {
            const asked = yield* decodeAsked(json)
            untold.set(nameOf(tenant, asked), { tenant, asked })
          } else if (line.startsWith("told ")) {
            const attempt = yield* decodeAttempt(line.slice(5))
            untold.delete(nameOf(attempt.tenant, attempt.asked))
            told.push(attempt)
          }
        }
        assert.isAtMost(untold.size, 4)
        const again = yield* Effect.forEach(
          untold.values(),
          ({ asked, tenant }) =>
            Effect.map(
              Effect.provideService(attempt(asked), CurrentTenant, tenant),
              (found) => ({ ...found, from: Fact.beginning })
            )
        )
        yield* assertExplained([...told, ...again])
        assert.isAbove(revisions(told).length, 50)
      }).pipe(Effect.provide(EventStorePostgres.layer({ name: "killed" }))),
    60_000
  )
})

const nameOf = (tenant: string, asked: Asked) =>
  `${tenant} ${asked._tag === "Append" ? asked.facts[0]!.eventId : asked.eventId}`

layer(Services, { excludeTestServices: true })("a server that is killed while it revises", (it) => {
  it.effect(
    "loses no revision that was acknowledged, writes none twice, and forks no chain",
    () =>
      Effect.gen(function*() {
        // Nobody but a commit itself writes to the disk what was committed.
        const server = yield* PrivatePostgres.make({ settings: { wal_writer_delay: "10s" } })
        const patience = Schedule.max([Schedule.spaced("20 millis"), Schedule.during("30 seconds")])
        /** Pools and stores as of two processes. */
        const opened = EventStorePostgres.layer({ retry: patience }).pipe(
          Layer.provideMerge(Layer.effectDiscard(Migrations.run([migrations]))),
          Layer.provideMerge(Postgres.layer({ url: server.url, maxConnections: 4 }))
        )
        const [one, two] = [yield* Layer.build(opened), yield* Layer.build(Layer.fresh(opened))]
        const attempts: Array<Attempt> = []
        const writing = { on: true }
        const write = (writer: number) =>
          Effect.suspend(() => {
            const next = RandomWriter.make(writer, RandomWriter.mostlyRevisions)
            return Effect.gen(function*() {
              while (writing.on) attempts.push(yield* attempt(yield* next, patience))
            })
          }).pipe(
            Random.withSeed(`${writer}`),
            Effect.provideService(CurrentTenant, RandomWriter.tenantOf(writer)),
            Effect.provideContext(writer <= 4 ? one : two)
          )
        const writers = yield* Effect.forkChild(
          Effect.forEach(Arr.range(1, 8), write, { concurrency: "unbounded", discard: true })
        )
        const progress = Effect.suspend(() => {
          const enough = attempts.length + 60
          return Effect.repeat(Effect.sync(() => attempts.length), {
            until: (count) => count >= enough || !writing.on,
            schedule: Schedule.spaced("2 millis")
          })
        })
        const { sql } = yield* Effect.provideContext(Postgres.Postgres, one)
        const killBackend = Effect.gen(function*() {
          const backends = yield* sql<{ readonly pid: number }>`
          select pid from pg_stat_activity
          where state = 'active' and query like '%revise_fact%' and pid <> pg_backend_pid()
          limit 1`.pipe(Effect.repeat({ until: (rows) => rows.length > 0 }))
          yield* server.kill9Backend(backends[0]!.pid)
        })
        const killPostmaster = Effect.andThen(server.kill9, server.start())
        for (const kill of [killBackend, killPostmaster, killBackend, killPostmaster]) {
          yield* Effect.raceFirst(progress, Effect.andThen(Fiber.join(writers), Effect.die("the writers stopped")))
          yield* kill
        }
        yield* progress
        writing.on = false
        yield* Fiber.join(writers)
        const log = yield* Effect.provideContext(assertExplained(attempts), one)
        assert.isAbove(log.filter(({ revision }) => revision > 0).length, 50)
      }),
    60_000
  )
})
