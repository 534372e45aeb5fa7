import { assert, describe, it } from "@effect/vitest"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Deadline from "@strata/resilience/bounds/Deadline"
import * as FailureClass from "@strata/resilience/retry/FailureClass"
import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"

type Failure = FailureClass.FailureClass

/** Failures that say themselves what they are. */
const itself = (failure: Failure): Failure => failure

/** Tries a call until nobody tries it any more: when each try began, in milliseconds, and how it ended. */
const watch = Effect.fnUntraced(function*(
  policy: RetryPolicy.RetryPolicy,
  failureOf: (attempt: number) => Failure | undefined,
  options: Omit<RetryPolicy.Options<Failure>, "classify"> & { readonly takes?: Duration.Input } = {}
) {
  const at: Array<number> = []
  const call = Effect.gen(function*() {
    const start = yield* Clock.currentTimeMillis
    const failure = failureOf(at.push(start))
    if (options.takes !== undefined) yield* Effect.sleep(options.takes)
    return failure === undefined ? "done" : yield* Effect.fail(failure)
  })
  const retried = RetryPolicy.retry(call, { ...options, policy, classify: itself })
  const fiber = yield* Effect.forkChild(Effect.exit(retried), { startImmediately: true })
  yield* TestClock.adjust(Duration.sum(policy.total, Duration.minutes(10)))
  return { at, exit: yield* Fiber.join(fiber) }
})

const always = (failure: Failure) => () => failure

/** The time between one try and the next. */
const waits = (at: ReadonlyArray<number>) => at.slice(1).map((time, n) => time - at[n]!)

const exact = RetryPolicy.make({ attempts: 5, base: "1 second", cap: "4 seconds", total: "1 hour", jitter: "none" })

describe("the waits of a retry policy", () => {
  it.effect("double from the base until they reach the cap", () =>
    Effect.gen(function*() {
      const policy = RetryPolicy.make({
        attempts: 11,
        base: "128 millis",
        cap: "30 seconds",
        total: "1 hour",
        jitter: "none"
      })
      const { at } = yield* watch(policy, always(FailureClass.transient))
      assert.deepStrictEqual(waits(at), [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 30000, 30000])
    }))

  it.effect("grow by the base when linear, and stay when fixed", () =>
    Effect.gen(function*() {
      const options = { attempts: 5, base: "2 seconds", cap: "5 seconds", total: "1 hour", jitter: "none" } as const
      const linear = yield* watch(
        RetryPolicy.make({ ...options, kind: "linear" }),
        always(FailureClass.transient)
      )
      assert.deepStrictEqual(waits(linear.at), [2000, 4000, 5000, 5000])
      const fixed = yield* watch(RetryPolicy.make({ ...options, kind: "fixed" }), always(FailureClass.transient))
      assert.deepStrictEqual(waits(fixed.at), [2000, 2000, 2000, 2000])
    }))

  it.effect("with full jitter lie anywhere between nothing and the backoff, evenly", () =>
    Effect.gen(function*() {
      const policy = RetryPolicy.make({ attempts: 10, base: "1 second", cap: "20 seconds", total: "1 hour" })
      const samples = yield* Effect.forEach(Arr.range(1, 10_000), () =>
        Effect.map(Random.next, (random) =>
          Option.match(
            RetryPolicy.nextDelay(policy, {
              attempt: 9,
              failure: FailureClass.transient,
              random,
              elapsed: Duration.zero
            }),
            { onNone: () => NaN, onSome: Duration.toMillis }
          )))
      assert.isTrue(samples.every((delay) => delay >= 0 && delay < 20_000))
      const mean = samples.reduce((sum, delay) => sum + delay, 0) / samples.length
      assert.closeTo(mean, 10_000, 300)
      for (const quarter of [0, 1, 2, 3]) {
        const share = samples.filter((delay) => Math.floor(delay / 5000) === quarter).length
        assert.closeTo(share, 2500, 150)
      }
    }).pipe(Random.withSeed("the waits of a retry policy")))

  it("stay at the cap after thousands of tries", () => {
    for (const kind of ["exponential", "linear"] as const) {
      const policy = RetryPolicy.make({ attempts: 10_000, kind, base: "1 second", cap: "1 minute", total: "365 days" })
      for (const tries of [5000, 1e9, Number.MAX_SAFE_INTEGER]) {
        assert.strictEqual(Duration.toMillis(RetryPolicy.backoff(policy, tries)), 60_000)
      }
      const next = RetryPolicy.nextDelay({ ...policy, jitter: "none" }, {
        attempt: 5000,
        failure: FailureClass.transient,
        random: 0.5,
        elapsed: Duration.zero
      })
      assert.strictEqual(Duration.toMillis(Option.getOrThrow(next)), 60_000)
    }
  })

  const Tries = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000_000 })))
  const Factor = Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 1000 })))
  it.effect.prop(
    "are a number between the base and the cap, however many tries",
    [Tries, Factor, Schema.Literals(["exponential", "linear", "fixed"])],
    ([tries, factor, kind]) =>
      Effect.sync(() => {
        const policy = RetryPolicy.make({ attempts: 2, kind, factor, base: "7 millis", cap: "1 day", total: "2 days" })
        const wait = Duration.toMillis(RetryPolicy.backoff(policy, tries))
        assert.isTrue(wait >= 7 && wait <= 86_400_000, String(wait))
      }),
    { arbitrary: { runs: 1000 } }
  )

  it.effect("let every named policy that ends use all its tries within its total", () =>
    Effect.gen(function*() {
      for (const policy of Object.values(bounded)) {
        const { at } = yield* watch({ ...policy, jitter: "none" }, always(FailureClass.transient))
        assert.strictEqual(at.length, policy.attempts)
        assert.isTrue(at.at(-1)! - at[0]! < Duration.toMillis(policy.total))
      }
    }))
})

describe("whether a failure is retried", () => {
  it.effect("ends with the first success, whose value is the result", () =>
    Effect.gen(function*() {
      const { at, exit } = yield* watch(exact, (attempt) => attempt < 3 ? FailureClass.transient : undefined)
      assert.deepStrictEqual(at, [0, 1000, 3000])
      assert.deepStrictEqual(exit, Exit.succeed("done"))
    }))

  it.effect("ends with the last failure, unchanged, when the tries are used up", () =>
    Effect.gen(function*() {
      const failures = Arr.makeBy(5, (): Failure => ({ _tag: "Transient" }))
      const { at, exit } = yield* watch(exact, (attempt) => failures[attempt - 1])
      assert.strictEqual(at.length, 5)
      assert.strictEqual(Option.getOrThrow(Exit.findErrorOption(exit)), failures[4])
    }))

  it.effect("a permanent failure is tried once and becomes one dead letter", () =>
    Effect.gen(function*() {
      let calls = 0
      const dead: Array<string> = []
      const refused = Effect.suspend(() => {
        calls++
        return Effect.fail("refused")
      })
      yield* RetryPolicy.retry(refused, { policy: exact }).pipe(
        Effect.catch((error) => Effect.sync(() => dead.push(error)))
      )
      assert.deepStrictEqual([calls, dead], [1, ["refused"]])
    }))

  it.effect("a fatal failure and a defect are tried once, whatever the classifier says", () =>
    Effect.gen(function*() {
      const fatal = yield* watch(exact, always(FailureClass.fatal), { idempotent: true })
      assert.deepStrictEqual(fatal.at, [0])
      let calls = 0
      const bug = Effect.suspend(() => {
        calls++
        return Effect.die("bug")
      })
      const exit = yield* Effect.exit(
        RetryPolicy.retry(bug, { policy: exact, idempotent: true, classify: () => FailureClass.transient })
      )
      assert.deepStrictEqual([calls, exit], [1, Exit.die("bug")])
    }))

  it.effect("a throttled call waits as long as it was told, also beyond the cap, and never less than the policy says", () =>
    Effect.gen(function*() {
      const told = ["10 seconds", "1 milli", "0 millis"] as const
      const { at } = yield* watch(
        exact,
        (attempt) => attempt <= told.length ? FailureClass.throttled(told[attempt - 1]!) : undefined
      )
      assert.deepStrictEqual(waits(at), [10_000, 2000, 4000])
    }))

  it.effect("those who were told to wait equally long come back later than that, and not together", () =>
    Effect.gen(function*() {
      const policy = RetryPolicy.make({ attempts: 2, base: "1 second", total: "1 minute" })
      const runs = yield* Effect.forEach(
        Arr.range(1, 100),
        () => watch(policy, always(FailureClass.throttled("10 seconds")))
      )
      const came = runs.map(({ at }) => at[1]! - at[0]!)
      assert.isTrue(came.every((wait) => wait >= 10_000 && wait < 11_000), came.join(" "))
      assert.strictEqual(new Set(came).size, 100)
    }).pipe(Random.withSeed("throttled")))

  it.effect("whoever is told to wait longer than the total gives up at once", () =>
    Effect.gen(function*() {
      const { at, exit } = yield* watch(RetryPolicy.realtime, always(FailureClass.throttled("1 second")))
      assert.deepStrictEqual(at, [0])
      assert.isTrue(Exit.isFailure(exit))
    }))

  it.effect("a conflict is decided again three times at once, then with jitter", () =>
    Effect.gen(function*() {
      const policy = RetryPolicy.make({ attempts: 7, base: "1 second", total: "1 hour", jitter: "none" })
      const { at } = yield* watch(policy, always(FailureClass.conflict))
      const [first, second, third, ...jittered] = waits(at)
      assert.deepStrictEqual([first, second, third], [0, 0, 0])
      assert.strictEqual(jittered.length, 3)
      for (const [n, wait] of jittered.entries()) assert.isTrue(wait > 0 && wait < 1000 * 2 ** n, waits(at).join(" "))
    }).pipe(Random.withSeed("conflict")))

  it.effect("an unknown outcome is repeated only when the call is declared idempotent", () =>
    Effect.gen(function*() {
      const once = yield* watch(exact, always(FailureClass.unknownOutcome))
      assert.deepStrictEqual(once.at, [0])
      const repeated = yield* watch(exact, always(FailureClass.unknownOutcome), { idempotent: true })
      assert.deepStrictEqual(waits(repeated.at), [1000, 2000, 4000, 4000])
    }))

  it.effect("a time-out is an unknown outcome without any classifier", () =>
    Effect.gen(function*() {
      for (const [idempotent, expected] of [[false, 1], [true, 5]] as const) {
        let calls = 0
        const call = Effect.suspend(() => {
          calls++
          return Effect.never
        }).pipe(Effect.timeout("1 second"), RetryPolicy.retry({ policy: exact, idempotent }))
        const fiber = yield* Effect.forkChild(Effect.flip(call), { startImmediately: true })
        yield* TestClock.adjust("1 hour")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "TimeoutError")
        assert.strictEqual(calls, expected)
      }
    }))

  it.effect("is told for each failure by itself", () =>
    Effect.gen(function*() {
      const { at } = yield* watch(
        exact,
        (attempt) => [FailureClass.conflict, FailureClass.transient, FailureClass.permanent][attempt - 1]
      )
      assert.deepStrictEqual(at, [0, 0, 2000])
    }))
})

describe("the time a retry may take", () => {
  it.effect("a wait of two seconds is not begun one second before the deadline", () =>
    Effect.gen(function*() {
      const policy = RetryPolicy.make({ attempts: 5, base: "2 seconds", total: "1 hour", jitter: "none" })
      const fiber = yield* Effect.forkChild(
        Effect.fail(FailureClass.transient).pipe(
          RetryPolicy.retry({ policy, classify: itself }),
          Deadline.within("1 second"),
          Effect.flip
        ),
        { startImmediately: true }
      )
      yield* Effect.yieldNow
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(FailureClass.transient))
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    }))

  it.effect("the deadline is looked at after each failure", () =>
    Effect.gen(function*() {
      const at: Array<number> = []
      const call = Effect.flatMap(Clock.currentTimeMillis, (now) => {
        at.push(now)
        return Effect.fail(FailureClass.transient)
      })
      const fiber = yield* Effect.forkChild(
        Effect.flip(Deadline.within("3500 millis")(RetryPolicy.retry(call, { policy: exact, classify: itself }))),
        { startImmediately: true }
      )
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* Fiber.join(fiber), FailureClass.transient)
      assert.deepStrictEqual(at, [0, 1000, 3000])
    }))

  it.effect("a wait that would end when the total is over is not begun", () =>
    Effect.gen(function*() {
      const policy = RetryPolicy.make({ attempts: 9, base: "1 second", total: "7 seconds", jitter: "none" })
      const { at, exit } = yield* watch(policy, always(FailureClass.transient))
      assert.deepStrictEqual(at, [0, 1000, 3000])
      assert.isTrue(Exit.isFailure(exit))
    }))

  it.effect("the time of the tries themselves counts", () =>
    Effect.gen(function*() {
      const { at } = yield* watch(
        RetryPolicy.make({ attempts: 9, base: "1 second", total: "10 seconds", jitter: "none" }),
        always(FailureClass.transient),
        { takes: "3 seconds" }
      )
      assert.deepStrictEqual(at, [0, 4000, 9000])
    }))

  it.effect("an interruption ends a wait at once", () =>
    Effect.gen(function*() {
      let calls = 0
      const call = Effect.suspend(() => {
        calls++
        return Effect.fail(FailureClass.transient)
      })
      const fiber = yield* Effect.forkChild(
        RetryPolicy.retry(call, { policy: named.batch, classify: itself }),
        { startImmediately: true }
      )
      assert.isUndefined(fiber.pollUnsafe())
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
      yield* TestClock.adjust("2 days")
      assert.strictEqual(calls, 1)
    }))

  const Seed = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 })))
  it.effect.prop(
    "no try begins after the total, and there are no more tries than attempts, whatever fails how",
    [Seed],
    ([seed]) =>
      Effect.gen(function*() {
        const policy = yield* anyPolicy
        const failures = yield* anyFailures
        const { at } = yield* watch(policy, (attempt) => failures[attempt - 1], { idempotent: true, takes: "9 millis" })
        assert.isTrue(at.length <= policy.attempts)
        assert.isTrue(at.every((time) => time - at[0]! < Duration.toMillis(policy.total)))
      }).pipe(Random.withSeed(seed)),
    { arbitrary: { runs: 300 } }
  )
})

describe("the next attempt of something stored", () => {
  const Seed = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 })))
  it.effect.prop(
    "comes when the schedule would have made it",
    [Seed],
    ([seed]) =>
      Effect.gen(function*() {
        const [policy, failures] = yield* Random.withSeed(Effect.all([anyPolicy, anyFailures]), seed)
        const { at } = yield* Random.withSeed(
          watch(policy, (attempt) => failures[attempt - 1], { takes: "5 millis" }),
          `draws ${seed}`
        )
        const stored = yield* Random.withSeed(storedAttempts(policy, failures, 5), `draws ${seed}`)
        assert.strictEqual(stored.length, at.length)
        for (const [n, time] of stored.entries()) assert.closeTo(at[n]! - at[0]!, time, 0.01)
      }),
    { arbitrary: { runs: 300 } }
  )

  it.effect("is none for work that ended its process at every try", () =>
    Effect.gen(function*() {
      const policy = RetryPolicy.make({ attempts: 4, base: "1 second", total: "1 hour", jitter: "none" })
      // What a table holds: the attempt is counted by the claim, so it outlives whoever made it.
      const row = { attempt: 0, dueAt: Timestamp.fromMillis(0), firstAt: Timestamp.fromMillis(0), dead: 0 }
      let started = 0
      while (row.dead === 0) {
        assert.isBelow(started, 100)
        row.attempt++
        const claimedAt = row.dueAt
        started++
        const exit = yield* Effect.exit(Effect.die("the process is gone"))
        assert.isTrue(Exit.isFailure(exit))
        // Nobody reported a failure: whoever finds the expired lease decides.
        const now = Timestamp.fromMicros(claimedAt + 30_000_000n)
        const next = RetryPolicy.nextAttempt(policy, {
          attempt: row.attempt,
          firstAt: row.firstAt,
          now,
          failure: FailureClass.transient,
          random: 0.5
        })
        if (Option.isNone(next)) row.dead++
        else row.dueAt = Timestamp.fromMicros(now + Duration.toNanosUnsafe(next.value) / 1000n)
      }
      assert.deepStrictEqual([started, row.dead], [4, 1])
    }))

  it("is neither lost nor later than the total when a clock was set back", () => {
    const afterSetBack = (failure: Failure) =>
      RetryPolicy.nextAttempt({ ...named.standard, jitter: "none" }, {
        attempt: 1,
        firstAt: Timestamp.fromMillis(3_600_000),
        now: Timestamp.fromMillis(0),
        failure,
        random: 0
      })
    assert.isTrue(Equal.equals(afterSetBack(FailureClass.transient), Option.some(Duration.seconds(1))))
    assert.isTrue(Option.isNone(afterSetBack(FailureClass.throttled("31 seconds"))))
  })
})

it.effect(
  "an endless policy tries through an outage of days, no more than ten seconds apart",
  () =>
    Effect.gen(function*() {
      const at: Array<number> = []
      const call = Effect.flatMap(Clock.currentTimeMillis, (now) => {
        at.push(now)
        return now < Duration.toMillis("3 days") ? Effect.fail(FailureClass.transient) : Effect.succeed("there again")
      })
      const fiber = yield* Effect.forkChild(RetryPolicy.retry(call, { policy: RetryPolicy.endless, classify: itself }))
      yield* TestClock.adjust("4 days")
      assert.strictEqual(yield* Fiber.join(fiber), "there again")
      assert.isAtMost(Math.max(...waits(at)), 10_000)
      assert.isBelow(at[5]!, 3_200)
    }),
  60_000
)

describe("layers that retry", () => {
  const three = RetryPolicy.make({ attempts: 3, base: "10 millis", total: "1 second", jitter: "none" })
  const counter = () => {
    const counted = { calls: 0 }
    const call = Effect.suspend(() => {
      counted.calls++
      return Effect.fail(FailureClass.transient)
    })
    return { counted, call }
  }
  const layer = RetryPolicy.retry({ policy: three, classify: itself })
  const finish = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      return yield* Fiber.join(fiber)
    })

  it.effect("three of three tries each make three calls in all", () =>
    Effect.gen(function*() {
      const { call, counted } = counter()
      const exit = yield* finish(call.pipe(layer, layer, layer))
      assert.deepStrictEqual([counted.calls, exit], [3, Exit.fail(FailureClass.transient)])
    }))

  it.effect("also when each calls the next in fibers of its own", () =>
    Effect.gen(function*() {
      const { call, counted } = counter()
      const inFibers = (effect: Effect.Effect<never, Failure>) =>
        Effect.all([effect, Effect.void], { concurrency: "unbounded" })
      yield* finish(inFibers(call.pipe(layer)).pipe(layer))
      assert.strictEqual(counted.calls, 3)
    }))

  it.effect("one of a single try leaves retrying to those below", () =>
    Effect.gen(function*() {
      const { call, counted } = counter()
      yield* finish(call.pipe(layer, RetryPolicy.retry({ policy: { ...three, attempts: 1 }, classify: itself })))
      assert.strictEqual(counted.calls, 3)
    }))

  it.effect("one after the other each retry for themselves", () =>
    Effect.gen(function*() {
      const { call, counted } = counter()
      yield* finish(Effect.andThen(Effect.exit(layer(call)), layer(call)))
      assert.strictEqual(counted.calls, 6)
    }))

  it.effect("retry an unknown outcome in the one of them that may repeat it, and the rest in the outermost", () =>
    Effect.gen(function*() {
      const idempotent = RetryPolicy.retry({ policy: three, classify: itself, idempotent: true })
      for (const failure of [FailureClass.unknownOutcome, FailureClass.transient]) {
        let calls = 0
        const call = Effect.suspend(() => {
          calls++
          return Effect.fail(failure)
        })
        for (
          const layers of [
            call.pipe(idempotent, layer),
            call.pipe(layer, idempotent),
            call.pipe(idempotent, idempotent)
          ]
        ) {
          calls = 0
          yield* finish(layers)
          assert.strictEqual(calls, 3)
        }
      }
    }))

  it.effect("do not count above a worker that begins as the outermost", () =>
    Effect.gen(function*() {
      const { call, counted } = counter()
      const call2 = Effect.gen(function*() {
        const fiber = yield* Effect.forkDetach(RetryPolicy.outermost(layer(call)))
        yield* Fiber.await(fiber)
      })
      yield* finish(layer(call2))
      assert.strictEqual(counted.calls, 3)
    }))
})

describe("a retry policy", () => {
  it("is printed as one line", () => {
    const lines = Object.entries(named).map(([name, policy]) => `${name}: ${RetryPolicy.format(policy)}`)
    assert.deepStrictEqual(lines, [
      "realtime: 3 tries, waits 25ms × 2, full jitter, 1s in total",
      "standard: 5 tries, waits 1s × 2, full jitter, 30s in total",
      "batch: 10 tries, waits 5m × 2 up to 6h, full jitter, 1d in total",
      "critical: 5 tries, waits 1s × 2 up to 5s, full jitter, 30s in total",
      "standardLinear: 3 tries, waits 1s more each up to 10s, full jitter, 30s in total",
      "batchFixed: 2 tries, waits 30s each, full jitter, 5m in total",
      "endless: tries without end, waits 100ms × 2 up to 10s, full jitter"
    ])
  })

  it.effect("is the same when it was written down and read again", () =>
    Effect.gen(function*() {
      for (const policy of Object.values(named)) {
        const written = yield* Schema.encodeEffect(RetryPolicy.RetryPolicy)(policy)
        const read = yield* Schema.decodeEffect(RetryPolicy.RetryPolicy)(written)
        assert.isTrue(Equal.equals(read, policy))
      }
    }))

  const sane = { attempts: 3, base: "1 second", total: "1 minute" }
  for (
    const [field, value] of [
      ["attempts", 0],
      ["attempts", -1],
      ["attempts", 1.5],
      ["attempts", Infinity],
      ["base", "0 millis"],
      ["base", "-1 seconds"],
      ["base", "Infinity"],
      ["base", "soon"],
      ["cap", "999 millis"],
      ["cap", "-1 seconds"],
      ["total", "1 second"],
      ["total", "Infinity"],
      ["factor", 0.5],
      ["factor", NaN],
      ["kind", "quadratic"],
      ["jitter", "some"]
    ] as const
  ) {
    it.effect(`with ${field} = ${value} is refused by the name of the field`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(
          Schema.decodeEffect(RetryPolicy.RetryPolicy)({ ...sane, [field]: value })
        )
        assert.include(error.message, `["${field}"]`)
      }))
  }

  it("that makes no sense throws where it is made", () => {
    assert.throws(() => RetryPolicy.make({ attempts: 0, base: "1 second", total: "1 minute" }), /attempts/)
  })

  const read = (env: Record<string, string>) =>
    RetryPolicy.config("STRATA_RELAY_RETRY", RetryPolicy.standard).pipe(
      Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))
    )

  it.effect("is read from the environment, field by field over its defaults", () =>
    Effect.gen(function*() {
      assert.isTrue(Equal.equals(yield* read({}), RetryPolicy.standard))
      const policy = yield* read({
        STRATA_RELAY_RETRY_ATTEMPTS: "7",
        STRATA_RELAY_RETRY_KIND: "linear",
        STRATA_RELAY_RETRY_CAP: "5 seconds",
        STRATA_RELAY_RETRY_JITTER: "none"
      })
      assert.strictEqual(
        RetryPolicy.format(policy),
        "7 tries, waits 1s more each up to 5s, none jitter, 30s in total"
      )
    }))

  it.effect("in the environment that makes no sense is refused by the names of prefix and field", () =>
    Effect.gen(function*() {
      for (
        const [name, value] of [["ATTEMPTS", "0"], ["ATTEMPTS", "many"], ["BASE", "-1 seconds"], [
          "CAP",
          "1 milli"
        ]] as const
      ) {
        const error = yield* Effect.flip(read({ [`STRATA_RELAY_RETRY_${name}`]: value }))
        assert.include(error.message, "STRATA_RELAY_RETRY")
        assert.include(error.message.toUpperCase(), name)
      }
    }))
})

// -------------------------------------------------------------------------------------------------------- helpers

const bounded = {
  realtime: RetryPolicy.realtime,
  standard: RetryPolicy.standard,
  batch: RetryPolicy.batch,
  critical: RetryPolicy.critical,
  standardLinear: RetryPolicy.standardLinear,
  batchFixed: RetryPolicy.batchFixed
}
const named = { ...bounded, endless: RetryPolicy.endless }

const anyPolicy = Effect.gen(function*() {
  const base = yield* Random.nextIntBetween(1, 500)
  return RetryPolicy.make({
    attempts: yield* Random.nextIntBetween(1, 12),
    kind: yield* Random.choice(["exponential", "linear", "fixed"] as const),
    base: `${base} millis`,
    factor: yield* Random.choice([1, 1.5, 2, 10] as const),
    cap: `${base * (yield* Random.nextIntBetween(1, 20))} millis`,
    total: `${base + (yield* Random.nextIntBetween(1, 20_000))} millis`,
    jitter: yield* Random.choice(["none", "full"] as const)
  })
})

const anyFailures = Effect.forEach(Arr.range(1, 12), () =>
  Random.choice(
    [
      FailureClass.transient,
      FailureClass.transient,
      FailureClass.throttled("700 millis"),
      FailureClass.conflict,
      FailureClass.conflict,
      FailureClass.unknownOutcome,
      FailureClass.permanent
    ] as const
  ))

/** When each try of something stored begins, by the rows of a table, in milliseconds. Each takes a while and fails. */
const storedAttempts = Effect.fnUntraced(function*(
  policy: RetryPolicy.RetryPolicy,
  failures: ReadonlyArray<Failure>,
  takes: number
) {
  const at = [0]
  for (const [n, failure] of failures.entries()) {
    const now = at[n]! + takes
    const next = RetryPolicy.nextAttempt(policy, {
      attempt: n + 1,
      firstAt: Timestamp.fromMicros(0n),
      now: Timestamp.fromMicros(BigInt(Math.round(now * 1000))),
      failure,
      random: yield* Random.next
    })
    if (Option.isNone(next)) break
    at.push(now + Duration.toMillis(next.value))
  }
  return at
})
