/**
 * Spares a service that refuses what it is asked: the more it refuses, the more is not even sent.
 *
 * **When to use**
 *
 * Use on the side of a client, where a refusal costs the service nearly as much as an answer. It thins the calls out,
 * where a circuit breaker stops them. Both may stand together: the throttle outside.
 *
 * **Details**
 *
 * A call is dropped with the chance max(0, (sent − k × accepted) / (sent + 1)), counted over the last two minutes: see
 * "Client-Side Throttling" in Site Reliability Engineering (O'Reilly 2016), chapter 21. With k = 2 nothing is dropped
 * as long as half of the calls are accepted.
 *
 * Only what was sent is counted, as in Envoy's admission control: the book counts what was dropped too, and then takes
 * many windows to come back. So one window after the last refusal nothing is dropped, whatever was before.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_throttle_ratio` | gauge: the chance to be dropped | `throttle` |
 * | `strata_throttle_dropped_total` | counter | `throttle` |
 *
 * **Example** (A service that refuses)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as ClientThrottle from "@strata/resilience/shedding/ClientThrottle"
 *
 * const program = Effect.gen(function*() {
 *   const throttle = yield* ClientThrottle.make({ name: "billing", isRefusal: (error) => error === "busy" })
 *   yield* Effect.flip(throttle.run(Effect.fail("busy")))
 *   return yield* throttle.ratio
 * })
 * await Effect.runPromise(Effect.scoped(program)) // => 0.5
 * ```
 *
 * @since 0.1.0
 */
import { Clock } from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Predicate from "effect/Predicate"
import { Random } from "effect/Random"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Observed from "../internal/observed.ts"
import * as Stackless from "../Stackless.ts"

/**
 * Runs calls to a service, or drops them.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientThrottle {
  readonly run: <A, E, R>(call: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Throttled, R>
  /** The chance of the next call to be dropped, from 0 to 1. */
  readonly ratio: Effect.Effect<number>
}

/**
 * What a throttle is made from.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** A label of metrics. */
  readonly name: string
  /** True for an error that says the service has too much to do. Default: `isRefusal`. */
  readonly isRefusal?: ((error: unknown) => boolean) | undefined
  /** How many calls may be sent for each that is accepted. More is more patient. Default: 2. */
  readonly k?: number | undefined
  /** Default: 2 minutes. */
  readonly window?: Duration.Input | undefined
}

/**
 * The call was not sent: the service refused too many before it.
 *
 * @category errors
 * @since 0.1.0
 */
export class Throttled extends Schema.TaggedError<Throttled>("@strata/resilience/ClientThrottle/Throttled")(
  "Throttled",
  { name: Schema.String, ratio: Schema.Finite }
) {
  override get message(): string {
    return `${this.name} refuses too much: ${Math.round(100 * this.ratio)} % of the calls to it are not sent, ` +
      "this one among them"
  }
}

/**
 * True for the refusals of this package: `Shed` and `LimitReached`.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isRefusal = (error: unknown): boolean =>
  Predicate.isTagged(error, "Shed") || Predicate.isTagged(error, "LimitReached")

/**
 * Makes a throttle. Its gauge is there until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<ClientThrottle, never, Scope.Scope> {
  const { isRefusal: refuses = isRefusal, k = 2, name, window = "2 minutes" } = options
  const clock = yield* Clock
  const counts = makeCounts(Duration.toMillis(Duration.fromInputUnsafe(window)))
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const ratio = () => {
    const { accepted, sent } = counts.at(now())
    return Math.max(0, (sent - k * accepted) / (sent + 1))
  }
  const attributes = { throttle: name }
  yield* Observed.gauge(
    "strata_throttle_ratio",
    { description: "Part of the calls that is not sent", attributes },
    ratio
  )
  const throttled = Metric.counter("strata_throttle_dropped_total", {
    description: "Calls that were not sent",
    attributes,
    incremental: true
  })

  // A call counts when it ends. One that was interrupted tells neither.
  const count = (exit: Exit.Exit<unknown, unknown>) => {
    if (exit._tag === "Success") return counts.add(now(), true)
    const failures = exit.cause.reasons.filter((reason) => reason._tag !== "Interrupt")
    if (failures.length === 0) return
    counts.add(now(), !failures.some((reason) => reason._tag === "Fail" && refuses(reason.error)))
  }

  return {
    run: (call) =>
      Effect.withFiber((fiber) => {
        const dropped = ratio()
        if (dropped > 0 && fiber.getRef(Random).nextDoubleUnsafe() < dropped) {
          throttled.updateUnsafe(1, fiber.context)
          return Effect.fail(Stackless.make(() => new Throttled({ name, ratio: dropped })))
        }
        return Effect.onExitPrimitive(call, (exit) => {
          count(exit)
          return undefined
        })
      }),
    ratio: Effect.sync(ratio)
  }
})

/** How many calls were sent, and were accepted. */
interface Counts {
  sent: number
  accepted: number
}

/** Parts of the window that are forgotten one at a time. */
const slices = 24

/** Counts over a window that slides by a slice. */
const makeCounts = (window: number) => {
  const width = window / slices
  const sum: Counts = { sent: 0, accepted: 0 }
  // By number, the oldest first.
  const kept = new Map<number, Counts>()

  const at = (now: number): Counts => {
    const oldest = Math.floor(now / width) - slices + 1
    for (const [slice, { accepted, sent }] of kept) {
      if (slice >= oldest) break
      sum.sent -= sent
      sum.accepted -= accepted
      kept.delete(slice)
    }
    return sum
  }

  return {
    at,
    add: (now: number, accepted: boolean): void => {
      at(now)
      const slice = Math.floor(now / width)
      const counts = kept.get(slice) ?? { sent: 0, accepted: 0 }
      kept.set(slice, counts)
      for (const each of [sum, counts]) {
        each.sent++
        if (accepted) each.accepted++
      }
    }
  }
}
