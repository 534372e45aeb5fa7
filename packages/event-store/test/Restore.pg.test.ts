import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as DurableSubscription from "@strata/event-store/DurableSubscription"
import { EventStore } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import type { KnownAt } from "@strata/event-store/FactQuery"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { assertInOrder } from "./LogModel.ts"

const Services = Layer.merge(NodeServices.layer, Layer.succeed(References.MinimumLogLevel, "None"))

class Waiting extends Data.TaggedError("Waiting") {}

const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, holds: (value: A) => boolean) =>
  effect.pipe(
    Effect.filterOrFail(holds, () => new Waiting()),
    Effect.retry({ while: (error) => error instanceof Waiting, schedule: Schedule.spaced("10 millis") }),
    Effect.timeout("1 minute")
  )

/** A cluster with the store's tables, and one of an application. */
const cluster = Effect.gen(function*() {
  const server = yield* PrivatePostgres.make()
  const context = yield* Layer.build(
    EventStorePostgres.layer({ pollInterval: "100 millis" }).pipe(
      Layer.provideMerge(Layer.effectDiscard(Migrations.run([migrations]))),
      Layer.provideMerge(Postgres.layer({ url: server.url, maxConnections: 6 }))
    )
  )
  const { sql } = Context.get(context, Postgres.Postgres)
  yield* sql`
    create table handled (
      position bigint not null, stream text not null, version integer not null,
      number bigint generated always as identity
    )`
  return { server, context }
})
type Cluster = Effect.Success<typeof cluster>

/** Gives away transaction ids, each to a subtransaction that writes. */
const age = Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  yield* sql`create unlogged table years (n integer)`
  yield* sql`
    do $$ begin
      for n in 1 .. 100000 loop
        begin insert into years values (n); exception when division_by_zero then null; end;
      end loop;
    end $$`
})

const transactionId = Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  const rows = yield* sql<{ readonly id: bigint }>`select pg_current_xact_id()::text::bigint as id`
  return rows[0]!.id
})

/** Tables of the store and the application; the ledger of the migrations is each cluster's own. */
const tablesOf = Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  const rows = yield* sql<{ readonly name: string }>`
    select relname::text as name from pg_class
    where relnamespace = 'strata'::regnamespace and relkind = 'r' and relpersistence = 'p' and relname <> 'migration'
    order by 1`
  return rows.map(({ name }) => name)
})

/** All rows as of one moment, in files of the server, and where its sequences are: what pg_dump takes along. */
const dump = Effect.fnUntraced(function*(directory: string) {
  const { sql, transact } = yield* Postgres.Postgres
  const tables = yield* tablesOf
  return yield* transact(Effect.gen(function*() {
    yield* sql`set transaction isolation level repeatable read`
    for (const table of tables) yield* sql.unsafe(`copy ${table} to '${directory}/${table}.copy'`)
    const head = yield* sql<{ readonly head: bigint }>`select head from store`
    const sequences = yield* sql<{ readonly name: string; readonly value: bigint }>`
      select sequencename::text as name, last_value as value from pg_sequences
      where schemaname = 'strata' and last_value is not null`
    return { directory, tables, sequences, head: Number(head[0]!.head) }
  }))
})

const restore = Effect.fnUntraced(function*(from: Effect.Success<ReturnType<typeof dump>>) {
  const { sql, transact } = yield* Postgres.Postgres
  yield* transact(Effect.gen(function*() {
    // As pg_dump does, which makes foreign keys when the rows are there.
    yield* sql`set local session_replication_role = replica`
    yield* sql.unsafe(`truncate ${from.tables.join(", ")}`)
    for (const table of from.tables) yield* sql.unsafe(`copy ${table} from '${from.directory}/${table}.copy'`)
    for (const { name, value } of from.sequences) yield* sql`select setval(${name}::regclass, ${Pg.bigint(value)})`
  }))
})

const stream = (n: number) => Fact.streamId("counter", `${n}`)

/** Appends, and now and then a revision: every fifth fact is corrected, every tenth retracted. */
const write = Effect.fnUntraced(function*(from: number, to: number) {
  const store = yield* EventStore
  for (const n of Arr.range(from, to)) {
    const { facts } = yield* store.append({ facts: [{ stream: stream(n % 7), type: "Counted", data: n }] })
    const said = { revises: facts[0]!.eventId, reason: "found out", actor: "ada" }
    if (n % 5 === 0) yield* store.revise({ _tag: "Correction", ...said, data: -n })
    if (n % 10 === 0) yield* store.revise({ _tag: "Retraction", ...said })
  }
})

const subscribe = DurableSubscription.run({
  name: "restored",
  startFrom: "beginning",
  partitions: 3,
  lease: "1 second",
  batchSize: 10,
  handler: Effect.fnUntraced(function*(batch) {
    const { sql } = yield* Postgres.Postgres
    yield* sql`
      insert into handled (position, stream, version)
      select * from unnest(
        ${Pg.bigintArray(batch.map((fact) => fact.position))}, ${Pg.textArray(batch.map((fact) => fact.stream))},
        ${Pg.intArray(batch.map((fact) => fact.version))}
      )`
  })
})

interface Handled {
  readonly position: bigint
  readonly stream: string
  readonly version: number
}
const handled = Effect.flatMap(
  Postgres.Postgres,
  ({ sql }) => sql<Handled>`select position, stream, version from handled order by number`
)

/** What was believed at each of these moments, in all detail. */
const answers = Effect.fnUntraced(function*(moments: ReadonlyArray<KnownAt>) {
  const store = yield* EventStore
  return yield* Effect.forEach(
    moments,
    (knownAt) => Effect.map(store.read({ knownAt, limit: 1000 }), ({ facts, knownAt }) => ({ facts, knownAt }))
  )
})

layer(Services, { excludeTestServices: true })(
  "a log that is dumped while it is written, and restored into a younger cluster",
  (it) => {
    it.effect(
      "answers as before, goes on where it was, and its durable subscription misses and repeats nothing",
      () =>
        Effect.gen(function*() {
          const [old, young]: [Cluster, Cluster] = yield* Effect.all([cluster, cluster], { concurrency: 2 })
          const inOld = Effect.provideContext(old.context)
          const inYoung = Effect.provideContext(young.context)

          const oldStore = Context.get(old.context, EventStore)
          const key = { key: "request", fingerprint: "f", answer: { done: true } }
          const first = {
            facts: [{
              stream: stream(1),
              type: "Counted",
              data: 0,
              eventId: Fact.EventId.make("00000000-0000-7000-8000-000000000001")
            }],
            idempotency: key
          }
          const firstAppended = yield* oldStore.append(first)
          yield* inOld(Effect.andThen(age, write(1, 60)))
          const dumped = yield* inOld(Effect.scoped(Effect.gen(function*() {
            yield* subscribe
            yield* eventually(handled, (rows) => rows.length >= 30)
            const writing = yield* Effect.forkChild(write(61, 160), { startImmediately: true })
            yield* eventually(oldStore.head, (head) => head >= 100n)
            const files = yield* dump(old.server.dataDirectory)
            yield* Fiber.join(writing)
            return files
          })))

          // Questions about the time before the dump: the log goes on after it in the old cluster only.
          const known = yield* oldStore.readLog({ after: Fact.beginning, limit: dumped.head })
          const moments = known.flatMap(({ position, recordedAt }, index): ReadonlyArray<KnownAt> =>
            index % 8 > 0 ? [] : [{ position }, { time: recordedAt }, { time: Timestamp.fromMicros(recordedAt - 1n) }]
          )
          const before = yield* inOld(answers(moments))
          assert.isAbove(Number(yield* oldStore.head), dumped.head)

          yield* inYoung(restore(dumped))
          assert.isAbove(Number(yield* inOld(transactionId)), Number(yield* inYoung(transactionId)) + 50_000)

          // A fresh opening, as of a process that starts after the restore.
          yield* inYoung(
            Effect.gen(function*() {
              const store = yield* EventStore
              deepStrictEqual(yield* store.readLog({ after: Fact.beginning }), known)
              deepStrictEqual(yield* answers(moments), before)
              const again = yield* store.append(first)
              deepStrictEqual([again.duplicate, again.position], [true, firstAppended.position])
              deepStrictEqual(
                Option.map(yield* store.idempotencyRecord("request"), ({ answer }) => answer),
                Option.some(key.answer)
              )

              const done = yield* handled
              assert.isTrue(done.length >= 30 && done.length <= dumped.head, `${done.length} of ${dumped.head} handled`)
              const live = yield* store.subscribe({ after: Fact.Position.make(50n) }).pipe(
                Stream.flattenIterable,
                Stream.take(dumped.head - 50 + 3),
                Stream.runCollect,
                Effect.forkChild({ startImmediately: true })
              )
              yield* subscribe
              const appended = yield* store.append({
                facts: [3, 99, 100].map((n) => ({ stream: stream(n), type: "Counted", data: n }))
              })
              deepStrictEqual(
                appended.facts.map(({ position }) => Number(position)),
                [1, 2, 3].map((n) => dumped.head + n)
              )
              assert.isTrue(appended.recordedAt > known.at(-1)!.recordedAt)

              const log = yield* store.readLog({ after: Fact.beginning })
              assertInOrder(log)
              deepStrictEqual(
                (yield* Fiber.join(live)).map(({ position }) => position),
                log.slice(50).map(({ position }) => position)
              )
              const rows = yield* eventually(handled, (rows) => rows.length >= log.length)
              deepStrictEqual(rows.slice(0, done.length), done)
              deepStrictEqual(
                rows.map(({ position }) => position).toSorted((a, b) => Number(a - b)),
                log.map(({ position }): bigint => position)
              )
              for (const [, each] of Object.entries(Arr.groupBy(rows, ({ stream }) => stream))) {
                deepStrictEqual(each.map(({ version }) => version), Arr.range(1, each.length))
              }
              deepStrictEqual(yield* answers(moments), before)
            }).pipe(
              Effect.provide(Layer.fresh(EventStorePostgres.layer({ pollInterval: "100 millis" }))),
              Effect.scoped
            )
          )
        }),
      60_000
    )
  }
)
