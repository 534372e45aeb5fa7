import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import * as DurableSubscription from "@strata/event-store/DurableSubscription"
import { EventStore } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import { defaults, EventStorePolicies } from "@strata/event-store/EventStorePolicies"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as SealingCrypto from "@strata/event-store/SealingCrypto"
import * as SubjectKeys from "@strata/event-store/SubjectKeys"
import * as SubjectKeysPostgres from "@strata/event-store/SubjectKeysPostgres"
import * as TenantScope from "@strata/event-store/TenantScope"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as SqlState from "@strata/postgres/SqlState"
import * as ChildProgram from "@strata/testing/ChildProgram"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as PrivatePostgres from "@strata/testing/PrivatePostgres"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type { SqlError } from "effect/sql/SqlError"
import { type ChatStore, contents, garden, id, lobby, masterKey, said } from "./chatRoom.ts"
import { personalContract } from "./personalContract.ts"
import { check, History } from "./personalModel.ts"
import { subjectKeysContract } from "./subjectKeysContract.ts"

const Database = Layer.mergeAll(
  PostgresTest.layer({ migrations: [migrations], options: { role: applicationRole } }),
  SecureRandom.layerWebCrypto,
  NodeServices.layer
)

const byAda = { actor: "ada", reason: "asked for it" }

let stores = 0
const openNamed = Effect.fnUntraced(function*(name: string, options: Partial<SubjectKeys.Options> = {}) {
  const table = yield* SubjectKeysPostgres.make(yield* Postgres.Postgres)
  const keys = yield* SubjectKeys.make({ masterKey: masterKey("2026"), ...options }, table).pipe(
    Effect.provide(SealingCrypto.layer)
  )
  const store = yield* EventStorePostgres.make({ name, summarize: false }).pipe(
    Effect.provideService(SubjectKeys.SubjectKeys, keys)
  )
  return { keys, store } satisfies ChatStore
})
const open = Effect.suspend(() => openNamed(`store ${++stores}`))
const bare = Effect.suspend(() => EventStorePostgres.make({ name: `store ${++stores}`, summarize: false }))

/** Runs as the owner of the tables. */
const asOwner = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const { sql, transact } = yield* Postgres.Postgres
    return yield* transact(Effect.andThen(sql`set local role none`, body))
  })

/** The keys of a tenant are those of all of its stores: who begins with none begins with this. */
const emptied = Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  yield* asOwner(sql`truncate subject_key, subject_erasure, subject_stream`)
})

layer(Database, { excludeTestServices: true })("personal data on PostgreSQL", (it) => {
  personalContract(it, Effect.andThen(emptied, open), bare)
  subjectKeysContract(it, Effect.flatMap(Postgres.Postgres, SubjectKeysPostgres.make))

  it.effect.prop(
    "whatever was said, corrected and erased, readers see what a plain model says",
    [History],
    ([steps]) => Effect.scoped(Effect.flatMap(Effect.andThen(emptied, open), (opened) => check(opened, steps))),
    { arbitrary: { runs: 40 }, timeout: 60_000 }
  )

  it.effect("no table holds what was said, or of whom", () =>
    Effect.gen(function*() {
      yield* emptied
      const { keys, store } = yield* open
      const { sql } = yield* Postgres.Postgres
      yield* store.append({ facts: [said("u1", "a secret"), said("u2", "another secret")] })
      yield* keys.erase({ subject: "person 1", ...byAda })
      const { facts } = yield* store.append({
        facts: [{
          stream: garden,
          type: "Noted",
          data: { text: "a secret", n: 1 },
          personal: [{ subject: "person 1", fields: ["text"] }]
        }]
      })
      yield* keys.erase({ subject: "person 1", ...byAda })
      const rows = yield* TenantScope.transact(sql<{ text: string }>`
        select f::text as text from fact f union all select k::text from subject_key k
        union all select e::text from subject_erasure e union all select p::text from subject_stream p`)
      const text = rows.map(({ text }) => text).join("\n")
      assert.isFalse(text.includes("secret") || text.includes("person 1"))
      const [data] = yield* TenantScope.transact(sql<{ n: number; fields: string }>`
        select (data ->> 'n')::integer as n, data ->> '$personal' as fields from fact
        where event_id = ${facts[0]!.eventId}::uuid`)
      deepStrictEqual(data, { n: 1, fields: "[\"text\"]" })
    }))

  it.effect("in a transaction, keys are none of its business: a rollback takes back the fact and leaves the key", () =>
    Effect.gen(function*() {
      const { store } = yield* open
      const { transact } = yield* Postgres.Postgres
      const failed = yield* Effect.exit(transact(Effect.gen(function*() {
        yield* Effect.asVoid(store.appendInTransaction({ facts: [said("rolled back", "one")] }))
        return yield* Effect.fail("changed my mind")
      })))
      deepStrictEqual(failed._tag, "Failure")
      yield* store.append({ facts: [said("rolled back", "two")] })
      const { store: again } = yield* openNamed(store.name)
      deepStrictEqual(contents(yield* again.readStream(lobby)), ["two"])
      const outcome = yield* transact(store.appendInTransaction({ facts: [said("rolled back", "three")] }))
      yield* outcome
      deepStrictEqual(
        yield* transact(Effect.map(again.readStream(lobby), contents)),
        ["two", "three"]
      )
    }))

  it.effect("with one connection, callers in transactions wait for nobody who waits for them", () =>
    Effect.gen(function*() {
      const url = yield* PostgresTest.url
      yield* Effect.gen(function*() {
        const { transact } = yield* Postgres.Postgres
        const { store } = yield* openNamed("one connection")
        const plain = Effect.forEach(
          [1, 2, 3, 4],
          (n) => store.append({ facts: [said(`plain ${n}`, "x"), said("both", "x")] }),
          { concurrency: "unbounded" }
        )
        const within = Effect.forEach(
          [1, 2, 3, 4],
          (n) =>
            transact(
              Effect.asVoid(store.appendInTransaction({ facts: [said(`within ${n}`, "x"), said("both", "x")] }))
            ),
          { concurrency: "unbounded" }
        )
        yield* Effect.all([plain, within], { concurrency: "unbounded" })
        deepStrictEqual(contents(yield* store.readStream(lobby)).length, 16)
      }).pipe(Effect.provide(Postgres.layer({ url, role: applicationRole, maxConnections: 1 })))
    }))

  it.effect("nobody is erased inside a transaction, with which it could be undone", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      const { transact } = yield* Postgres.Postgres
      yield* store.append({ facts: [said("within", "one")] })
      const error = yield* Effect.flip(transact(keys.erase({ subject: "within", ...byAda })))
      assert.isTrue(error._tag === "EventStoreError" && error.reason._tag === "InvalidAppend")
      deepStrictEqual(contents(yield* store.readStream(lobby)), ["one"])
    }))

  it.effect("an erasure is told in each store that holds something of the subject, and in no other", () =>
    Effect.gen(function*() {
      const first = yield* open
      const second = yield* open
      const third = yield* open
      yield* first.store.append({ facts: [said("in two", "one")] })
      yield* second.store.append({ facts: [said("in two", "two")] })
      yield* third.store.append({ facts: [said("other", "three")] })
      const { facts } = yield* first.keys.erase({ subject: "in two", ...byAda })
      deepStrictEqual(
        facts,
        [first, second].map(({ store: { name } }) => ({
          store: name,
          position: Fact.Position.make(2n)
        }))
      )
      deepStrictEqual(yield* third.store.head, 1n)
      // Whoever has not read of it sees it when its keys are old.
      yield* second.store.readLog({ after: Fact.beginning })
      deepStrictEqual(contents(yield* second.store.readStream(lobby)), ["Erased"])
    }))

  it.effect("two who erase one subject at once erase it once", () =>
    Effect.gen(function*() {
      const { store } = yield* open
      const all = yield* Effect.forEach([1, 2, 3, 4], () => openNamed(store.name))
      yield* store.append({ facts: [said("erased at once", "one")] })
      const erasures = yield* Effect.forEach(
        all,
        ({ keys }) => keys.erase({ subject: "erased at once", ...byAda }),
        { concurrency: "unbounded" }
      )
      deepStrictEqual(erasures.filter(({ again }) => !again).length, 1)
      deepStrictEqual(new Set(erasures.map(({ key }) => key)).size, 1)
      deepStrictEqual(yield* store.head, 2n)
    }))

  it.effect("writers and erasers of one subject leave nothing that is neither open nor erased", () =>
    Effect.gen(function*() {
      const { store } = yield* open
      const all = yield* Effect.forEach([1, 2, 3], () => openNamed(store.name, { timeToLive: 0 }))
      yield* Effect.forEach(
        all,
        ({ keys, store }, index) =>
          Effect.forEach(Array.from({ length: 30 }), (_, n) =>
            index === 0 && n % 5 === 0
              ? Effect.asVoid(keys.erase({ subject: "busy", ...byAda }))
              : Effect.asVoid(store.append({ facts: [said("busy", "x")] }))),
        { concurrency: "unbounded" }
      )
      const seen = contents(yield* (yield* openNamed(store.name)).store.readStream(lobby))
      deepStrictEqual(seen.length, 84)
      deepStrictEqual(new Set(seen).size <= 2, true)
    }))

  it.effect("a durable subscription of several partitions sees what is erased as erased", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* open
      yield* store.append({ facts: [said("heard", "one"), said("heard", "two", { stream: garden })] })
      yield* keys.erase({ subject: "heard", ...byAda })
      const seen: Array<string> = []
      const all = yield* Deferred.make<void>()
      yield* DurableSubscription.run({
        name: "listener",
        startFrom: "beginning",
        partitions: 4,
        delivery: "atLeastOnce",
        handler: (facts) =>
          Effect.suspend(() => {
            seen.push(...contents(facts))
            return seen.length === 2 ? Effect.asVoid(Deferred.succeed(all, undefined)) : Effect.void
          })
      }).pipe(Effect.provideService(EventStore, store))
      yield* Deferred.await(all)
      deepStrictEqual(seen, ["Erased", "Erased"])
    }))

  it.effect("row-level security keeps the keys, erasures and streams of tenants apart", () =>
    Effect.gen(function*() {
      yield* emptied
      const { sql } = yield* Postgres.Postgres
      const { keys, store } = yield* open
      const as = (tenant: string) => Effect.provideService(CurrentTenant, tenant)
      for (const tenant of ["acme", "globex"]) {
        yield* as(tenant)(store.append({ facts: [said("u1", "one"), said("u2", "two")] }))
        yield* as(tenant)(keys.erase({ subject: "u2", ...byAda }))
      }
      const tables = ["subject_key", "subject_erasure", "subject_stream"]
      const seen = Effect.forEach(tables, (table) =>
        Effect.map(
          sql<{ tenant: string }>`select distinct tenant from ${sql(table)} order by tenant`,
          (rows) => rows.map(({ tenant }) => tenant).join(" ")
        ))
      deepStrictEqual(yield* seen, ["", "", ""])
      deepStrictEqual(yield* as("acme")(TenantScope.transact(seen)), ["acme", "acme", "acme"])
      deepStrictEqual(yield* sql`delete from subject_key returning 1`, [])
      const within = <A>(statement: Effect.Effect<A, SqlError>) =>
        Effect.match(as("acme")(TenantScope.transact(statement)), {
          onFailure: (error) => SqlState.codeOf(error) ?? String(error),
          onSuccess: (rows) => rows
        })
      deepStrictEqual(yield* within(sql`delete from subject_key where tenant = 'globex' returning 1`), [])
      for (
        const refused of [
          sql`update subject_key set tenant = 'globex'`,
          sql`insert into subject_key (tenant, subject, master, wrapped) values ('globex', 'x', 'm', '')`,
          sql`insert into subject_stream values ('globex', 'x', 1, 'a-b')`,
          sql`insert into subject_erasure values ('globex', 'x', 1, 'r', 'a')`,
          sql`delete from subject_erasure`,
          sql`update subject_erasure set reason = 'none'`,
          sql`update subject_stream set stream = 'a-b'`,
          sql`delete from subject_stream`,
          sql`truncate subject_key`,
          sql`select last_value from subject_key_number_seq`
        ]
      ) {
        deepStrictEqual(yield* within(refused), "42501")
      }
      // With the tables as they are left.
      deepStrictEqual(contents(yield* as("globex")(store.readStream(lobby))), ["one", "Erased"])
    }))

  it.effect("keys are found by primary keys alone", () =>
    Effect.gen(function*() {
      const { sql, transact } = yield* Postgres.Postgres
      const { store } = yield* open
      for (let n = 0; n < 4; n++) {
        yield* store.append({ facts: Array.from({ length: 50 }, (_, index) => said(`planned ${n} ${index}`, "x")) })
      }
      yield* asOwner(sql`analyze subject_key, subject_erasure, subject_stream`)
      const looks = Effect.gen(function*() {
        yield* sql`select pg_stat_force_next_flush()`
        const [row] = yield* sql<{ n: number; scans: number }>`
          select coalesce(sum(idx_tup_read), 0)::int as n,
            (select coalesce(sum(seq_tup_read), 0)::int from pg_stat_user_tables where relname like 'subject_%') as scans
          from pg_stat_user_indexes where relname like 'subject_%'`
        return row!
      })
      yield* transact(Effect.gen(function*() {
        const before = yield* looks
        yield* sql`
          select * from hold_subject_keys('default', array[${SealingCrypto.digestOf("default", "planned 1 7")}],
            array['m'], array[''::bytea])`
        const after = yield* looks
        assert.isAtMost(after.n - before.n, 4)
        deepStrictEqual(after.scans, before.scans)
      }))
    }))

  it.effect("a database that is away is said to be away, and nobody is taken for erased", () =>
    Effect.gen(function*() {
      const server = yield* PrivatePostgres.make()
      yield* Effect.gen(function*() {
        yield* Migrations.run([migrations])
        const { keys, store } = yield* openNamed("away", { timeToLive: 0 })
        yield* store.append({ facts: [said("u1", "one")] })
        yield* server.stop
        const errors = [
          yield* Effect.flip(store.append({ facts: [said("u1", "two")] })),
          yield* Effect.flip(keys.erase({ subject: "u1", ...byAda })),
          yield* Effect.flip(keys.rewrap)
        ]
        deepStrictEqual(errors.map(({ reason }) => reason._tag), [
          "StoreUnavailable",
          "StoreUnavailable",
          "StoreUnavailable"
        ])
        yield* server.start()
        deepStrictEqual(contents(yield* store.readStream(lobby)), ["one"])
      }).pipe(
        Effect.provide(Postgres.layer({ url: server.url, maxConnections: 2 })),
        Effect.provideService(EventStorePolicies, {
          ...defaults,
          store: { ...defaults.store, retry: Schedule.recurs(0) }
        })
      )
    }), 30_000)

  const writer = (name: string, args: ReadonlyArray<string>) =>
    Effect.flatMap(
      PostgresTest.url,
      (url) =>
        ChildProgram.start(new URL("./programs/personalWriter.ts", import.meta.url), {
          args: [name, ...args],
          env: { DATABASE_URL: url }
        })
    )

  it.effect("processes that write about a new subject at once seal under one key", () =>
    Effect.gen(function*() {
      const { keys, store } = yield* openNamed("new subject")
      const children = yield* Effect.forEach(["1", "2", "3"], (n) => writer("new subject", ["append", "newcomer", n]), {
        concurrency: "unbounded"
      })
      for (const child of children) yield* child.waitFor((line) => line === "ready")
      for (const child of children) yield* child.send("go")
      for (const child of children) yield* child.waitFor((line) => line === "done")
      deepStrictEqual(contents(yield* store.readStream(lobby)).toSorted(), ["said by 1", "said by 2", "said by 3"])
      yield* keys.erase({ subject: "newcomer", ...byAda })
      deepStrictEqual(new Set(contents(yield* store.readStream(lobby))), new Set(["Erased"]))
    }), 60_000)

  it.effect(
    "a process that is killed between the key and the append leaves a key, and nothing is lost",
    () =>
      Effect.gen(function*() {
        const { keys, store } = yield* openNamed("killed between")
        const child = yield* writer("killed between", ["hold", "left behind", "1"])
        yield* child.waitFor((line) => line === "held")
        yield* child.kill9
        deepStrictEqual(yield* store.head, Fact.beginning)
        yield* store.append({ facts: [said("left behind", "one", { eventId: id(1) })] })
        deepStrictEqual(contents(yield* store.readStream(lobby)), ["one"])
        const { key } = yield* keys.erase({ subject: "left behind", ...byAda })
        assert.isAbove(key, 0)
        deepStrictEqual(contents(yield* store.readStream(lobby)), ["Erased"])
      }),
    60_000
  )
})
