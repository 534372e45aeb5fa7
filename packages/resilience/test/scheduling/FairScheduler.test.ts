import { assert, describe, it } from "@effect/vitest"
import * as Quota from "@strata/resilience/limits/Quota"
import * as FairScheduler from "@strata/resilience/scheduling/FairScheduler"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as WorkerShares from "@strata/resilience/scheduling/WorkerShares"
import * as Clock from "effect/Clock"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"

const range = (count: number) => Array.from({ length: count }, (_, n) => n)

const start = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

/** Everybody's slots: nothing reserved, nothing guaranteed. */
const unshared = WorkerShares.make({
  realTime: 0,
  reserved: 0,
  bestEffort: 0,
  realTimeDeadline: "Infinity",
  backgroundDeadline: "Infinity"
})

const make = (options: Partial<FairScheduler.Options> = {}) =>
  FairScheduler.make({ name: "test", shares: unshared, ...options })

const counts = (scheduler: FairScheduler.FairScheduler, of: Priority.Priority) =>
  Effect.map(scheduler.state, ({ classes }) => {
    const { held, queued, running } = classes[of]
    return { held, queued, running }
  })

/** Three times more, after a pause. */
const spaced = (pause: Duration.Input) => Schedule.max([Schedule.spaced(pause), Schedule.recurs(3)])

const idle = { held: 0, queued: 0, running: 0 }

describe("the slots of a fair scheduler", () => {
  it.effect("are given to classes by their weights, in the order of a fair queue", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1, pay: "declared" })
      const gate = yield* Latch.make(false)
      const order: Array<string> = []
      const first = yield* start(scheduler.run({ priority: "P3" })(gate.await))
      const fibers = yield* Effect.forEach(
        range(60),
        (n) => start(scheduler.run({ priority: Priority.all[n % 4] })(Effect.sync(() => order.push(`${n % 4}`))))
      )
      assert.strictEqual((yield* scheduler.state).classes.P0.queued, 15)
      yield* gate.open
      yield* Fiber.joinAll([first, ...fibers])
      // The one that kept the slot was the turn of P3.
      assert.strictEqual(order.slice(0, 26).join(""), "01200100120010012300100120")
    }))

  it.effect(
    "are used alike by tenants whose work is of different length, to a hundredth",
    () =>
      Effect.gen(function*() {
        for (const [threads, millis] of [[[8, 8], [10, 30]], [[7, 8], [10, 10]]] as const) {
          const scheduler = yield* make({ slots: 4 })
          const used = [0, 0]
          const fibers = yield* Effect.forEach([0, 1] as const, (tenant) =>
            Effect.forEach(range(threads[tenant]), () =>
              Effect.sleep(millis[tenant]).pipe(
                scheduler.run({ priority: "P2", tenant: `tenant ${tenant}` }),
                Effect.andThen(Effect.sync(() => (used[tenant] = (used[tenant] ?? 0) + millis[tenant]))),
                Effect.forever,
                start
              )))
          yield* TestClock.adjust("24 seconds")
          yield* Fiber.interruptAll(fibers.flat())
          for (const each of used) {
            assert.closeTo(each / 24_000, 2, 0.02)
          }
        }
      }),
    60_000
  )

  it.effect("are there for P0 at once, whatever P3 has", () =>
    Effect.gen(function*() {
      const scheduler = yield* FairScheduler.make({ name: "commands", slots: 10 })
      yield* Effect.forEach(range(50), () => start(scheduler.run({ priority: "P3" })(Effect.never)))
      assert.deepStrictEqual(yield* counts(scheduler, "P3"), { held: 0, queued: 42, running: 8 })
      const before = yield* Clock.currentTimeMillis
      const started = yield* scheduler.run({ priority: "P0" })(Clock.currentTimeMillis)
      assert.strictEqual(started - before, 0)
    }))

  it.effect("come back from whatever ends: success, failure, defect, interruption, and a time-out", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 2 })
      for (const preemptible of [false, true]) {
        const run = scheduler.run({ priority: "P2", tenant: "acme", key: "account", preemptible })
        for (const work of [Effect.void, Effect.fail("no"), Effect.die("broken"), Effect.interrupt]) {
          yield* Effect.forEach(range(500), () => Effect.exit(run(work)))
          assert.deepStrictEqual(yield* counts(scheduler, "P2"), idle)
        }
        const defect = yield* Effect.exit(run(Effect.die("broken")))
        assert.isTrue(Exit.hasDies(defect))
        const fiber = yield* start(Effect.timeoutOption(run(Effect.never), "1 second"))
        const waiting = yield* start(run(Effect.never))
        yield* Fiber.interrupt(waiting)
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(yield* counts(scheduler, "P2"), idle)
      }
      assert.strictEqual((yield* scheduler.state).running, 0)
    }))

  it.effect("are not waited for by what gave up after exactly a second", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1 })
      const first = yield* start(scheduler.run({ priority: "P2" })(Effect.never))
      let begun = 0
      const task = scheduler.run({ priority: "P3", key: "account" })(Effect.sync(() => begun++))
      const waiting = yield* start(Effect.timeoutOption(task, "1 second"))
      const behind = yield* start(task)
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(yield* counts(scheduler, "P3"), { held: 0, queued: 2, running: 0 })
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* counts(scheduler, "P3"), { held: 0, queued: 1, running: 0 })
      yield* Fiber.join(waiting)
      yield* Fiber.interrupt(first)
      yield* Fiber.join(behind)
      assert.deepStrictEqual([begun, yield* counts(scheduler, "P3")], [1, idle])
    }))

  it.effect("are lent while nobody they are for waits, and go back as they come free", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 10, shares: WorkerShares.make({ realTimeDeadline: "Infinity" }) })
      const gates = yield* Effect.forEach(range(20), () => Latch.make(false))
      yield* Effect.forEach(gates, (gate) => start(scheduler.run({ priority: "P3" })(gate.await)))
      assert.strictEqual((yield* counts(scheduler, "P3")).running, 8)
      yield* Effect.forEach(range(10), () => start(scheduler.run({ priority: "P1" })(Effect.never)))
      assert.strictEqual((yield* counts(scheduler, "P1")).running, 0)
      const running: Array<ReadonlyArray<number>> = []
      for (const gate of gates.slice(0, 4)) {
        yield* gate.open
        yield* Effect.yieldNow
        running.push([(yield* counts(scheduler, "P1")).running, (yield* counts(scheduler, "P3")).running])
      }
      // Three of the five slots for real-time work are P1's; after that it is the classes' turns that decide.
      assert.deepStrictEqual(running.slice(0, 3), [[1, 7], [2, 6], [3, 5]])
      const P2 = yield* start(scheduler.run({ priority: "P2" })(Effect.void))
      assert.isUndefined(P2.pollUnsafe())
    }))

  it.effect("that every class is entitled to are told next to those it has", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 9 })
      yield* Effect.forEach(range(20), () => start(scheduler.run({ priority: "P3" })(Effect.never)))
      assert.strictEqual((yield* scheduler.state).classes.P3.entitled, 9)
      yield* Effect.forEach(range(20), () => start(scheduler.run({ priority: "P0" })(Effect.never)))
      const { classes } = yield* scheduler.state
      assert.deepStrictEqual([classes.P0.entitled, classes.P3.entitled, classes.P3.running], [8, 1, 9])
    }))
})

describe("a fair scheduler that is full", () => {
  it.effect("refuses by name, and says when to come back", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 2, maxWaiting: 6 })
      yield* Effect.forEach(range(20), () =>
        Effect.gen(function*() {
          const fiber = yield* start(scheduler.run({ priority: "P3", name: "report" })(Effect.sleep("1 second")))
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(fiber)
        }))
      yield* Effect.forEach(range(8), () => start(scheduler.run({ priority: "P3" })(Effect.never)))
      const error = yield* Effect.flip(scheduler.run({ priority: "P3" })(Effect.void))
      assert.strictEqual(error.message, "test: 6 of class P3 wait already: try again in 3s")
      const other = yield* start(scheduler.run({ priority: "P0" })(Effect.void))
      assert.deepStrictEqual([other.pollUnsafe(), (yield* scheduler.state).refused], [undefined, 1])
    }))

  it.effect("refuses a class whose next ones have waited for too long, until they have not, and never the most urgent", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1, maxWait: "1 second" })
      const refused = () => scheduler.refusal("P2")?._tag
      yield* Effect.forEach(range(3), () => start(scheduler.run({ priority: "P2" })(Effect.sleep("2 seconds"))))
      assert.deepStrictEqual([refused(), scheduler.free()], [undefined, 0])
      // The second one has begun after two seconds, and one waits behind it.
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(refused(), "SchedulerFull")
      assert.strictEqual((yield* Effect.flip(scheduler.run({ priority: "P2" })(Effect.void)))._tag, "SchedulerFull")
      assert.deepStrictEqual([scheduler.refusal("P0"), scheduler.refusal("P1")], [undefined, undefined])
      // Nobody is left to wait behind.
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(refused(), undefined)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(scheduler.free(), 1)
    }))

  it.effect("also counts what is to be tried again", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 2, maxWaiting: 1 })
      const retry = spaced("1 minute")
      yield* start(scheduler.run({ priority: "P2", retry })(Effect.fail("down")))
      assert.deepStrictEqual(yield* counts(scheduler, "P2"), { held: 1, queued: 0, running: 0 })
      assert.strictEqual((yield* Effect.flip(scheduler.run({ priority: "P2" })(Effect.void)))._tag, "SchedulerFull")
    }))

  it.effect("refuses numbers that make no sense when it is made, by name", () =>
    Effect.gen(function*() {
      const problem = (options: Partial<FairScheduler.Options>) =>
        Effect.map(Effect.flip(make(options)), ({ message }) => message)
      assert.strictEqual(
        yield* problem({ slots: 2.5 }),
        "The scheduler test cannot be used: slots must be a whole number from 1, got 2.5"
      )
      assert.include(yield* problem({ maxWaiting: 0 }), "maxWaiting must be a whole number from 1, got 0")
      assert.include(yield* problem({ weights: { P0: 8, P1: 0, P2: 2, P3: 1 } }), "the weight of P1 must be")
      const shares = { ...WorkerShares.standard, bestEffort: 0.6 }
      assert.include(yield* problem({ shares }), "1 together at most, got real-time 50 %")
    }))

  it.effect("reads its numbers from the environment", () =>
    Effect.gen(function*() {
      const read = (env: Record<string, string>) =>
        Effect.provideService(
          FairScheduler.config("STRATA_WORKERS", { name: "workers", slots: 4, shares: WorkerShares.standard }),
          ConfigProvider.ConfigProvider,
          ConfigProvider.fromEnv({ env })
        )
      const plain = yield* read({})
      assert.deepStrictEqual([plain.name, plain.slots, plain.maxWaiting, plain.weights?.P0], ["workers", 4, 1000, 8])
      const set = yield* read({
        STRATA_WORKERS_SLOTS: "6",
        STRATA_WORKERS_WEIGHT_P3: "2",
        STRATA_WORKERS_BEST_EFFORT: "0.4",
        STRATA_WORKERS_REAL_TIME_DEADLINE: "2 seconds"
      })
      assert.deepStrictEqual([set.slots, set.weights?.P3, set.shares?.bestEffort], [6, 2, 0.4])
      assert.strictEqual(Duration.toMillis(set.shares?.realTimeDeadline ?? 0), 2000)
      const error = yield* Effect.flip(read({ STRATA_WORKERS_REAL_TIME: "0.9" }))
      assert.include(error.message, "shares of 100 % together at most, got 110 %")
    }))
})

describe("work that is handed back", () => {
  it.effect("is what was prefetched and not begun when P0 has no slot: no attempt, and no effect twice", () =>
    Effect.gen(function*() {
      const scheduler = yield* FairScheduler.make({ name: "workers", slots: 10 })
      const done: Array<number> = []
      const back: Array<number> = []
      const attempts = range(100).map(() => 0)
      const deliver = (message: number) =>
        Effect.suspend(() => {
          attempts[message] = (attempts[message] ?? 0) + 1
          return Effect.andThen(Effect.sleep("1 second"), Effect.sync(() => done.push(message)))
        }).pipe(
          scheduler.prefetch({ priority: "P3", key: `key ${message % 50}` }),
          Effect.catchTag("HandedBack", () => Effect.sync(() => back.push(message)))
        )
      const prefetched = yield* Effect.forEach(range(100), (message) => start(deliver(message)))
      assert.deepStrictEqual([attempts.filter((each) => each > 0).length, back.length], [8, 0])
      const burst = yield* Effect.forEach(
        range(100),
        () => start(scheduler.run({ priority: "P0" })(Effect.sleep("10 millis")))
      )
      assert.deepStrictEqual(back, range(100).slice(8))
      assert.strictEqual((yield* scheduler.state).handedBack, 92)
      assert.deepStrictEqual(yield* counts(scheduler, "P3"), { held: 0, queued: 0, running: 8 })
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.joinAll([...prefetched, ...burst])
      const again = yield* Effect.forEach(back.splice(0), (message) => start(deliver(message)))
      yield* TestClock.adjust("20 seconds")
      yield* Fiber.joinAll(again)
      assert.deepStrictEqual(done.toSorted((a, b) => a - b), range(100))
      assert.deepStrictEqual(attempts, range(100).map(() => 1))
    }))

  it.effect("says who took its place, and what has aged is kept", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1 })
      yield* start(scheduler.run({ priority: "P0" })(Effect.never))
      const old = yield* start(scheduler.prefetch({ priority: "P3", waited: "2 minutes" })(Effect.void))
      const young = yield* start(Effect.flip(scheduler.prefetch({ priority: "P3", tenant: "acme" })(Effect.void)))
      const own = yield* start(scheduler.run({ priority: "P3" })(Effect.void))
      yield* start(scheduler.run({ priority: "P0" })(Effect.never))
      const error = yield* Fiber.join(young)
      assert.strictEqual(
        error.message,
        "test: work of class P3 of tenant acme was handed back before it began: " +
          "more urgent work has no slot for about 100ms"
      )
      assert.deepStrictEqual([old.pollUnsafe(), own.pollUnsafe()], [undefined, undefined])
      // While P0 waits, what is brought goes back at once.
      assert.strictEqual((yield* Effect.flip(scheduler.prefetch({ priority: "P1" })(Effect.void)))._tag, "HandedBack")
    }))
})

describe("work that is preemptible", () => {
  it.effect("is interrupted for P0 that has no slot, and begun again after it", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 2 })
      const log: Array<string> = []
      const say = (word: string) => Effect.sync(() => log.push(word))
      yield* start(scheduler.run({ priority: "P3" })(Effect.never))
      // P0 has had so much that it would not be its turn.
      for (const _ of range(5)) {
        const fiber = yield* start(scheduler.run({ priority: "P0" })(Effect.sleep("1 minute")))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(fiber)
      }
      const report = say("report begins").pipe(
        Effect.andThen(Effect.sleep("1 second")),
        Effect.andThen(say("report ends")),
        Effect.onInterrupt(() => say("report stops"))
      )
      const reports = yield* Effect.forEach(
        ["first", "second"],
        () => start(scheduler.run({ priority: "P3", preemptible: true })(report))
      )
      yield* TestClock.adjust("500 millis")
      yield* scheduler.run({ priority: "P0" })(say("payment"))
      assert.deepStrictEqual(log.slice(0, 3), ["report begins", "report stops", "payment"])
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.joinAll(reports)
      const state = yield* scheduler.state
      assert.deepStrictEqual([log.filter((word) => word === "report ends").length, state.preempted], [2, 1])
      assert.deepStrictEqual([state.running, state.classes.P3.started], [1, 4])
    }))

  it.effect("finishes once it commits", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1 })
      const log: Array<string> = []
      const say = (word: string) => Effect.sync(() => log.push(word))
      const report = say("begins").pipe(
        Effect.andThen(Effect.sleep("1 second")),
        Effect.andThen(FairScheduler.committing(say("commits"))),
        Effect.andThen(Effect.sleep("1 second")),
        Effect.andThen(say("ends"))
      )
      const fiber = yield* start(scheduler.run({ priority: "P3", preemptible: true })(report))
      yield* TestClock.adjust("1500 millis")
      const payment = yield* start(scheduler.run({ priority: "P0" })(say("payment")))
      assert.deepStrictEqual(log, ["begins", "commits"])
      yield* TestClock.adjust("1 second")
      yield* Fiber.joinAll([fiber, payment])
      assert.deepStrictEqual(log, ["begins", "commits", "ends", "payment"])
    }))

  it.effect("does not commit when it is being interrupted already", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1 })
      const gate = yield* Latch.make(false)
      let [begun, committed] = [0, 0]
      const work = Effect.uninterruptible(Effect.gen(function*() {
        begun++
        yield* gate.await
        yield* FairScheduler.committing(Effect.sync(() => committed++))
      }))
      const fiber = yield* start(scheduler.run({ priority: "P3", preemptible: true })(work))
      const payment = yield* start(scheduler.run({ priority: "P0" })(Effect.succeed([begun, committed])))
      assert.isUndefined(payment.pollUnsafe())
      yield* gate.open
      yield* Fiber.join(payment)
      yield* Fiber.join(fiber)
      assert.deepStrictEqual([begun, committed], [2, 1])
    }))

  it.effect("is left alone after three times, so that it ends", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1 })
      let begun = 0
      const work = Effect.andThen(Effect.sync(() => begun++), Effect.sleep("1 second"))
      const fiber = yield* start(scheduler.run({ priority: "P3", preemptible: true })(work))
      yield* start(Effect.forever(
        Effect.andThen(Effect.sleep("100 millis"), scheduler.run({ priority: "P0" })(Effect.sleep("10 millis")))
      ))
      yield* TestClock.adjust("5 seconds")
      assert.isDefined(fiber.pollUnsafe())
      assert.strictEqual(begun, 4)
    }))

  it.effect("gives way where it is least lost: what began last of the least urgent, and no more than has to", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 4 })
      const stopped: Array<string> = []
      const long = (name: string) => Effect.onInterrupt(Effect.never, () => Effect.sync(() => stopped.push(name)))
      for (const [name, priority] of [["P3 old", "P3"], ["P2", "P2"], ["P3 new", "P3"], ["P1", "P1"]] as const) {
        yield* start(scheduler.run({ priority, preemptible: true })(long(name)))
      }
      const payments = yield* Effect.forEach(range(2), () => start(scheduler.run({ priority: "P0" })(Effect.never)))
      assert.deepStrictEqual(stopped, ["P3 new", "P3 old"])
      yield* Fiber.interruptAll(payments)
      const { running } = yield* scheduler.state
      assert.deepStrictEqual([running, yield* counts(scheduler, "P3")], [4, { held: 0, queued: 0, running: 2 }])
    }))

  it.effect("gives way once for each of P0, also while it takes its time to end", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 2 })
      const gate = yield* Latch.make(false)
      let stopped = 0
      const slow = Effect.onInterrupt(Effect.never, () => Effect.andThen(Effect.sync(() => stopped++), gate.await))
      yield* Effect.forEach(range(2), () => start(scheduler.run({ priority: "P3", preemptible: true })(slow)))
      const payment = yield* start(scheduler.run({ priority: "P0" })(Effect.succeed("paid")))
      yield* Effect.forEach(range(5), () => start(scheduler.run({ priority: "P2" })(Effect.void)))
      assert.deepStrictEqual([stopped, payment.pollUnsafe()], [1, undefined])
      yield* gate.open
      assert.strictEqual(yield* Fiber.join(payment), "paid")
      assert.strictEqual((yield* scheduler.state).preempted, 1)
    }))

  it.effect("gives way also to what it brings in its very first step", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1 })
      const paid = yield* Latch.make(false)
      let begun = 0
      const bring = Effect.forkDetach(scheduler.run({ priority: "P0" })(paid.open), { startImmediately: true })
      const work = Effect.suspend(() => begun++ === 0 ? Effect.andThen(bring, Effect.never) : Effect.succeed("done"))
      const fiber = yield* start(scheduler.run({ priority: "P3", preemptible: true })(work))
      yield* paid.await
      assert.deepStrictEqual([yield* Fiber.join(fiber), begun], ["done", 2])
    }))

  it.effect("keeps its slot when it is interrupted from outside, until it has ended", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1 })
      const gate = yield* Latch.make(false)
      const work = Effect.onInterrupt(Effect.never, () => gate.await)
      const fiber = yield* start(scheduler.run({ priority: "P3", preemptible: true })(work))
      yield* start(Fiber.interrupt(fiber))
      assert.deepStrictEqual(yield* counts(scheduler, "P3"), { held: 0, queued: 0, running: 1 })
      yield* gate.open
      yield* Fiber.await(fiber)
      assert.deepStrictEqual(yield* counts(scheduler, "P3"), idle)
    }))
})

describe("work of the same key", () => {
  it.effect(
    "is done in the order it came by four workers, whatever fails, is tried again or is interrupted",
    () =>
      Effect.gen(function*() {
        const scheduler = yield* FairScheduler.make({ name: "workers", slots: 4 })
        const messages = range(120).map((id) => ({ id, key: `key ${id % 3}`, attempts: 0 }))
        const done: Record<string, Array<number>> = {}
        let inKey: Record<string, number> = {}
        const work = ({ id, key }: (typeof messages)[number]) =>
          Effect.acquireUseRelease(
            Effect.sync(() => assert.strictEqual(inKey[key] = (inKey[key] ?? 0) + 1, 1, "two of a key at once")),
            () => Effect.sleep(1 + id % 7),
            () => Effect.sync(() => (inKey = { ...inKey, [key]: (inKey[key] ?? 0) - 1 }))
          )
        const handle = (message: (typeof messages)[number]) =>
          Effect.gen(function*() {
            const isFirst = message.attempts++ === 0
            yield* work(message)
            if (isFirst && message.id % 4 === 0) return yield* Effect.fail("down")
            yield* FairScheduler.committing(Effect.sync(() => (done[message.key] ??= []).push(message.id)))
          }).pipe(scheduler.run({ priority: "P3", key: message.key, preemptible: true, retry: spaced("5 millis") }))
        const left = [...messages]
        const worker = Effect.gen(function*() {
          for (let message = left.shift(); message !== undefined; message = left.shift()) yield* handle(message)
        })
        const workers = yield* Effect.forEach(range(4), () => start(worker))
        const urgent = yield* start(Effect.forEach(range(100), () =>
          Effect.andThen(
            Effect.sleep("7 millis"),
            Effect.forEach(range(4), () => scheduler.run({ priority: "P0" })(Effect.sleep("2 millis")), {
              concurrency: "unbounded"
            })
          )))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.joinAll(workers)
        yield* Fiber.join(urgent)
        for (const [n, key] of ["key 0", "key 1", "key 2"].entries()) {
          assert.deepStrictEqual(done[key], messages.map(({ id }) => id).filter((id) => id % 3 === n))
        }
        assert.isAbove((yield* scheduler.state).preempted, 5)
        assert.deepStrictEqual(yield* counts(scheduler, "P3"), idle)
      }),
    30_000
  )

  it.effect("waits for what is tried again, which has no slot meanwhile", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1 })
      let attempts = 0
      const failing = Effect.suspend(() => ++attempts < 3 ? Effect.fail(`attempt ${attempts}`) : Effect.succeed("done"))
      const first = yield* start(
        scheduler.run({ priority: "P2", key: "account", retry: spaced("1 second") })(failing)
      )
      const second = yield* start(scheduler.run({ priority: "P2", key: "account" })(Effect.sync(() => attempts)))
      assert.strictEqual(yield* scheduler.run({ priority: "P2" })(Effect.succeed("other")), "other")
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second)], ["done", 3])
    }))

  it.effect("fails as it did last when it is not tried again", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 1 })
      let attempts = 0
      const fiber = yield* start(Effect.flip(
        scheduler.run({ priority: "P2", retry: spaced("1 second") })(Effect.suspend(() => Effect.fail(++attempts)))
      ))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([yield* Fiber.join(fiber), yield* counts(scheduler, "P2")], [4, idle])
    }))
})

describe("deadlines of a fair scheduler", () => {
  it.effect("end real-time work after 100 ms and background work after 30 s, waiting or running; batches have none", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ slots: 10, shares: WorkerShares.standard })
      const fibers = yield* Effect.forEach(
        ["P0", "P1", "P2", "P3"] as const,
        (priority) => Effect.forEach(range(12), () => start(Effect.flip(scheduler.run({ priority })(Effect.never))))
      )
      const ended = Effect.sync(() => fibers.map((each) => each.filter((fiber) => fiber.pollUnsafe()).length))
      yield* TestClock.adjust("99 millis")
      assert.deepStrictEqual(yield* ended, [0, 0, 0, 0])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* ended, [12, 12, 0, 0])
      assert.deepStrictEqual([yield* counts(scheduler, "P0"), yield* counts(scheduler, "P1")], [idle, idle])
      yield* TestClock.adjust("29900 millis")
      assert.deepStrictEqual(yield* ended, [12, 12, 12, 0])
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(yield* ended, [12, 12, 12, 0])
      const error = yield* Fiber.join(fibers[0]?.[11] ?? assert.fail("it was not started"))
      assert.strictEqual(error.message, "Not done within 100ms")
    }))

  it.effect("are none where commands run, unless somebody says so", () =>
    Effect.gen(function*() {
      const scheduler = yield* FairScheduler.make({ name: "commands" })
      const fiber = yield* start(scheduler.run({ priority: "P0" })(Effect.sleep("1 hour")))
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(fiber)
    }))
})

describe("work that takes too long", () => {
  const train = (scheduler: FairScheduler.FairScheduler, task: FairScheduler.Task) =>
    Effect.forEach(range(10), () =>
      Effect.gen(function*() {
        const fiber = yield* start(scheduler.run(task)(Effect.sleep("100 millis")))
        yield* TestClock.adjust("100 millis")
        yield* Fiber.join(fiber)
      }))

  it.effect("is reported past twice the average of its name, while it runs, once, and goes on", () =>
    Effect.gen(function*() {
      const overruns: Array<FairScheduler.Overrun> = []
      const scheduler = yield* make({
        onOverrun: (overrun) => Effect.andThen(Effect.sync(() => overruns.push(overrun)), Effect.die("deaf"))
      })
      const task = { priority: "P2", name: "import", tenant: "acme" } as const
      yield* train(scheduler, task)
      const fiber = yield* start(scheduler.run(task)(Effect.as(Effect.sleep("10 seconds"), "imported")))
      yield* TestClock.adjust("200 millis")
      assert.deepStrictEqual(overruns, [])
      yield* TestClock.adjust("100 millis")
      const [{ average, ran, ...rest } = assert.fail("it was not reported")] = overruns
      assert.deepStrictEqual(rest, { scheduler: "test", name: "import", priority: "P2", tenant: "acme" })
      assert.strictEqual(Duration.toMillis(average), 100)
      assert.isTrue(Duration.toMillis(ran) > 200 && Duration.toMillis(ran) <= 300)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([yield* Fiber.join(fiber), overruns.length], ["imported", 1])
      assert.strictEqual((yield* scheduler.state).overran, 1)
    }))

  it.effect("is reported when it ends before anybody looks, and never when it takes a few milliseconds", () =>
    Effect.gen(function*() {
      const scheduler = yield* make()
      yield* train(scheduler, { priority: "P2" })
      const late = yield* start(scheduler.run({ priority: "P2" })(Effect.sleep("201 millis")))
      yield* TestClock.adjust("201 millis")
      yield* Fiber.join(late)
      assert.strictEqual((yield* scheduler.state).overran, 1)
      yield* Effect.forEach(range(20), () => scheduler.run({ priority: "P1" })(Effect.void))
      const short = yield* start(scheduler.run({ priority: "P1" })(Effect.sleep("9 millis")))
      yield* TestClock.adjust("9 millis")
      yield* Fiber.join(short)
      assert.strictEqual((yield* scheduler.state).overran, 1)
    }))
})

describe("a fair scheduler with a quota", () => {
  it.effect("refuses a tenant what is too much, and counts nothing for it", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ everyone: Quota.limits({ depth: { hard: 2 }, inFlight: { hard: 10 } }) })
      const scheduler = yield* make({ slots: 1, quota })
      const run = (tenant: string) => scheduler.run({ priority: "P2", tenant })(Effect.never)
      const fibers = yield* Effect.forEach(["a", "a", "a", "b"], (tenant) => start(run(tenant)))
      const error = yield* Effect.flip(run("a"))
      assert.strictEqual(error.message, "Tenant a has 2 of at most 2 waiting: try again in 100ms")
      assert.deepStrictEqual(yield* quota.usage("a"), { inFlight: 3, depth: 2, bytes: 0, rate: 0 })
      yield* Fiber.interruptAll(fibers)
      assert.strictEqual(yield* quota.tenants, 0)
      assert.strictEqual((yield* scheduler.state).refused, 1)
    }))

  it.effect("lets what is above a soft limit be P3, in all that it runs", () =>
    Effect.gen(function*() {
      const quota = yield* Quota.make({ tenants: { loud: Quota.limits({ bytes: { soft: 1000 } }) } })
      const scheduler = yield* make({ slots: 4, quota })
      const classOf = (bytes: number, tenant = "loud") =>
        scheduler.run({ priority: "P0", tenant, bytes })(Priority.Current)
      assert.deepStrictEqual([yield* classOf(1000), yield* classOf(1001), yield* classOf(1001, "quiet")], [
        "P0",
        "P3",
        "P0"
      ])
      const { P0, P3 } = (yield* scheduler.state).classes
      assert.deepStrictEqual([P0.started, P3.started], [2, 1])
    }))
})

describe("what a fair scheduler measures", () => {
  it.effect("counts by class what is dispatched, refused, handed back and preempted, and what waits and runs", () =>
    Effect.gen(function*() {
      const scheduler = yield* make({ name: "measured", slots: 1, maxWaiting: 1 })
      yield* start(scheduler.run({ priority: "P3", preemptible: true })(Effect.never))
      yield* start(Effect.exit(scheduler.prefetch({ priority: "P2" })(Effect.void)))
      yield* Effect.exit(scheduler.run({ priority: "P2" })(Effect.void))
      const urgent = yield* start(scheduler.run({ priority: "P0" })(Effect.never))
      const old = yield* start(scheduler.run({ priority: "P2", waited: "11 seconds" })(Effect.never))
      const series = (yield* Metric.snapshot).filter(({ attributes }) => attributes?.["scheduler"] === "measured")
      const value = (id: string, of: Priority.Priority) =>
        series.filter((each) => each.id === id && each.attributes?.["class"] === of)
          .map(({ state }) => "count" in state ? state.count : "value" in state ? state.value : undefined)
      assert.deepStrictEqual(value("strata_fair_dispatched_total", "P0"), [1])
      assert.deepStrictEqual(value("strata_fair_dispatched_total", "P3"), [1])
      assert.deepStrictEqual(value("strata_fair_preempted_total", "P3"), [1])
      assert.deepStrictEqual(value("strata_fair_handed_back_total", "P2"), [1])
      assert.deepStrictEqual(value("strata_fair_refused_total", "P2"), [1])
      assert.deepStrictEqual(value("strata_fair_waiting", "P3"), [1])
      assert.deepStrictEqual(value("strata_fair_running", "P0"), [1])
      assert.deepStrictEqual(value("strata_fair_wait_seconds", "P0"), [1])
      yield* Fiber.interrupt(urgent)
      assert.strictEqual((yield* scheduler.state).classes.P2.running, 1)
      yield* Fiber.interrupt(old)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

  it.effect("writes on the span of a task when it was dispatched and what became of it", () =>
    Effect.gen(function*() {
      const events: Array<unknown> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          span.event = (name, _, attributes) => events.push([name, attributes?.["class"], attributes?.["tenant"]])
          return span
        }
      })
      const scheduler = yield* make({ name: "seen", slots: 1 })
      const task = { priority: "P3", tenant: "acme", preemptible: true } as const
      const fiber = yield* start(
        scheduler.run(task)(Effect.sleep("1 second")).pipe(Effect.withSpan("task"), Effect.withTracer(tracer))
      )
      yield* scheduler.run({ priority: "P0" })(Effect.void)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(events, [["dispatched", "P3", "acme"], ["preempted", "P3", "acme"], [
        "dispatched",
        "P3",
        "acme"
      ]])
    }))
})
