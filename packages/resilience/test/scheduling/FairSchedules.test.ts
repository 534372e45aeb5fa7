import { assert, it } from "@effect/vitest"
import * as Quota from "@strata/resilience/limits/Quota"
import * as FairQueue from "@strata/resilience/scheduling/FairQueue"
import * as FairScheduler from "@strata/resilience/scheduling/FairScheduler"
import * as Priority from "@strata/resilience/scheduling/Priority"
import * as WorkerShares from "@strata/resilience/scheduling/WorkerShares"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"

const range = (count: number) => Array.from({ length: count }, (_, n) => n)

/** Draws from a seed. */
const drawsOf = (next: () => number) => ({
  below: (limit: number) => Math.floor(next() * limit),
  chance: (share: number) => next() < share,
  one: <A>(things: readonly [A, ...ReadonlyArray<A>]): A => things[Math.floor(next() * things.length)] ?? things[0]
})

const unshared = WorkerShares.make({
  realTime: 0,
  reserved: 0,
  bestEffort: 0,
  realTimeDeadline: "Infinity",
  backgroundDeadline: "Infinity"
})
const shared = WorkerShares.make({ realTimeDeadline: "Infinity", backgroundDeadline: "Infinity" })

interface Piece {
  readonly lane: string
  readonly fails: number
  begun: number
  committed: number
}

/** What happened in all schedules: each of it has to have happened often, or they show nothing. */
const seen = { preempted: 0, handedBack: 0, retried: 0, interrupted: 0, died: 0, refused: 0, borrowed: 0 }

const simulate = (seed: number) =>
  Effect.scoped(Effect.gen(function*() {
    const { below, chance, one } = drawsOf(SeededScheduler.random(seed))
    const slots = 1 + below(4)
    const shares = one([unshared, shared, WorkerShares.forCommands])
    const reserved = shares.reserved === 0 ? 0 : Math.min(slots - 1, Math.max(1, Math.floor(slots * shares.reserved)))
    const quota = yield* Quota.make({ everyone: Quota.limits({ inFlight: { hard: 5, soft: 3 } }) })
    const scheduler = yield* FairScheduler.make({ name: "test", slots, shares, quota, maxWaiting: 3 })
    const inLane = new Map<string, number>()
    const taken: Array<number> = []
    const begun: Array<number> = []
    // What is wrong in a piece of work would else be its defect, and nobody would learn of it.
    const problems = new Set<string>()
    const expect = (isSo: boolean, problem: string) => isSo || problems.add(problem)
    let running = 0

    // Nothing that could have a slot waits. A fiber may be let go in the midst of a choice, so it is asked after that.
    const look = Effect.map(
      Effect.andThen(Effect.yieldNow, scheduler.state),
      ({ classes: { P0, P1, P2, P3 }, running: inUse }) => {
        const free = slots - inUse
        expect(free >= 0 && inUse >= running, `${inUse} of ${slots} slots, ${running} run`)
        expect(P0.ready === 0 || free === 0, "P0 waits and a slot is free")
        expect(P1.ready + P2.ready + P3.ready === 0 || free <= Math.max(0, reserved - P0.running), "a slot is free")
        if (P3.running > slots / 2) seen.borrowed++
      }
    )

    const step = Effect.suspend(() => chance(0.5) ? Effect.yieldNow : Effect.void)
    const move = (lane: string, by: 1 | -1) => {
      running += by
      const count = (inLane.get(lane) ?? 0) + by
      inLane.set(lane, count)
      expect(running <= slots, "more runs than there are slots")
      expect(lane === "" || count <= 1, "two of a key run at once")
    }
    const handle = (piece: Piece, id: number) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          if (piece.begun++ === 0) begun.push(id)
          move(piece.lane, 1)
        }),
        () =>
          Effect.gen(function*() {
            yield* step
            yield* look
            yield* step
            if (piece.fails < 0) return yield* Effect.die("broken")
            if (piece.begun <= piece.fails) return yield* Effect.fail("down")
            yield* FairScheduler.committing(Effect.sync(() => piece.committed++))
            yield* step
          }),
        () => Effect.sync(() => move(piece.lane, -1))
      )

    const pieces: Array<Piece> = []
    const start = Effect.fnUntraced(function*(id: number) {
      const tenant = one(["a", "b"])
      const key = one([undefined, "1", "2"])
      const lane = key === undefined ? "" : `${tenant} ${key}`
      const piece: Piece = { lane, fails: one([0, 0, 0, 0, 1, 2, -1]), begun: 0, committed: 0 }
      pieces.push(piece)
      const retry = chance(0.7) ? Schedule.recurs(1) : undefined
      const task = {
        priority: one(Priority.all),
        tenant,
        preemptible: chance(0.5),
        retry,
        // It is read when the work is taken, which may be some steps after it was brought.
        get key() {
          taken.push(id)
          return key
        }
      }
      const handed = () => {
        expect(piece.begun === 0, "what was begun was handed back")
        return Effect.fail("handed back")
      }
      const work = chance(0.4)
        ? Effect.catchTag(scheduler.prefetch(task)(handle(piece, id)), "HandedBack", handed)
        : scheduler.run(task)(handle(piece, id))
      return yield* Effect.forkChild(Effect.exit(work), { startImmediately: true })
    })

    const fibers: Array<Fiber.Fiber<Exit.Exit<unknown, unknown>>> = []
    for (const id of range(14)) {
      fibers.push(yield* start(id))
      const other = fibers[below(id + 1)]
      if (chance(0.2) && other !== undefined) yield* Fiber.interrupt(other)
      yield* step
      if (chance(0.4)) yield* look
    }
    const exits = yield* Effect.forEach(fibers, Fiber.await)

    assert.deepStrictEqual([...problems], [])
    for (const lane of new Set(pieces.map(({ lane }) => lane))) {
      const ofLane = (ids: ReadonlyArray<number>) => ids.filter((id) => pieces[id]?.lane === lane)
      if (lane !== "") assert.deepStrictEqual(ofLane(begun), ofLane(taken).filter((id) => begun.includes(id)), lane)
    }
    for (const [id, piece] of pieces.entries()) {
      const exit = exits[id] ?? assert.fail("a fiber was not started")
      assert.isAtMost(piece.committed, 1)
      if (Exit.isFailure(exit)) seen.interrupted++
      else if (Exit.isSuccess(exit.value)) assert.strictEqual(piece.committed, 1, "work was lost")
      if (piece.begun > 1) seen.retried++
      if (piece.fails < 0) seen.died++
    }
    const state = yield* scheduler.state
    for (const of of Priority.all) {
      const { held, queued, ready, running } = state.classes[of]
      assert.deepStrictEqual([held, queued, ready, running], [0, 0, 0, 0], of)
    }
    assert.deepStrictEqual([state.running, running, yield* quota.tenants], [0, 0, 0])
    seen.preempted += state.preempted
    seen.handedBack += state.handedBack
    seen.refused += state.refused
  }))

it.effect(
  "whatever happens: no slot too many and none idle, nothing lost, keys in order, and everything ends",
  () =>
    Effect.gen(function*() {
      yield* SeededScheduler.forEachSeed(10_000, simulate)
      for (const [what, times] of Object.entries(seen)) assert.isAbove(times, 500, what)
    }),
  240_000
)

it(
  "whatever is done to a fair queue: what is ready is served, nothing is lost, keys are in order, all is forgotten",
  () => {
    for (let seed = 0; seed < 10_000; seed++) {
      const { below, chance, one } = drawsOf(SeededScheduler.random(seed))
      const queue = FairQueue.make<number>({ tenantWeight: (tenant) => tenant === "a" ? 3 : 0 })
      const known = new Map<number, FairQueue.Entry<number>>()
      const running: Array<FairQueue.Entry<number>> = []
      const held: Array<FairQueue.Entry<number>> = []
      const lastOf = new Map<string, number>()
      let now = 0
      const pick = (from: Array<FairQueue.Entry<number>>) => from.splice(below(Math.max(1, from.length)), 1)[0]

      const next = () => {
        const ready = Priority.all.reduce((sum, of) => sum + queue.ready(of), 0)
        const entry = queue.next(now)
        if ((entry !== undefined) !== (ready > 0)) assert.fail(`seed ${seed}: ${ready} are ready`)
        if (entry === undefined) return false
        if (entry.lane !== undefined) {
          const lane = `${entry.tenant.name} ${entry.lane.key}`
          if (running.some((other) => other.lane === entry.lane)) assert.fail(`seed ${seed}: two of a key run at once`)
          if (entry.value < (lastOf.get(lane) ?? 0)) assert.fail(`seed ${seed}: out of order`)
          lastOf.set(lane, entry.value)
        }
        running.push(entry)
        return true
      }
      const end = (entry: FairQueue.Entry<number>) => {
        known.delete(entry.value)
        queue.complete(entry, chance(0.5) ? 10 * below(10) : undefined)
      }

      for (let step = 0; step < 60; step++) {
        now += below(5000)
        const kind = below(10)
        if (kind < 4) {
          const item = { value: step, priority: one(Priority.all), tenant: one(["a", "b"]), cost: below(20) }
          known.set(step, queue.offer({ ...item, key: one([undefined, "1", "2"]) }, now))
        } else if (kind < 7) {
          next()
        } else if (kind === 7) {
          const entry = pick(running)
          if (entry !== undefined) end(entry)
        } else if (kind === 8) {
          const entry = pick(chance(0.5) ? running : held)
          if (entry?.state === "held") {
            queue.resume(entry, now)
          } else if (entry !== undefined && chance(0.5)) {
            queue.hold(entry, below(30))
            held.push(entry)
          } else if (entry !== undefined) {
            queue.requeue(entry, now, below(30))
          }
        } else {
          const entry = known.get(below(step))
          if (entry !== undefined && queue.cancel(entry)) {
            known.delete(entry.value)
            if (held.includes(entry)) held.splice(held.indexOf(entry), 1)
          }
        }
        if (step % 6 !== 0) continue
        const counts = Priority.all.map((of) => queue.stateOf(of))
        const sum = (of: "queued" | "running" | "held") => counts.reduce((sum, each) => sum + each[of], 0)
        const isExact = sum("running") === running.length && sum("held") === held.length &&
          sum("running") + sum("held") + sum("queued") === known.size
        if (!isExact) assert.fail(`seed ${seed}: the counts are not exact`)
      }
      for (const entry of held) queue.resume(entry, now)
      while (next() || running.length > 0) {
        const entry = pick(running)
        if (entry !== undefined) end(entry)
      }
      assert.deepStrictEqual([known.size, queue.tenants()], [0, 0], `seed ${seed}`)
    }
  },
  60_000
)
