import { assert, describe, it } from "@effect/vitest"
import * as Quota from "@strata/resilience/limits/Quota"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"

const range = (count: number) => Array.from({ length: count }, (_, n) => n)

const start = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

const nothing = { inFlight: 0, depth: 0, bytes: 0, rate: 0 }

const outcome = (error: Quota.QuotaExceeded) => ({
  resource: error.resource,
  used: error.used,
  limit: error.limit,
  retryAfter: Duration.toMillis(error.retryAfter)
})

describe("the quota of a tenant", () => {
  it.effect("refuses above a hard limit by name, and nobody else", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ tenants: { acme: Quota.limits({ inFlight: { hard: 3 } }) } })
      const run = (tenant: string) => quota.run({ tenant })(Effect.never)
      const fibers = yield* Effect.forEach(range(3), () => start(run("acme")))
      const error = yield* Effect.flip(run("acme"))
      assert.deepStrictEqual([error.tenant, outcome(error)], [
        "acme",
        { resource: "inFlight", used: 3, limit: 3, retryAfter: 100 }
      ])
      yield* Effect.forEach(range(10), () => start(run("other")))
      assert.deepStrictEqual(yield* quota.usage("acme"), { ...nothing, inFlight: 3 })
      yield* Fiber.interruptAll(fibers)
      assert.deepStrictEqual([yield* quota.usage("acme"), yield* quota.tenants], [nothing, 1])
    }))

  it.effect("says to come back when about one of its pieces will have ended", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ everyone: Quota.limits({ inFlight: { hard: 2 } }) })
      const run = (millis: number) => quota.run({ tenant: "acme" })(Effect.sleep(millis))
      const long = yield* start(run(1_000_000))
      for (const _ of range(60)) {
        const fiber = yield* start(run(4000))
        yield* TestClock.adjust(4000)
        yield* Fiber.join(fiber)
      }
      yield* start(run(4000))
      assert.closeTo(outcome(yield* Effect.flip(run(1))).retryAfter, 2000, 10)
      yield* Fiber.interrupt(long)
    }))

  it.effect("adds up the bytes of what is in flight, and says when a piece can never fit", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ everyone: Quota.limits({ bytes: { hard: 1000 } }) })
      const run = (bytes: number) => quota.run({ tenant: "acme", bytes })(Effect.never)
      yield* start(run(600))
      assert.deepStrictEqual(outcome(yield* Effect.flip(run(401))), {
        resource: "bytes",
        used: 600,
        limit: 1000,
        retryAfter: 100
      })
      yield* start(run(400))
      yield* start(run(0))
      const never = yield* Effect.flip(run(1001))
      assert.strictEqual(
        never.message,
        "Tenant acme has 1000 of at most 1000 bytes in flight: this is more than all of it, so raise the limit or ask for less"
      )
      assert.deepStrictEqual(yield* quota.usage("acme"), { ...nothing, inFlight: 3, bytes: 1000 })
    }))

  it.effect("lets a second's worth in at once, and says exactly when the next may come", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ everyone: Quota.limits({ rate: { hard: 4 } }) })
      const run = quota.run({ tenant: "acme" })(Effect.void)
      yield* Effect.forEach(range(4), () => run)
      assert.deepStrictEqual(outcome(yield* Effect.flip(run)), {
        resource: "rate",
        used: 4,
        limit: 4,
        retryAfter: 250
      })
      yield* TestClock.adjust("249 millis")
      assert.strictEqual(outcome(yield* Effect.flip(run)).retryAfter, 1)
      yield* TestClock.adjust("1 millis")
      yield* run
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* quota.usage("acme"), yield* quota.tenants], [nothing, 0])
    }))

  it.effect("takes nothing of the rate for what is refused for something else", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ everyone: Quota.limits({ rate: { hard: 2 }, inFlight: { hard: 1 } }) })
      const run = quota.run({ tenant: "acme" })
      const fiber = yield* start(run(Effect.never))
      yield* Effect.forEach(range(10), () => Effect.flip(run(Effect.void)))
      yield* Fiber.interrupt(fiber)
      yield* run(Effect.void)
      assert.strictEqual((yield* Effect.flip(run(Effect.void))).resource, "rate")
    }))

  it.effect("lets what is above a soft limit be P3, whatever it was, and refuses nothing for it", () =>
    Effect.gen(function*() {
      const classes = Effect.fnUntraced(function*(limits: Quota.Limits) {
        const quota = yield* Quota.make({ everyone: limits })
        const run = quota.run({ tenant: "acme", priority: "P0", bytes: 10 })
        const holding = yield* start(run(Effect.never))
        const next = yield* run(Priority.Current)
        yield* Fiber.interrupt(holding)
        yield* TestClock.adjust("10 seconds")
        return [next, yield* run(Priority.Current)]
      })
      assert.deepStrictEqual(yield* classes(Quota.limits({ inFlight: { soft: 1 } })), ["P3", "P0"])
      assert.deepStrictEqual(yield* classes(Quota.limits({ bytes: { soft: 15 } })), ["P3", "P0"])
      assert.deepStrictEqual(yield* classes(Quota.limits({ rate: { soft: 1 } })), ["P3", "P0"])
      assert.deepStrictEqual(yield* classes(Quota.limits({ inFlight: { soft: 2, hard: 2 } })), ["P0", "P0"])
      assert.deepStrictEqual(yield* classes({}), ["P0", "P0"])
    }))

  it.effect("may be changed while work is in flight, and what is in flight stays", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make()
      const run = quota.run({ tenant: "acme" })
      const fibers = yield* Effect.forEach(range(5), () => start(run(Effect.never)))
      yield* quota.set("acme", Quota.limits({ inFlight: { hard: 3 } }))
      assert.strictEqual((yield* Effect.flip(run(Effect.void))).used, 5)
      yield* Fiber.interruptAll(fibers.slice(0, 3))
      yield* run(Effect.void)
      yield* quota.set("acme", undefined)
      yield* quota.setEveryone(Quota.limits({ inFlight: { hard: 2 } }))
      assert.deepStrictEqual(outcome(yield* Effect.flip(run(Effect.void))).limit, 2)
      yield* quota.set("acme", {})
      yield* run(Effect.void)
    }))

  it.effect("counts exactly, whatever ends how", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ everyone: Quota.limits({ inFlight: { hard: 2 }, bytes: { hard: 50 } }) })
      const run = quota.run({ tenant: "acme", bytes: 25 })
      for (const work of [Effect.void, Effect.fail("no"), Effect.die("broken"), Effect.interrupt]) {
        yield* Effect.forEach(range(100), () => Effect.exit(run(work)))
      }
      const nested = yield* Effect.exit(run(run(Effect.exit(run(Effect.void)))))
      assert.isTrue(nested._tag === "Success" && nested.value._tag === "Failure")
      for (const bytes of [NaN, -5, Infinity]) yield* quota.run({ tenant: "acme", bytes })(Effect.void)
      assert.deepStrictEqual(yield* quota.usage("acme"), nothing)
    }))

  it.effect("is counted where it refuses, by resource, and where it demotes", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ everyone: Quota.limits({ inFlight: { soft: 1 }, bytes: { hard: 10 } }) })
      const run = (bytes: number) => quota.run({ tenant: "acme", bytes })
      yield* run(10)(Effect.andThen(run(0)(Effect.void), Effect.flip(run(1)(Effect.void))))
      const counts = (yield* Metric.snapshot).map(({ attributes, id, state }) => [
        id,
        attributes?.["resource"],
        "count" in state ? Number(state.count) : undefined
      ])
      assert.deepInclude(counts, ["strata_quota_refused_total", "bytes", 1])
      assert.deepInclude(counts, ["strata_quota_demoted_total", undefined, 1])
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

  it.effect("is forgotten with its tenant", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ everyone: Quota.limits({ rate: { hard: 1 }, depth: { hard: 1 } }) })
      yield* Effect.forEach(range(5000), (n) => quota.run({ tenant: `tenant ${n}` })(Effect.void))
      assert.strictEqual(yield* quota.tenants, 5000)
      yield* TestClock.adjust("1 second")
      yield* Effect.forEach(range(5000), () => quota.run({ tenant: "new" })(Effect.void).pipe(Effect.ignore))
      assert.isAtMost(yield* quota.tenants, 1)
    }))

  it("that makes no sense is refused by name", () => {
    for (const limits of [{ inFlight: { hard: 0 } }, { bytes: { soft: -1 } }, { rate: { hard: Infinity } }]) {
      assert.throws(() => Quota.limits(limits), /The limits of a quota cannot be used: .*(inFlight|bytes|rate)/)
    }
    assert.throws(() => Quota.limits({ depth: { soft: 10, hard: 5 } }), /soft limit up to the hard one, 5/)
  })

  it.effect("is read from the environment", () =>
    Effect.gen(function*() {
      const read = (env: Record<string, string>) =>
        Effect.provideService(
          Quota.config("STRATA_TENANT", { depth: { hard: 100 } }),
          ConfigProvider.ConfigProvider,
          ConfigProvider.fromEnv({ env })
        )
      assert.deepStrictEqual(yield* read({ STRATA_TENANT_RATE: "50", STRATA_TENANT_RATE_SOFT: "20" }), {
        inFlight: {},
        depth: { hard: 100 },
        bytes: {},
        rate: { hard: 50, soft: 20 }
      })
      const error = yield* Effect.flip(read({ STRATA_TENANT_DEPTH_SOFT: "200" }))
      assert.include(error.message, "soft limit up to the hard one, 100")
    }))
})
