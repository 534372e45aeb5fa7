import { assert, layer } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { Postgres } from "@strata/postgres/Postgres"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Gcra from "@strata/resilience/limits/Gcra"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as RateLimitPostgres from "@strata/resilience/limits/RateLimitPostgres"
import { RateLimitStore } from "@strata/resilience/limits/RateLimitStore"
import * as ResilienceMigrations from "@strata/resilience/ResilienceMigrations"
import * as Priority from "@strata/resilience/scheduling/Priority"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import { steps } from "./rateLimitTable.ts"

const Database = PostgresTest.layer({
  migrations: [ResilienceMigrations.migrations],
  options: { maxConnections: 40 }
})

const Limits = RateLimit.layer.pipe(
  Layer.provideMerge(RateLimitPostgres.layer({ timeout: "30 seconds", sweepInterval: "1 hour" })),
  Layer.provideMerge(Database)
)

const ask = (charges: ReadonlyArray<RateLimit.Charge>, options?: RateLimit.ConsumeOptions) =>
  Effect.flatMap(RateLimit.RateLimit, (limits) =>
    limits.consume(charges, options).pipe(
      Effect.catchTag("RateLimitError", ({ reason }) => Effect.succeed(reason))
    ))

const remainingOf = (decision: Effect.Success<ReturnType<typeof ask>>) => {
  assert(decision._tag === "Allowed" || decision._tag === "RateLimitExceeded", decision._tag)
  return decision.standings.map(({ remaining }) => remaining)
}

/** A time of tests' own, after any at which a key that is in use could be taken for one that has rested. */
const later = 4_000_000_000_000_000_000n

/** What the store sends, judged by a time of the test's own. */
const takeAt = Effect.fnUntraced(function*(
  keys: ReadonlyArray<{ readonly key: string; readonly rule: Gcra.Rule }>,
  { now, priority, tokens }: { readonly now: bigint; readonly tokens: number; readonly priority: Priority.Priority }
) {
  const { sql } = yield* Postgres
  return yield* sql<Gcra.Standing>`
    select owed, wait from take_rate_limits(
      ${Pg.textArray(keys.map(({ key }) => key))},
      ${Pg.bigintArray(keys.map(({ rule }) => Gcra.costOf(rule, tokens)))},
      ${Pg.bigintArray(keys.map(({ rule }) => Gcra.tolerance(rule)))},
      ${Pg.int(Priority.all.indexOf(priority) + 1)}, null, ${Pg.bigint(now)})`
})

/** As if the database's clock had been set by so much, seen from the rows. */
const setClock = (by: Duration.Input) =>
  Effect.flatMap(Postgres, ({ sql }) => {
    const nanos = Pg.bigint(Duration.toNanosUnsafe(by))
    return sql`
      update rate_limit set at = at - ${nanos}, arrivals = array(select a - ${nanos} from unnest(arrivals) as a order by a)`
  })

/** No token comes back while a test runs. */
const still = (name: string, burst: number) => RateLimit.make({ name, rate: 1, period: "1 day", burst })

layer(Limits, { excludeTestServices: true })("a limit in PostgreSQL", (it) => {
  it.effect("answers as the table of throttled and redis-cell says", () =>
    Effect.gen(function*() {
      const rule = { interval: 1_000_000_000n, burst: 5 }
      for (const { allowed, at, name, remaining, reset, retry, tokens } of steps) {
        const now = later + BigInt(Math.round(at * 1e9))
        const [standing] = yield* takeAt([{ key: "table:", rule }], { now, tokens, priority: "P0" })
        assert(standing !== undefined)
        assert.strictEqual(standing.wait === 0n, allowed, name)
        assert.strictEqual(Gcra.remaining(rule, standing.owed), remaining, name)
        assert.strictEqual(Number(standing.owed) / 1e9, reset, name)
        assert.strictEqual(Number(standing.wait) / 1e9, retry, name)
      }
    }))

  it.effect("decides as the algorithm in memory does, over levels, classes and clocks that step", () =>
    Effect.gen(function*() {
      const accounts = new Map<string, Gcra.Account>()
      const rules = [1_000n, 30_000n, 100_000n].map((interval, level) => ({ interval, burst: 3 + level }))
      let now = later
      for (let n = 0; n < 600; n++) {
        const step = yield* Random.nextIntBetween(0, 40_000)
        now += BigInt((yield* Random.nextIntBetween(0, 19)) === 0 ? -10 * step : step)
        const keys = yield* Random.shuffle(
          yield* Effect.forEach(
            rules,
            (rule, level) => Effect.map(Random.nextIntBetween(0, 2), (key) => ({ key: `model ${level}:${key}`, rule }))
          )
        )
        const request = {
          now,
          tokens: yield* Random.nextIntBetween(0, 3),
          priority: yield* Random.choice(Priority.all)
        }
        const expected = Gcra.take(keys.map(({ key, rule }) => ({ rule, account: accounts.get(key) })), request)
        for (const [index, { account }] of expected.levels.entries()) {
          const key = keys[index]?.key
          if (key !== undefined && account !== undefined) accounts.set(key, account)
        }
        deepStrictEqual(yield* takeAt(keys, request), expected.levels.map(({ owed, wait }) => ({ owed, wait })))
      }
    }).pipe(Random.withSeed("model")))

  it.effect("of 4,000 calls over 40 connections exactly the burst of 100 pass", () =>
    Effect.gen(function*() {
      const limit = still("crowd", 100)
      const decisions = yield* Effect.forEach(
        Array.from({ length: 4000 }),
        () => ask([{ limit, key: "one" }]),
        { concurrency: 40 }
      )
      assert.strictEqual(decisions.filter(({ _tag }) => _tag === "Allowed").length, 100)
      assert.strictEqual(decisions.filter(({ _tag }) => _tag === "RateLimitExceeded").length, 3900)
    }))

  it.effect("levels asked in any order by 40 connections lock each other out of nothing, and pass all or nothing", () =>
    Effect.gen(function*() {
      const [wide, narrow, other] = [still("wide", 300), still("narrow", 50), still("other", 300)]
      const levels = [{ limit: wide }, { limit: narrow }, { limit: other }]
      const decisions = yield* Effect.forEach(
        Array.from({ length: 1000 }),
        () => Effect.flatMap(Random.shuffle(levels), (charges) => ask(charges)),
        { concurrency: 40 }
      )
      assert.strictEqual(decisions.filter(({ _tag }) => _tag === "Allowed").length, 50)
      assert.isTrue(decisions.every(({ _tag }) => _tag === "Allowed" || _tag === "RateLimitExceeded"))
      deepStrictEqual(remainingOf(yield* ask(levels, { tokens: 0 })), [250, 0, 250])
    }).pipe(Random.withSeed("levels")))

  it.effect("a flood of the lowest class never lowers what the highest may take", () =>
    Effect.gen(function*() {
      const charges = [{ limit: still("flood", 5) }]
      for (let n = 0; n < 20; n++) yield* ask(charges, { priority: "P3" })
      assert.strictEqual((yield* ask(charges, { priority: "P3" }))._tag, "RateLimitExceeded")
      deepStrictEqual(remainingOf(yield* ask(charges, { priority: "P0", tokens: 5 })), [0])
      deepStrictEqual(remainingOf(yield* ask(charges, { priority: "P1", tokens: 0 })), [0])
    }))

  it.effect("a clock set back by an hour shuts nobody out, and one set ahead gives one burst at most", () =>
    Effect.gen(function*() {
      const limit = RateLimit.make({ name: "clock", rate: 1, period: "1 minute", burst: 5 })
      yield* ask([{ limit }], { tokens: 5 })
      yield* setClock(Duration.hours(-1))
      const refused = yield* ask([{ limit }])
      assert(refused._tag === "RateLimitExceeded")
      assert.isAtMost(Duration.toMinutes(refused.tightest.retryAfter), 1)
      yield* setClock("1 minute")
      deepStrictEqual(remainingOf(yield* ask([{ limit }])), [0])
      yield* setClock("1 hour")
      deepStrictEqual(remainingOf(yield* ask([{ limit }], { tokens: 5 })), [0])
      assert.strictEqual((yield* ask([{ limit }]))._tag, "RateLimitExceeded")
    }))

  it.effect("a limit changed while it is used measures what was taken by its new numbers", () =>
    Effect.gen(function*() {
      const of = (burst: number) => [{ limit: still("live", burst) }]
      deepStrictEqual(remainingOf(yield* ask(of(10), { tokens: 8 })), [2])
      deepStrictEqual(remainingOf(yield* ask(of(20), { tokens: 12 })), [0])
      const lowered = yield* ask(of(10))
      assert(lowered._tag === "RateLimitExceeded")
      deepStrictEqual(remainingOf(lowered), [0])
      assert.approximately(Duration.toDays(lowered.tightest.retryAfter), 11, 0.01)
    }))

  it.effect("a call that is sent again under its id is charged once, also by many at the same time", () =>
    Effect.gen(function*() {
      const charges = [{ limit: still("once", 10) }, { limit: still("twice", 20) }]
      const decisions = yield* Effect.forEach(
        Array.from({ length: 40 }),
        () => ask(charges, { requestId: "a", tokens: 2 }),
        { concurrency: 40 }
      )
      assert.isTrue(decisions.every(({ _tag }) => _tag === "Allowed"))
      deepStrictEqual(remainingOf(yield* ask(charges, { tokens: 0 })), [8, 18])
      deepStrictEqual(remainingOf(yield* ask(charges, { requestId: "b", tokens: 2 })), [6, 16])
    }))
})

layer(Limits, { excludeTestServices: true })("the tables of limits", (it) => {
  it.effect("keys that have rested are removed page by page, others and those in use stay", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      const store = yield* RateLimitStore
      const restless = still("restless", 5)
      yield* ask([{ limit: restless, key: "ada" }])
      yield* sql`
        insert into rate_limit (key, at, arrivals)
        select 'rested:' || n, 0, '{0, 0, 0, 0}' from generate_series(1, 2500) n`
      yield* sql`
        insert into rate_limit_payment (request, key, at)
        select n::text, 'rested:', case when n <= 1500 then 0 else rate_limit_clock() end from generate_series(1, 1600) n`
      assert.strictEqual(yield* store.size, 2501)
      yield* RateLimitPostgres.sweep
      assert.strictEqual(yield* store.size, 1)
      deepStrictEqual(yield* sql`select count(*) as payments from rate_limit_payment`, [{ payments: 100n }])
      deepStrictEqual(remainingOf(yield* ask([{ limit: restless, key: "ada" }])), [3])
    }))

  it.effect("calls and removals at the same time lose nothing that was taken", () =>
    Effect.gen(function*() {
      const limit = still("swept", 300)
      // Rests at once, and is removed all the time; its key comes before the other.
      const brief = RateLimit.make({ name: "brief", rate: 1_000_000, burst: 1000 })
      const sweeping = yield* Effect.forkChild(
        Effect.all([Effect.forever(RateLimitPostgres.sweep), Effect.forever(RateLimitPostgres.sweep)], {
          concurrency: 2
        })
      )
      const decisions = yield* Effect.forEach(
        Array.from({ length: 2000 }, (_, n) => ({ limit, key: String(n % 6) })),
        (charge) => ask([charge, { limit: brief, key: "ada" }]),
        { concurrency: 30 }
      )
      yield* Fiber.interrupt(sweeping)
      deepStrictEqual(
        [
          ...new Set(
            decisions.map((decision) => decision._tag === "Unchecked" ? decision.cause.message : decision._tag)
          )
        ]
          .toSorted(),
        ["Allowed", "RateLimitExceeded"]
      )
      assert.strictEqual(decisions.filter(({ _tag }) => _tag === "Allowed").length, 1800)
      for (let key = 0; key < 6; key++) {
        deepStrictEqual(remainingOf(yield* ask([{ limit, key: String(key) }], { tokens: 0 })), [0])
      }
    }))

  it.effect("keys are found by their index, not by reading the table", () =>
    Effect.gen(function*() {
      const { sql, transact } = yield* Postgres
      yield* sql`
        insert into rate_limit (key, at, arrivals)
        select 'many:' || n, 0, array_fill(9000000000000000000, array[4]) from generate_series(1, 20000) n`
      yield* sql`analyze rate_limit`
      const rowsRead = Effect.map(
        sql<{ rows: bigint }>`select seq_tup_read as rows from pg_stat_xact_user_tables where relname = 'rate_limit'`,
        ([found]) => found?.rows
      )
      yield* transact(Effect.gen(function*() {
        const before = yield* rowsRead
        yield* ask([{ limit: still("many", 1), key: "7" }, { limit: still("many", 1), key: "8" }])
        yield* ask([{ limit: still("many", 1), key: "ada" }, { limit: still("many", 1), key: "bob" }])
        assert.strictEqual(yield* rowsRead, before)
      }))
    }))
})

layer(Database, { excludeTestServices: true })("a database that does not answer", (it) => {
  const read = still("read", 5)
  const login = RateLimit.make({ name: "login", rate: 1, period: "1 day", burst: 5, onStoreError: "refuse" })
  const within = (timeout: Duration.Input) =>
    Effect.provide(Layer.fresh(Layer.provide(RateLimit.layer, RateLimitPostgres.layer({ timeout }))))

  it.effect("is given up in time: each limit does what it says", () =>
    Effect.gen(function*() {
      const keys = ["login:", "read:"].map((key) => ({ key, rule: RateLimit.ruleOf(read) }))
      yield* takeAt(keys, { now: later, tokens: 1, priority: "P0" })
      const { sql, transact } = yield* Postgres
      const locked = yield* Deferred.make<void>()
      const done = yield* Latch.make()
      const holding = yield* Effect.forkChild(transact(Effect.gen(function*() {
        yield* sql`select from rate_limit for update`
        yield* Deferred.succeed(locked, undefined)
        yield* done.await
      })))
      yield* Deferred.await(locked)
      const open = yield* ask([{ limit: read }])
      assert(open._tag === "Unchecked")
      assert.include(open.cause.message, "no answer within 100ms")
      const shut = yield* ask([{ limit: read }, { limit: login }])
      assert(shut._tag === "RateLimitUnavailable")
      deepStrictEqual(shut.limits, ["login"])
      yield* done.open
      yield* Fiber.join(holding)
    }).pipe(within("100 millis")))

  it.effect("by an error is told with its reason", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres
      yield* sql`alter table rate_limit rename to somewhere_else`
      const open = yield* ask([{ limit: read }])
      assert(open._tag === "Unchecked")
      assert.include(open.cause.message, "relation \"rate_limit\" does not exist")
      assert.strictEqual((yield* ask([{ limit: login }]))._tag, "RateLimitUnavailable")
    }).pipe(within("10 seconds")))
})
