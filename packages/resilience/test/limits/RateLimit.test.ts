import { assert, describe, it } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import { RateLimitStore, RateLimitStoreError } from "@strata/resilience/limits/RateLimitStore"
import * as RateLimitStores from "@strata/resilience/limits/RateLimitStore"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"
import { steps } from "./rateLimitTable.ts"

/** What a call came to, whether it passed or not. */
const ask = (charges: ReadonlyArray<RateLimit.Charge>, options?: RateLimit.ConsumeOptions) =>
  Effect.gen(function*() {
    const limits = yield* RateLimit.RateLimit
    return yield* limits.consume(charges, options).pipe(
      Effect.catchTag("RateLimitError", ({ reason }) => Effect.succeed(reason))
    )
  })

const inMemory = Effect.provide(Layer.fresh(RateLimit.layerMemory()))

/** A service that shares nothing with others. */
const alone = Effect.map(
  Layer.build(Layer.fresh(RateLimit.layerMemory())),
  (context) => Context.get(context, RateLimit.RateLimit)
)

const standingsOf = (decision: Effect.Success<ReturnType<typeof ask>>) => {
  assert(decision._tag === "Allowed" || decision._tag === "RateLimitExceeded", decision._tag)
  return decision
}

const remainingOf = (decision: Effect.Success<ReturnType<typeof ask>>) =>
  standingsOf(decision).standings.map(({ remaining }) => remaining)

const counted = (limit: string, decision: string) =>
  Effect.map(Metric.snapshot, (all) => {
    const found = all.find(({ attributes, id }) =>
      id === "strata_rate_limit_decisions_total" && attributes?.["limit"] === limit &&
      attributes["decision"] === decision
    )
    return found?.type === "Counter" ? Number(found.state.count) : 0
  })

describe("a limit in memory", () => {
  it.effect("answers as the table of throttled and redis-cell says", () =>
    Effect.gen(function*() {
      const limit = RateLimit.make({ name: "table", rate: 1, burst: 5 })
      let now = 0
      for (const { allowed, at, name, remaining, reset, retry, tokens } of steps) {
        yield* TestClock.adjust(Duration.millis(Math.round((at - now) * 1000)))
        now = at
        const { _tag, tightest } = standingsOf(yield* ask([{ limit, key: "ada" }], { tokens }))
        assert.strictEqual(_tag, allowed ? "Allowed" : "RateLimitExceeded", name)
        assert.strictEqual(tightest.remaining, remaining, name)
        assert.strictEqual(Duration.toSeconds(tightest.resetAfter), reset, name)
        assert.strictEqual(Duration.toSeconds(tightest.retryAfter), retry, name)
      }
    }).pipe(inMemory))

  it.effect("more tokens than are ever there at once are refused by name, and nothing is taken", () =>
    Effect.gen(function*() {
      const limit = RateLimit.make({ name: "small", rate: 1, burst: 5 })
      for (const wait of ["0 seconds", "15 seconds"] as const) {
        yield* TestClock.adjust(wait)
        const refused = yield* ask([{ limit }], { tokens: 6 })
        assert.strictEqual(refused._tag, "InvalidCharge")
        assert(refused._tag === "InvalidCharge")
        assert.include(refused.message, "small cannot be asked: 6 tokens are never there at once, only 5")
        deepStrictEqual(remainingOf(yield* ask([{ limit }], { tokens: 0 })), [5])
      }
    }).pipe(inMemory))

  it.effect("five a second: five pass, the sixth does not, and after two seconds exactly five", () =>
    Effect.gen(function*() {
      const limit = RateLimit.make({ name: "five", rate: 5, burst: 5 })
      const passing = Effect.map(
        Effect.forEach(Array.from({ length: 9 }), () => ask([{ limit }])),
        (all) => all.filter(({ _tag }) => _tag === "Allowed").length
      )
      assert.strictEqual(yield* passing, 5)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* passing, 5)
    }).pipe(inMemory))

  it.effect("keys do not share, and neither do limits of other names", () =>
    Effect.gen(function*() {
      const [one, two] = ["one", "two"].map((name) => RateLimit.make({ name, rate: 1, burst: 1 }))
      assert(one !== undefined && two !== undefined)
      deepStrictEqual(
        (yield* Effect.forEach([
          { limit: one, key: "ada" },
          { limit: one, key: "bob" },
          { limit: two, key: "ada" },
          { limit: one, key: "ada" }
        ], (charge) => ask([charge]))).map(({ _tag }) => _tag),
        ["Allowed", "Allowed", "Allowed", "RateLimitExceeded"]
      )
    }).pipe(inMemory))

  it.effect("the wall clock set back by an hour, or ahead, changes nothing", () =>
    Effect.gen(function*() {
      const limit = RateLimit.make({ name: "clock", rate: 1, burst: 1 })
      yield* TestClock.setTime(7_200_000)
      assert.strictEqual((yield* ask([{ limit }]))._tag, "Allowed")
      yield* TestClock.setTime(3_600_000)
      assert.strictEqual((yield* ask([{ limit }]))._tag, "RateLimitExceeded")
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* ask([{ limit }]))._tag, "Allowed")
    }).pipe(inMemory))

  it.effect("a limit changed while it is used measures what was taken by its new numbers", () =>
    Effect.gen(function*() {
      const of = (burst: number) => [{ limit: RateLimit.make({ name: "live", rate: 1, burst }), key: "ada" }]
      deepStrictEqual(remainingOf(yield* ask(of(10), { tokens: 8 })), [2])
      deepStrictEqual(remainingOf(yield* ask(of(20), { tokens: 0 })), [12])
      deepStrictEqual(remainingOf(yield* ask(of(20), { tokens: 12 })), [0])
      const lowered = standingsOf(yield* ask(of(10))).tightest
      assert.strictEqual(lowered.remaining, 0)
      assert.strictEqual(Duration.toSeconds(lowered.retryAfter), 11)
    }).pipe(inMemory))

  it.effect("a million keys do not stay in memory", () =>
    Effect.gen(function*() {
      const store = yield* RateLimitStore
      const rule = { interval: 1_000_000n, burst: 10 }
      let most = 0
      for (let key = 0; key < 1_000_000; key++) {
        yield* store.take({ buckets: [{ key: `per-user:${key}`, rule }], tokens: 1, priority: "P2" })
        if (key % 10_000 === 9999) {
          yield* TestClock.adjust("1 millis")
          most = Math.max(most, yield* store.size)
        }
      }
      assert.isBelow(most, 30_000)
    }).pipe(Effect.provide(RateLimitStores.layerMemory())), 60_000)

  it.effect("keys that do not rest are forgotten beyond the most that may be kept, those that owe least first", () =>
    Effect.gen(function*() {
      const store = yield* RateLimitStore
      const rule = { interval: 3_600_000_000_000n, burst: 10 }
      const take = (key: string, tokens: number) =>
        Effect.map(store.take({ buckets: [{ key, rule }], tokens, priority: "P2" }), ([standing]) => standing?.owed)
      yield* take("busy", 10)
      for (let key = 0; key < 1000; key++) yield* take(`stranger ${key}`, 1)
      assert.strictEqual(yield* store.size, 100)
      assert.strictEqual(yield* take("busy", 0), 10n * rule.interval)
    }).pipe(Effect.provide(RateLimitStores.layerMemory({ maxKeys: 100 }))))

  it.effect("a call that is sent again under its id is charged once, for ten minutes", () =>
    Effect.gen(function*() {
      const limit = RateLimit.make({ name: "once", rate: 1, period: "1 hour", burst: 2 })
      const again = (requestId: string) => ask([{ limit, key: "ada" }], { requestId })
      deepStrictEqual(remainingOf(yield* again("a")), [1])
      deepStrictEqual(remainingOf(yield* again("a")), [1])
      deepStrictEqual(remainingOf(yield* again("b")), [0])
      assert.strictEqual((yield* again("c"))._tag, "RateLimitExceeded")
      assert.strictEqual((yield* again("a"))._tag, "Allowed")
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual((yield* again("a"))._tag, "RateLimitExceeded")
    }).pipe(inMemory))
})

describe("a hierarchy of limits", () => {
  const wide = RateLimit.make({ name: "wide", rate: 1, burst: 100 })
  const user = RateLimit.make({ name: "user", rate: 1, burst: 10 })
  const queue = RateLimit.make({ name: "queue", rate: 1, burst: 5 })
  const charges = [{ limit: wide }, { limit: user, key: "ada" }, { limit: queue, key: "mails" }]

  it.effect("a refusal by one level takes nothing of the others, and names that level", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 5; n++) yield* ask(charges)
      for (let n = 0; n < 3; n++) {
        const refused = yield* ask(charges)
        assert(refused._tag === "RateLimitExceeded")
        deepStrictEqual(remainingOf(refused), [95, 5, 0])
        assert.strictEqual(refused.tightest.limit, "queue")
        assert.strictEqual(refused.message, "The rate limit queue (5 at once) is used up: try again after 1s")
      }
      deepStrictEqual(remainingOf(yield* ask(charges, { tokens: 0 })), [95, 5, 0])
    }).pipe(inMemory))

  it.effect("when several refuse, the wait is that of the last to let it pass", () =>
    Effect.gen(function*() {
      const slow = RateLimit.make({ name: "slow", rate: 1, period: "1 minute", burst: 1 })
      const both = [{ limit: queue, key: "mails" }, { limit: slow }]
      yield* ask(both)
      yield* ask([{ limit: queue, key: "mails" }], { tokens: 4 })
      const refused = standingsOf(yield* ask(both))
      assert.strictEqual(refused.tightest.limit, "slow")
      yield* TestClock.adjust(Duration.subtract(refused.tightest.retryAfter, Duration.millis(1)))
      assert.strictEqual((yield* ask(both))._tag, "RateLimitExceeded")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* ask(both))._tag, "Allowed")
    }).pipe(inMemory))

  it.effect("the order in which limits are asked changes no decision", () =>
    Effect.gen(function*() {
      const [inOrder, shuffled] = [yield* alone, yield* alone]
      const names = ["ada", "bob", "eve"]
      const outcome = (service: RateLimit.RateLimit["Service"], charges: ReadonlyArray<RateLimit.Charge>) =>
        Effect.map(Effect.provideService(ask(charges), RateLimit.RateLimit, service), (decision) => {
          const { _tag, standings, tightest } = standingsOf(decision)
          return { _tag, tightest, standings: standings.toSorted((a, b) => a.limit < b.limit ? -1 : 1) }
        })
      for (let n = 0; n < 500; n++) {
        const asked = [
          { limit: wide },
          { limit: user, key: yield* Random.choice(names) },
          { limit: queue, key: yield* Random.choice(names) }
        ]
        deepStrictEqual(yield* outcome(shuffled, yield* Random.shuffle(asked)), yield* outcome(inOrder, asked))
        yield* TestClock.adjust(yield* Random.nextIntBetween(0, 600))
      }
    }).pipe(Random.withSeed("order")))

  it.effect("a flood of the lowest class never lowers what the highest may take", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 200; n++) yield* Priority.run(ask(charges), "P3")
      assert.strictEqual((yield* Priority.run(ask(charges), "P3"))._tag, "RateLimitExceeded")
      deepStrictEqual(remainingOf(yield* Priority.run(ask(charges, { tokens: 0 }), "P0")), [100, 10, 5])
      for (let n = 0; n < 5; n++) assert.strictEqual((yield* ask(charges, { priority: "P0" }))._tag, "Allowed")
    }).pipe(inMemory))
})

describe("a store that does not answer", () => {
  const down = Layer.succeed(RateLimitStore, {
    take: () => Effect.fail(new RateLimitStoreError({ detail: "out of reach" })),
    size: Effect.succeed(0)
  })
  const read = RateLimit.make({ name: "read", rate: 1, burst: 1 })
  const login = RateLimit.make({ name: "login", rate: 1, burst: 1, onStoreError: "refuse" })
  const withoutStore = Effect.provide(Layer.provide(RateLimit.layer, down))

  it.effect("lets pass what a limit allows unchecked, and says so", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 3; n++) {
        const decision = yield* ask([{ limit: read }])
        assert(decision._tag === "Unchecked")
        deepStrictEqual(RateLimit.headers(decision), {})
        assert.include(decision.cause.message, "out of reach")
      }
      assert.strictEqual(yield* counted("read", "allowed-unchecked"), 3)
    }).pipe(withoutStore))

  it.effect("refuses when one limit of the hierarchy refuses unchecked, and says which", () =>
    Effect.gen(function*() {
      const decision = yield* ask([{ limit: read }, { limit: login, key: "ada" }])
      assert(decision._tag === "RateLimitUnavailable")
      deepStrictEqual(decision.limits, ["login"])
      assert.strictEqual(yield* counted("login", "refused-unchecked"), 1)
    }).pipe(withoutStore))
})

describe("what is said of a decision", () => {
  it.effect("headers come from the tightest limit, in whole seconds that are never too few", () =>
    Effect.gen(function*() {
      const limit = RateLimit.make({ name: "headers", rate: 10, burst: 3 })
      const charges = [{ limit: RateLimit.global }, { limit }]
      const allowed = standingsOf(yield* ask(charges, { tokens: 2 }))
      deepStrictEqual(RateLimit.headers(allowed), {
        "ratelimit-limit": "3",
        "ratelimit-remaining": "1",
        "ratelimit-reset": "1"
      })
      const refused = standingsOf(yield* ask(charges, { tokens: 2 }))
      deepStrictEqual(RateLimit.headers(refused), {
        "ratelimit-limit": "3",
        "ratelimit-remaining": "1",
        "ratelimit-reset": "1",
        "retry-after": "1"
      })
    }).pipe(inMemory))

  it.effect("counters tell what each limit decided, and have no label for keys", () =>
    Effect.gen(function*() {
      const [one, two] = ["counted-one", "counted-two"].map((name, index) =>
        RateLimit.make({ name, rate: 1, burst: index + 1 })
      )
      assert(one !== undefined && two !== undefined)
      for (let n = 0; n < 3; n++) yield* ask([{ limit: one, key: "ada" }, { limit: two, key: "ada" }])
      deepStrictEqual(
        yield* Effect.all([
          counted("counted-one", "allowed"),
          counted("counted-one", "refused"),
          counted("counted-two", "allowed"),
          counted("counted-two", "refused")
        ]),
        [1, 2, 1, 0]
      )
      const labels = (yield* Metric.snapshot)
        .filter(({ id }) => id === "strata_rate_limit_decisions_total")
        .flatMap(({ attributes }) => Object.keys(attributes ?? {}))
      deepStrictEqual([...new Set(labels)].toSorted(), ["decision", "limit"])
    }).pipe(inMemory))
})

describe("a limit as a value", () => {
  it("has defaults that work, and reads as one line", () => {
    deepStrictEqual(
      [RateLimit.global, RateLimit.perUser, RateLimit.perIp, RateLimit.queueInsert, RateLimit.queueProcess].map(
        RateLimit.format
      ),
      [
        "global: 10000 in 1s, 20000 at once, all",
        "per-user: 100 in 1s, 200 at once, each user",
        "per-ip: 50 in 1s, 100 at once, each client address",
        "queue-insert: 50000 in 1s, 100000 at once, each queue",
        "queue-process: 10000 in 1s, 20000 at once, each queue"
      ]
    )
  })

  it("a rate that does not divide its period is rounded to the strict side", () => {
    deepStrictEqual(RateLimit.ruleOf(RateLimit.make({ name: "third", rate: 3, burst: 1 })), {
      interval: 333_333_334n,
      burst: 1
    })
  })

  const good = { name: "good", rate: 1, burst: 1 }
  for (
    const [name, options, problem] of [
      ["a rate of nothing", { ...good, rate: 0 }, "rate"],
      ["a rate that is no whole number", { ...good, rate: 0.5 }, "rate"],
      ["a rate that is no number", { ...good, rate: Number.NaN }, "rate"],
      ["a burst of nothing", { ...good, burst: 0 }, "burst"],
      ["a period of nothing", { ...good, period: "0 seconds" }, "period"],
      ["a period without end", { ...good, period: "Infinity" }, "period"],
      ["a name with a colon", { ...good, name: "good:" }, "name"],
      ["more than a million a second", { ...good, rate: 1001, period: "1 millis" }, "at most a million a second"],
      ["a burst that takes more than a year", { ...good, period: "1 day", burst: 366 }, "comes back within a year"]
    ] as const
  ) {
    it(`${name} is refused by name`, () => {
      assert.throws(() => RateLimit.make(options), new RegExp(`The rate limit ${options.name} .*${problem}`))
    })
  }

  it.effect("a call that nobody understands is refused by name", () =>
    Effect.gen(function*() {
      const limit = RateLimit.make({ name: "strict", rate: 1, burst: 5 })
      const problem = (charges: ReadonlyArray<RateLimit.Charge>, options?: RateLimit.ConsumeOptions) =>
        Effect.map(
          ask(charges, options),
          (refused) => refused._tag === "InvalidCharge" ? refused.problem : refused._tag
        )
      assert.include(yield* problem([]), "no limit")
      assert.include(yield* problem([{ limit }], { tokens: -1 }), "whole number")
      assert.include(yield* problem([{ limit }], { tokens: 0.5 }), "whole number")
      assert.include(yield* problem([{ limit, key: "a\0" }]), "NUL")
      assert.include(yield* problem([{ limit, key: "a".repeat(513) }]), "512")
      assert.include(yield* problem([{ limit, key: "a" }, { limit, key: "a" }]), "twice")
      assert.include(yield* problem([{ limit }], { requestId: "" }), "request id")
    }).pipe(inMemory))
})
