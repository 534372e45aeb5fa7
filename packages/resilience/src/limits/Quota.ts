/**
 * What one tenant may have of what all share: pieces of work in flight and waiting, their bytes, and how many a second.
 *
 * **When to use**
 *
 * In front of a `FairScheduler`, as its `quota`: fairness divides the slots, a quota bounds what a tenant may pile up.
 * `run` where there is no scheduler.
 *
 * **Details**
 *
 * | resource | what counts |
 * | --- | --- |
 * | `inFlight` | work that was let in and has not ended |
 * | `depth` | of that, what waits |
 * | `bytes` | the bytes of what is in flight |
 * | `rate` | work let in, a second; one second's worth may come at once |
 *
 * Each has two limits, neither of which has a default. Above the `soft` one work becomes P3, whatever it was: it is done
 * when there is room. Above the `hard` one it is refused by name, with a time after which to ask again; nothing was
 * started, and nothing is counted for it.
 *
 * Limits may be changed at any time. What is in flight stays, and is measured by the new ones.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_quota_refused_total` | counter | `resource` |
 * | `strata_quota_demoted_total` | counter: work that became P3 | |
 *
 * **Gotchas**
 *
 * P0 becomes P3 too, since nothing else stops a flood of it. Run the later steps of work that was let in outside of the
 * quota, or let its soft limits be high.
 *
 * **Example** (One at a time)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as Quota from "@strata/resilience/limits/Quota"
 *
 * const program = Effect.gen(function*() {
 *   const quota = yield* Quota.make({ tenants: { acme: Quota.limits({ inFlight: { hard: 1 } }) } })
 *   const nested = Effect.flip(quota.run({ tenant: "acme" })(Effect.void))
 *   return yield* quota.run({ tenant: "acme" })(nested)
 * })
 *
 * const error = await Effect.runPromise(program)
 * error.message // => "Tenant acme has 1 of at most 1 in flight: try again in 100ms"
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { Ledger } from "../internal/ledger.ts"
import * as Priority from "../scheduling/Priority.ts"
import * as Stackless from "../Stackless.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * What is limited.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Resource = Schema.Literals(["inFlight", "depth", "bytes", "rate"])

/**
 * @category models
 * @since 0.1.0
 */
export type Resource = typeof Resource.Type

const Amount = Schema.Finite.pipe(
  Schema.check(Schema.isGreaterThan(0)),
  Schema.annotate({ expected: "a number above 0" })
)

const Limit = Schema.Struct({ soft: Schema.optionalKey(Amount), hard: Schema.optionalKey(Amount) }).pipe(Schema.check(
  Schema.makeFilter(({ hard, soft }: { readonly hard?: number; readonly soft?: number }) =>
    hard === undefined || soft === undefined || soft <= hard || `Expected a soft limit up to the hard one, ${hard}`
  )
))

/**
 * The limits of a tenant: above `soft` its work becomes P3, above `hard` it is refused. What is left out is unlimited.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Limits = Schema.Struct({
  inFlight: Schema.optionalKey(Limit),
  depth: Schema.optionalKey(Limit),
  bytes: Schema.optionalKey(Limit),
  rate: Schema.optionalKey(Limit)
})

/**
 * @category models
 * @since 0.1.0
 */
export type Limits = typeof Limits.Type

/**
 * Whose work it is, and how large.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  readonly tenant: string
  /** Default: `Priority.Current` of the fiber. */
  readonly priority?: Priority.Priority | undefined
  /** Default: 0. */
  readonly bytes?: number | undefined
}

/**
 * What a tenant has. `rate` is how much of its second's worth is used up.
 *
 * @category models
 * @since 0.1.0
 */
export type Usage = Readonly<Record<Resource, number>>

/**
 * Whose limits are which. Default: none.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Of every tenant that has none of its own. */
  readonly everyone?: Limits | undefined
  readonly tenants?: Readonly<Record<string, Limits>> | undefined
}

// --------------------------------------------------------------------------------------------------------- errors

const names: Readonly<Record<Resource, string>> = {
  inFlight: "in flight",
  depth: "waiting",
  bytes: "bytes in flight",
  rate: "a second"
}

/**
 * The tenant has as much as it may. Nothing was started.
 *
 * @category errors
 * @since 0.1.0
 */
export class QuotaExceeded extends Schema.TaggedError<QuotaExceeded>("@strata/resilience/QuotaExceeded")(
  "QuotaExceeded",
  {
    tenant: Schema.String,
    resource: Resource,
    used: Schema.Finite,
    limit: Schema.Finite,
    /** Infinite when what was asked for is more than the whole limit. */
    retryAfter: Schema.Duration
  }
) {
  override get message(): string {
    const { limit, resource, retryAfter, tenant, used } = this
    const has = `Tenant ${tenant} has ${used} of at most ${limit} ${names[resource]}`
    return Duration.isFinite(retryAfter)
      ? `${has}: try again in ${Duration.format(retryAfter)}`
      : `${has}: this is more than all of it, so raise the limit or ask for less`
  }
}

/**
 * Limits that make no sense, and why. It is thrown where they are made, so a program with them does not start.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidLimits
  extends Schema.TaggedError<InvalidLimits>("@strata/resilience/Quota/InvalidLimits")("InvalidLimits", {
    problem: Schema.String
  })
{
  override get message(): string {
    return `The limits of a quota cannot be used: ${this.problem}`
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * A place in a tenant's quota, for who schedules. `leave` belongs on every exit of what begins with `enter`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ticket {
  /** That of the request, or P3 when it came in above a soft limit. */
  readonly priority: Priority.Priority
  /** Takes the place, as one that waits. Undefined when there was one. */
  readonly enter: () => QuotaExceeded | undefined
  /** Whether it waits. */
  readonly wait: (isWaiting: boolean) => void
  /** Gives the place back, once, and does nothing when there is none. */
  readonly leave: () => void
}

/**
 * A quota. See `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Quota {
  /** Runs an effect within its tenant's quota, in the class that leaves it. */
  readonly run: (request: Request) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<
    A,
    E | QuotaExceeded,
    R
  >
  readonly ticket: (request: Request & { readonly priority: Priority.Priority }) => Ticket
  /** Gives a tenant limits of its own, or takes them away. */
  readonly set: (tenant: string, limits: Limits | undefined) => Effect.Effect<void>
  /** Changes the limits of everyone who has none of its own. */
  readonly setEveryone: (limits: Limits) => Effect.Effect<void>
  readonly usage: (tenant: string) => Effect.Effect<Usage>
  /** How many tenants have something in flight, or used some of their rate in the last second. */
  readonly tenants: Effect.Effect<number>
}

const refused = Metric.counter("strata_quota_refused_total", {
  description: "Work that was refused since its tenant has as much as it may",
  incremental: true
})
const demoted = Metric.counter("strata_quota_demoted_total", {
  description: "Work that became P3 since its tenant has much",
  incremental: true
})

/**
 * A quota with nothing in it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options: Options = {}): Effect.fn.Return<Quota> {
  const context = yield* Effect.context<never>()
  const ledger = new Ledger({
    clock: yield* Clock.Clock,
    everyone: options.everyone ?? {},
    tenants: Object.entries(options.tenants ?? {}),
    demoted: () => demoted.updateUnsafe(1, context),
    refuse: (excess) => {
      Metric.withAttributes(refused, { resource: excess.resource }).updateUnsafe(1, context)
      return Stackless.make(() => new QuotaExceeded(excess))
    }
  })
  return {
    run: (request) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.flatMap(Priority.Current, (current): Effect.Effect<A, E | QuotaExceeded, R> => {
        const ticket = ledger.ticket({ ...request, priority: request.priority ?? current })
        const begin = Effect.suspend((): Effect.Effect<A, E | QuotaExceeded, R> => {
          const refusal = ticket.enter()
          if (refusal !== undefined) return Effect.fail(refusal)
          ticket.wait(false)
          return Priority.run(effect, ticket.priority)
        })
        return Effect.onExitPrimitive(begin, () => {
          ticket.leave()
          return undefined
        })
      }),
    ticket: (request) => ledger.ticket(request),
    set: (tenant, limits) => Effect.sync(() => ledger.set(tenant, limits)),
    setEveryone: (limits) => Effect.sync(() => ledger.setEveryone(limits)),
    usage: (tenant) => Effect.sync(() => ledger.usage(tenant)),
    tenants: Effect.sync(() => ledger.tenants)
  }
})

const decode = Schema.decodeResult(Limits)

/**
 * Makes limits. Throws `InvalidLimits` on nonsense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const limits = (options: Limits): Limits =>
  Result.getOrThrowWith(
    decode(options),
    (error) => new InvalidLimits({ problem: error.message.replaceAll("\n", " ") })
  )

/**
 * Reads the limits of everyone from `<prefix>_IN_FLIGHT`, `_DEPTH`, `_BYTES` and `_RATE`, each also with `_SOFT`. What is
 * not set is as in `defaults`.
 *
 * @category config
 * @since 0.1.0
 */
export const config = (prefix: string, defaults: Limits = {}): Config.Config<Limits> =>
  Config.all({
    inFlight: limitOf(`${prefix}_IN_FLIGHT`, defaults.inFlight),
    depth: limitOf(`${prefix}_DEPTH`, defaults.depth),
    bytes: limitOf(`${prefix}_BYTES`, defaults.bytes),
    rate: limitOf(`${prefix}_RATE`, defaults.rate)
  }).pipe(Config.mapEffect((limits) =>
    Limits.makeEffect(limits).pipe(
      Effect.mapError((issue) =>
        new Config.ConfigError(new Schema.SchemaError(new SchemaIssue.Pointer([prefix], issue)))
      )
    )
  ))

const limitOf = (name: string, defaults: typeof Limit.Type = {}) =>
  Config.all({ hard: amountOf(name, defaults.hard), soft: amountOf(`${name}_SOFT`, defaults.soft) }).pipe(
    Config.map(({ hard, soft }) => ({
      ...(hard === undefined ? {} : { hard }),
      ...(soft === undefined ? {} : { soft })
    }))
  )

const amountOf = (name: string, fallback: number | undefined) =>
  Config.Finite(name).pipe(Config.map((value): number | undefined => value), Config.withDefault(fallback))
