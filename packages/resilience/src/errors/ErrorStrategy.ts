/**
 * What is done about the failures of a handler, by their class: one value that can be read, printed and checked.
 *
 * **When to use**
 *
 * Give each handler a strategy of its own where `standard` does not fit; spread another one for the classes that stay as
 * they are. Use `handle` for what runs in this process, and `decide` for what is stored and claimed again.
 *
 * **Details**
 *
 * `standard` does this:
 *
 * | class | |
 * | --- | --- |
 * | transient, throttled, conflict | 5 tries within 30 s, then to the dead letters, with a warning |
 * | unknown outcome | likewise if the handler is declared idempotent, else to the dead letters at once |
 * | permanent | to the dead letters at once, with a warning |
 * | fatal, and every defect | stop, with a critical alert: what comes next would fail too |
 *
 * An interruption is no failure. A strategy that makes no sense is refused when it is made, by the class and the step.
 *
 * What was refused before it began, by an open circuit for instance, is neither tried again here nor put aside: `handle`
 * gives the refusal back, and `decide` postpones the work without counting the attempt. Otherwise an hour without a
 * database would empty a queue into the dead letters.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_error_decisions_total` | counter: failures that `handle` was done with | `handler`, `class`, `decision` |
 *
 * **Gotchas**
 *
 * Where a layer above retries already, `handle` gives back what it would try again, so that only one layer retries.
 *
 * **Example** (A handler that may miss one, but says so)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as Result from "effect/Result"
 * import * as Alerts from "@strata/resilience/alerts/Alerts"
 * import * as DeadLetters from "@strata/resilience/errors/DeadLetters"
 * import * as ErrorAction from "@strata/resilience/errors/ErrorAction"
 * import * as ErrorStrategy from "@strata/resilience/errors/ErrorStrategy"
 * import * as Layer from "effect/Layer"
 *
 * const strategy = Result.getOrThrow(
 *   ErrorStrategy.make({ ...ErrorStrategy.standard, permanent: ErrorAction.alert("info") })
 * )
 * const program = Effect.fail("no such user").pipe(
 *   ErrorStrategy.handle(strategy, { handler: "greeter", id: "42" }),
 *   Effect.andThen(Alerts.Alerts.use(({ active }) => active)),
 *   Effect.map((active) => active.map(({ summary }) => summary)),
 *   Effect.provide(Layer.mergeAll(Alerts.layerMemory, DeadLetters.layerMemory()))
 * )
 * await Effect.runPromise(program) // => ["Handler \"greeter\" went on after a permanent failure: string: no such user"]
 * ```
 *
 * @since 0.1.0
 */
import type * as Retrying from "@strata/postgres/Retrying"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual, pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as EffectBreaker from "effect/persistence/CircuitBreaker"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { Alerts } from "../alerts/Alerts.ts"
import { CircuitBreaker } from "../breaker/CircuitBreaker.ts"
import type { CircuitBreakerError } from "../breaker/CircuitBreakerError.ts"
import * as CircuitOutcome from "../breaker/CircuitOutcome.ts"
import * as ErrorHandling from "../internal/errorHandling.ts"
import * as FailureClass from "../retry/FailureClass.ts"
import * as RetryPolicy from "../retry/RetryPolicy.ts"
import type * as DeadLetters from "./DeadLetters.ts"
import * as ErrorAction from "./ErrorAction.ts"
import * as ErrorDecision from "./ErrorDecision.ts"

const TypeId = "~@strata/resilience/errors/ErrorStrategy"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * An action for each class of failures.
 *
 * @category models
 * @since 0.1.0
 */
export interface Actions<S extends ErrorAction.Step = ErrorAction.Step> {
  readonly transient: ErrorAction.ErrorAction<S>
  readonly throttled: ErrorAction.ErrorAction<S>
  readonly conflict: ErrorAction.ErrorAction<S>
  readonly unknownOutcome: ErrorAction.ErrorAction<S>
  readonly permanent: ErrorAction.ErrorAction<S>
  readonly fatal: ErrorAction.ErrorAction<S>
}

/**
 * A strategy that was checked: see `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface ErrorStrategy<S extends ErrorAction.Step = ErrorAction.Step> extends Actions<S> {
  readonly [TypeId]: typeof TypeId
}

const fields = {
  Transient: "transient",
  Throttled: "throttled",
  Conflict: "conflict",
  UnknownOutcome: "unknownOutcome",
  Permanent: "permanent",
  Fatal: "fatal"
} as const satisfies Readonly<Record<FailureClass.FailureClass["_tag"], keyof Actions>>

const classes = ["Transient", "Throttled", "Conflict", "UnknownOutcome", "Permanent", "Fatal"] as const

/**
 * A strategy that makes no sense, and where. Steps count from 1.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidStrategy
  extends Schema.TaggedError<InvalidStrategy>("@strata/resilience/ErrorStrategy/InvalidStrategy")("InvalidStrategy", {
    class: Schema.String,
    step: Schema.Int,
    problem: Schema.String
  })
{
  override get message(): string {
    return `The error strategy cannot be used: step ${this.step} of ${this.class}: ${this.problem}`
  }
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Makes a strategy, or says what is wrong with it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  A extends ErrorAction.Step,
  B extends ErrorAction.Step,
  C extends ErrorAction.Step,
  D extends ErrorAction.Step,
  E extends ErrorAction.Step,
  F extends ErrorAction.Step
>(actions: {
  readonly transient: ErrorAction.ErrorAction<A>
  readonly throttled: ErrorAction.ErrorAction<B>
  readonly conflict: ErrorAction.ErrorAction<C>
  readonly unknownOutcome: ErrorAction.ErrorAction<D>
  readonly permanent: ErrorAction.ErrorAction<E>
  readonly fatal: ErrorAction.ErrorAction<F>
}): Result.Result<ErrorStrategy<A | B | C | D | E | F>, InvalidStrategy> => {
  for (const failureClass of classes) {
    const field = fields[failureClass]
    const found = ErrorAction.findProblem(actions[field], failureClass)
    if (found !== undefined) return Result.fail(new InvalidStrategy({ class: field, ...found }))
  }
  return Result.succeed({ ...actions, [TypeId]: TypeId })
}

const putAside = pipe(ErrorAction.deadLetter(), ErrorAction.andThen(ErrorAction.alert("warning")))
const tryFirst = pipe(ErrorAction.retry(RetryPolicy.standard), ErrorAction.andThen(putAside))

/**
 * What is done by default.
 *
 * @category constants
 * @since 0.1.0
 */
export const standard = Result.getOrThrow(make({
  transient: tryFirst,
  throttled: tryFirst,
  conflict: tryFirst,
  unknownOutcome: tryFirst,
  permanent: putAside,
  fatal: pipe(ErrorAction.stop, ErrorAction.andThen(ErrorAction.alert("critical")))
}))

/**
 * A strategy as one line to read: classes for which the same is done stand together.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (strategy: ErrorStrategy): string => {
  const byAction = new Map<string, Array<string>>()
  for (const failureClass of classes) {
    const field = fields[failureClass]
    const action = ErrorAction.format(strategy[field])
    byAction.set(action, [...(byAction.get(action) ?? []), field])
  }
  return Array.from(byAction, ([action, classes]) => `${classes.join(", ")}: ${action}`).join("; ")
}

/**
 * What is to be done about a failure: what the action of its class says.
 *
 * @category getters
 * @since 0.1.0
 */
export const decide = (strategy: ErrorStrategy, failed: ErrorDecision.Failed): ErrorDecision.ErrorDecision =>
  ErrorDecision.decide(strategy[fields[failed.failure._tag]], failed)

// ------------------------------------------------------------------------------------------------------- handling

/**
 * How the failures of a handler are told apart.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClassifyOptions<in E = unknown> {
  /** Tells the class of a failure. Default: `FailureClass.classify`. */
  readonly classify?: FailureClass.Classifier<E> | undefined
}

/**
 * Runs an effect through the circuits that a strategy names. A failure counts in the circuit that the action of its class
 * names, and is ignored by the others.
 *
 * **When to use**
 *
 * Around a handler whose attempts are stored. `handle` does it by itself.
 *
 * @category combinators
 * @since 0.1.0
 */
export const throughCircuits: {
  <S extends ErrorAction.Step, E = unknown>(
    strategy: ErrorStrategy<S>,
    options?: ClassifyOptions<E>
  ): <A, E2 extends E, R>(
    self: Effect.Effect<A, E2, R>
  ) => Effect.Effect<
    A,
    E2 | ErrorAction.Errors<Extract<S, ErrorAction.ThroughCircuit>>,
    R | ErrorAction.Services<Extract<S, ErrorAction.ThroughCircuit>>
  >
  <A, E, R, S extends ErrorAction.Step>(
    self: Effect.Effect<A, E, R>,
    strategy: ErrorStrategy<S>,
    options?: ClassifyOptions<E>
  ): Effect.Effect<
    A,
    E | ErrorAction.Errors<Extract<S, ErrorAction.ThroughCircuit>>,
    R | ErrorAction.Services<Extract<S, ErrorAction.ThroughCircuit>>
  >
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    strategy: ErrorStrategy,
    { classify = FailureClass.classify }: ClassifyOptions<E> = {}
  ): Effect.Effect<A, E | CircuitBreakerError, R | CircuitBreaker> => {
    const keys = new Set(classes.flatMap((failureClass) => circuitOf(strategy, failureClass) ?? []))
    const judge = (error: E | CircuitBreakerError): FailureClass.FailureClass =>
      error instanceof EffectBreaker.CircuitBreakerError ? FailureClass.classify(error) : classify(error)
    let guarded: Effect.Effect<A, E | CircuitBreakerError, R | CircuitBreaker> = self
    for (const key of keys) {
      const inner = guarded
      guarded = CircuitBreaker.use((breaker) =>
        breaker.execute(inner, { key, classify: (exit) => outcomeFor(key, strategy, exit, judge) })
      )
    }
    return guarded
  }
)

const circuitOf = (strategy: ErrorStrategy, failureClass: FailureClass.FailureClass["_tag"]): string | undefined => {
  const step = strategy[fields[failureClass]].find(({ _tag }) => _tag === "CircuitBreaker")
  return step?._tag === "CircuitBreaker" ? step.key : undefined
}

const outcomeFor = <E>(
  key: string,
  strategy: ErrorStrategy,
  exit: Exit.Exit<unknown, E>,
  judge: FailureClass.Classifier<E>
): CircuitOutcome.Outcome => {
  if (Exit.isSuccess(exit)) return CircuitOutcome.success
  const refused = exit.cause.reasons.some((reason) =>
    Cause.isFailReason(reason) && reason.error instanceof EffectBreaker.CircuitBreakerError
  )
  const failure = refused ? undefined : FailureClass.classifyCause(exit.cause, judge)
  if (failure === undefined || circuitOf(strategy, failure._tag) !== key) return CircuitOutcome.ignored
  if (CircuitOutcome.classify(exit)._tag === "TimedOut") return CircuitOutcome.timedOut
  return CircuitOutcome.failure(failure._tag === "Throttled" ? { retryAfter: failure.retryAfter } : {})
}

/**
 * What may be said of a handler.
 *
 * @category options
 * @since 0.1.0
 */
export interface HandleOptions<in E = unknown> extends ClassifyOptions<E> {
  /** Names the handler in letters, alerts and metrics. */
  readonly handler: string
  /** Of the work that it is given. */
  readonly id: string
  /** What it is given. Default: nothing. */
  readonly payload?: unknown
  /** Whether it does no harm to handle it twice. Default: false. */
  readonly idempotent?: boolean | undefined
}

/**
 * Runs a handler, and does about its failures what the strategy says. Succeeds with none when the work was put aside or
 * the failure ignored.
 *
 * @category combinators
 * @since 0.1.0
 */
export const handle: {
  <S extends ErrorAction.Step, E = unknown>(
    strategy: ErrorStrategy<S>,
    options: HandleOptions<E>
  ): <A, E2 extends E, R>(
    self: Effect.Effect<A, E2, R>
  ) => Effect.Effect<Option.Option<A>, E2 | ErrorAction.Errors<S>, R | ErrorAction.Services<S>>
  <A, E, R, S extends ErrorAction.Step>(
    self: Effect.Effect<A, E, R>,
    strategy: ErrorStrategy<S>,
    options: HandleOptions<E>
  ): Effect.Effect<Option.Option<A>, E | ErrorAction.Errors<S>, R | ErrorAction.Services<S>>
} = dual(
  3,
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    strategy: ErrorStrategy,
    options: HandleOptions<E>
  ): Effect.Effect<
    Option.Option<A>,
    E | CircuitBreakerError | DeadLetters.DeadLetterNotKept,
    R | CircuitBreaker | DeadLetters.DeadLetters | Alerts
  > =>
    Effect.suspend(() => {
      let ended: ErrorHandling.Ended<E> | undefined
      const tried = ErrorHandling.tryAgain(self, {
        classify: options.classify,
        idempotent: options.idempotent,
        decide: (failed) => decide(strategy, failed),
        retried: retriedBy(strategy, options.idempotent),
        onEnd: (end) => {
          ended = end
        }
      })
      return throughCircuits(tried, strategy, options).pipe(
        Effect.map(Option.some),
        // A refusal is no end: the handler did not begin.
        Effect.catchCause((
          cause
        ): Effect.Effect<
          Option.Option<never>,
          E | CircuitBreakerError | DeadLetters.DeadLetterNotKept,
          DeadLetters.DeadLetters | Alerts
        > => ended === undefined ? Effect.failCause(cause) : ErrorHandling.settle(ended, options))
      )
    })
)

const retriedBy = (strategy: ErrorStrategy, idempotent: boolean | undefined): Retrying.Above => {
  const retries = (action: ErrorAction.ErrorAction) => action[0]?._tag === "Retry"
  if (idempotent === true && retries(strategy.unknownOutcome)) return "everything"
  return retries(strategy.transient) || retries(strategy.throttled) || retries(strategy.conflict)
    ? "harmless"
    : "nothing"
}
