/**
 * Runs effects on a limited number of slots, in the fair order of a `FairQueue`.
 *
 * **When to use**
 *
 * In front of whatever several classes or tenants share: the handlers of commands, the workers of a queue. A `Bulkhead`
 * is the simpler choice where everybody is alike.
 *
 * **Details**
 *
 * - Some slots are kept free for P0, so that urgent work starts at once however long everything else takes. Others are
 *   guaranteed: see `WorkerShares`, which also says by when work has to be done.
 * - What waits for a slot is bounded by class, and by tenant with a `Quota`; more is refused by name, with a time after
 *   which to ask again.
 * - A running effect is left alone. Only one that says it is `preemptible` is interrupted for P0 that has no slot, up to
 *   its `committing`; it pays for the time it had, and is started again later from the beginning.
 * - `prefetch` is for who holds more work than runs: what was not begun is handed back while P0 has no slot, so that
 *   somebody else may do it. What has aged is kept; so say how long work `waited` already.
 * - With `retry` an effect that fails is tried again by a schedule. It has no slot meanwhile, and work of the same key
 *   waits for it.
 * - A slot is in use until the effect has ended, also when its time was up before.
 * - Work that runs for more than twice the average of its name, and more than 10 ms, is reported within a tenth of a
 *   second, and goes on.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_fair_waiting`, `strata_fair_running` | gauges | `scheduler`, `class` |
 * | `strata_fair_dispatched_total` | counter: work that was given a slot | `scheduler`, `class` |
 * | `strata_fair_aged_total` | counter: of that, what its age brought forward | `scheduler`, `class` |
 * | `strata_fair_wait_seconds` | histogram: from when work came until it was given a slot | `scheduler`, `class` |
 * | `strata_fair_refused_total` | counter | `scheduler`, `class` |
 * | `strata_fair_handed_back_total` | counter | `scheduler`, `class` |
 * | `strata_fair_preempted_total` | counter | `scheduler`, `class` |
 * | `strata_fair_overrun_total` | counter | `scheduler`, `class` |
 *
 * The span around a task has an event when it is dispatched, handed back, preempted and overrun.
 *
 * **Gotchas**
 *
 * Work that waits inside a slot for another slot of the same scheduler may wait for ever: all the others may do so too.
 *
 * **Example** (A payment)
 *
 * ```ts import.meta.vitest
 * import * as FairScheduler from "@strata/resilience/scheduling/FairScheduler"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const scheduler = yield* FairScheduler.make({ name: "commands", slots: 8 })
 *   return yield* Effect.succeed("paid").pipe(scheduler.run({ priority: "P0", tenant: "acme", key: "account-42" }))
 * })
 *
 * await Effect.runPromise(Effect.scoped(program)) // => "paid"
 * ```
 *
 * Sources: Kubernetes' API Priority and Fairness for the fair queue of work that takes slots and is charged what it took;
 * Temporal's task queue priorities and fairness for ageing by a rank that never changes.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as Deadline from "../bounds/Deadline.ts"
import * as FairMetrics from "../internal/fairMetrics.ts"
import { Overruns } from "../internal/overruns.ts"
import * as Preemption from "../internal/preemption.ts"
import { Slots } from "../internal/slots.ts"
import { Turn, Turns } from "../internal/turns.ts"
import type * as Quota from "../limits/Quota.ts"
import * as FairQueue from "./FairQueue.ts"
import { HandedBack, type NotBegun, type Overrun, type Retry, SchedulerFull, type Task } from "./FairTask.ts"
import * as Priority from "./Priority.ts"
import * as WorkerShares from "./WorkerShares.ts"

export { HandedBack, type NotBegun, type Overrun, type Retry, SchedulerFull, type Task }

// --------------------------------------------------------------------------------------------------------- models

/**
 * How a scheduler works. Only its name has no default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** What errors, reports and metrics call it. */
  readonly name: string
  /** Effects that run at once. Default: 16. */
  readonly slots?: number | undefined
  /** Whose the slots are, and by when work has to be done. Default: `WorkerShares.forCommands`. */
  readonly shares?: WorkerShares.WorkerShares | undefined
  /** Effects of a class that wait at most, those that are to be tried again among them. Default: 1,000. */
  readonly maxWaiting?: number | undefined
  /**
   * Effects of a class are refused while its next ones have waited longer, for a late answer serves nobody. P0 is not. Default:
   * without end.
   */
  readonly maxWait?: Duration.Input | undefined
  /** Of the classes. Default: 8, 4, 2 and 1. */
  readonly weights?: FairQueue.ByClass | undefined
  /**
   * A tenant's weight inside a class, asked for every effect that starts. What is not above 0 counts as 1. Default: 1.
   */
  readonly tenantWeight?: ((tenant: string) => number) | undefined
  /** What a tenant may have. Default: no limits. */
  readonly quota?: Quota.Quota | undefined
  /**
   * What a share pays: the milliseconds an effect ran, whatever was expected, or what its task declared (1 without).
   * Default: `time`.
   */
  readonly pay?: "time" | "declared" | undefined
  /** Learns of work that takes much longer than usual, while it runs. Default: nobody does. */
  readonly onOverrun?: ((overrun: Overrun) => Effect.Effect<void>) | undefined
}

/**
 * What a class has, and what it would have if everything were divided by the weights.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClassState extends FairQueue.ClassState {
  /** Slots, by its weight and what it has running and waiting. */
  readonly entitled: number
}

/**
 * What a scheduler is doing, and what it did since it was made.
 *
 * @category models
 * @since 0.1.0
 */
export interface FairSchedulerState {
  readonly name: string
  readonly slots: number
  readonly running: number
  readonly classes: Readonly<Record<Priority.Priority, ClassState>>
  readonly refused: number
  readonly handedBack: number
  readonly preempted: number
  readonly overran: number
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * Numbers that make no sense, and why.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidScheduler
  extends Schema.TaggedError<InvalidScheduler>("@strata/resilience/InvalidScheduler")("InvalidScheduler", {
    scheduler: Schema.String,
    problem: Schema.String
  })
{
  override get message(): string {
    return `The scheduler ${this.scheduler} cannot be used: ${this.problem}`
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * A scheduler. See `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface FairScheduler {
  /** Runs an effect when it is its turn. */
  readonly run: <E0 = unknown, R0 = never>(task: Task & Retry<E0, R0>) => <A, E extends E0, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | NotBegun | Deadline.DeadlineExceeded, R | R0>
  /** The same for work that somebody holds who can do without: it may be handed back before it begins. */
  readonly prefetch: <E0 = unknown, R0 = never>(task: Task & Retry<E0, R0>) => <A, E extends E0, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | NotBegun | HandedBack | Deadline.DeadlineExceeded, R | R0>
  /** What `run` would refuse an effect of a class for now; `undefined` where it would not. */
  readonly refusal: (priority: Priority.Priority) => SchedulerFull | undefined
  /** Slots that nobody has now. */
  readonly free: () => number
  readonly state: Effect.Effect<FairSchedulerState>
}

/**
 * Runs what others can see of a preemptible effect: from here on it is not interrupted for more urgent work. An effect
 * that is being interrupted for it does not get here. Anywhere else it only runs the effect.
 *
 * @category combinators
 * @since 0.1.0
 */
export const committing = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.andThen(Preemption.commit, effect)

/**
 * A scheduler with its own slots. Its gauges are there, and overruns are reported, until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<FairScheduler, InvalidScheduler, Scope.Scope> {
  const problem = problemOf(options)
  if (problem !== undefined) return yield* new InvalidScheduler({ scheduler: options.name, problem })
  const { name, pay = "time", quota, shares = WorkerShares.forCommands, weights = FairQueue.defaultWeights } = options
  const clock = yield* Clock.Clock
  const queue = FairQueue.make<Turn>({ weights, tenantWeight: options.tenantWeight })
  const slots = new Slots(options.slots ?? defaultSlots, shares)
  const metrics = yield* FairMetrics.make(name, {
    waiting: (priority) => queue.stateOf(priority).queued,
    running: (priority) => queue.stateOf(priority).running
  })
  const reports = yield* makeReports(options, clock, metrics)
  const turns = new Turns({
    name,
    clock,
    queue,
    slots,
    maxWaiting: options.maxWaiting ?? defaultMaxWaiting,
    maxWait: options.maxWait === undefined ? Infinity : Duration.toMillis(Duration.fromInputUnsafe(options.maxWait)),
    paysTime: pay === "time",
    overruns: reports.overruns,
    metrics
  })

  return {
    ...running(turns, shares, quota),
    refusal: (priority) => turns.full(priority),
    free: () => slots.total - slots.running,
    state: Effect.sync(() => ({
      name,
      slots: slots.total,
      running: slots.running,
      classes: classesOf(queue, slots.total, weights),
      ...turns.totals,
      overran: reports.count()
    }))
  }
})

const running = (
  turns: Turns,
  shares: WorkerShares.WorkerShares,
  quota: Quota.Quota | undefined
): Pick<FairScheduler, "run" | "prefetch"> => {
  const turnOf = (task: Task, fiber: Fiber.Fiber<unknown, unknown>, isPrefetched: boolean) => {
    const { bytes, priority = fiber.getRef(Priority.Current), tenant = "default" } = task
    const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
    return new Turn({
      task,
      priority,
      tenant,
      isPrefetched,
      ticket: quota?.ticket({ tenant, priority, bytes }),
      outer: fiber.getRef(Preemption.Running),
      span: span?._tag === "Span" ? span : undefined
    })
  }

  /** Ends the turn whatever happens, and in time. */
  const during = <A, E, R>(
    turn: Turn,
    effect: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | Deadline.DeadlineExceeded, R> => {
    const deadline = WorkerShares.deadlineOf(shares, turn.priority)
    const whole = Effect.onExitPrimitive(effect, () => {
      turns.end(turn)
      return undefined
    })
    return Duration.isFinite(deadline) ? Deadline.within(deadline)(whole) : whole
  }

  /** What is done in the turn, in the class that its quota left it. */
  const work = <A, E, R, R0>(
    turn: Turn,
    effect: Effect.Effect<A, E, R>,
    { preemptible, retry }: Task & Retry<E, R0>
  ): Effect.Effect<A, E, R | R0> =>
    Priority.run(
      preemptible === true || retry !== undefined ? turns.repeat(turn, effect, retry) : effect,
      turn.priority
    )

  return {
    run: (task) => (effect) =>
      Effect.withFiber((fiber) => {
        const turn = turnOf(task, fiber, false)
        return during(turn, Effect.flatMap(turns.begin(turn), () => work(turn, effect, task)))
      }),
    prefetch: (task) => (effect) =>
      Effect.withFiber((fiber) => {
        const turn = turnOf(task, fiber, true)
        const unless = (back: HandedBack | undefined) => back === undefined ? Effect.void : Effect.fail(back)
        const begun = Effect.flatMap(turns.begin(turn), unless)
        return during(turn, Effect.flatMap(begun, () => work(turn, effect, task)))
      })
  }
}

const classesOf = (queue: FairQueue.FairQueue<Turn>, slots: number, weights: FairQueue.ByClass) => {
  const states = Priority.all.map((priority) => queue.stateOf(priority))
  const entitled = FairQueue.divide(
    states.map(({ ready, running }) => ready + running),
    slots,
    Priority.all.map((priority) => weights[priority])
  )
  const of = (place: number): ClassState => ({
    ...queue.stateOf(Priority.all[place] ?? "P3"),
    entitled: entitled[place] ?? 0
  })
  return { P0: of(0), P1: of(1), P2: of(2), P3: of(3) }
}

/** Watches what runs, and says what runs for too long. */
const makeReports = Effect.fnUntraced(function*(
  { name: scheduler, onOverrun }: Options,
  clock: Clock.Clock,
  metrics: FairMetrics.FairMetrics
) {
  const fork = yield* FiberSet.makeRuntime()
  let overran = 0
  const overruns = new Overruns<Turn>({
    now: () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000,
    fork: (watch) => fork(watch),
    report: (turn, ran, average) => {
      const { name, priority, tenant } = turn
      overran++
      metrics.count("overrun", priority)
      turn.tell("overrun", clock.currentTimeNanosUnsafe(), { scheduler, name, ran, average })
      if (onOverrun === undefined) return
      const overrun = {
        scheduler,
        name,
        priority,
        tenant,
        ran: Duration.millis(ran),
        average: Duration.millis(average)
      }
      fork(
        Effect.catchCause(
          onOverrun(overrun),
          (cause) => Effect.logWarning(`${scheduler}: whoever is told of overruns failed`, cause)
        )
      )
    }
  })
  return { overruns, count: () => overran }
})

// --------------------------------------------------------------------------------------------------------- numbers

const defaultSlots = 16
const defaultMaxWaiting = 1000

const isCount = (number: number): boolean => Number.isInteger(number) && number >= 1

const isWeight = (number: number): boolean => number > 0 && Number.isFinite(number)

const isShares = Schema.is(WorkerShares.WorkerShares)

const problemOf = (
  { maxWait = Duration.infinity, maxWaiting = defaultMaxWaiting, shares, slots = defaultSlots, weights }: Options
) => {
  if (!isCount(slots)) return `slots must be a whole number from 1, got ${slots}`
  if (!isCount(maxWaiting)) return `maxWaiting must be a whole number from 1, got ${maxWaiting}`
  if (!Duration.isPositive(Duration.fromInputUnsafe(maxWait))) return "maxWait must be above zero"
  if (shares !== undefined && !isShares(shares)) {
    return `shares must be from 0 to 1 and 1 together at most, got ${WorkerShares.format(shares)}`
  }
  const weightless = Priority.all.find((priority) => weights !== undefined && !isWeight(weights[priority]))
  return weightless === undefined
    ? undefined
    : `the weight of ${weightless} must be a number above 0, got ${weights?.[weightless]}`
}

/**
 * Reads the numbers of a scheduler from the environment. What is not set is as in `defaults`.
 *
 * | variable | |
 * | --- | --- |
 * | `<prefix>_SLOTS` | Effects that run at once. Default: 16 |
 * | `<prefix>_MAX_WAITING` | Effects of a class that wait at most. Default: 1000 |
 * | `<prefix>_WEIGHT_P0` … `_P3` | Of the classes. Default: 8, 4, 2 and 1 |
 *
 * Those of its shares are read too: see `WorkerShares.config`.
 *
 * @category config
 * @since 0.1.0
 */
export const config = (prefix: string, defaults: Options): Config.Config<Options> => {
  const { maxWaiting = defaultMaxWaiting, shares = WorkerShares.forCommands, slots = defaultSlots } = defaults
  const { weights = FairQueue.defaultWeights } = defaults
  const weight = (priority: Priority.Priority) =>
    Config.Finite(`${prefix}_WEIGHT_${priority}`).pipe(Config.withDefault(weights[priority]))
  return Config.all({
    slots: Config.Int(`${prefix}_SLOTS`).pipe(Config.withDefault(slots)),
    maxWaiting: Config.Int(`${prefix}_MAX_WAITING`).pipe(Config.withDefault(maxWaiting)),
    maxWait: Config.Duration(`${prefix}_MAX_WAIT`).pipe(
      Config.withDefault(Duration.fromInputUnsafe(defaults.maxWait ?? Duration.infinity))
    ),
    weights: Config.all({ P0: weight("P0"), P1: weight("P1"), P2: weight("P2"), P3: weight("P3") }),
    shares: WorkerShares.config(prefix, shares)
  }).pipe(Config.map((numbers) => ({ ...defaults, ...numbers })))
}
