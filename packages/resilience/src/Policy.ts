/**
 * How calls to one thing are protected: a value that names its parts in the order in which they apply.
 *
 * **When to use**
 *
 * One policy for each thing that is called and fails by itself, made where the program starts. `Resilience.protect` runs calls
 * by it.
 *
 * **Details**
 *
 * | part | |
 * | --- | --- |
 * | `deadline` | the time a call has in all |
 * | `limits` | how often it may be made; takes no place and starts nothing when refused |
 * | `bulkhead` | how many run at once, and how many wait |
 * | `breaker` | refuses calls to what has become unreliable; sees one outcome for a call, however often it was tried |
 * | `retry` | what is tried again, when and how often |
 * | `attempt` | the time one try has |
 * | `fallback` | what is answered when there is no answer |
 *
 * A part that is not named does not take part. A call that is cut off by the deadline is a time-out for the breaker; waiting for
 * a place in the bulkhead is not, so a place has to come sooner than the deadline.
 *
 * **Example** (Payments)
 *
 * ```ts
 * import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
 * import * as Policy from "@strata/resilience/Policy"
 * import * as RetryPolicy from "@strata/resilience/retry/RetryPolicy"
 *
 * const payments = Policy.make({
 *   name: "payments",
 *   deadline: "3 seconds",
 *   bulkhead: { limit: 20, maxWait: "200 millis" },
 *   breaker: { policy: CircuitPolicy.standard },
 *   retry: { policy: RetryPolicy.realtime, idempotent: true },
 *   attempt: "1 second"
 * })
 * const line = Policy.format(payments) // "payments: deadline 3s → bulkhead 20 at once, …"
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Bulkhead from "./bounds/Bulkhead.ts"
import type * as Fallback from "./bounds/Fallback.ts"
import type * as CircuitOutcome from "./breaker/CircuitOutcome.ts"
import * as CircuitPolicy from "./breaker/CircuitPolicy.ts"
import * as RateLimit from "./limits/RateLimit.ts"
import type * as FailureClass from "./retry/FailureClass.ts"
import type * as RetryBudget from "./retry/RetryBudget.ts"
import * as RetryPolicy from "./retry/RetryPolicy.ts"

const TypeId = "~@strata/resilience/Policy"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What a policy is made from. Only its name must be given.
 *
 * @category models
 * @since 0.1.0
 */
export interface Parts<out A = never, out E = never, out R = never, in In = unknown> {
  /** In metrics, logs and the key of its circuit: 1 to 64 letters in lower case, digits, dots, hyphens and underscores. */
  readonly name: string
  /** The time a call has in all, from when it is made. */
  readonly deadline?: Duration.Input | undefined
  /** Limits that are asked together. Their keys come with the call. */
  readonly limits?: ReadonlyArray<RateLimit.Limit> | undefined
  readonly bulkhead?: Omit<Bulkhead.Options, "name"> | undefined
  readonly breaker?: Breaker | undefined
  readonly retry?: Retry | undefined
  /** The time one try has. */
  readonly attempt?: Duration.Input | undefined
  readonly fallback?: Answer<A, E, R, In> | undefined
}

/**
 * The circuit breaker of a policy.
 *
 * @category models
 * @since 0.1.0
 */
export interface Breaker {
  readonly policy: CircuitPolicy.CircuitPolicy
  /** What the end of a call says of what was called. Default: `CircuitOutcome.classify`. */
  readonly classify?: CircuitOutcome.Classifier | undefined
}

/**
 * The retries of a policy.
 *
 * @category models
 * @since 0.1.0
 */
export interface Retry {
  readonly policy: RetryPolicy.RetryPolicy
  /** Whether it does no harm to make the call twice. Default: false. */
  readonly idempotent?: boolean | undefined
  /** The retries that each destination is given. Default: as many as the policy says. */
  readonly budget?: RetryBudget.Allowance | undefined
  /** Tells the class of a failure. Default: `FailureClass.classify`. */
  readonly classify?: FailureClass.Classifier | undefined
}

/**
 * What a policy answers when there is no answer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Answer<out A, out E = never, out R = never, in In = unknown> {
  readonly answer: Fallback.Fallback<A, E, R, In>
  /** The errors it answers for. Default: those of what the policy refused, not of the call: `Resilience.isRefusal`. */
  readonly when?: ((error: unknown) => boolean) | undefined
}

/**
 * A policy that was checked: see `make`. It adds answers of `A`, failures of `E` and needs of `R`, those of its fallback, and is for
 * calls that answer with `In`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Policy<out A = never, out E = never, out R = never, in In = unknown> extends Parts<A, E, R, In> {
  readonly [TypeId]: typeof TypeId
}

/**
 * A policy that makes no sense, and why. It is thrown where the policy is made, so a program with one does not start.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidPolicy extends Schema.TaggedError<InvalidPolicy>("@strata/resilience/Policy/InvalidPolicy")(
  "InvalidPolicy",
  { policy: Schema.String, part: Schema.String, problem: Schema.String }
) {
  override get message(): string {
    return `The policy ${this.policy} cannot be used: ${this.part}: ${this.problem}`
  }
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Makes a policy. Throws `InvalidPolicy` on nonsense, so make policies where the program starts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A = never, E = never, R = never, In = unknown>(
  parts: Parts<A, E, R, In>
): Policy<A, E, R, In> => Result.getOrThrow(makeResult(parts))

/**
 * Makes a policy, or says what is wrong with it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeResult = <A = never, E = never, R = never, In = unknown>(
  parts: Parts<A, E, R, In>
): Result.Result<Policy<A, E, R, In>, InvalidPolicy> => {
  const problem = findProblem(parts)
  return problem === undefined
    ? Result.succeed({ [TypeId]: TypeId, ...parts })
    : Result.fail(new InvalidPolicy({ policy: parts.name, ...problem }))
}

interface Problem {
  readonly part: string
  readonly problem: string
}

const findProblem = (parts: Parts<unknown, unknown, unknown, never>): Problem | undefined => {
  if (!/^[a-z][a-z0-9_.-]{0,63}$/.test(parts.name)) {
    return {
      part: "name",
      problem: "expected 1 to 64 letters in lower case, digits, dots, hyphens and underscores, a letter first"
    }
  }
  for (const part of ["deadline", "attempt"] as const) {
    const time = toDuration(parts[part])
    if (time !== undefined && !(Duration.isFinite(time) && Duration.isPositive(time))) {
      return { part, problem: `expected a finite time above zero, got ${Duration.format(time)}` }
    }
  }
  const bulkhead = parts.bulkhead === undefined
    ? undefined
    : Bulkhead.problemOf(parts.bulkhead, parts.bulkhead.reserved)
  if (bulkhead !== undefined) return { part: "bulkhead", problem: bulkhead }
  return findContradiction(parts)
}

/** Parts that make sense alone, and not together. */
const findContradiction = (
  { attempt, breaker, bulkhead, deadline, limits, retry }: Parts<unknown, unknown, unknown, never>
): Problem | undefined => {
  const inAll = toDuration(deadline)
  const once = toDuration(attempt)
  const longest = inAll ?? once
  if (limits !== undefined && new Set(limits.map(({ name }) => name)).size < limits.length) {
    return { part: "limits", problem: "one is named twice" }
  }
  if (inAll !== undefined && once !== undefined && Duration.isGreaterThan(once, inAll)) {
    return { part: "attempt", problem: `one try has ${Duration.format(once)}, all have ${Duration.format(inAll)}` }
  }
  const wait = bulkhead === undefined ? undefined : toDuration(bulkhead.maxWait ?? "1 second")
  if (inAll !== undefined && wait !== undefined && Duration.isGreaterThanOrEqualTo(wait, inAll)) {
    return {
      part: "bulkhead",
      problem: `maxWait is ${Duration.format(wait)}, which leaves nothing of the deadline of ${Duration.format(inAll)}`
    }
  }
  const lease = breaker?.policy.probeLease
  if (lease !== undefined && longest !== undefined && Duration.isLessThan(lease, longest)) {
    return {
      part: "breaker",
      problem: `probeLease is ${Duration.format(lease)}, but a call may take ${Duration.format(longest)}`
    }
  }
  return retry !== undefined && retry.policy.attempts === 1 && retry.budget !== undefined
    ? { part: "retry", problem: "a budget of retries is given, but there is only one try" }
    : undefined
}

const toDuration = (input: Duration.Input | undefined): Duration.Duration | undefined =>
  input === undefined ? undefined : Duration.fromInputUnsafe(input)

// --------------------------------------------------------------------------------------------------------- config

/**
 * A policy with the numbers that the environment gives. What is not set is as in `defaults`; a part that `defaults` does not have
 * cannot be set.
 *
 * **Details**
 *
 * | variable | |
 * | --- | --- |
 * | `<prefix>_DEADLINE`, `_ATTEMPT` | times, such as `2 seconds` |
 * | `<prefix>_BULKHEAD_LIMIT`, `_BULKHEAD_QUEUE`, `_BULKHEAD_MAX_WAIT` | |
 * | `<prefix>_BREAKER` | fields of `CircuitPolicy` as JSON, such as `{"failureRate":0.3}` |
 * | `<prefix>_RETRY_…` | see `RetryPolicy.config` |
 *
 * @category config
 * @since 0.1.0
 */
export const config = <A, E, R, In>(
  prefix: string,
  defaults: Policy<A, E, R, In>
): Config.Config<Policy<A, E, R, In>> => {
  const { attempt, breaker, bulkhead, deadline, retry } = defaults
  return Config.all({
    deadline: optional(deadline, (value) => durationConfig(`${prefix}_DEADLINE`, value)),
    attempt: optional(attempt, (value) => durationConfig(`${prefix}_ATTEMPT`, value)),
    bulkhead: optional(bulkhead, (value) => bulkheadConfig(`${prefix}_BULKHEAD`, value)),
    breaker: optional(breaker, (value) => breakerConfig(`${prefix}_BREAKER`, value)),
    retry: optional(
      retry,
      (value) => Config.map(RetryPolicy.config(`${prefix}_RETRY`, value.policy), (policy) => ({ ...value, policy }))
    )
  }).pipe(Config.mapEffect((numbers) =>
    Effect.mapError(
      Effect.fromResult(makeResult({ ...defaults, ...numbers })),
      (error) => configError(prefix, error.message)
    )
  ))
}

const optional = <A, B>(value: A | undefined, read: (value: A) => Config.Config<B>): Config.Config<B | undefined> =>
  value === undefined ? Config.succeed(undefined) : read(value)

const durationConfig = (name: string, value: Duration.Input): Config.Config<Duration.Duration> =>
  Config.withDefault(Config.Duration(name), Duration.fromInputUnsafe(value))

const bulkheadConfig = (prefix: string, value: NonNullable<Parts["bulkhead"]>) =>
  Config.map(
    Config.all({
      limit: Config.withDefault(Config.Int(`${prefix}_LIMIT`), value.limit),
      queue: Config.withDefault(Config.Int(`${prefix}_QUEUE`), value.queue),
      maxWait: durationConfig(`${prefix}_MAX_WAIT`, value.maxWait ?? "1 second")
    }),
    (numbers) => ({ ...value, ...numbers })
  )

const decodeBreaker = Schema.decodeUnknownEffect(
  Schema.fromJsonString(Schema.toEncoded(CircuitPolicy.CircuitPolicy)),
  { onExcessProperty: "error" }
)

const breakerConfig = (name: string, value: Breaker): Config.Config<Breaker> =>
  Config.option(Config.NonEmptyString(name)).pipe(Config.mapEffect((read) => {
    if (Option.isNone(read)) return Effect.succeed(value)
    return decodeBreaker(read.value).pipe(
      Effect.flatMap((fields) =>
        Schema.decodeEffect(CircuitPolicy.CircuitPolicy)({ ...encodeBreaker(value.policy), ...fields })
      ),
      Effect.map((policy) => ({ ...value, policy })),
      Effect.mapError((error) => configError(name, error.message))
    )
  }))

const encodeBreaker = Schema.encodeSync(CircuitPolicy.CircuitPolicy)

const configError = (name: string, problem: string) =>
  new Config.ConfigError(
    new Schema.SchemaError(
      new SchemaIssue.Pointer([name], new SchemaIssue.InvalidValue({ message: problem.replaceAll("\n", " ") }))
    )
  )

// ----------------------------------------------------------------------------------------------------- formatting

/**
 * A policy as one line to read, its parts in the order in which they apply.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (policy: Parts<unknown, unknown, unknown, never>): string => {
  const { attempt, breaker, bulkhead, deadline, fallback, limits = [], name, retry } = policy
  const parts = [
    deadline === undefined ? undefined : `deadline ${formatTime(deadline)}`,
    ...limits.map((limit) => `limit ${RateLimit.format(limit)}`),
    bulkhead === undefined ? undefined : formatBulkhead(bulkhead),
    breaker === undefined ? undefined : `breaker ${CircuitPolicy.format(breaker.policy)}`,
    retry === undefined ? undefined : formatRetry(retry),
    attempt === undefined ? undefined : `each try ${formatTime(attempt)}`,
    fallback === undefined ? undefined : formatFallback(fallback)
  ]
  return `${name}: ${parts.filter(Predicate.isNotUndefined).join(" → ") || "nothing"}`
}

const formatTime = (time: Duration.Input) => Duration.format(Duration.fromInputUnsafe(time))

const formatBulkhead = ({ limit = 10, maxWait = "1 second", queue = limit, reserved = {} }: Bulkhead.Numbers & {
  readonly reserved?: Readonly<Record<string, number>> | undefined
}) =>
  `bulkhead ${limit} at once, ${queue} wait up to ${formatTime(maxWait)}` +
  Object.entries(reserved).map(([key, slots]) => `, ${slots} for ${key}`).join("")

const formatRetry = ({ budget, idempotent = false, policy }: Retry) =>
  `retry ${RetryPolicy.format(policy)}${idempotent ? ", idempotent" : ""}` +
  (budget === undefined ? "" : `, budget ${budget.max} and ${budget.ratio} for each success`)

const formatFallback = ({ answer }: Answer<unknown, unknown, unknown, never>) =>
  `or else ${{ Value: "a value", LastGood: "the last good answer", Other: "another effect" }[answer._tag]}`
