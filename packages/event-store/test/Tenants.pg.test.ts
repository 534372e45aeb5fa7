import { assert, layer } from "@effect/vitest"
import { assertNone, assertSome, deepStrictEqual } from "@effect/vitest/utils"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { migrations } from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import * as Fact from "@strata/event-store/Fact"
import * as TenantScope from "@strata/event-store/TenantScope"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import { Postgres } from "@strata/postgres/Postgres"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Array from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { backgroundAfter } from "./backgroundAfter.ts"
import { bitemporalContract } from "./bitemporalContract.ts"
import { boundaryContract } from "./boundaryContract.ts"
import { eventStoreContract } from "./eventStoreContract.ts"
import { questionsContract } from "./questionsContract.ts"
import { reportsContract } from "./reportsContract.ts"
import { streamsContract } from "./streamsContract.ts"

/** Sessions in the role of an application, which the policies bind. */
const database = (maxConnections: number) =>
  Layer.merge(
    PostgresTest.layer({ migrations: [migrations], options: { role: applicationRole, maxConnections } }),
    SecureRandom.layerWebCrypto
  )

let stores = 0
const open = Effect.suspend(() => EventStorePostgres.make({ name: `store ${++stores}` }))

const tenants = ["acme", "globex"] as const
type Tenant = typeof tenants[number]
const as = (tenant: string) => Effect.provideService(CurrentTenant, tenant)

const account = Fact.streamId("account", "a")
const id = (n: number) => Fact.EventId.make(`00000000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`)
const fact = (tenant: Tenant, more: Partial<Fact.NewFact> = {}): Fact.NewFact => ({
  stream: account,
  type: "Counted",
  data: { tenant },
  ...more
})
const tenantsOf = (facts: ReadonlyArray<Fact.Fact>) => [...new Set(facts.map(({ tenant }) => tenant))]

layer(database(10), { excludeTestServices: true })("an event store in the role of an application", (it) => {
  eventStoreContract(it, open)
  bitemporalContract(it, open)
  streamsContract(it, open)
  boundaryContract(it, open)
  reportsContract(it, open)
  questionsContract(it, open)

  it.effect("keeps what two tenants say under the same names apart, whatever is asked", () =>
    Effect.gen(function*() {
      const store = yield* open
      const say = (tenant: Tenant) =>
        Effect.gen(function*() {
          const appended = yield* store.append({
            facts: [fact(tenant, { eventId: id(1) })],
            expect: { [account]: "noStream" },
            idempotency: { key: "k", fingerprint: tenant, answer: { tenant } }
          })
          yield* store.revise({
            _tag: "Correction",
            revises: id(1),
            eventId: id(2),
            data: { tenant, again: true },
            reason: "found out",
            actor: tenant
          })
          yield* store.streams.setMetadata(account, { tenant }, { reason: "named", actor: tenant, eventId: id(3) })
          yield* store.saveSnapshot({
            stream: account,
            schemaVersion: 1,
            version: 1,
            position: appended.position,
            state: { tenant }
          })
          return appended
        })
      const answers = { acme: yield* as("acme")(say("acme")), globex: yield* as("globex")(say("globex")) }
      const last = { position: yield* store.head }

      for (const tenant of tenants) {
        yield* as(tenant)(Effect.gen(function*() {
          const facts = [
            ...(yield* store.readStream(account)),
            ...(yield* store.readStream(account, { direction: "backwards" })),
            ...(yield* store.history(id(2))),
            ...(yield* store.read({})).facts,
            ...(yield* store.read({ knownAt: last, revisions: "all", orderBy: "validity" })).facts,
            ...(yield* store.read({ stream: account, category: "account", types: ["Count*"], correlationId: id(1) }))
              .facts,
            ...(yield* store.read({ metadata: {}, versions: { from: 1 }, direction: "backwards" })).facts,
            ...Array.getSomes([yield* store.get(id(1)), yield* store.get(id(2)), yield* store.get(id(3))])
          ]
          assert.isAbove(facts.length, 15)
          deepStrictEqual(tenantsOf(facts), [tenant])
          deepStrictEqual(yield* store.streamVersion(account), 2)
          const info = { stream: account, state: "open", metadata: { tenant }, version: 2 } as const
          assertSome(yield* store.streams.get(account), info)
          deepStrictEqual(yield* store.streams.list({ category: "account" }), [info])
          deepStrictEqual((yield* store.streams.categories).map(({ facts, streams }) => [facts, streams]), [[1n, 1n], [
            2n,
            1n
          ]])
          assertSome(yield* store.loadSnapshot(account, 1), {
            stream: account,
            schemaVersion: 1,
            version: 1,
            position: answers[tenant].position,
            state: { tenant }
          })
          const kept = yield* store.idempotencyRecord("k")
          assertSome(kept, { key: "k", fingerprint: tenant, answer: { tenant }, position: answers[tenant].position })
          // The same append is known again, by this tenant's ids and content.
          const again = yield* store.append({ facts: [fact(tenant, { eventId: id(1) })] })
          deepStrictEqual([again.duplicate, again.position], [true, answers[tenant].position])
        }))
      }
      deepStrictEqual(tenantsOf(yield* store.readLog({ after: Fact.beginning })), [...tenants])
      const followed = yield* store.subscribe({ after: Fact.beginning }).pipe(Stream.take(1), Stream.runCollect)
      deepStrictEqual(tenantsOf(followed.flat()), [...tenants])
    }))

  it.effect("writes no batch of two tenants, however they meet", () =>
    Effect.gen(function*() {
      const store = yield* open
      yield* Effect.forEach(
        Array.range(1, 400),
        (n) => {
          const tenant = tenants[n % 2]!
          return as(tenant)(store.append({ facts: [fact(tenant, { stream: Fact.streamId("account", `${n % 7}`) })] }))
        },
        { concurrency: "unbounded", discard: true }
      )
      const facts = yield* store.readLog({ after: Fact.beginning })
      deepStrictEqual(facts.length, 400)
      for (const { data, tenant } of facts) deepStrictEqual(data, { tenant })
      // A statement gives all its facts the same recorded time, which no other statement's facts have.
      const statements = [...Map.groupBy(facts, ({ recordedAt }) => recordedAt).values()]
      assert.isTrue(statements.some((written) => written.length > 1))
      for (const written of statements) deepStrictEqual(tenantsOf(written).length, 1)
    }))

  it.effect("forgets old idempotency keys, whosever they are", () =>
    Effect.gen(function*() {
      const store = yield* open
      const keep = (tenant: Tenant) =>
        store.append({ facts: [fact(tenant)], idempotency: { key: "k", fingerprint: "f", answer: {} } })
      for (const tenant of tenants) yield* as(tenant)(keep(tenant))
      const kept = Effect.forEach(tenants, (tenant) => as(tenant)(store.idempotencyRecord("k")))
      deepStrictEqual((yield* kept).map(Option.isSome), [true, true])
      // Another opening of the store removes what is too old for it, in the background.
      yield* EventStorePostgres.make({ name: store.name, idempotencyRetention: 0 }).pipe(
        Effect.provide(backgroundAfter(Duration.zero))
      )
      const left = yield* Effect.repeat(kept, {
        until: (records) => records.every(Option.isNone),
        schedule: Schedule.max([Schedule.spaced("10 millis"), Schedule.recurs(500)])
      })
      deepStrictEqual(left.map(Option.isNone), [true, true])
    }))

  it.effect("judges an append in a transaction for the tenant that made it", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { transact } = yield* Postgres
      const append = { facts: [fact("globex", { eventId: id(7) })] }
      const first = yield* as("globex")(store.append(append))
      // The work at the end of the transaction is done when `as` is over.
      const outcome = yield* transact(as("globex")(store.appendInTransaction(append)))
      const again = yield* outcome
      deepStrictEqual([again.duplicate, again.position], [true, first.position])
    }))
})

/** Once around: what a session that serves everybody is asked, and left in the middle of. */
const turns = 10_000

layer(database(1), { excludeTestServices: true })("one connection for all tenants", (it) => {
  it.effect("shows nobody another's rows in 10,000 turns, many of them interrupted in a transaction", () =>
    Effect.gen(function*() {
      const store = yield* open
      const { sql, transact } = yield* Postgres
      for (const tenant of tenants) yield* as(tenant)(store.append({ facts: [fact(tenant), fact(tenant)] }))
      const look = sql<{ tenant: string }>`select tenant from fact union all select tenant from stream`
      const seen = { named: 0, nobody: 0, log: 0, interrupted: 0 }

      const interrupted = Effect.fnUntraced(function*(wide: boolean) {
        const inside = yield* Latch.make()
        const fiber = yield* Effect.forkChild(
          transact(Effect.gen(function*() {
            yield* wide
              ? store.readLog({ after: Fact.beginning, limit: 1 })
              : TenantScope.transact(sql`update stream set metadata = '{}'`)
            yield* inside.open
            yield* sql`select pg_sleep(10)`
          })),
          { startImmediately: true }
        )
        yield* inside.await
        yield* Fiber.interrupt(fiber)
        seen.interrupted++
      })

      for (const _ of Array.range(1, turns)) {
        const tenant = yield* Random.choice(tenants)
        const turn = yield* Random.nextIntBetween(0, 32)
        if (turn === 0) {
          yield* as(tenant)(interrupted(yield* Random.nextBoolean))
        } else if (turn === 1) {
          deepStrictEqual((yield* store.readLog({ after: Fact.beginning })).length, 4)
          seen.log++
        } else if (turn === 2) {
          const rows = yield* as(tenant)(TenantScope.transact(look))
          deepStrictEqual(rows.map((row) => row.tenant), [tenant, tenant, tenant])
          seen.named++
        } else if (turn < 20) {
          deepStrictEqual(yield* look, [])
          seen.nobody++
        } else {
          deepStrictEqual(tenantsOf(yield* as(tenant)(store.readStream(account))), [tenant])
          seen.named++
        }
      }
      for (const times of Object.values(seen)) assert.isAbove(times, 200)
      // One whose statement was cancelled may need a moment to be gone.
      yield* Effect.repeat(
        sql<{ n: number }>`
          select count(*)::int as n from pg_stat_activity
          where usename = session_user and application_name = 'strata' and datname = current_database()`,
        { until: ([row]) => row?.n === 1 }
      )
      assertNone(yield* store.get(id(1)))
    }).pipe(Random.withSeed("tenants")))
})
