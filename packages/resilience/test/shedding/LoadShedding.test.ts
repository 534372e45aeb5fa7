import { assert, describe, it } from "@effect/vitest"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as ConcurrencyLimit from "@strata/resilience/shedding/ConcurrencyLimit"
import * as LimitAlgorithm from "@strata/resilience/shedding/LimitAlgorithm"
import * as LoadShedding from "@strata/resilience/shedding/LoadShedding"
import * as Pressure from "@strata/resilience/shedding/Pressure"
import * as ShedLadder from "@strata/resilience/shedding/ShedLadder"
import * as Arr from "effect/Array"
import { Clock } from "effect/Clock"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"

/** Shedding by one sensor, which is not smoothed. */
const open = Effect.fnUntraced(function*(options: Partial<LoadShedding.Options> = {}) {
  let pressure: number | undefined = 0
  const sensor = Pressure.make({ name: "test", read: Effect.sync(() => pressure) })
  const context = yield* Layer.build(LoadShedding.layer({
    sensors: [sensor],
    smoothing: { ...Pressure.smoothing, over: Duration.zero },
    floor: 0,
    ...options
  }))
  const shedding = Context.get(context, LoadShedding.LoadShedding)
  return {
    ...shedding,
    /** Half a second with a pressure. */
    press: (next: number | undefined) => {
      pressure = next
      return TestClock.adjust("500 millis")
    }
  }
})

type Shedding = LoadShedding.LoadShedding["Service"]

/** How many of some requests are refused. */
const refusals = (shedding: Pick<Shedding, "admit">, request: LoadShedding.Request, times = 1000) =>
  Effect.forEach(Arr.range(1, times), () => Effect.result(shedding.admit(request))).pipe(
    Effect.map((results) => results.filter(Result.isFailure).length)
  )

const refusalsByClass = (shedding: Pick<Shedding, "admit">) =>
  Effect.forEach(Priority.all, (priority) => refusals(shedding, { priority }))

/** The level after each half second. */
const levels = Effect.fnUntraced(function*(
  shedding: Effect.Success<ReturnType<typeof open>>,
  pressures: ReadonlyArray<number | undefined>
) {
  return yield* Effect.forEach(
    pressures,
    (pressure) => Effect.andThen(shedding.press(pressure), Effect.map(shedding.state, ({ level }) => level))
  )
})

describe("load shedding", () => {
  for (
    const [load, refused] of [
      [0, [0, 0, 0, 0]],
      [0.79, [0, 0, 0, 0]],
      [0.8, [0, 250, 250, 250]],
      [0.85, [0, 250, 500, 500]],
      [0.9, [0, 250, 500, 750]],
      [1, [0, 250, 500, 750]]
    ] as const
  ) {
    it.effect(`refuses ${refused.join("/")} of 1000 P0/P1/P2/P3 requests at a load of ${load}`, () =>
      Effect.gen(function*() {
        const shedding = yield* open()
        yield* shedding.press(load)
        assert.deepStrictEqual(yield* refusalsByClass(shedding), [...refused])
      }))
  }

  it.effect("never refuses P0, whose own limit caps it, and leaves P1 its reserve", () =>
    Effect.gen(function*() {
      const shedding = yield* open()
      yield* shedding.press(5)
      const limit = yield* ConcurrencyLimit.make({
        name: "admission",
        algorithm: LimitAlgorithm.fixed(10),
        partitions: { P0: 0.7, P1: 0.3 }
      })
      const begin = (priority: Priority.Priority) =>
        Effect.forkChild(
          Effect.result(limit.run(shedding.protect(Effect.never, { priority }), priority)),
          { startImmediately: true }
        )
      const flood = yield* Effect.forEach(Arr.range(1, 50), () => begin("P0"))
      const answers = flood.flatMap((fiber) => fiber.pollUnsafe() ?? [])
      assert.strictEqual(answers.length, 40)
      for (const answer of answers) {
        const refused = Result.getOrThrow(Result.flip(yield* answer))
        assert.strictEqual(refused._tag, "LimitReached")
      }
      const reserve = yield* Effect.forEach(Arr.range(1, 3), () => begin("P1"))
      assert.strictEqual(reserve.filter((fiber) => fiber.pollUnsafe() === undefined).length, 3)
      assert.strictEqual(yield* refusals(shedding, { priority: "P0" }), 0)
    }))

  it.effect("goes by the class of the fiber when the request names none", () =>
    Effect.gen(function*() {
      const shedding = yield* open()
      yield* shedding.press(1)
      assert.strictEqual(yield* Priority.run(refusals(shedding, {}), "P3"), 750)
      assert.strictEqual(yield* Priority.continuation(refusals(shedding, {})), 0)
      assert.strictEqual(yield* refusals(shedding, {}), 500)
    }))

  it.effect("lets a tenant alone that asks for no more than always, while another floods its class", () =>
    Effect.gen(function*() {
      const shedding = yield* open({ smoothing: Pressure.smoothing })
      const halfSecond = Effect.fnUntraced(function*(load: number, flood: number) {
        const refused = {
          flood: yield* refusals(shedding, { priority: "P3", tenant: "flood" }, flood),
          usual: yield* refusals(shedding, { priority: "P3", tenant: "usual" }, 5)
        }
        yield* shedding.press(load)
        return refused
      })
      yield* Effect.forEach(Arr.range(1, 20), () => halfSecond(0.5, 5))
      const overload = yield* Effect.forEach(Arr.range(1, 240), () => halfSecond(0.95, 50))
      const usual = overload.reduce((sum, refused) => sum + refused.usual, 0)
      assert.isAtMost(usual, 0.01 * 240 * 5)
      // In the last minute 75 % of the class are refused, all of them of the flood.
      const flood = overload.slice(-120).reduce((sum, refused) => sum + refused.flood, 0)
      assert.closeTo(flood, 0.75 * 120 * 55, 60)
    }))

  it.effect("lets a flow in with all of its steps, or refuses all of them", () =>
    Effect.gen(function*() {
      const shedding = yield* open()
      yield* shedding.press(0.85)
      const flows = yield* Effect.forEach(
        Arr.makeBy(1000, (n) => `order-${n}`),
        (flow) => refusals(shedding, { priority: "P2", tenant: "shop", flow }, 4)
      )
      assert.isTrue(flows.every((refused) => refused === 0 || refused === 4))
      assert.closeTo(flows.filter((refused) => refused === 4).length, 500, 60)
    }))

  it.effect("says when to come back, not to all the same", () =>
    Effect.gen(function*() {
      const shedding = yield* open({ retryAfter: "10 seconds" })
      yield* shedding.press(1)
      const results = yield* Effect.forEach(Arr.range(1, 400), () => Effect.result(shedding.admit({ priority: "P3" })))
      const refused = results.filter(Result.isFailure).map(({ failure }) => failure)
      const seconds = refused.map(({ retryAfter }) => Duration.toSeconds(retryAfter))
      assert.isTrue(seconds.every((pause) => pause >= 5 && pause <= 15))
      assert.isAbove(new Set(seconds).size, 100)
      assert.deepStrictEqual([refused[0]?.priority, refused[0]?.level, refused[0]?.load], ["P3", 3, 1])
      assert.match(refused[0]?.message ?? "", /^Overloaded \(load 1.00, level 3\): this P3 request was not begun\. Try/)
    }).pipe(Random.withSeed("jitter")))

  it.effect("lets in a few at a time whatever the load, and asks the ladder about the others", () =>
    Effect.gen(function*() {
      const all = Result.getOrThrow(ShedLadder.parse("0.5=100/100/100"))
      const shedding = yield* open({ floor: 2, ladder: all })
      yield* shedding.press(5)
      const one = () => Effect.result(shedding.protect(Effect.succeed("done"), { priority: "P3" }))
      for (let ask = 0; ask < 10; ask++) assert.isTrue(Result.isSuccess(yield* one()))
      const inside = yield* Effect.forEach(
        [1, 2],
        () => Effect.forkChild(shedding.protect(Effect.never, { priority: "P3" }), { startImmediately: true })
      )
      assert.isTrue(Result.isFailure(yield* one()))
      yield* Fiber.interrupt(inside[0]!)
      assert.isTrue(Result.isSuccess(yield* one()))
    }))

  it.effect("decides outside of any fiber as it would inside, and asks nobody twice", () =>
    Effect.gen(function*() {
      const shedding = yield* open({ ladder: Result.getOrThrow(ShedLadder.parse("0.5=50/50/50")) })
      yield* shedding.press(5)
      const decisions = Arr.range(1, 100).map(() => shedding.decide({ priority: "P2" }))
      const refused = decisions.filter((decision) => decision !== undefined)
      assert.deepStrictEqual([refused.length, refused[0]?.priority, refused[0]?.level], [50, "P2", 1])
      assert.strictEqual(shedding.decide({ priority: "P0" }), undefined)
      // Half of them would be refused if they were asked again.
      const decided = shedding.protect(Effect.succeed("done"), { priority: "P2", isDecided: true })
      for (let ask = 0; ask < 10; ask++) assert.strictEqual(yield* decided, "done")
    }))

  it.effect("runs what it lets in, and counts what was offered, shed and completed", () =>
    Effect.gen(function*() {
      const shedding = yield* open()
      yield* shedding.press(0.85)
      let begun = 0
      const work = Effect.suspend(() => ++begun % 2 === 0 ? Effect.fail("broken") : Effect.succeed(begun))
      yield* Effect.forEach(Arr.range(1, 100), () => Effect.result(shedding.protect(work, { priority: "P2" })))
      assert.strictEqual(begun, 50)
      const series = yield* Metric.snapshot
      const value = (id: string, attributes: Record<string, string> = {}) =>
        series.filter((one) =>
          one.id === id && Object.entries(attributes).every(([key, value]) => one.attributes?.[key] === value)
        ).map(({ state }) => "count" in state ? state.count : "value" in state ? state.value : undefined)
      const P2 = { class: "P2" }
      assert.deepStrictEqual(value("strata_shed_offered_total", P2), [100])
      assert.deepStrictEqual(value("strata_shed_refused_total", P2), [50])
      assert.deepStrictEqual(value("strata_shed_completed_total", P2), [25])
      assert.deepStrictEqual(value("strata_shed_percent", P2), [50])
      assert.deepStrictEqual(value("strata_load"), [0.85])
      assert.deepStrictEqual(value("strata_load_pressure", { sensor: "test" }), [0.85])
      assert.deepStrictEqual(value("strata_shed_level"), [2])
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

  it.effect("measures but refuses nothing when it is off", () =>
    Effect.gen(function*() {
      const shedding = yield* open({ enabled: false })
      yield* shedding.press(1)
      assert.deepStrictEqual(yield* refusalsByClass(shedding), [0, 0, 0, 0])
      assert.strictEqual((yield* shedding.state).level, 3)
    }))

  it.effect("smooths what its sensors say over five seconds", () =>
    Effect.gen(function*() {
      const shedding = yield* open({ smoothing: Pressure.smoothing })
      yield* shedding.press(1)
      yield* TestClock.adjust("4500 millis")
      assert.closeTo((yield* shedding.state).load, 1 - Math.exp(-1), 1e-9)
    }))
})

describe("the level of load shedding", () => {
  it.effect("is held for 30 seconds of calm, and its shares go down by 10 points a minute", () =>
    Effect.gen(function*() {
      const shedding = yield* open()
      yield* shedding.press(0.95)
      yield* shedding.press(0.5)
      yield* TestClock.adjust("30 seconds")
      const P3 = Effect.map(shedding.state, ({ shares }) => shares.P3)
      assert.strictEqual(yield* P3, 75)
      assert.strictEqual(yield* refusals(shedding, { priority: "P3" }), 750)
      for (const expected of [65, 55, 45, 35, 25, 15, 5, 0]) {
        yield* TestClock.adjust("1 minute")
        assert.closeTo(yield* P3, expected, 1e-6)
      }
      assert.deepStrictEqual(yield* refusalsByClass(shedding), [0, 0, 0, 0])
    }))

  it.effect("changes once for a load that goes up and down around a threshold", () =>
    Effect.gen(function*() {
      const shedding = yield* open()
      const seen = yield* levels(shedding, Arr.makeBy(120, (n) => n % 2 === 0 ? 0.79 : 0.81))
      assert.deepStrictEqual(Arr.dedupeAdjacent([0, ...seen]), [0, 1])
    }))

  it.effect("tells of its changes and their causes", () =>
    Effect.gen(function*() {
      const shedding = yield* open()
      const changes = yield* Effect.forkChild(Stream.runCollect(Stream.take(shedding.changes, 3)), {
        startImmediately: true
      })
      yield* shedding.press(0.82)
      yield* shedding.press(0.9)
      yield* shedding.press(0.1)
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* Fiber.join(changes), [
        { from: 0, to: 1, load: 0.82, cause: "test" },
        { from: 1, to: 3, load: 0.9, cause: "test" },
        { from: 3, to: 0, load: 0.1, cause: "calm" }
      ])
    }))

  it.effect("comes down no sooner when somebody sets the wall clock", () =>
    Effect.gen(function*() {
      const clock = yield* Clock
      let ahead = 0
      const jumping: Clock = {
        ...clock,
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + ahead,
        currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + BigInt(ahead) * 1_000_000n
      }
      const shedding = yield* Effect.provideService(open(), Clock, jumping)
      yield* shedding.press(0.95)
      yield* shedding.press(0.1)
      ahead = 3_600_000
      yield* TestClock.adjust("29 seconds")
      assert.deepStrictEqual((yield* shedding.state).level, 3)
      ahead = -3_600_000
      yield* TestClock.adjust("61 seconds")
      assert.closeTo((yield* shedding.state).shares.P3, 65, 1e-6)
    }))

  it.effect("follows another ladder when one is adopted", () =>
    Effect.gen(function*() {
      const shedding = yield* open()
      yield* shedding.press(0.7)
      assert.strictEqual(yield* refusals(shedding, { priority: "P3" }), 0)
      yield* shedding.adopt(Result.getOrThrow(ShedLadder.parse("0.6=0/10/100")))
      assert.deepStrictEqual(yield* refusalsByClass(shedding), [0, 0, 100, 1000])
      assert.strictEqual((yield* shedding.state).level, 1)
    }))

  for (const [what, nothing] of [["nothing", undefined], ["NaN", NaN], ["less than nothing", -1]] as const) {
    it.effect(`is the first when a sensor has read ${what} for ten seconds, and somebody is told`, () => {
      const messages: Array<unknown> = []
      const logger = Logger.make(({ logLevel, message }) => {
        if (logLevel === "Warn") messages.push(message)
      })
      return Effect.gen(function*() {
        const shedding = yield* open()
        yield* shedding.press(0.3)
        assert.deepStrictEqual(Arr.dedupeAdjacent(yield* levels(shedding, Arr.makeBy(19, () => nothing))), [0])
        assert.strictEqual((yield* shedding.state).load, 0.3)
        assert.deepStrictEqual(messages, [])
        assert.deepStrictEqual(yield* levels(shedding, [nothing]), [1])
        assert.deepStrictEqual(yield* refusalsByClass(shedding), [0, 250, 250, 250])
        assert.deepStrictEqual(Array.from((yield* shedding.state).sensors, ([name, { blind }]) => [name, blind]), [
          ["test", true]
        ])
        yield* levels(shedding, [nothing, nothing])
        assert.strictEqual(messages.length, 1)
        yield* shedding.press(0.3)
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual((yield* shedding.state).level, 0)
      }).pipe(Effect.provide(Logger.layer([logger])))
    })
  }

  it.effect("does not depend on a sensor that breaks or never answers, while another sees the load", () =>
    Effect.gen(function*() {
      const shedding = yield* open({
        sensors: [
          Pressure.make({ name: "broken", read: Effect.die("broken") }),
          Pressure.make({ name: "silent", read: Effect.never }),
          Pressure.make({ name: "seeing", read: Effect.succeed(0.95) })
        ]
      })
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* shedding.state).level, 3)
      yield* TestClock.adjust("10 seconds")
      const { level, sensors } = yield* shedding.state
      assert.strictEqual(level, 3)
      assert.deepStrictEqual(Array.from(sensors, ([name, { blind }]) => [name, blind]), [
        ["broken", true],
        ["silent", true],
        ["seeing", false]
      ])
    }))
})

describe("the configuration of load shedding", () => {
  const build = (env: Record<string, string>) =>
    Layer.build(LoadShedding.layerConfig([Pressure.make({ name: "full", read: Effect.succeed(1) })])).pipe(
      Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))
    )

  it.effect("has defaults that work", () =>
    Effect.gen(function*() {
      const { state } = Context.get(yield* build({}), LoadShedding.LoadShedding)
      assert.deepStrictEqual((yield* state).ladder, ShedLadder.standard)
    }))

  it.effect("is read from the environment", () =>
    Effect.gen(function*() {
      const context = yield* build({
        STRATA_SHED_LADDER: "0.5=0/0/10",
        STRATA_SHED_HOLD: "1 minute",
        STRATA_SHED_RAMP: "5"
      })
      const { ladder } = yield* Context.get(context, LoadShedding.LoadShedding).state
      assert.strictEqual(ShedLadder.format(ladder), "0.5=0/0/10")
      assert.deepStrictEqual([Duration.toSeconds(ladder.hold), ladder.ramp, ladder.margin], [60, 5, 0.05])
    }))

  it.effect("is refused at the start when a class would be shed more than one that matters less", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(build({ STRATA_SHED_LADDER: "0.80=25/0/0 0.85=25/50/0" }))
      assert.include(
        error.message,
        "The shed ladder cannot be used: the step at 0.8 sheds 25 % of P1 but only 0 % of P2, which matters less"
      )
      assert.include(error.message, "STRATA_SHED_LADDER")
    }))
})
