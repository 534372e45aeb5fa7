/**
 * Runs calls by policies: `protect(call, policy)`.
 *
 * **When to use**
 *
 * Around every call to what may fail, be slow, or be asked too much. A policy is made once (`Policy.make`); its places, circuit
 * and budget belong to its name, so all calls by it share them.
 *
 * **Details**
 *
 * - The parts apply in the order in which `Policy` names them. `Policy.format` prints them as one line.
 * - The circuit of a call, and its retry budget, are those of its `key`; default: one for the policy.
 * - `adopt` puts other numbers in force while calls run: circuits, places in use and what keys of limits took stay as they are.
 *   The fallback is that of the policy a call is made with.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_policy_refused_total` | counter: calls that did not run, or were cut off | `policy`, `part` |
 *
 * and those of each part. The span of a call that is refused has an event `refused` with the policy, the part and the error.
 *
 * **Gotchas**
 *
 * Two policies of one name are a defect, for they would share what they limit. A layer inside another one that retries does not
 * retry: see `RetryPolicy.Retrying`.
 *
 * **Example** (A price, or the last one known)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as Fallback from "@strata/resilience/bounds/Fallback"
 * import * as Policy from "@strata/resilience/Policy"
 * import * as Resilience from "@strata/resilience/Resilience"
 *
 * const prices = Policy.make({
 *   name: "prices",
 *   deadline: "10 millis",
 *   fallback: { answer: Fallback.value(0) }
 * })
 * const program = Effect.never.pipe(Resilience.protect(prices))
 * await Effect.runPromise(Effect.provide(program, Resilience.layerMemory)) // => 0
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as EffectBreaker from "effect/persistence/CircuitBreaker"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Tracer from "effect/Tracer"
import * as Bulkhead from "./bounds/Bulkhead.ts"
import * as Deadline from "./bounds/Deadline.ts"
import * as Fallback from "./bounds/Fallback.ts"
import * as CircuitBreaker from "./breaker/CircuitBreaker.ts"
import type { CircuitBreakerError } from "./breaker/CircuitBreakerError.ts"
import * as CircuitStore from "./breaker/CircuitStore.ts"
import * as RateLimit from "./limits/RateLimit.ts"
import * as Policy from "./Policy.ts"
import * as RetryBudget from "./retry/RetryBudget.ts"
import * as RetryPolicy from "./retry/RetryPolicy.ts"
import type * as Priority from "./scheduling/Priority.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * Why a call did not run to its end: a limit, the bulkhead or the breaker refused it, or its time was up.
 *
 * @category errors
 * @since 0.1.0
 */
export type Refusal = RateLimit.RateLimitError | Bulkhead.BulkheadFull | CircuitBreakerError | Deadline.DeadlineExceeded

/**
 * True for a `Refusal`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isRefusal = (error: unknown): error is Refusal => partOf(error) !== undefined

const partOf = (error: unknown): "deadline" | "limits" | "bulkhead" | "breaker" | undefined => {
  if (error instanceof Deadline.DeadlineExceeded) return "deadline"
  if (error instanceof RateLimit.RateLimitError) return "limits"
  if (error instanceof Bulkhead.BulkheadFull) return "bulkhead"
  return error instanceof EffectBreaker.CircuitBreakerError ? "breaker" : undefined
}

/**
 * What a call says of itself.
 *
 * @category options
 * @since 0.1.0
 */
export interface Call {
  /** What it goes to, where a policy serves several: a host, a tenant. It has a circuit and a budget of its own. */
  readonly key?: string | undefined
  /** The keys of the limits, by the limits' names. A limit that is not named is asked for everybody. */
  readonly limitKeys?: Readonly<Record<string, string>> | undefined
  /** Whose reserved places it may take. */
  readonly tenant?: string | undefined
  /** The class in which the limits are asked. Default: that of the fiber. */
  readonly priority?: Priority.Priority | undefined
}

/**
 * What stands behind a policy now.
 *
 * @category models
 * @since 0.1.0
 */
export interface PolicyState {
  readonly name: string
  /** The policy in force, as `Policy.format` prints it. */
  readonly line: string
  readonly bulkhead: Bulkhead.BulkheadState | undefined
  /** Of the keys called so far, the last thousand. */
  readonly circuits: ReadonlyArray<CircuitBreaker.Status>
  /** Retries left, of the same keys. */
  readonly budgets: ReadonlyMap<string, number>
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * Policies in force.
 *
 * @category services
 * @since 0.1.0
 */
export class Resilience extends Context.Service<Resilience, {
  /** Runs a call by a policy. */
  readonly protect: <A extends In, E, R, B = never, E2 = never, R2 = never, In = unknown>(
    self: Effect.Effect<A, E, R>,
    policy: Policy.Policy<B, E2, R2, In>,
    call?: Call
  ) => Effect.Effect<A | B, E | E2 | Refusal, R | R2>
  /** Puts the numbers of a policy in force under its name. */
  readonly adopt: (policy: Policy.Policy<unknown, unknown, unknown, never>) => Effect.Effect<void>
  /** What stands behind every policy that was called. */
  readonly state: Effect.Effect<ReadonlyArray<PolicyState>, CircuitBreakerError>
  /** The circuits of a policy, for those who have to tell one what to do; `undefined` of one without a breaker. */
  readonly breaker: (
    policy: Policy.Policy<unknown, unknown, unknown, never>
  ) => Effect.Effect<CircuitBreaker.CircuitBreaker["Service"] | undefined>
}>()("@strata/resilience/Resilience") {}

/**
 * Runs a call by a policy.
 *
 * @category combinators
 * @since 0.1.0
 */
export const protect: {
  <B = never, E2 = never, R2 = never, In = unknown>(
    policy: Policy.Policy<B, E2, R2, In>,
    call?: Call
  ): <A extends In, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A | B, E | E2 | Refusal, R | R2 | Resilience>
  <A extends In, E, R, B = never, E2 = never, R2 = never, In = unknown>(
    self: Effect.Effect<A, E, R>,
    policy: Policy.Policy<B, E2, R2, In>,
    call?: Call
  ): Effect.Effect<A | B, E | E2 | Refusal, R | R2 | Resilience>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A extends In, E, R, B, E2, R2, In>(
    self: Effect.Effect<A, E, R>,
    policy: Policy.Policy<B, E2, R2, In>,
    call?: Call
  ): Effect.Effect<A | B, E | E2 | Refusal, R | R2 | Resilience> =>
    Effect.flatMap(Resilience, (resilience) => resilience.protect(self, policy, call))
)

// --------------------------------------------------------------------------------------------------------- layers

/**
 * Policies with the circuits and the limits of the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Resilience, never, CircuitStore.CircuitStore | RateLimit.RateLimit> = Layer.effect(
  Resilience,
  Effect.gen(function*() {
    const scope = yield* Effect.scope
    const context = yield* Effect.context<CircuitStore.CircuitStore | RateLimit.RateLimit>()
    const install = (policy: Anything, bulkhead?: Bulkhead.Bulkhead) =>
      Effect.provide(open(policy, bulkhead), Context.add(context, Scope.Scope, scope))
    return makeRegistry(install, Context.get(context, RateLimit.RateLimit))
  })
)

/**
 * Policies of this process alone.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Resilience> = Layer.provide(layer, [
  CircuitStore.layerMemory(),
  RateLimit.layerMemory()
])

/**
 * The same service with its calls protected, as its users would never know.
 *
 * **Example** (Payments, protected)
 *
 * ```ts
 * import * as Policy from "@strata/resilience/Policy"
 * import * as Resilience from "@strata/resilience/Resilience"
 * import * as Context from "effect/Context"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * class Payments extends Context.Service<Payments, {
 *   readonly charge: (cents: number) => Effect.Effect<string, Resilience.Refusal>
 * }>()("Payments") {}
 *
 * declare const live: Layer.Layer<Payments>
 * const policy = Policy.make({ name: "payments", deadline: "2 seconds" })
 *
 * const layer = Resilience.wrap(live, Payments, (payments, protect) => ({
 *   charge: (cents) => protect(payments.charge(cents), policy)
 * }))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const wrap = <I, S, E, R>(
  self: Layer.Layer<I, E, R>,
  service: Context.Key<I, S>,
  protected_: (service: S, protect: Resilience["Service"]["protect"]) => S
): Layer.Layer<I, E, R | Resilience> =>
  Layer.effect(
    service,
    Effect.gen(function*() {
      return protected_(yield* service, (yield* Resilience).protect)
    })
  ).pipe(Layer.provide(self))

// ------------------------------------------------------------------------------------------------- implementation

type Anything = Policy.Policy<unknown, unknown, unknown, never>

/** A policy in force, and what belongs to its name. */
interface Standing {
  readonly policy: Anything
  /** The time there is for all, and for one try. */
  readonly deadline: Duration.Duration | undefined
  readonly attempt: Duration.Duration | undefined
  /** What is asked of the limits when a call names no keys. */
  readonly charges: ReadonlyArray<RateLimit.Charge>
  readonly bulkhead: Bulkhead.Bulkhead | undefined
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"] | undefined
  readonly budgets: RetryBudget.RetryBudgets["Service"] | undefined
  /** Those called, the last one last. */
  readonly keys: Set<string>
  /** Of what is made anew when other numbers are adopted. */
  readonly scope: Scope.Closeable
}

const open = Effect.fnUntraced(function*(policy: Anything, bulkhead?: Bulkhead.Bulkhead) {
  const { breaker, name, retry } = policy
  const scope = yield* Scope.fork(yield* Effect.scope)
  if (bulkhead !== undefined && policy.bulkhead !== undefined) yield* bulkhead.adopt(policy.bulkhead)
  const standing: Standing = {
    policy,
    deadline: policy.deadline === undefined ? undefined : Duration.fromInputUnsafe(policy.deadline),
    attempt: policy.attempt === undefined ? undefined : Duration.fromInputUnsafe(policy.attempt),
    charges: (policy.limits ?? []).map((limit) => ({ limit })),
    bulkhead: policy.bulkhead === undefined
      ? undefined
      : bulkhead ?? (yield* Bulkhead.make({ ...policy.bulkhead, name })),
    breaker: breaker === undefined
      ? undefined
      : yield* Scope.provide(CircuitBreaker.make({ name, policy: breaker.policy }), scope),
    budgets: retry?.budget === undefined ? undefined : yield* RetryBudget.makeBudgets({ allowance: retry.budget }),
    keys: new Set(),
    scope
  }
  return standing
})

const makeRegistry = (
  install: (policy: Anything, bulkhead?: Bulkhead.Bulkhead) => Effect.Effect<Standing>,
  limits: RateLimit.RateLimit["Service"]
): Resilience["Service"] => {
  const inForce = new Map<string, Standing>()
  // Of each name the policy that calls are made with; another value is another policy, whatever it says.
  const declared = new Map<string, Anything>()
  const oneAtATime = Semaphore.makeUnsafe(1)

  const declare = (policy: Anything): Effect.Effect<Standing> =>
    oneAtATime.withPermit(Effect.suspend(() => {
      const known = declared.get(policy.name)
      if (known !== undefined && known !== policy) return Effect.die(new Policy.InvalidPolicy(twice(policy)))
      const standing = inForce.get(policy.name)
      declared.set(policy.name, policy)
      if (standing !== undefined) return Effect.succeed(standing)
      return Effect.tap(install(policy), (made) => Effect.sync(() => inForce.set(policy.name, made)))
    }))

  const adopt = (policy: Anything): Effect.Effect<void> =>
    oneAtATime.withPermit(Effect.suspend(() => {
      const before = inForce.get(policy.name)
      return Effect.flatMap(install(policy, before?.bulkhead), (made) => {
        inForce.set(policy.name, made)
        const close = before === undefined ? Effect.void : Scope.close(before.scope, Exit.void)
        return Effect.andThen(close, Effect.logInfo(`Policy in force from now on: ${Policy.format(policy)}`))
      })
    }))

  return Resilience.of({
    protect: <A extends In, E, R, B, E2, R2, In>(
      self: Effect.Effect<A, E, R>,
      policy: Policy.Policy<B, E2, R2, In>,
      call: Call = {}
    ) => {
      const run = (standing: Standing): Effect.Effect<A | B, E | E2 | Refusal, R | R2> => {
        const guarded = compose(standing, limits, self, call)
        return policy.fallback === undefined
          ? guarded
          : Fallback.apply(guarded, policy.fallback.answer, { when: policy.fallback.when ?? isRefusal })
      }
      return Effect.suspend(() => {
        const standing = declared.get(policy.name) === policy ? inForce.get(policy.name) : undefined
        return standing === undefined ? Effect.flatMap(declare(policy), run) : run(standing)
      })
    },
    adopt,
    state: Effect.suspend(() => Effect.forEach(inForce.values(), stateOf)),
    breaker: (policy) => Effect.map(declare(policy), ({ breaker }) => breaker)
  })
}

const twice = ({ name }: Anything) => ({
  policy: name,
  part: "name",
  problem: "another policy has it already; make a policy once and use that value, or adopt new numbers"
})

/** A call within all parts of a policy. */
const compose = <A, E, R>(
  standing: Standing,
  limits: RateLimit.RateLimit["Service"],
  self: Effect.Effect<A, E, R>,
  call: Call
): Effect.Effect<A, E | Refusal, R> => {
  const { attempt, deadline, policy } = standing
  const key = call.key === undefined ? policy.name : `${policy.name}/${call.key}`
  if (standing.breaker !== undefined || standing.budgets !== undefined) remember(standing.keys, key)
  const guarded = deadline === undefined
    ? admit(
      standing,
      limits,
      tryAgain(standing, attempt === undefined ? self : Deadline.within(attempt)(self), key),
      key,
      call
    )
    : Deadline.around(deadline, (enforce) =>
      // A try is cut off at the deadline too, and no wait between two of them outlasts it: one timer does for both.
      admit(standing, limits, tryAgain(standing, enforce(self, attempt), key), key, call))
  return Effect.tapError(guarded, (error) => tell(policy.name, error))
}

/** What may be done more than once. */
const tryAgain = <A, E, R>(standing: Standing, once: Effect.Effect<A, E, R>, key: string): Effect.Effect<A, E, R> =>
  standing.policy.retry === undefined ? once : retry(standing, standing.policy.retry, once, key)

/** What is asked before it is begun, from the innermost part outwards. */
const admit = <A, E, R>(
  { breaker, bulkhead, charges, policy }: Standing,
  limits: RateLimit.RateLimit["Service"],
  self: Effect.Effect<A, E, R>,
  key: string,
  call: Call
): Effect.Effect<A, E | Refusal, R> => {
  let guarded: Effect.Effect<A, E | Refusal, R> = self
  if (breaker !== undefined) guarded = breaker.execute(guarded, { key, classify: policy.breaker?.classify })
  if (bulkhead !== undefined) {
    guarded = call.tenant === undefined ? bulkhead.run(guarded) : bulkhead.runFor(call.tenant)(guarded)
  }
  if (charges.length > 0) {
    const { limitKeys, priority } = call
    const asked = limitKeys === undefined
      ? charges
      : charges.map(({ limit }) => ({ limit, key: limitKeys[limit.name] }))
    guarded = Effect.andThen(limits.consume(asked, { priority }), guarded)
  }
  return guarded
}

const retry = <A, E, R>(
  { budgets }: Standing,
  { classify, idempotent, policy }: Policy.Retry,
  self: Effect.Effect<A, E, R>,
  key: string
): Effect.Effect<A, E, R> => {
  const retried = (budget: RetryBudget.RetryBudget | undefined) =>
    RetryPolicy.retry(self, { policy, idempotent, budget, classify })
  return budgets === undefined ? retried(undefined) : Effect.flatMap(budgets.of(key), retried)
}

const mostKeys = 1000

const remember = (keys: Set<string>, key: string): void => {
  if (keys.has(key)) return
  keys.add(key)
  const [oldest] = keys
  if (keys.size > mostKeys && oldest !== undefined) keys.delete(oldest)
}

const stateOf = Effect.fnUntraced(function*({ breaker, budgets, bulkhead, keys, policy }: Standing) {
  const tokens = new Map<string, number>()
  if (budgets !== undefined) {
    for (const key of keys) tokens.set(key, yield* Effect.flatMap(budgets.of(key), (budget) => budget.tokens))
  }
  const state: PolicyState = {
    name: policy.name,
    line: Policy.format(policy),
    bulkhead: bulkhead === undefined ? undefined : yield* bulkhead.state,
    circuits: breaker === undefined ? [] : yield* Effect.forEach(keys, breaker.status),
    budgets: tokens
  }
  return state
})

const refused = Metric.counter("strata_policy_refused_total", {
  description: "Calls that a policy did not let run, or cut off",
  incremental: true
})

/** Counts a refusal, and writes it on the span of the call. */
const tell = (policy: string, error: unknown): Effect.Effect<void> => {
  const part = partOf(error)
  if (part === undefined) return Effect.void
  return Effect.withFiber((fiber) => {
    const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
    if (span?._tag === "Span") {
      const message = Predicate.hasProperty(error, "message") ? String(error.message) : ""
      span.event("refused", fiber.getRef(Clock.Clock).currentTimeNanosUnsafe(), { policy, part, message })
    }
    return Metric.update(Metric.withAttributes(refused, { policy, part }), 1)
  })
}
