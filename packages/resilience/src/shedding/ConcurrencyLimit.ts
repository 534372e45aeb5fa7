/**
 * A number of calls at a time that follows what the called can bear, divided among those who call.
 *
 * **When to use**
 *
 * Use where the right number is not known or changes: a database that others share, a downstream service. It never
 * waits: what does not fit is refused at once with `LimitReached`. With `Priority` as partitions it is also the cap of
 * P0, which load shedding never refuses.
 *
 * **Details**
 *
 * - Each partition has a share of the limit that nobody can take from it. While the whole is not used up, everybody may
 *   have more than that. So what was lent comes on top when its owner comes: up to the sum of the shares.
 * - The shares are rounded so that they never add up to more than the limit, but a share is one call at least.
 * - A call that is in no partition is let in only while the whole is not used up.
 * - A call that succeeds is a sample of the time it takes, one that timed out is a drop, and all other ends say nothing:
 *   a quick failure is not a quick answer.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_concurrency_limit` | gauge | `limit` |
 * | `strata_concurrency_in_flight` | gauge | `limit` |
 * | `strata_concurrency_refused_total` | counter | `limit`, `partition` |
 *
 * **Example** (Live calls keep their share)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as ConcurrencyLimit from "@strata/resilience/shedding/ConcurrencyLimit"
 * import * as LimitAlgorithm from "@strata/resilience/shedding/LimitAlgorithm"
 *
 * const program = Effect.gen(function*() {
 *   const limit = yield* ConcurrencyLimit.make({
 *     name: "search",
 *     algorithm: LimitAlgorithm.vegas(),
 *     partitions: { live: 0.7, batch: 0.3 }
 *   })
 *   return yield* limit.run(Effect.succeed("found"), "live")
 * })
 * await Effect.runPromise(Effect.scoped(program)) // => "found"
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import { Clock } from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import { Random } from "effect/Random"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Jitter from "../internal/jitter.ts"
import * as Observed from "../internal/observed.ts"
import * as Stackless from "../Stackless.ts"
import type * as LimitAlgorithm from "./LimitAlgorithm.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * A limit, and who uses how much of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface State {
  readonly algorithm: string
  readonly limit: number
  readonly inFlight: number
  readonly partitions: ReadonlyMap<string, { readonly limit: number; readonly inFlight: number }>
}

/**
 * What the end of a call says of the limit.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict = "sample" | "dropped" | "ignored"

/**
 * Runs calls within a limit.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConcurrencyLimit {
  readonly run: <A, E, R>(
    call: Effect.Effect<A, E, R>,
    partition?: string
  ) => Effect.Effect<A, E | LimitReached, R>
  readonly state: Effect.Effect<State>
  /** Goes by another algorithm from now on. Calls that run go on. */
  readonly adopt: <S extends LimitAlgorithm.Estimate>(
    algorithm: LimitAlgorithm.LimitAlgorithm<S>
  ) => Effect.Effect<void>
}

/**
 * What a limit is made from.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<S extends LimitAlgorithm.Estimate> {
  /** A label of metrics. */
  readonly name: string
  readonly algorithm: LimitAlgorithm.LimitAlgorithm<S>
  /** The part of the limit that each may have for itself, from 0 to 1, together 1 at most. Default: none. */
  readonly partitions?: Readonly<Record<string, number>> | undefined
  /** Default: success is a sample, a time-out is a drop. */
  readonly classify?: ((exit: Exit.Exit<unknown, unknown>) => Verdict) | undefined
  /** When those who were refused should come back, from half to one and a half of it. Default: 1 second. */
  readonly retryAfter?: Duration.Input | undefined
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * As many calls are running as may. This one was not begun.
 *
 * @category errors
 * @since 0.1.0
 */
export class LimitReached extends Schema.TaggedError<LimitReached>("@strata/resilience/ConcurrencyLimit/LimitReached")(
  "LimitReached",
  {
    name: Schema.String,
    partition: Schema.UndefinedOr(Schema.String),
    limit: Schema.Int,
    inFlight: Schema.Int,
    retryAfter: Schema.Duration
  }
) {
  override get message(): string {
    const of = this.partition === undefined ? "" : ` for ${this.partition}`
    return `${this.name} has no room${of}: ${this.inFlight} calls are running, the limit is ${this.limit}. ` +
      `Try again in ${Duration.format(this.retryAfter)}`
  }
}

/**
 * Shares that cannot be given.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidPartitions
  extends Schema.TaggedError<InvalidPartitions>("@strata/resilience/ConcurrencyLimit/InvalidPartitions")(
    "InvalidPartitions",
    { name: Schema.String, problem: Schema.String }
  )
{
  override get message(): string {
    return `The partitions of ${this.name} cannot be used: ${this.problem}`
  }
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Makes a limit. Its gauges are there until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*<S extends LimitAlgorithm.Estimate>(
  options: Options<S>
): Effect.fn.Return<ConcurrencyLimit, InvalidPartitions, Scope.Scope> {
  const { classify = judge, name, partitions: shares = {}, retryAfter = "1 second" } = options
  const problem = findProblem(shares)
  if (problem !== undefined) return yield* new InvalidPartitions({ name, problem })
  const pause = Duration.fromInputUnsafe(retryAfter)
  const partitions = new Map(Object.entries(shares).map(([name, share]) => [name, { share, limit: 0, inFlight: 0 }]))
  let current = start(options.algorithm)
  let limit = 0
  let inFlight = 0

  const divide = () => {
    const next = Math.floor(current.limit())
    if (next === limit) return
    limit = next
    const limits = apportion(limit, Array.from(partitions.values(), ({ share }) => share))
    for (const [index, partition] of Array.from(partitions.values()).entries()) partition.limit = limits[index] ?? 0
  }
  divide()

  yield* Observed.gauge("strata_concurrency_limit", {
    description: "Calls that may run at a time",
    attributes: { limit: name }
  }, () => limit)
  yield* Observed.gauge("strata_concurrency_in_flight", {
    description: "Calls that are running",
    attributes: { limit: name }
  }, () => inFlight)
  const refusals = Metric.counter("strata_concurrency_refused_total", {
    description: "Calls that were refused",
    attributes: { limit: name },
    incremental: true
  })
  const refused = Metric.withAttributes(refusals, { partition: "" })
  const refusedOf = new Map(
    Array.from(partitions.keys(), (partition) => [partition, Metric.withAttributes(refusals, { partition })])
  )

  return {
    run: <A, E, R>(call: Effect.Effect<A, E, R>, partitionName?: string) =>
      Effect.withFiber((fiber) => {
        const partition = partitionName === undefined ? undefined : partitions.get(partitionName)
        const clock = fiber.getRef(Clock)
        let begun = 0n
        let together = 0
        const begin = Effect.suspend((): Effect.Effect<A, E | LimitReached, R> => {
          if (inFlight >= limit && !(partition !== undefined && partition.inFlight < partition.limit)) {
            const counter = (partitionName === undefined ? undefined : refusedOf.get(partitionName)) ?? refused
            counter.updateUnsafe(1, fiber.context)
            const retryAfter = Jitter.around(pause, fiber.getRef(Random))
            return Effect.fail(
              Stackless.make(() => new LimitReached({ name, partition: partitionName, limit, inFlight, retryAfter }))
            )
          }
          begun = clock.monotonicTimeNanosUnsafe()
          together = ++inFlight
          if (partition !== undefined) partition.inFlight++
          return call
        })
        return Effect.onExitPrimitive(begin, (exit) => {
          if (together === 0) return undefined
          inFlight--
          if (partition !== undefined) partition.inFlight--
          const verdict = classify(exit)
          if (verdict === "ignored") return undefined
          // The clock may stand still in between: what takes no time takes a thousandth of a millisecond.
          const rtt = Math.max(0.001, Number(clock.monotonicTimeNanosUnsafe() - begun) / 1e6)
          current.record({ rtt, inFlight: together, dropped: verdict === "dropped" })
          divide()
          return undefined
        })
      }),
    state: Effect.sync(() => ({
      algorithm: current.name,
      limit,
      inFlight,
      partitions: new Map(
        Array.from(partitions, ([name, { inFlight, limit }]) => [name, { limit, inFlight }])
      )
    })),
    adopt: (algorithm) =>
      Effect.sync(() => {
        current = start(algorithm)
        divide()
      })
  }
})

/** An algorithm that is at work. */
const start = <S extends LimitAlgorithm.Estimate>({ initial, name, update }: LimitAlgorithm.LimitAlgorithm<S>) => {
  let state = initial
  return {
    name,
    limit: () => state.limit,
    record: (sample: LimitAlgorithm.Sample) => {
      state = update(state, sample)
    }
  }
}

const judge = (exit: Exit.Exit<unknown, unknown>): Verdict => {
  if (exit._tag === "Success") return "sample"
  const timedOut = exit.cause.reasons.some((reason) => reason._tag === "Fail" && Cause.isTimeoutError(reason.error))
  return timedOut ? "dropped" : "ignored"
}

const findProblem = (shares: Readonly<Record<string, number>>): string | undefined => {
  let sum = 0
  for (const [name, share] of Object.entries(shares)) {
    if (!(share >= 0 && share <= 1)) return `the share of ${name} is ${share}: expected 0 to 1`
    sum += share
  }
  return sum > 1 + 1e-9 ? `their shares add up to ${sum}: expected 1 at most` : undefined
}

/**
 * Whole parts of a limit, as near to the shares as can be and together no more than they make (largest remainder). One
 * at least for every share.
 */
const apportion = (limit: number, shares: ReadonlyArray<number>): ReadonlyArray<number> => {
  // What rounding took from a product that is whole is given back.
  const exact = shares.map((share) => Math.round(limit * share * 1e9) / 1e9)
  const parts = exact.map(Math.floor)
  const sum = exact.reduce((sum, part) => sum + part, 0)
  let left = Math.floor(sum + 1e-9) - parts.reduce((sum, part) => sum + part, 0)
  const byRemainder = exact.map((part, index) => ({ index, remainder: part - Math.floor(part) }))
    .sort((a, b) => b.remainder - a.remainder)
  for (const { index } of byRemainder) {
    if (left-- <= 0) break
    parts[index] = (parts[index] ?? 0) + 1
  }
  return parts.map((part, index) => shares[index] === 0 ? 0 : Math.max(1, part))
}
