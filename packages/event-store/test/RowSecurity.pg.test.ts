import * as NodeServices from "@effect/platform-node/NodeServices"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { assert, layer } from "@effect/vitest"
import { assertNone, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import type { EventStoreError } from "@strata/event-store/EventStore"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as FactSummaries from "@strata/event-store/FactSummaries"
import * as TenantScope from "@strata/event-store/TenantScope"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import * as Migrations from "@strata/postgres/Migrations"
import * as Postgres from "@strata/postgres/Postgres"
import * as SqlState from "@strata/postgres/SqlState"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Arr from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import { findings } from "./tenantFindings.ts"

const Database = Layer.merge(
  PostgresTest.layer({ migrations: [migrations], options: { role: applicationRole, maxConnections: 1 } }),
  SecureRandom.layerWebCrypto
)

const account = Fact.streamId("account", "a")
const id = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`)

const tables = ["fact", "idempotency_key", "snapshot", "stream"] as const

const as = (tenant: string) => Effect.provideService(CurrentTenant, tenant)

let stores = 0
/** A store in which two tenants have said the same, under the same names. */
const filled = Effect.gen(function*() {
  const store = yield* EventStorePostgres.make({ name: `store ${++stores}` })
  const fill = Effect.gen(function*() {
    const { facts } = yield* store.append({
      facts: [{ stream: account, eventId: id(1), type: "Counted", data: { tenant: yield* CurrentTenant } }],
      idempotency: { key: "k", fingerprint: "f", answer: { tenant: yield* CurrentTenant } }
    })
    yield* store.revise({
      _tag: "Correction",
      revises: id(1),
      data: {},
      reason: "found out",
      actor: "ada",
      eventId: id(2)
    })
    yield* store.saveSnapshot({
      stream: account,
      schemaVersion: 1,
      version: 1,
      position: facts[0]!.position,
      state: {}
    })
  })
  yield* as("acme")(fill)
  yield* as("globex")(fill)
  return store
})

/** Whose rows there are, by table. */
const tenantsSeen = Effect.gen(function*() {
  const { sql } = yield* Postgres.Postgres
  const seen: Record<string, ReadonlyArray<string>> = {}
  for (const table of tables) {
    const rows = yield* sql<{ tenant: string }>`select distinct tenant from ${sql(table)} order by tenant`
    seen[table] = rows.map(({ tenant }) => tenant)
  }
  return seen
})
const only = (...tenants: ReadonlyArray<string>) => Object.fromEntries(tables.map((table) => [table, tenants]))

/** The SQLSTATE with which a statement is refused. */
const refusalOf = <A, E, R>(effect: Effect.Effect<A, E | SqlError, R>) =>
  Effect.match(effect, {
    onFailure: (error) => SqlState.codeOf(error) ?? String(error),
    onSuccess: () => "not refused"
  })

class Undone extends Data.TaggedError("Undone") {}
const isUndone = (error: unknown): error is Undone => error instanceof Undone

/** Runs as the owner of the tables, and leaves everything as it was. */
const asOwner = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const { sql, transact } = yield* Postgres.Postgres
    let answer = Option.none<A>()
    yield* transact(Effect.gen(function*() {
      yield* sql`set local role none`
      answer = Option.some(yield* body)
      return yield* new Undone()
    })).pipe(Effect.catchIf(isUndone, () => Effect.void))
    return Option.getOrThrow(answer)
  })

layer(Database, { excludeTestServices: true })("the tables of an event store", (it) => {
  it.effect("keep tenants apart, as far as the catalog tells", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const guarded = yield* sql`
        select table_name::text as name from information_schema.columns
        where table_schema = 'strata' and column_name = 'tenant' order by 1`
      // What is counted of a tenant only the store writes, which sees all of them.
      const others = ["fact_count", "subject_erasure", "subject_key", "subject_stream"]
      deepStrictEqual(guarded.map(({ name }) => name), [...tables, ...others].toSorted())
      deepStrictEqual(yield* findings, [])
    }))

  it.effect("are found out when they do not", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const found = yield* asOwner(Effect.gen(function*() {
        yield* sql`create table loose (id uuid primary key, tenant text, origin bigint references store)`
        yield* sql`alter table fact no force row level security`
        yield* sql`alter table snapshot disable row level security`
        yield* sql`create policy wide on stream for select using (true)`
        yield* sql`drop policy snapshot_of_tenant on snapshot`
        yield* sql`create policy reads_only on snapshot for select using (tenant = tenant_in_scope())`
        yield* sql`grant truncate, references on stream to ${sql(applicationRole)}`
        yield* sql`grant create on schema strata to ${sql(applicationRole)}`
        yield* sql`create view everything as select * from fact`
        yield* sql`create function peek() returns bigint language sql security definer return (select count(*) from fact)`
        yield* sql`alter table loose owner to ${sql(applicationRole)}`
        yield* sql`alter role ${sql(applicationRole)} bypassrls`
        return yield* findings
      }))
      deepStrictEqual(found, [
        "a key without the tenant: loose_pkey",
        "a reference without the tenant: loose_origin_fkey",
        "a second policy, which would widen the first: stream",
        "finds what it names where its caller says: peek",
        "no policy for all commands with using and with check: loose",
        "no policy for all commands with using and with check: snapshot",
        "no row-level security: loose",
        "no row-level security: snapshot",
        "not forced: fact",
        "not forced: loose",
        "owned by the role: loose",
        "reads with the rights of its owner: everything",
        "runs with the rights of its owner: peek",
        "the role is exempt: strata_app",
        "the role may make things: strata",
        "the role may references: stream",
        "the role may truncate: stream"
      ])
    }))

  it.effect("show nothing to a transaction that has named nobody, nor after one that has", () =>
    Effect.gen(function*() {
      yield* filled
      const { sql, transact } = yield* Postgres.Postgres
      deepStrictEqual(yield* tenantsSeen, only())
      yield* transact(Effect.gen(function*() {
        yield* sql`select set_config('strata.tenant', 'acme', true)`
        deepStrictEqual(yield* tenantsSeen, only("acme"))
      }))
      // The setting is there now, and empty.
      deepStrictEqual(yield* sql`select current_setting('strata.tenant', true) as tenant`, [{ tenant: "" }])
      deepStrictEqual(yield* tenantsSeen, only())
      deepStrictEqual(yield* sql`update stream set state = 'tombstoned' returning 1`, [])
      deepStrictEqual(yield* sql`update snapshot set version = 9 returning 1`, [])
      deepStrictEqual(yield* sql`delete from idempotency_key returning 1`, [])
    }))

  it.effect("show and change one tenant's rows in the scope of that one, however they are asked", () =>
    Effect.gen(function*() {
      yield* filled
      const { sql } = yield* Postgres.Postgres
      yield* as("globex")(TenantScope.transact(Effect.gen(function*() {
        deepStrictEqual(yield* tenantsSeen, only("globex"))
        const changed = yield* sql<{ tenant: string }>`update stream set metadata = '{"seen": true}' returning tenant`
        deepStrictEqual([...new Set(changed.map(({ tenant }) => tenant))], ["globex"])
        const gone = yield* sql<{ tenant: string }>`delete from idempotency_key returning tenant`
        deepStrictEqual([...new Set(gone.map(({ tenant }) => tenant))], ["globex"])
        deepStrictEqual(yield* sql`select count(*)::int as n from fact where tenant = 'acme'`, [{ n: 0 }])
      })))
      yield* as("acme")(TenantScope.transact(Effect.gen(function*() {
        deepStrictEqual(yield* tenantsSeen, only("acme"))
        deepStrictEqual(yield* sql`select 1 from stream where metadata ? 'seen'`, [])
      })))
    }))

  it.effect("take no row of another tenant, of nobody, or of all", () =>
    Effect.gen(function*() {
      yield* filled
      const { sql, transact } = yield* Postgres.Postgres
      const insert = (tenant: string) =>
        sql`insert into stream (store, tenant, id) values (1, ${tenant}, 'account-new')`
      const within = (
        scope: { readonly tenant: string; readonly every?: string },
        body: Effect.Effect<unknown, SqlError>
      ) =>
        refusalOf(transact(Effect.andThen(
          sql`
            select
              set_config('strata.tenant', ${scope.tenant}, true), set_config('strata.all_tenants', ${
            scope.every ?? ""
          }, true)`,
          body
        )))
      const forbidden = "42501"
      deepStrictEqual(yield* refusalOf(insert("acme")), forbidden)
      deepStrictEqual(yield* within({ tenant: "globex" }, insert("acme")), forbidden)
      deepStrictEqual(yield* within({ tenant: "globex" }, insert("")), forbidden)
      deepStrictEqual(yield* within({ tenant: "", every: "on" }, insert("acme")), forbidden)
      deepStrictEqual(yield* within({ tenant: "globex" }, sql`update stream set tenant = 'acme'`), forbidden)
      deepStrictEqual(yield* within({ tenant: "", every: "on" }, sql`update stream set state = 'archived'`), forbidden)
      deepStrictEqual(
        yield* within(
          { tenant: "globex" },
          sql`
            insert into fact (store, version, position, stream, event_id, schema_version, recorded_at, valid_from, valid_to, tenant, type, data, metadata)
            values (1, 9, 99, 1, ${id(99)}::uuid, 1, now(), now(), 'infinity', 'acme', 'Counted', '{}', '{}')`
        ),
        forbidden
      )
    }))

  it.effect("tell of their summaries only what is asked for a tenant in scope", () =>
    Effect.gen(function*() {
      const store = yield* EventStorePostgres.make({ name: `store ${++stores}`, summarize: false })
      const { sql, transact } = yield* Postgres.Postgres
      const note = { stream: account, type: "Noted", data: {}, metadata: { secret: "globex" } }
      yield* as("acme")(store.append({ facts: [{ stream: account, type: "Noted", data: {} }] }))
      yield* as("globex")(store.append({ facts: Array.from({ length: 600 }, () => note) }))
      yield* FactSummaries.rebuild({ store: store.name })
      const [row] = yield* sql<{ id: number }>`select id from store where name = ${store.name}`
      const asked = (labels: Statement.Fragment) =>
        sql`select number from fact_chunks(${row!.id}, 1, 512, ${labels}, '{}', null, null, null, null) order by 1`
      const label = (tenant: string) => sql`array[fact_label(${row!.id}, ${tenant}, 'tenant', '')]`
      const scope = (tenant: string, every = "") =>
        sql`select set_config('strata.tenant', ${tenant}, true), set_config('strata.all_tenants', ${every}, true)`
      const within = (tenant: string, body: Effect.Effect<unknown, SqlError>, every?: string) =>
        transact(Effect.andThen(scope(tenant, every), body))

      const forbidden = "42501"
      deepStrictEqual(yield* refusalOf(sql`select from fact_chunk`), forbidden)
      deepStrictEqual(yield* refusalOf(asked(label("globex"))), forbidden)
      deepStrictEqual(yield* refusalOf(asked(sql`'{}'`)), forbidden)
      deepStrictEqual(yield* refusalOf(within("acme", asked(label("globex")))), forbidden)
      deepStrictEqual(yield* refusalOf(within("acme", asked(sql`'{}'`))), forbidden)
      deepStrictEqual(yield* within("acme", asked(label("acme"))), [{ number: 0n }])
      deepStrictEqual(yield* within("globex", asked(label("globex"))), [{ number: 0n }, { number: 1n }])
      deepStrictEqual(yield* within("", asked(sql`'{}'`), "on"), [{ number: 0n }, { number: 1n }])
    }))

  it.effect("have no row whose tenant is empty, whoever writes it", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      const statements = [
        sql`insert into stream (store, tenant, id) values (1, '', 'account-a')`,
        sql`insert into idempotency_key values (1, '', 'k', 'f', '{}', 1, now())`,
        sql`insert into snapshot values (1, '', 'account-a', 1, 1, 1, '{}')`,
        sql`select append_fact(1, '', 'account-a', -2, gen_random_uuid(), 'T', 1, '{}', '{}', null, null, null, null, null, null)`,
        sql`select describe_stream(1, '', 'account-a', 'archived', null, gen_random_uuid(), 'T', 'r', 'ada', null)`
      ]
      for (const statement of statements) deepStrictEqual(yield* refusalOf(asOwner(statement)), "23514")
    }))

  it.effect("show the rest of a transaction nothing of others after a tenant has read what is large", () =>
    Effect.gen(function*() {
      const store = yield* EventStorePostgres.make({ name: `store ${++stores}` })
      const { sql } = yield* Postgres.Postgres
      const large = { stream: account, type: "Large", data: { text: "y".repeat(100_000) } }
      const { facts: [fact] } = yield* as("acme")(store.append({ facts: [large] }))
      yield* as("globex")(store.append({ facts: [large] }))
      const reads = [
        Effect.map(store.read({ stream: account }), ({ facts }) => facts),
        Effect.map(store.read({ types: ["Large"], orderBy: "validity" }), ({ facts }) => facts),
        store.readStream(account),
        store.history(fact!.eventId)
      ]
      for (const read of reads) {
        yield* as("acme")(TenantScope.transact(Effect.gen(function*() {
          deepStrictEqual((yield* read).map(({ data }) => data), [large.data])
          deepStrictEqual(yield* sql`select distinct tenant from fact`, [{ tenant: "acme" }])
        })))
      }
    }))

  it.effect("leave the caller's scope as it was, whatever the store's functions did in theirs", () =>
    Effect.gen(function*() {
      const store = yield* filled
      const { sql, transact } = yield* Postgres.Postgres
      const [row] = yield* sql<{ id: number }>`select id from store where name = ${store.name}`
      // Expecting any version, and one that the stream is not at.
      const appends = (expected: number) => [
        sql`
          select append_fact(
            ${
          row!.id
        }, 'globex', 'account-b', ${expected}::integer, gen_random_uuid(), 'T', 1, '{}', '{}', null, null, null,
            null, null, null
          )`,
        sql`
          select append_facts(
            ${row!.id}, 'globex', '{account-c}', '{1}', '{1}', array[${expected}::integer], '{1}', '{1}', '{1}',
            array[gen_random_uuid()], '{T}', '{1}', array['{}'], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
            '{}', '{}', null, null
          )`
      ]
      const others = [
        ...appends(-2),
        ...appends(99),
        sql`
          select describe_stream(
            ${row!.id}, 'globex', 'account-b', 'archived', null, gen_random_uuid(), 'T', 'r', 'ada', null
          )`,
        ...[id(1), id(9)].map((revised) =>
          sql`
            select revise_fact(
              ${row!.id}, 'globex', ${revised}::uuid, true, gen_random_uuid(), null, null, null, null, null, 'r', 'ada',
              null, null, null, null
            )`
        ),
        sql`select position_at(${row!.id}, now())`
      ]
      yield* as("acme")(TenantScope.transact(Effect.gen(function*() {
        for (const other of others) {
          yield* other
          deepStrictEqual(yield* tenantsSeen, only("acme"))
        }
        yield* as("globex")(
          TenantScope.transact(Effect.map(tenantsSeen, (seen) => deepStrictEqual(seen, only("globex"))))
        )
        deepStrictEqual(yield* tenantsSeen, only("acme"))
        yield* store.readLog({ after: Fact.beginning })
        yield* store.readStream(account)
        deepStrictEqual(yield* tenantsSeen, only("acme"))
        const failed = yield* Effect.exit(as("globex")(TenantScope.transact(Effect.fail("no"))))
        deepStrictEqual(failed, Exit.fail("no"))
        deepStrictEqual(yield* tenantsSeen, only("acme"))
      })))
      // What nobody named is not there, and the functions leave nothing behind.
      yield* transact(Effect.gen(function*() {
        for (const other of others) yield* other
        deepStrictEqual(yield* tenantsSeen, only())
      }))
    }))

  it.effect("are closed to what would go around the policies", () =>
    Effect.gen(function*() {
      yield* filled
      const { sql, transact } = yield* Postgres.Postgres
      const ways = [
        sql`truncate fact`,
        sql`delete from fact`,
        sql`update fact set tenant = 'acme'`,
        sql`alter table fact disable row level security`,
        sql`create policy wide on fact using (true)`,
        sql`create table strata.mine (fact bigint references strata.stream)`,
        sql`create function strata.peek() returns bigint language sql security definer return 1`,
        sql`copy fact from program 'true'`,
        sql`copy fact to '/dev/null'`,
        sql`select last_value from stream_number_seq`,
        sql`select setval('stream_number_seq', 1)`,
        sql`alter role ${sql(applicationRole)} bypassrls`
      ]
      for (const way of ways) deepStrictEqual(yield* refusalOf(way), "42501")
      // Instead of leaving rows out it is refused.
      const bare = Effect.andThen(sql`set local row_security = off`, sql`select * from fact`)
      deepStrictEqual(yield* refusalOf(transact(bare)), "42501")
      // What the planner has gathered from all rows is not told.
      const told = yield* transact(Effect.gen(function*() {
        yield* sql`set local role none`
        yield* sql`analyze fact`
        yield* sql.unsafe(`set local role ${applicationRole}`)
        return yield* sql`select attname from pg_stats where schemaname = 'strata' and tablename = 'fact'`
      }))
      deepStrictEqual(told, [])
    }))

  it.effect("are seen by a store as its caller's tenant, also in a session that somebody has left to another one", () =>
    Effect.gen(function*() {
      const store = yield* filled
      const { sql } = yield* Postgres.Postgres
      // There is one connection, so everybody gets it.
      yield* sql`select set_config('strata.tenant', 'acme', false)`
      yield* Effect.gen(function*() {
        deepStrictEqual(yield* tenantsSeen, only("acme"))
        yield* as("globex")(Effect.gen(function*() {
          const facts = [
            ...(yield* store.readStream(account)),
            ...(yield* store.history(id(1))),
            ...(yield* store.read({})).facts,
            ...Option.toArray(yield* store.get(id(1)))
          ]
          assert.isAtLeast(facts.length, 5)
          deepStrictEqual([...new Set(facts.map(({ tenant }) => tenant))], ["globex"])
          deepStrictEqual((yield* store.count({})).value, 1)
          deepStrictEqual(yield* TenantScope.transact(tenantsSeen), only("globex"))
          const { facts: [added] } = yield* store.append({ facts: [{ stream: account, type: "Counted", data: {} }] })
          deepStrictEqual(Option.map(yield* store.get(added!.eventId), ({ tenant }) => tenant), Option.some("globex"))
        }))
        assertNone(yield* as("nobody")(store.get(id(1))))
      }).pipe(Effect.ensuring(Effect.orDie(sql`reset strata.tenant`)))
      deepStrictEqual(yield* tenantsSeen, only())
    }))

  it.effect("tell nothing by what explains a statement, or by what wakes readers", () =>
    Effect.gen(function*() {
      const store = yield* filled
      const { rows, sql, wakeups } = yield* Postgres.Postgres
      const [row] = yield* sql<{ id: number }>`select id from store where name = ${store.name}`
      const told: Array<string> = []
      const [plan] = yield* as("acme")(TenantScope.transact(Effect.map(
        rows("explain (analyze, verbose, format text) select data from fact where data::text like '%globex%'", []),
        (lines) => [lines.map(([line]) => String(line)).join("\n")] as const
      )))
      assert.match(plan, /current_setting\('strata\.tenant'/)
      assert.notMatch(plan, /"tenant": ?"globex"/)
      yield* Stream.runForEach(wakeups(`strata_store_${row!.id}`), (payload) => Effect.sync(() => told.push(payload)))
        .pipe(Effect.forkScoped)
      yield* Effect.repeat(
        as("globex")(store.append({ facts: [{ stream: account, type: "Counted", data: {} }] })),
        { until: () => told.length >= 3, schedule: Schedule.spaced("20 millis") }
      )
      for (const payload of told) assert.match(payload, /^(\d+ [\da-f-]{36})?$/)
    }).pipe(Effect.scoped))

  it.effect("say nothing of another tenant's row when they refuse one", () =>
    Effect.gen(function*() {
      yield* filled
      const { sql } = yield* Postgres.Postgres
      const refusal = <A>(statement: Effect.Effect<A, SqlError>) =>
        Effect.match(as("globex")(TenantScope.transact(statement)), {
          onSuccess: () => undefined,
          onFailure: ({ reason }) => Predicate.hasProperty(reason, "cause") ? reason.cause : undefined
        })
      const taken = yield* refusal(sql`
        insert into stream (number, store, tenant, id) overriding system value
        select 1, store, tenant, 'account-new' from stream limit 1`)
      const other = yield* refusal(sql`update stream set tenant = 'acme'`)
      for (const error of [taken, other]) {
        assert.isTrue(Predicate.hasProperty(error, "code"))
        assert.isFalse(Predicate.hasProperty(error, "detail"))
      }
    }))

  it.effect("are counted over all tenants by numbers alone", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.Postgres
      // What a refused duplicate tells of these is how many there are, which the head of the log tells anyway.
      const numbered = yield* sql`
        select i.indexrelid::regclass::text as key from pg_index i
        where i.indisunique and i.indrelid = any(array['fact', 'stream', 'idempotency_key', 'snapshot']::regclass[])
          and not exists (select from pg_attribute a where a.attrelid = i.indexrelid and a.attname = 'tenant')
        order by 1`
      deepStrictEqual(numbered.map(({ key }) => key), ["fact_chain", "fact_pkey", "fact_version", "stream_pkey"])
    }))

  it.effect("are looked into no further than without policies", () =>
    Effect.gen(function*() {
      const { sql, transact } = yield* Postgres.Postgres
      // Without the summaries, whose upkeep would be counted too.
      const store = yield* EventStorePostgres.make({ name: `store ${++stores}`, summarize: false })
      const streams = Arr.range(1, 10).map((n) => Fact.streamId("meter", `${n}`))
      const ids: Array<Fact.EventId> = []
      for (const stream of streams) {
        const { facts } = yield* store.append({
          facts: Arr.range(1, 30).map(() => ({ stream, type: "Read", data: 1 }))
        })
        for (const { eventId } of facts) {
          ids.push(eventId)
          yield* store.revise({ _tag: "Correction", revises: eventId, data: 2, reason: "misread", actor: "ada" })
        }
      }
      yield* store.append({
        facts: Arr.range(11, 200).map((n) => ({ stream: Fact.streamId("meter", `${n}`), type: "Read", data: 1 }))
      })
      const after = yield* store.head
      yield* transact(Effect.andThen(sql`set local role none`, sql`analyze fact, stream`))
      /** Entries of its indexes that an operation looked at. */
      const looks = Effect.fnUntraced(function*<A, E>(operation: Effect.Effect<A, E>) {
        const counted = Effect.gen(function*() {
          yield* sql`select pg_stat_force_next_flush()`
          const rows = yield* sql<{ n: number }>`
            select coalesce(sum(idx_tup_read), 0)::int as n from pg_stat_user_indexes
            where relname in ('fact', 'stream')`
          return rows[0]!.n
        })
        const before = yield* counted
        yield* operation
        return (yield* counted) - before
      })
      const stream = streams[4]!
      const bounds: ReadonlyArray<readonly [number, Effect.Effect<unknown, EventStoreError>]> = [
        [61, store.readStream(stream)],
        // Each fact, and whether it has a newer revision.
        [150, store.read({ stream })],
        [5, store.streamVersion(stream)],
        [5, store.get(ids[7]!)],
        [10, store.history(ids[7]!)],
        [20, store.revise({ _tag: "Correction", revises: ids[7]!, data: 3, reason: "misread", actor: "ada" })],
        [10, store.append({ facts: [{ stream, type: "Read", data: 1 }] })],
        [
          20,
          store.append({
            facts: [{ stream, type: "Read", data: 1 }],
            condition: { after, noneOf: [{ types: ["Never"] }] }
          })
        ]
      ]
      for (const [bound, operation] of bounds) assert.isAtMost(yield* looks(operation), bound)
    }))

  it.effect("give a tenant that nobody knows what an empty store gives", () =>
    Effect.gen(function*() {
      const store = yield* filled
      yield* as("nobody")(Effect.gen(function*() {
        assertNone(yield* store.get(id(1)))
        assertNone(yield* store.idempotencyRecord("k"))
        assertNone(yield* store.loadSnapshot(account, 1))
        assertNone(yield* store.streams.get(account))
        deepStrictEqual(yield* store.history(id(2)), [])
        deepStrictEqual(yield* store.readStream(account), [])
        deepStrictEqual((yield* store.read({})).facts, [])
        deepStrictEqual(yield* store.streams.list(), [])
        deepStrictEqual(yield* store.streams.categories, [])
        strictEqual(yield* store.streamVersion(account), 0)
      }))
    }))

  it.effect("bind their owner as well, and serve a user who was given the role by three lines of SQL", () =>
    Effect.gen(function*() {
      const { database, url } = yield* PostgresTest.database()
      const admin = yield* PgConnection.make({ url })
      const user = database.replace("strata_test", "owner")
      yield* Effect.acquireRelease(
        admin.query(`create role ${user} login password 'owner'`),
        () =>
          Effect.ignore(Effect.andThen(admin.query(`drop owned by ${user} cascade`), admin.query(`drop role ${user}`)))
      )
      yield* admin.query("drop schema strata cascade")
      yield* admin.query(`grant ${applicationRole} to ${user}`)
      yield* admin.query(`grant create on database ${database} to ${user}`)
      const asUser = new URL(Redacted.value(url))
      asUser.username = user
      asUser.password = "owner"
      const connect = (role: string | undefined) =>
        Postgres.layer({ url: Redacted.make(asUser.href), role, maxConnections: 2 })

      const session = Effect.gen(function*() {
        yield* Migrations.run([migrations])
        yield* filled
        const { sql } = yield* Postgres.Postgres
        deepStrictEqual(yield* tenantsSeen, only())
        deepStrictEqual(yield* as("acme")(TenantScope.transact(tenantsSeen)), only("acme"))
        return yield* sql<{ user: string; owner: string }>`
          select current_user::text as user, tableowner::text as owner from pg_tables where tablename = 'fact'`
      })
      deepStrictEqual(yield* Effect.provide(session, connect(applicationRole)), [{
        user: applicationRole,
        owner: user
      }])
      deepStrictEqual(yield* Effect.provide(session, connect(undefined)), [{ user, owner: user }])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
