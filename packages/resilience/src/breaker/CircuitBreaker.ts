/**
 * Keyed circuit breakers: calls to something that has become unreliable are refused until a few of them succeed again.
 *
 * **When to use**
 *
 * Use around each call to what may fail for a while: another service, a broker, a database. Give each thing that fails by itself
 * a key of its own, a host or a tenant. Put retries and time-outs inside, so that the breaker sees one outcome for a call; put
 * limits, bulkheads and fallbacks outside.
 *
 * **Details**
 *
 * effect has a breaker of its own, and the errors and outcomes here are its. What is ours is what it lacks, and each came from
 * a failure somebody had with another breaker:
 *
 * - a window of *time*, so that a call after an idle hour is not judged by that hour's beginning;
 * - slow calls and time-outs as reasons to open: what hangs does more harm than what fails;
 * - several probes, let through as a share of the calls, judged together and opening early, since one lucky call proves little:
 *   at a true success rate of 80 % twenty probes close a circuit wrongly one time in five, one probe four times in five;
 * - a lease for each probe, so that one that hangs does not keep the circuit half-open for ever;
 * - the monotonic clock, so that a corrected wall clock keeps no circuit open for an hour;
 * - states for people: forced open, disabled, metrics only.
 *
 * A call is admitted in a *generation*, and its outcome in a later one changes nothing but a counter: neither can a slow failure
 * from before the opening spoil the probes, nor a slow success close the circuit. An interrupted call says nothing, a
 * defect is a failure; see `CircuitOutcome.classify` for the rest.
 *
 * The rules are those of `Circuit`, the numbers those of `CircuitPolicy`, and the state is kept by a `CircuitStore`. Where a
 * module of effect wants its own breaker, as `HttpClient.withCircuitBreaker` does, use `toEffect`.
 *
 * **Gotchas**
 *
 * - Use one policy for each key: breakers that share a store and a key share the circuit.
 * - A circuit opens on the call that shows the rate, which may be one that succeeded.
 * - An open circuit stays open until somebody calls: the first call after its time is the first probe.
 *
 * **Example** (Payments that fail fast)
 *
 * ```ts
 * import * as CircuitBreaker from "@strata/resilience/breaker/CircuitBreaker"
 * import * as CircuitPolicy from "@strata/resilience/breaker/CircuitPolicy"
 * import * as CircuitStore from "@strata/resilience/breaker/CircuitStore"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * declare const charge: Effect.Effect<string>
 *
 * const program = Effect.gen(function*() {
 *   const breaker = yield* CircuitBreaker.CircuitBreaker
 *   return yield* charge.pipe(Effect.timeout("2 seconds"), breaker.execute({ key: "payments" }))
 * })
 *
 * program.pipe(Effect.provide(
 *   CircuitBreaker.layer({ policy: CircuitPolicy.make({ probeLease: "3 seconds" }) }).pipe(
 *     Layer.provide(CircuitStore.layerMemory())
 *   )
 * ))
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import { Clock } from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { cast, dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as EffectBreaker from "effect/persistence/CircuitBreaker"
import * as PubSub from "effect/PubSub"
import { UnhandledLogLevel } from "effect/References"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Take from "effect/Take"
import { hasSucceeded } from "../internal/atOnce.ts"
import * as Circuit from "./Circuit.ts"
import { type CircuitBreakerError, refused } from "./CircuitBreakerError.ts"
import * as CircuitMetrics from "./CircuitMetrics.ts"
import * as CircuitOutcome from "./CircuitOutcome.ts"
import * as CircuitPolicy from "./CircuitPolicy.ts"
import type * as CircuitState from "./CircuitState.ts"
import { type Circuits, CircuitStore } from "./CircuitStore.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * A circuit as it is now.
 *
 * **Details**
 *
 * `retryAfter` is how long it stays open, `probes` how many calls are running as such. `late` counts outcomes that came in a later
 * generation and `rejected` calls that did not run, both since the circuit was made or reset. `normalLatency` is there once
 * enough calls succeeded, `actor` when somebody told the circuit to be in this state.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status extends CircuitState.Rates {
  readonly key: string
  readonly state: CircuitState.Phase["_tag"]
  readonly generation: number
  readonly openings: number
  readonly retryAfter: Duration.Duration | undefined
  readonly probes: number
  readonly late: number
  readonly rejected: number
  readonly normalLatency: Duration.Duration | undefined
  readonly actor: string | undefined
}

/**
 * A circuit changed its state: see `CircuitState.Transition`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Transition extends Omit<CircuitState.Transition, "openFor"> {
  readonly key: string
  readonly openFor: Duration.Duration | undefined
}

/**
 * A rate was reached: see `CircuitState.ThresholdExceeded`.
 *
 * @category models
 * @since 0.1.0
 */
export interface ThresholdExceeded extends CircuitState.ThresholdExceeded {
  readonly key: string
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * How a call goes through a circuit: which one, and what its end says. Default: `CircuitOutcome.classify`.
 *
 * @category options
 * @since 0.1.0
 */
export interface ExecuteOptions<in A, in E, out R> {
  readonly key: string
  readonly classify?: CircuitOutcome.Classifier<A, E, R> | undefined
}

/**
 * Who tells a circuit what to do. Written down with the transition.
 *
 * @category options
 * @since 0.1.0
 */
export interface CommandOptions {
  readonly actor: string
}

/**
 * Circuits of one policy.
 *
 * @category services
 * @since 0.1.0
 */
export class CircuitBreaker extends Context.Service<CircuitBreaker, {
  readonly name: string
  readonly policy: CircuitPolicy.CircuitPolicy

  /**
   * Runs a call through a circuit, or fails without running it.
   *
   * **Details**
   *
   * An effect that classifies is run uninterrupted after the call: keep it short. When the classifier dies, the call dies and
   * its outcome is ignored.
   */
  readonly execute: {
    <A, E, R2 = never>(
      options: ExecuteOptions<A, E, R2>
    ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | CircuitBreakerError, R | R2>
    <A, E, R, R2 = never>(
      self: Effect.Effect<A, E, R>,
      options: ExecuteOptions<A, E, R2>
    ): Effect.Effect<A, E | CircuitBreakerError, R | R2>
  }

  /** A circuit as it is now. */
  readonly status: (key: string) => Effect.Effect<Status, CircuitBreakerError>

  /** Opens a circuit until it is told something else. */
  readonly forceOpen: (key: string, options: CommandOptions) => Effect.Effect<void, CircuitBreakerError>
  /** Lets all calls run, and counts nothing. */
  readonly disable: (key: string, options: CommandOptions) => Effect.Effect<void, CircuitBreakerError>
  /** Lets all calls run, and only tells when a rate is reached. */
  readonly metricsOnly: (key: string, options: CommandOptions) => Effect.Effect<void, CircuitBreakerError>
  /** Closes a circuit and forgets all it knew. */
  readonly reset: (key: string, options: CommandOptions) => Effect.Effect<void, CircuitBreakerError>

  /** The transitions this breaker made, from now on. Ends with the breaker; who is far behind misses the oldest. */
  readonly transitions: Stream.Stream<Transition>
  /** The rates this breaker saw reached, likewise. */
  readonly thresholdsExceeded: Stream.Stream<ThresholdExceeded>
}>()("@strata/resilience/breaker/CircuitBreaker") {}

/**
 * What a breaker is made from.
 *
 * - `name` (`"default"`): in metrics and logs.
 * - `policy`: default `CircuitPolicy.standard`.
 * - `onStoreError` (`"allow"`): what becomes of a call when the store cannot tell whether it may run: it runs and is not
 *   recorded, or it fails with the `CircuitBreakerStoreError`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly policy?: CircuitPolicy.CircuitPolicy | undefined
  readonly onStoreError?: "allow" | "fail" | undefined
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * A breaker on the store of the context, until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options: Options = {}) {
  const name = options.name ?? "default"
  const policy = options.policy ?? CircuitPolicy.standard
  const rules = Circuit.rules(policy)
  const metrics = CircuitMetrics.make(name, yield* Effect.context<never>())
  const transitions = yield* stream<Transition>()
  const exceeded = yield* stream<ThresholdExceeded>()
  const store = yield* CircuitStore
  const circuits = yield* store.open({
    rules,
    tell: (key, events) =>
      Effect.forEach(events, (event) => {
        metrics.told(event)
        if (event._tag === "ThresholdExceeded") return exceeded.publish({ ...event, key })
        const openFor = event.openFor === undefined ? undefined : Duration.millis(event.openFor)
        const transition: Transition = { ...event, key, openFor }
        return Effect.andThen(transitions.publish(transition), logTransition(name, transition))
      }, { discard: true })
  })

  const command = (_tag: CircuitState.Command["_tag"]) => (key: string, { actor }: CommandOptions) =>
    circuits.command(key, { _tag, actor })

  return CircuitBreaker.of({
    name,
    policy,
    execute: yield* makeExecute(circuits, metrics, options.onStoreError ?? "allow"),
    status: (key) => Effect.map(circuits.read(key), ({ circuit, now }) => statusOf(key, rules, circuit, now)),
    forceOpen: command("ForceOpen"),
    disable: command("Disable"),
    metricsOnly: command("MetricsOnly"),
    reset: command("Reset"),
    transitions: transitions.stream,
    thresholdsExceeded: exceeded.stream
  })
})

/**
 * A breaker on the store of the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<CircuitBreaker, never, CircuitStore> =>
  Layer.effect(CircuitBreaker, make(options))

/** What is published while nobody reads is not kept, and a slow reader misses the oldest. */
const stream = Effect.fnUntraced(function*<A>() {
  const pubsub = yield* PubSub.sliding<Take.Take<A>>(256)
  yield* Scope.addFinalizer(yield* Effect.scope, PubSub.end(pubsub, Exit.void))
  return {
    publish: (value: A) => PubSub.publish(pubsub, [value]),
    stream: Stream.fromPubSubTake(pubsub)
  }
})

const logTransition = (breaker: string, { actor, from, key, openFor, reason, to }: Transition) =>
  Effect.logWithLevel(to === "Open" || to === "ForcedOpen" ? "Warn" : "Info")(
    `Circuit "${key}" of breaker "${breaker}": ${from} → ${to}, ${actor === undefined ? reason : `told by ${actor}`}${
      openFor === undefined ? "" : `, for ${Duration.format(openFor)}`
    }`
  )

const statusOf = (key: string, rules: Circuit.Rules, circuit: CircuitState.Circuit, now: number): Status => {
  const { generation, late, latency: { normal }, openings, phase, rejected } = circuit
  return {
    ...Circuit.rates(rules, circuit, now),
    key,
    state: phase._tag,
    generation,
    openings,
    retryAfter: phase._tag === "Open" ? Duration.millis(Math.max(0, phase.until - now)) : undefined,
    probes: phase._tag === "HalfOpen" ? phase.probes.length : 0,
    late,
    rejected,
    normalLatency: normal === undefined ? undefined : Duration.millis(normal),
    actor: "actor" in phase ? phase.actor : undefined
  }
}

// -------------------------------------------------------------------------------------------------------- execute

type Admitted = CircuitState.Decision & { readonly _tag: "Admitted" }

const makeExecute = Effect.fnUntraced(function*(
  circuits: Circuits,
  metrics: CircuitMetrics.CircuitMetrics,
  onStoreError: "allow" | "fail"
) {
  const clock = yield* Clock

  const record = (
    key: string,
    { generation, probe }: Admitted,
    duration: number,
    outcome: CircuitOutcome.Outcome
  ): Effect.Effect<void> | undefined => {
    metrics.took(duration)
    const retryAfter = "retryAfter" in outcome && outcome.retryAfter !== undefined
      ? Duration.toMillis(outcome.retryAfter)
      : undefined
    const count = (ended: "Counted" | "Ignored" | "Late") =>
      metrics.called(ended === "Counted" ? counted[outcome._tag] : ended === "Late" ? "late" : "ignored")
    const ended = circuits.end(key, { generation, probe, outcome: outcome._tag, duration, retryAfter })
    if (!hasSucceeded(ended)) return Effect.map(ended, count)
    count(ended.value)
    return undefined
  }

  /** Writes down what the end of a call says of its circuit. */
  const recordExit = <A, E, R>(
    exit: Exit.Exit<A, E>,
    say: (outcome: CircuitOutcome.Outcome) => Effect.Effect<void> | undefined,
    classify: CircuitOutcome.Classifier<A, E, R> | undefined
  ): Effect.Effect<void, never, R> | undefined => {
    if (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) return say(CircuitOutcome.ignored)
    if (classify === undefined) return say(CircuitOutcome.classify(exit))
    const classified = Effect.suspend(() => {
      const outcome = classify(exit)
      return Effect.isEffect(outcome) ? outcome : Effect.succeed(outcome)
    })
    return Effect.matchCauseEffect(classified, {
      onSuccess: (outcome) => say(outcome) ?? Effect.void,
      onFailure: (cause) => Effect.andThen(say(CircuitOutcome.ignored) ?? Effect.void, Effect.failCause(cause))
    })
  }

  const execute = <A, E, R, R2>(
    self: Effect.Effect<A, E, R>,
    { classify, key }: ExecuteOptions<A, E, R2>
  ): Effect.Effect<A, E | CircuitBreakerError, R | R2> =>
    Effect.suspend(() => {
      // Belongs to the call from the moment it is given, also when the fiber is interrupted before the call begins.
      let admitted: Admitted | undefined
      let startedAt = 0n
      const decided = (decision: CircuitState.Decision): Effect.Effect<A, E | CircuitBreakerError, R> => {
        if (decision._tag === "Admitted") {
          admitted = decision
          startedAt = clock.monotonicTimeNanosUnsafe()
          return self
        }
        metrics.called("rejected")
        return Effect.fail(refused(key, decision))
      }
      const begin = Effect.suspend(() => {
        const asked = circuits.admit(key)
        if (hasSucceeded(asked)) return decided(asked.value)
        return Effect.matchEffect(asked, {
          onFailure: (error): Effect.Effect<A, E | CircuitBreakerError, R> =>
            onStoreError === "fail" ? Effect.fail(error) : Effect.andThen(unrecorded(metrics, error), self),
          onSuccess: decided
        })
      })
      return Effect.onExitPrimitive(begin, (exit) => {
        if (admitted === undefined) return undefined
        const call = admitted
        // Of a call that was admitted: no refusal is among what it fails with.
        const own: Exit.Exit<A, E> = cast(exit)
        const duration = Number(clock.monotonicTimeNanosUnsafe() - startedAt) / 1e6
        return recordExit(own, (outcome) => record(key, call, duration, outcome), classify)
      })
    })

  return dual(2, execute)
})

const counted: Readonly<Record<CircuitOutcome.Outcome["_tag"], CircuitMetrics.CallOutcome>> = {
  Success: "success",
  Failure: "failure",
  TimedOut: "timed_out",
  Ignored: "ignored"
}

/** Nobody receives this error, so it is reported as effect's breaker reports it. */
const unrecorded = (metrics: CircuitMetrics.CircuitMetrics, error: CircuitBreakerError) =>
  Effect.withFiber((fiber) => {
    metrics.called("unrecorded")
    const level = fiber.getRef(UnhandledLogLevel)
    return level === undefined
      ? Effect.void
      : Effect.logWithLevel(level)("The store of a circuit breaker failed, the call runs unrecorded", Cause.fail(error))
  })

// ------------------------------------------------------------------------------------------------------ conversion

/**
 * A breaker as effect's own, for what wants one. States and transitions that only ours has are left out: a circuit forced open is
 * open, one that is disabled or only measures is closed.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toEffect = (breaker: CircuitBreaker["Service"]): EffectBreaker.CircuitBreaker => ({
  [EffectBreaker.TypeId]: EffectBreaker.TypeId,
  execute: breaker.execute,
  state: (key) => Effect.map(breaker.status(key), (status) => effectState(status, breaker.policy)),
  transitions: Stream.flatMap(breaker.transitions, (transition) => {
    const found = effectTransition(transition)
    return found === undefined ? Stream.empty : Stream.succeed(found)
  })
})

const effectState = (
  { key, openings, probes, retryAfter, state }: Status,
  policy: CircuitPolicy.CircuitPolicy
): EffectBreaker.State => {
  switch (state) {
    case "Open":
    case "ForcedOpen":
      return { _tag: "Open", key, retryAfter: retryAfter ?? policy.openDuration, consecutiveOpenings: openings }
    case "HalfOpen":
      return { _tag: "HalfOpen", key, probing: probes > 0, consecutiveOpenings: openings }
    case "Closed":
    case "Disabled":
    case "MetricsOnly":
      return { _tag: "Closed", key }
  }
}

const effectTransition = (
  { attempt, from, key, openFor, to }: Transition
): EffectBreaker.Transition | undefined => {
  if (to === "Open" && (from === "Closed" || from === "HalfOpen") && openFor !== undefined) {
    return { key, from, to, retryAfter: openFor, consecutiveOpenings: attempt + 1 }
  }
  if (from === "Open" && to === "HalfOpen") return { key, from, to }
  return from === "HalfOpen" && to === "Closed" ? { key, from, to } : undefined
}
