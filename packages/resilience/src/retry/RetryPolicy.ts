/**
 * How often something that failed is tried, and after which waits: one value that can be read, written down, configured
 * and checked.
 *
 * **When to use**
 *
 * Use `retry` around one call, `schedule` wherever effect takes a `Schedule`, and `nextAttempt` for what is stored and
 * tried again by whoever finds it: a message, a job, a parked fact. All three give the same waits.
 *
 * **Details**
 *
 * The class of a failure decides; see `FailureClass`.
 *
 * | class | |
 * | --- | --- |
 * | transient | waits as the policy says |
 * | throttled | waits as long as it was told, and never less than the policy says |
 * | conflict | three times at once, then with jitter |
 * | unknown outcome | as transient if the call is declared idempotent, else never |
 * | permanent, fatal, and every defect | never |
 *
 * Whatever the class, there are no more tries than `attempts`, and none begins after `total` or after the deadline of the
 * fiber: a wait that would end later is not begun, and the failure is given back at once. How long one try may run is
 * the business of `Deadline.within`.
 *
 * Jitter is the "full jitter" of M. Brooker, *Exponential Backoff And Jitter* (AWS, 2015).
 *
 * **Gotchas**
 *
 * Only one layer retries. Below a `retry` every other `retry`, every transaction and every append runs once, or three layers
 * of three tries would make twenty-seven calls. What is forked there and outlives the call inherits this: begin it with
 * `outermost`. An unknown outcome that is not retried above, because it is not declared idempotent there, is retried by
 * the next layer that can repeat it without harm.
 *
 * **Example** (Two tries after the first, as long as the destination has retries left)
 *
 * ```ts
 * import * as RetryBudget from "@strata/resilience/retry/RetryBudget"
 * import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
 *
 * const lookUp = Effect.fn("Rates.lookUp")(function*(currency: string) {
 *   const budgets = yield* RetryBudget.RetryBudgets
 *   const budget = yield* budgets.of("rates")
 *   return yield* RetryPolicy.retry(fetchRate(currency), { policy: RetryPolicy.realtime, idempotent: true, budget })
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Retrying from "@strata/postgres/Retrying"
import type * as Timestamp from "@strata/postgres/Timestamp"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { cast, dual } from "effect/Function"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Deadline from "../bounds/Deadline.ts"
import * as FailureClass from "./FailureClass.ts"
import type * as RetryBudget from "./RetryBudget.ts"

// ---------------------------------------------------------------------------------------------------------- model

const Period = Schema.DurationFromString.pipe(
  Schema.check(
    Schema.makeFilter((duration: Duration.Duration) =>
      Duration.isFinite(duration) && Duration.isPositive(duration) || "Expected a finite duration above zero"
    )
  )
)

const kinds = ["exponential", "linear", "fixed"] as const
const jitters = ["none", "full"] as const

/**
 * A retry policy.
 *
 * - `attempts`: tries in all, the first one included.
 * - `kind` (`exponential`): how the wait grows from one retry to the next: times `factor`, by another `base`, or not.
 * - `base`: the wait before the first retry.
 * - `factor` (2): of an exponential policy.
 * - `cap` (none but `total`): no wait is longer, but for one that whoever was asked demands.
 * - `total`: from the beginning of the first try; none begins later.
 * - `jitter` (`full`): `full` waits anything between nothing and what the policy says, so that those who failed together
 *   do not come back together.
 *
 * @category schemas
 * @since 0.1.0
 */
export const RetryPolicy = Schema.Struct({
  attempts: Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(1))),
  kind: Schema.Literals(kinds).pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed("exponential" as const))),
  base: Period,
  factor: Schema.Finite.pipe(
    Schema.check(Schema.isBetween({ minimum: 1, maximum: 1000 })),
    Schema.withDecodingDefaultTypeKey(Effect.succeed(2))
  ),
  cap: Schema.optionalKey(Period),
  total: Period,
  jitter: Schema.Literals(jitters).pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed("full" as const)))
}).pipe(Schema.check(
  Schema.makeFilter((policy: {
    readonly attempts: number
    readonly base: Duration.Duration
    readonly cap?: Duration.Duration
    readonly total: Duration.Duration
  }) => {
    if (policy.cap !== undefined && Duration.isLessThan(policy.cap, policy.base)) {
      return { path: ["cap"], issue: "Expected a cap from base upwards" }
    }
    if (policy.attempts > 1 && Duration.isLessThanOrEqualTo(policy.total, policy.base)) {
      return { path: ["total"], issue: "Expected a total above base, for no retry fits in it" }
    }
    return true
  })
))

/**
 * @category models
 * @since 0.1.0
 */
export type RetryPolicy = typeof RetryPolicy.Type

/** More tries than anybody makes. */
const unlimited = Number.MAX_SAFE_INTEGER

// --------------------------------------------------------------------------------------------------- constructors

/**
 * A policy with the defaults for what is not said; durations are text, as in `"25 millis"`. Throws on nonsense, so build
 * policies where the program starts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options: typeof RetryPolicy.Encoded) => RetryPolicy = Schema.decodeSync(RetryPolicy)

/**
 * Somebody waits: 3 tries from 25 ms, all within a second.
 *
 * @category constants
 * @since 0.1.0
 */
export const realtime = make({ attempts: 3, base: "25 millis", total: "1 second" })

/**
 * A program waits: 5 tries from 1 s, all within 30 s.
 *
 * @category constants
 * @since 0.1.0
 */
export const standard = make({ attempts: 5, base: "1 second", total: "30 seconds" })

/**
 * Nobody waits: 10 tries from 5 min, all within a day. No wait is longer than 6 h, or the last tries would not fit.
 *
 * @category constants
 * @since 0.1.0
 */
export const batch = make({ attempts: 10, base: "5 minutes", cap: "6 hours", total: "24 hours" })

/**
 * It has to be done, and soon: 5 tries from 1 s, at most 5 s apart.
 *
 * @category constants
 * @since 0.1.0
 */
export const critical = make({ attempts: 5, base: "1 second", cap: "5 seconds", total: "30 seconds" })

/**
 * As `standard`, with waits that grow by a second: 3 tries, at most 10 s apart.
 *
 * @category constants
 * @since 0.1.0
 */
export const standardLinear = make({
  attempts: 3,
  kind: "linear",
  base: "1 second",
  cap: "10 seconds",
  total: "30 seconds"
})

/**
 * As `batch`, with one wait: 2 tries, 30 s apart.
 *
 * @category constants
 * @since 0.1.0
 */
export const batchFixed = make({ attempts: 2, kind: "fixed", base: "30 seconds", total: "5 minutes" })

/**
 * Nothing can be done without it, as for a worker without its database: from 100 ms to at most 10 s apart, without end.
 *
 * @category constants
 * @since 0.1.0
 */
export const endless = make({ attempts: unlimited, base: "100 millis", cap: "10 seconds", total: "36500 days" })

/**
 * Reads a policy from `<prefix>_ATTEMPTS`, `_KIND`, `_BASE`, `_FACTOR`, `_CAP`, `_TOTAL` and `_JITTER`. What is not set is
 * as in `defaults`.
 *
 * @category config
 * @since 0.1.0
 */
export const config = (prefix: string, defaults: RetryPolicy): Config.Config<RetryPolicy> =>
  Config.all({
    attempts: Config.Int(`${prefix}_ATTEMPTS`).pipe(Config.withDefault(defaults.attempts)),
    kind: Config.Literals(kinds, `${prefix}_KIND`).pipe(Config.withDefault(defaults.kind)),
    base: Config.Duration(`${prefix}_BASE`).pipe(Config.withDefault(defaults.base)),
    factor: Config.Finite(`${prefix}_FACTOR`).pipe(Config.withDefault(defaults.factor)),
    cap: Config.Duration(`${prefix}_CAP`).pipe(Config.withDefault(defaults.cap)),
    total: Config.Duration(`${prefix}_TOTAL`).pipe(Config.withDefault(defaults.total)),
    jitter: Config.Literals(jitters, `${prefix}_JITTER`).pipe(Config.withDefault(defaults.jitter))
  }).pipe(Config.mapEffect(({ cap, ...fields }) =>
    RetryPolicy.makeEffect(cap === undefined ? fields : { ...fields, cap }).pipe(
      Effect.mapError((issue) =>
        new Config.ConfigError(new Schema.SchemaError(new SchemaIssue.Pointer([prefix], issue)))
      )
    )
  ))

/**
 * A policy as one line to read.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (policy: RetryPolicy): string => {
  const waits = {
    exponential: `${Duration.format(policy.base)} × ${policy.factor}`,
    linear: `${Duration.format(policy.base)} more each`,
    fixed: `${Duration.format(policy.base)} each`
  }[policy.kind]
  const upTo = policy.cap === undefined || policy.kind === "fixed" ? "" : ` up to ${Duration.format(policy.cap)}`
  const said = `waits ${waits}${upTo}, ${policy.jitter} jitter`
  return policy.attempts === unlimited
    ? `tries without end, ${said}`
    : `${policy.attempts} tries, ${said}, ${Duration.format(policy.total)} in total`
}

// ---------------------------------------------------------------------------------------------------------- waits

/**
 * What the policy says of the wait after a number of tries, without jitter. It is never above `cap`, however many tries.
 *
 * @category getters
 * @since 0.1.0
 */
export const backoff = (policy: RetryPolicy, tries: number): Duration.Duration =>
  Duration.millis(backoffMillis(policy, tries))

const backoffMillis = ({ base, cap, factor, kind, total }: RetryPolicy, tries: number): number => {
  const first = Duration.toMillis(base)
  const wait = kind === "fixed" ? first : kind === "linear" ? first * tries : first * factor ** (tries - 1)
  return Math.min(wait, Duration.toMillis(cap ?? total))
}

/**
 * What is known of something that failed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failed {
  /** Tries so far, from 1. */
  readonly attempt: number
  readonly failure: FailureClass.FailureClass
  /** A draw from 0 to below 1, for the jitter. */
  readonly random: number
  /** Whether it does no harm to do it twice. Default: false. */
  readonly idempotent?: boolean | undefined
}

/**
 * How long to wait before the next try of something that failed; `None` when there is none.
 *
 * **Details**
 *
 * `elapsed` is the time since the first try began, `remaining` what a deadline leaves.
 *
 * @category getters
 * @since 0.1.0
 */
export const nextDelay = (
  policy: RetryPolicy,
  failed: Failed & {
    readonly elapsed: Duration.Duration
    readonly remaining?: Duration.Duration | undefined
  }
): Option.Option<Duration.Duration> => {
  const wait = failed.attempt < policy.attempts ? waitMillis(policy, failed) : undefined
  if (wait === undefined) return Option.none()
  const left = Duration.toMillis(policy.total) - Math.max(0, Duration.toMillis(failed.elapsed))
  const fits = wait < left && (failed.remaining === undefined || wait < Duration.toMillis(failed.remaining))
  return fits ? Option.some(Duration.millis(wait)) : Option.none()
}

/** What the class of the failure demands; `undefined`: no further try. */
const waitMillis = (policy: RetryPolicy, { attempt, failure, idempotent, random }: Failed): number | undefined => {
  const spread = policy.jitter === "full" ? random : 1
  switch (failure._tag) {
    case "Transient":
      return spread * backoffMillis(policy, attempt)
    case "Throttled": {
      const told = Duration.toMillis(failure.retryAfter)
      const wait = spread * backoffMillis(policy, attempt)
      // All who were told the same would come back at once: jitter then comes on top.
      return policy.jitter === "full" ? told + wait : Math.max(told, wait)
    }
    case "Conflict":
      return attempt <= immediateConflicts ? 0 : random * backoffMillis(policy, attempt - immediateConflicts)
    case "UnknownOutcome":
      return idempotent === true ? spread * backoffMillis(policy, attempt) : undefined
    default:
      return undefined
  }
}

const immediateConflicts = 3

/**
 * How long to wait before the next try of something stored; `None` when there is none, and it is to be given up.
 *
 * **Details**
 *
 * Count an attempt where it begins, in the statement that claims the work, so that work which ends its process cannot go
 * on for ever. `firstAt` and `now` are of the database's clock.
 *
 * @category getters
 * @since 0.1.0
 */
export const nextAttempt = (
  policy: RetryPolicy,
  failed: Failed & {
    /** When the first try began. */
    readonly firstAt: Timestamp.Timestamp
    readonly now: Timestamp.Timestamp
  }
): Option.Option<Duration.Duration> =>
  nextDelay(policy, { ...failed, elapsed: Duration.micros(failed.now - failed.firstAt) })

// ------------------------------------------------------------------------------------------------------- retrying

/**
 * What may be said of a call that is retried.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<in E = unknown> {
  /** Tells the class of a failure. Default: `FailureClass.classify`. */
  readonly classify?: FailureClass.Classifier<E> | undefined
  /** Whether it does no harm to make the call twice. Default: false. */
  readonly idempotent?: boolean | undefined
  /** Retries that the destination has left. Default: as many as the policy says. */
  readonly budget?: RetryBudget.RetryBudget | undefined
}

/**
 * A policy as a `Schedule` of failures, which gives the waits. Time runs from when the schedule is started, and the
 * deadline of the fiber is kept.
 *
 * @category converting
 * @since 0.1.0
 */
export const schedule = <E = unknown>(
  policy: RetryPolicy,
  options: Options<E> = {}
): Schedule.Schedule<Duration.Duration, E> => scheduleSince(policy, options, undefined)

const scheduleSince = <E = unknown>(
  policy: RetryPolicy,
  options: Options<E>,
  since: bigint | undefined
): Schedule.Schedule<Duration.Duration, E> =>
  Schedule.fromStep(Effect.withFiberSucceed((fiber) => {
    const clock = Context.get(fiber.context, Clock.Clock)
    const random = Context.get(fiber.context, Random.Random)
    const judge = options.classify ?? FailureClass.classify
    const startedAt = since ?? clock.monotonicTimeNanosUnsafe()
    let attempt = 0
    let last = Duration.zero
    return Effect.fnUntraced(function*(_now: number, error: E) {
      attempt++
      const failure = judge(error)
      const allowed = yield* count(failure, options.budget)
      const next = nextDelay(policy, {
        attempt,
        failure,
        idempotent: options.idempotent,
        random: random.nextDoubleUnsafe(),
        elapsed: Duration.nanos(clock.monotonicTimeNanosUnsafe() - startedAt),
        remaining: Option.getOrUndefined(yield* Deadline.remaining)
      })
      if (!allowed || Option.isNone(next)) return yield* Cause.done(last)
      last = next.value
      const step: [Duration.Duration, Duration.Duration] = [last, last]
      return step
    })
  }))

/** Failures that say nothing about the state of the destination cost nothing. */
const count = (
  failure: FailureClass.FailureClass,
  budget: RetryBudget.RetryBudget | undefined
): Effect.Effect<boolean> =>
  budget === undefined || failure._tag === "Permanent" || failure._tag === "Fatal"
    ? Effect.succeed(true)
    : budget.failed

/**
 * Runs an effect again when it fails, as the policy says, and gives back its last failure in the end. Where a layer above
 * retries already, it runs once.
 *
 * @category combinators
 * @since 0.1.0
 */
export const retry: {
  <E = unknown>(
    options: Options<E> & { readonly policy: RetryPolicy }
  ): <A, E2 extends E, R>(self: Effect.Effect<A, E2, R>) => Effect.Effect<A, E2, R>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options: Options<E> & { readonly policy: RetryPolicy }
  ): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options: Options<E> & { readonly policy: RetryPolicy }
  ): Effect.Effect<A, E, R> =>
    Effect.withFiber((fiber) => {
      const { budget, classify = FailureClass.classify, idempotent = false, policy } = options
      const counted = budget === undefined ? self : Effect.tap(self, () => budget.succeeded)
      const above = Context.get(fiber.context, Retrying.Retrying)
      // In the middle: what is harmless is retried above, and what is unknown here if that is harmless too.
      if (policy.attempts > 1 && (above === "nothing" || above === "harmless" && idempotent)) {
        const once = (idempotent ? retriesEverything : retriesHarmless)(counted)
        const startedAt = fiber.getRef(Clock.Clock).monotonicTimeNanosUnsafe()
        // What succeeds at once pays for no schedule.
        return Effect.catch(once, (first) => {
          let failed = false
          return Retrying.retry(
            Effect.suspend(() => {
              if (failed) return once
              failed = true
              return Effect.fail(first)
            }),
            {
              schedule: scheduleSince(policy, options, startedAt),
              while: () => true,
              isUnknown: (error) => classify(error)._tag === "UnknownOutcome"
            }
          )
        })
      }
      return budget === undefined ? self : Effect.tapError(counted, (error) => count(classify(error), budget))
    })
)

/** Marks what is called as retried. Who calls again and again does so in one context, for which this is done once. */
const mark = (above: Retrying.Above) => {
  let last: Context.Context<never> = Context.empty()
  let marked: Context.Context<never> = Context.make(Retrying.Retrying, above)
  return <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.updateContext(self, (context: Context.Context<R>): Context.Context<R> => {
      if (context !== last) {
        last = context
        marked = Context.add(context, Retrying.Retrying, above)
      }
      return cast(marked)
    })
}

const retriesEverything = mark("everything")
const retriesHarmless = mark("harmless")

/** What the layers above retry, and how to begin as one above which nothing does. */
export { outermost, Retrying } from "@strata/postgres/Retrying"
