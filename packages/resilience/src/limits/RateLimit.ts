/**
 * Rate limits as values, and the service that takes tokens of several of them at once, or of none.
 *
 * **When to use**
 *
 * Use at every way in that somebody outside can call more often than is good: an API, a login, a queue.
 *
 * **Details**
 *
 * A limit has a name, a rate and a burst; a charge names the limit and the key it is asked for. All charges of a call pass
 * together, or the call fails with what the tightest of them says and none is charged. How long to wait is exact: before that
 * time the same call is refused, at it the call passes, if nobody else takes tokens meanwhile.
 *
 * The class of the fiber (`Priority`) is the class of the call: what lower classes take never lessens what a higher one may.
 *
 * Nothing but its name ties a limit to what is stored. So its numbers may be changed while it is used, also in one process
 * after the other: what a key has taken stays as it is, and is measured by the new numbers.
 *
 * Why it is not built on effect's `RateLimiterStore`: see `RateLimitStore`.
 *
 * **Gotchas**
 *
 * Take tokens before a transaction, not in one: with a store in its database the keys would stay locked until its end.
 *
 * **Example** (A user of an API)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as RateLimit from "@strata/resilience/limits/RateLimit"
 *
 * const login = RateLimit.make({ name: "login", rate: 5, period: "1 minute", burst: 2, keyOf: "user", onStoreError: "refuse" })
 *
 * const program = Effect.gen(function*() {
 *   const limits = yield* RateLimit.RateLimit
 *   yield* limits.consume([{ limit: RateLimit.global }, { limit: login, key: "ada" }])
 *   yield* limits.consume([{ limit: RateLimit.global }, { limit: login, key: "ada" }])
 *   const error = yield* Effect.flip(limits.consume([{ limit: RateLimit.global }, { limit: login, key: "ada" }]))
 *   return error.reason._tag
 * })
 *
 * await Effect.runPromise(Effect.provide(program, RateLimit.layerMemory())) // => "RateLimitExceeded"
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { hasSucceeded } from "../internal/atOnce.ts"
import * as Priority from "../scheduling/Priority.ts"
import * as Stackless from "../Stackless.ts"
import * as Gcra from "./Gcra.ts"
import {
  type Allowed,
  InvalidCharge,
  RateLimitError,
  RateLimitExceeded,
  RateLimitUnavailable,
  type Standing,
  tightestOf,
  type Unchecked
} from "./RateLimitDecision.ts"
import * as RateLimitMetrics from "./RateLimitMetrics.ts"
import * as RateLimitStore from "./RateLimitStore.ts"

export {
  type Allowed,
  headers,
  InvalidCharge,
  RateLimitError,
  RateLimitExceeded,
  RateLimitUnavailable,
  Standing,
  type Unchecked
} from "./RateLimitDecision.ts"

// --------------------------------------------------------------------------------------------------------- limits

const Name = Schema.String.check(
  Schema.isPattern(/^[a-z][a-z0-9_.-]{0,63}$/, {
    message: "Expected 1 to 64 letters in lower case, digits, dots, hyphens and underscores, a letter first"
  })
)

const Period = Schema.DurationFromString.check(
  Schema.makeFilter((period: Duration.Duration) =>
    Duration.isFinite(period) && Duration.isPositive(period) || "Expected a finite time above zero"
  )
)

/**
 * A rate limit: in every `period`, `rate` tokens come back, and a key that has rested may take `burst` of them at once.
 *
 * **Details**
 *
 * - `name` stands in metrics, errors and before every stored key. Another name is another limit.
 * - `rate`: at least 1, and at most a million a second. `period`: as text; default `"1 second"`.
 * - `burst`: at least 1, and no more than come back in a year.
 * - `keyOf` says what a key of it names, for people: a user, an address, a queue. Default: nothing, one key for everybody.
 * - `onStoreError`: whether a call passes when the store cannot say. `"refuse"` where a stranger could do harm by many calls, as
 *   at a login. Default: `"allow"`.
 *
 * @category models
 * @since 0.1.0
 */
export const Limit = Schema.Struct({
  name: Name,
  rate: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000_000 })),
  period: Period.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(Duration.seconds(1)))),
  burst: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000_000 })),
  keyOf: Schema.optionalKey(Schema.String),
  onStoreError: Schema.Literals(["allow", "refuse"]).pipe(
    Schema.withDecodingDefaultTypeKey(Effect.succeed<"allow" | "refuse">("allow"))
  )
}).pipe(Schema.check(
  Schema.makeFilter((limit: { readonly rate: number; readonly period: Duration.Duration; readonly burst: number }) => {
    const seconds = Duration.toSeconds(limit.period)
    if (limit.rate / seconds > 1_000_000) return "Expected a rate of at most a million a second"
    return (limit.burst * seconds) / limit.rate <= aYear || "Expected a burst that comes back within a year"
  })
))
export type Limit = typeof Limit.Type

const aYear = 365 * 86_400

/**
 * What may be said of a limit: `name`, `rate`, `burst`, and whatever differs from the defaults.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = typeof Limit.Encoded

/**
 * A limit that makes no sense, and why. It is thrown where the limit is made, so a program with one does not start.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidLimit extends Schema.TaggedError<InvalidLimit>("@strata/resilience/RateLimit/InvalidLimit")(
  "InvalidLimit",
  { limit: Schema.String, problem: Schema.String }
) {
  override get message(): string {
    return `The rate limit ${this.limit} cannot be used: ${this.problem}`
  }
}

/**
 * Makes a limit. Throws `InvalidLimit` on nonsense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Limit =>
  Result.getOrThrowWith(
    decode(options),
    (error) => new InvalidLimit({ limit: options.name, problem: error.message.replaceAll("\n", " ") })
  )

const decode = Schema.decodeResult(Limit)

/**
 * All requests together: 10,000 a second, 20,000 at once.
 *
 * @category limits
 * @since 0.1.0
 */
export const global: Limit = make({ name: "global", rate: 10_000, burst: 20_000 })

/**
 * The requests of each user: 100 a second, 200 at once.
 *
 * @category limits
 * @since 0.1.0
 */
export const perUser: Limit = make({ name: "per-user", rate: 100, burst: 200, keyOf: "user" })

/**
 * The requests from each address (see `ClientAddress.keyOf`): 50 a second, 100 at once.
 *
 * @category limits
 * @since 0.1.0
 */
export const perIp: Limit = make({ name: "per-ip", rate: 50, burst: 100, keyOf: "client address" })

/**
 * Messages into each queue: 50,000 a second, 100,000 at once.
 *
 * @category limits
 * @since 0.1.0
 */
export const queueInsert: Limit = make({ name: "queue-insert", rate: 50_000, burst: 100_000, keyOf: "queue" })

/**
 * Messages of each queue that are worked on: 10,000 a second, 20,000 at once.
 *
 * @category limits
 * @since 0.1.0
 */
export const queueProcess: Limit = make({ name: "queue-process", rate: 10_000, burst: 20_000, keyOf: "queue" })

/**
 * A limit with the numbers of a variable, written as `100/200`: the rate in its period, and the burst. What is not set is as in
 * `limit`.
 *
 * @category config
 * @since 0.1.0
 */
export const config = (variable: string, limit: Limit): Config.Config<Limit> =>
  Config.schema(Numbers, variable).pipe(
    Config.withDefault(undefined),
    Config.mapEffect((numbers) =>
      numbers === undefined ? Effect.succeed(limit) : Effect.mapError(
        Limit.makeEffect({ ...limit, ...readNumbers(numbers) }),
        (issue) => new Config.ConfigError(new Schema.SchemaError(new SchemaIssue.Pointer([variable], issue)))
      )
    )
  )

const Numbers = Schema.String.check(
  Schema.isPattern(/^[0-9]{1,10}\/[0-9]{1,10}$/, { message: "Expected a rate and a burst, such as 100/200" })
)

const readNumbers = (text: string) => {
  const [rate, burst] = text.split("/")
  return { rate: Number(rate), burst: Number(burst) }
}

/**
 * A limit as one line to read.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = ({ burst, keyOf, name, onStoreError, period, rate }: Limit): string =>
  `${name}: ${rate} in ${Duration.format(period)}, ${burst} at once, ${keyOf === undefined ? "all" : `each ${keyOf}`}` +
  (onStoreError === "refuse" ? "; refused without the store" : "")

/**
 * The numbers that `Gcra` reckons with.
 *
 * @category getters
 * @since 0.1.0
 */
export const ruleOf = ({ burst, period, rate }: Limit): Gcra.Rule => {
  const nanos = Duration.toNanosUnsafe(period)
  return { interval: (nanos + BigInt(rate) - 1n) / BigInt(rate), burst }
}

// -------------------------------------------------------------------------------------------------------- charges

/**
 * A limit, and whom or what it is asked for: at most 512 characters, none of them NUL. No key is the key of everybody.
 *
 * @category models
 * @since 0.1.0
 */
export interface Charge {
  readonly limit: Limit
  readonly key?: string | undefined
}

/**
 * How tokens are taken.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConsumeOptions {
  /** How many of each limit; 0 to look only. Default: 1. */
  readonly tokens?: number | undefined
  /** Default: that of the fiber. */
  readonly priority?: Priority.Priority | undefined
  /**
   * The same call again under this id, within ten minutes, passes and is not charged again: for a caller that did not learn
   * what became of the first. At most 255 characters.
   */
  readonly requestId?: string | undefined
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * Takes tokens of limits.
 *
 * @category services
 * @since 0.1.0
 */
export class RateLimit extends Context.Service<RateLimit, {
  /** Takes tokens of every limit, or fails and takes none. */
  readonly consume: (
    charges: ReadonlyArray<Charge>,
    options?: ConsumeOptions
  ) => Effect.Effect<Allowed | Unchecked, RateLimitError>
}>()("@strata/resilience/limits/RateLimit") {}

/**
 * Limits kept in the store of the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<RateLimit, never, RateLimitStore.RateLimitStore> = Layer.effect(
  RateLimit,
  Effect.map(RateLimitStore.RateLimitStore, (store) => RateLimit.of({ consume: makeConsume(store) }))
)

/**
 * Limits of this process alone.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options?: RateLimitStore.MemoryOptions): Layer.Layer<RateLimit> =>
  Layer.provide(layer, RateLimitStore.layerMemory(options))

const makeConsume = (store: RateLimitStore.RateLimitStore["Service"]): RateLimit["Service"]["consume"] => {
  const health = makeHealth()

  const count = (
    limits: ReadonlyArray<Limit>,
    decision: RateLimitMetrics.Decision,
    context: Context.Context<never>
  ) => {
    for (const limit of limits) prepared(limit).decisions[decision].updateUnsafe(1, context)
  }

  const answer = (
    charges: ReadonlyArray<Charge>,
    levels: ReadonlyArray<Gcra.Standing>,
    context: Context.Context<never>
  ): Effect.Effect<Allowed, RateLimitError> => {
    const limits = charges.map(({ limit }) => limit)
    const standings = levels.map((level, index) => standingOf(limits[index]!, level))
    const tightest = tightestOf(standings)
    if (Duration.isZero(tightest.retryAfter)) {
      count(limits, "allowed", context)
      return Exit.succeed({ _tag: "Allowed", tightest, standings })
    }
    count(limits.filter((_, index) => levels[index]?.wait !== 0n), "refused", context)
    return Exit.fail(
      Stackless.make(() => new RateLimitError({ reason: new RateLimitExceeded({ tightest, standings }) }))
    )
  }

  const withoutAnswer = (
    charges: ReadonlyArray<Charge>,
    cause: RateLimitStore.RateLimitStoreError,
    context: Context.Context<never>
  ): Effect.Effect<Unchecked, RateLimitError> => {
    const limits = charges.map(({ limit }) => limit)
    const refusing = limits.filter(({ onStoreError }) => onStoreError === "refuse")
    if (refusing.length === 0) {
      count(limits, "allowed-unchecked", context)
      return Exit.succeed({ _tag: "Unchecked", cause })
    }
    count(refusing, "refused-unchecked", context)
    const names = refusing.map(({ name }) => name)
    return Exit.fail(new RateLimitError({ reason: new RateLimitUnavailable({ limits: names, cause }) }))
  }

  return (charges, { priority, requestId, tokens = 1 } = {}) => {
    const problem = findProblem(charges, tokens, requestId)
    if (problem !== undefined) return Effect.fail(new RateLimitError({ reason: problem }))
    const buckets = charges.map((charge) => ({ key: keyOf(charge), rule: prepared(charge.limit).rule }))
    return Effect.withFiber((fiber): Effect.Effect<Allowed | Unchecked, RateLimitError> => {
      const taken = store.take({ buckets, tokens, priority: priority ?? fiber.getRef(Priority.Current), requestId })
      if (hasSucceeded(taken) && !health.isDown) {
        return answer(charges, taken.value, fiber.context)
      }
      return Effect.matchEffect(taken, {
        onSuccess: (levels) => Effect.andThen(health.answered, answer(charges, levels, fiber.context)),
        onFailure: (cause) => Effect.andThen(health.failed(cause), withoutAnswer(charges, cause, fiber.context))
      })
    })
  }
}

/** One word when the store stops to answer, and one when it does again. */
const makeHealth = () => {
  let down = false
  const say = (now: boolean, message: Effect.Effect<void>) =>
    Effect.suspend(() => {
      if (down === now) return Effect.void
      down = now
      return message
    })
  return {
    get isDown() {
      return down
    },
    answered: say(false, Effect.logInfo("Rate limits are checked again")),
    failed: (cause: RateLimitStore.RateLimitStoreError) =>
      say(true, Effect.logWarning("Rate limits are not checked, each does as its onStoreError says", cause))
  }
}

/** What is asked of a limit on every call, made once for each value. */
const known = new WeakMap<Limit, ReturnType<typeof prepare>>()

const prepared = (limit: Limit) => {
  const found = known.get(limit)
  if (found !== undefined) return found
  const made = prepare(limit)
  known.set(limit, made)
  return made
}

const prepare = (limit: Limit) => ({ rule: ruleOf(limit), decisions: RateLimitMetrics.of(limit.name) })

/** No limit has a colon in its name. */
const keyOf = ({ key = "", limit }: Charge): string => `${limit.name}:${key}`

const findProblem = (
  charges: ReadonlyArray<Charge>,
  tokens: number,
  requestId: string | undefined
): InvalidCharge | undefined => {
  const [first] = charges
  if (first === undefined) return new InvalidCharge({ limit: "of nothing", problem: "no limit is named" })
  if (!Number.isInteger(tokens) || tokens < 0) {
    return new InvalidCharge({ limit: first.limit.name, problem: `${tokens} tokens: expected a whole number from 0` })
  }
  if (requestId !== undefined && (requestId === "" || !isText(requestId, 255))) {
    return new InvalidCharge({ limit: first.limit.name, problem: "expected a request id of 1 to 255 characters" })
  }
  for (const [index, { key = "", limit }] of charges.entries()) {
    const problem = tokens > limit.burst
      ? `${tokens} tokens are never there at once, only ${limit.burst}: ask for fewer, or raise its burst`
      : !isText(key, 512)
      ? "expected a key of at most 512 characters, none of them NUL or half of a surrogate pair"
      : index > 0 &&
          charges.some((other, before) =>
            before < index && other.limit.name === limit.name && (other.key ?? "") === key
          )
      ? "it is asked twice for the same key"
      : undefined
    if (problem !== undefined) return new InvalidCharge({ limit: limit.name, problem })
  }
  return undefined
}

/** Text as PostgreSQL stores it. */
const isText = (text: string, longest: number): boolean =>
  text.length <= longest && !text.includes("\0") && text.isWellFormed()

const standingOf = (limit: Limit, { owed, wait }: Gcra.Standing): Standing => ({
  limit: limit.name,
  burst: limit.burst,
  remaining: Gcra.remaining(prepared(limit).rule, owed),
  resetAfter: Duration.nanos(owed),
  retryAfter: wait === 0n ? Duration.zero : Duration.nanos(wait)
})
