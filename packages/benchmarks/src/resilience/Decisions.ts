/**
 * `decisions`: how often a second one caller is told whether, and when, something may be done. Everything is kept in memory.
 *
 * @since 0.1.0
 */
import { CircuitBreaker } from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitBreakers from "@strata/resilience/breaker/CircuitBreaker"
import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
import { RateLimit } from "@strata/resilience/limits/RateLimit"
import * as RateLimits from "@strata/resilience/limits/RateLimit"
import * as FairQueue from "@strata/resilience/scheduling/FairQueue"
import * as FairScheduler from "@strata/resilience/scheduling/FairScheduler"
import * as Priority from "@strata/resilience/scheduling/Priority"
import { LoadShedding } from "@strata/resilience/shedding/LoadShedding"
import * as LoadSheddings from "@strata/resilience/shedding/LoadShedding"
import * as Pressure from "@strata/resilience/shedding/Pressure"
import * as ShedLadder from "@strata/resilience/shedding/ShedLadder"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { failure, type Lane, type Work } from "../Suite.ts"
import * as CockatielParts from "./CockatielParts.ts"
import * as Loop from "./Loop.ts"
import * as OpossumParts from "./OpossumParts.ts"

/** Those who ask, in turns. */
const tenants = Array.from({ length: 100 }, (_, n) => `tenant-${n}`)
const users = Array.from({ length: 1000 }, (_, n) => `user-${n}`)

/**
 * Decisions of one caller.
 *
 * @category works
 * @since 0.1.0
 */
export const work: Work = {
  name: "decisions",
  lanes: Effect.gen(function*() {
    return [
      ...(yield* limiter),
      ...(yield* shedder("admits", 0.1)),
      ...(yield* shedder("refuses", 0.95)),
      ...(yield* scheduler),
      ...(yield* breaker)
    ]
  }).pipe(Effect.mapError(failure("Preparing decisions")))
}

/** A lane of a decision that is counted only when it is what it has to be. */
const deciding = (
  system: string,
  what: string,
  call: (count: () => number, turn: () => number) => Loop.Call
): Lane => {
  let decided = 0
  let turns = 0
  return Loop.lane({
    system,
    work: `decisions, ${what}`,
    call: call(() => ++decided, () => turns++),
    done: () => decided
  })
}

/** Counts failures only. */
const refused = (effect: Effect.Effect<unknown, Error>, count: () => number) =>
  Effect.matchEffect(effect, { onFailure: () => Effect.sync(count), onSuccess: () => Effect.void })

// -------------------------------------------------------------------------------------------------------- limiter

const limit = (name: string) => RateLimits.make({ name, rate: 1_000_000, burst: 1_000_000 })

const limiter = Effect.gen(function*() {
  const { consume } = Context.get(yield* Layer.build(RateLimits.layerMemory()), RateLimit)
  const [all, byUser, byAddress] = [limit("all"), limit("user"), limit("address")]
  const used = RateLimits.make({ name: "used", rate: 1, period: "1 day", burst: 1 })
  yield* consume([{ limit: used }])
  return [
    deciding(
      "Strata",
      "limiter, one limit",
      (count, turn) =>
        Loop.effect(() => Effect.map(consume([{ limit: byUser, key: users[turn() % users.length]! }]), count))
    ),
    deciding("Strata", "limiter, three limits", (count, turn) =>
      Loop.effect(() => {
        const key = users[turn() % users.length]!
        return Effect.map(consume([{ limit: all }, { limit: byUser, key }, { limit: byAddress, key }]), count)
      })),
    deciding("Strata", "limiter refuses", (count) => Loop.effect(() => refused(consume([{ limit: used }]), count)))
  ]
})

// -------------------------------------------------------------------------------------------------------- shedder

/** Sheds all of P3 from a load of 0.9 on. */
const shedder = Effect.fnUntraced(function*(what: "admits" | "refuses", load: number) {
  const ladder = yield* Effect.fromResult(ShedLadder.parse("0.90=0/0/100"))
  const layer = LoadSheddings.layer({
    ladder,
    sensors: [Pressure.make({ name: "bench", read: Effect.succeed(load) })],
    smoothing: { ...Pressure.smoothing, over: Duration.zero }
  })
  const { admit } = Context.get(yield* Layer.build(layer), LoadShedding)
  return [
    deciding("Strata", `shedder ${what}`, (count, turn) =>
      Loop.effect(() => {
        const asked = admit({ priority: "P3", tenant: tenants[turn() % tenants.length]! })
        return what === "admits" ? Effect.map(asked, count) : refused(asked, count)
      }))
  ]
})

// ------------------------------------------------------------------------------------------------------ scheduler

/** Work that waits while the queue decides. */
const waiting = 1000

const scheduler = Effect.gen(function*() {
  const queue = FairQueue.make<number>()
  const offer = (n: number) =>
    queue.offer({ value: n, priority: Priority.all[n % 4]!, tenant: tenants[n % tenants.length]! }, n)
  for (let n = 0; n < waiting; n++) offer(n)
  const slots = yield* FairScheduler.make({ name: "bench", slots: 16 })
  return [
    deciding(
      "Strata",
      `scheduler, order of ${waiting} that wait`,
      (count, turn) =>
        Loop.effect(() =>
          Effect.sync(() => {
            const now = waiting + turn()
            offer(now)
            const next = queue.next(now)
            if (next === undefined) return
            queue.complete(next)
            count()
          })
        )
    ),
    deciding("Strata", "scheduler, a slot for a call", (count, turn) => {
      const call = Effect.sync(count)
      return Loop.effect(() => {
        const n = turn()
        return slots.run({ priority: Priority.all[n % 4]!, tenant: tenants[n % tenants.length]! })(call)
      })
    })
  ]
})

// -------------------------------------------------------------------------------------------------------- breaker

const breaker = Effect.gen(function*() {
  const layer = CircuitBreakers.layer({ name: "open" }).pipe(Layer.provide(CircuitStore.layerMemory()))
  const strata = Context.get(yield* Layer.build(layer), CircuitBreaker)
  yield* strata.forceOpen("bench", { actor: "bench" })
  const cockatiel = CockatielParts.makeBreaker()
  cockatiel.isolate()
  const call = () => Promise.resolve(0)
  // As long as all rounds may take: ours and cockatiel's stay open until they are told.
  const opossum = yield* OpossumParts.makeBreaker(call, { resetTimeout: 3_600_000 })
  opossum.open()
  const unexpected = () => Promise.reject(new Error("an open breaker let a call run"))
  const refuses = "breaker refuses"
  return [
    deciding(
      "Strata",
      refuses,
      (count) => Loop.effect(() => refused(strata.execute(Effect.void, { key: "bench" }), count))
    ),
    deciding("cockatiel", refuses, (count) => Loop.promise(() => cockatiel.execute(call).then(unexpected, count))),
    deciding("opossum", refuses, (count) => Loop.promise(() => opossum.fire().then(unexpected, count)))
  ]
})
