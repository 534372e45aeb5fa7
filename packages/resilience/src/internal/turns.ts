/** Who waits for a slot, who has one, and who is next: what a `FairScheduler` does between its queue and its slots. */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import type * as Tracer from "effect/Tracer"
import type * as Quota from "../limits/Quota.ts"
import type * as FairQueue from "../scheduling/FairQueue.ts"
import { HandedBack, type NotBegun, SchedulerFull, type Task } from "../scheduling/FairTask.ts"
import type * as Priority from "../scheduling/Priority.ts"
import * as Stackless from "../Stackless.ts"
import type { FairMetrics } from "./fairMetrics.ts"
import type { Overruns, Timed } from "./overruns.ts"
import { type Interruptible, Preemption, Running } from "./preemption.ts"
import type { Slots } from "./slots.ts"

/** Undefined to begin. */
type Answer = HandedBack | undefined

const mayBegin: Exit.Exit<Answer> = Exit.succeed(undefined)

export class Turn implements Timed, Interruptible {
  readonly task: Task
  readonly tenant: string
  readonly isPrefetched: boolean
  readonly outer: Interruptible | undefined
  readonly ticket: Quota.Ticket | undefined
  readonly #priority: Priority.Priority
  readonly #span: Tracer.Span | undefined
  entry: FairQueue.Entry<Turn> | undefined
  startedAt = 0
  /** Set once it is let go, or handed back. */
  #answer: Exit.Exit<Answer> | undefined
  #go: ((answer: Exit.Exit<Answer>) => void) | undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  isPreempted = false
  isCommitted = false
  preemptions = 0

  constructor(options: {
    readonly task: Task
    readonly priority: Priority.Priority
    readonly tenant: string
    readonly isPrefetched: boolean
    readonly ticket: Quota.Ticket | undefined
    readonly outer: Interruptible | undefined
    readonly span: Tracer.Span | undefined
  }) {
    this.task = options.task
    this.tenant = options.tenant
    this.isPrefetched = options.isPrefetched
    this.ticket = options.ticket
    this.outer = options.outer
    this.#priority = options.priority
    this.#span = options.span
  }

  get priority(): Priority.Priority {
    return this.ticket?.priority ?? this.#priority
  }

  get name(): string {
    return this.task.name ?? this.priority
  }

  readonly wait: Effect.Effect<Answer> = Effect.suspend(() =>
    this.#answer ?? Effect.callback<Answer>((go) => {
      // It may have been answered between the two looks.
      if (this.#answer === undefined) this.#go = go
      else go(this.#answer)
    })
  )

  answer(answer: Exit.Exit<Answer>): void {
    this.#answer = answer
    this.#go?.(answer)
  }

  /** It is to wait again. */
  ask(): void {
    this.#answer = undefined
    this.#go = undefined
  }

  tell(event: string, now: bigint, attributes: Record<string, unknown>): void {
    this.#span?.event(event, now, { class: this.priority, tenant: this.tenant, ...attributes })
  }
}

// A turn belongs to whoever asked from the moment it is granted, also when its fiber is interrupted before it goes on:
// so `end` is called on every exit of what begins with `begin`, however far that got.
export class Turns {
  readonly #name: string
  readonly #clock: Clock.Clock
  readonly #queue: FairQueue.FairQueue<Turn>
  readonly #slots: Slots
  readonly #maxWaiting: number
  readonly #maxWait: number
  readonly #paysTime: boolean
  readonly #overruns: Overruns<Turn>
  readonly #metrics: FairMetrics
  readonly #preemption = new Preemption<Turn>()
  /** How long the last one to begin had waited, of each class. */
  readonly #waited: Record<Priority.Priority, number> = { P0: 0, P1: 0, P2: 0, P3: 0 }
  /** Prefetched and not begun. */
  readonly #prefetched = new Set<Turn>()
  readonly totals = { refused: 0, handedBack: 0, preempted: 0 }
  #isDraining = false
  #again = false

  constructor(options: {
    readonly name: string
    readonly clock: Clock.Clock
    readonly queue: FairQueue.FairQueue<Turn>
    readonly slots: Slots
    readonly maxWaiting: number
    /** Milliseconds. */
    readonly maxWait: number
    readonly paysTime: boolean
    readonly overruns: Overruns<Turn>
    readonly metrics: FairMetrics
  }) {
    this.#name = options.name
    this.#clock = options.clock
    this.#queue = options.queue
    this.#slots = options.slots
    this.#maxWaiting = options.maxWaiting
    this.#maxWait = options.maxWait
    this.#paysTime = options.paysTime
    this.#overruns = options.overruns
    this.#metrics = options.metrics
  }

  /** Waits until it is the turn of this one. */
  begin(turn: Turn): Effect.Effect<Answer, NotBegun> {
    return Effect.suspend((): Effect.Effect<Answer, NotBegun> => {
      const refusal = this.#refusal(turn)
      if (refusal !== undefined) {
        this.totals.refused++
        this.#metrics.count("refused", turn.priority)
        return Effect.fail(refusal)
      }
      const now = this.#now
      const { task: { cost, key, waited }, priority, tenant } = turn
      turn.entry = this.#queue.offer({
        value: turn,
        priority,
        tenant,
        key,
        cost: cost ?? this.#expected(turn),
        enqueuedAt: waited === undefined ? now : now - Duration.toMillis(Duration.fromInputUnsafe(waited))
      }, now)
      if (turn.isPrefetched) this.#prefetched.add(turn)
      this.#drain()
      return turn.wait
    })
  }

  end(turn: Turn): void {
    turn.ticket?.leave()
    const { entry } = turn
    if (entry === undefined || entry.state === "done") return
    this.#prefetched.delete(turn)
    if (entry.state === "running") {
      this.#queue.complete(entry, this.#stop(turn, true))
    } else {
      this.#queue.cancel(entry)
    }
    this.#drain()
  }

  /** Runs an effect until it is neither interrupted for more urgent work nor to be tried again. */
  repeat<A, E, R, R0>(
    turn: Turn,
    effect: Effect.Effect<A, E, R>,
    retry: Schedule.Schedule<unknown, E, never, R0> | undefined
  ): Effect.Effect<A, E, R | R0> {
    const once = turn.task.preemptible === true ? this.#untilDone(turn, effect) : Effect.exit(effect)
    if (retry === undefined) return Effect.flatten(once)
    return Effect.flatMap(Schedule.toStepWithSleep(retry), (step) => {
      const attempt: Effect.Effect<A, E, R | R0> = Effect.flatMap(once, (exit): Effect.Effect<A, E, R | R0> => {
        const failure = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : Option.none()
        if (Option.isNone(failure)) return exit
        this.#hold(turn)
        return Pull.matchEffect(step(failure.value), {
          onSuccess: () => Effect.andThen(this.#resume(turn), attempt),
          onFailure: (cause) => Effect.failCause(cause),
          onDone: () => exit
        })
      })
      return attempt
    })
  }

  // -------------------------------------------------------------------------------------------------------- waiting

  #refusal(turn: Turn): NotBegun | undefined {
    const { priority } = turn
    return this.full(priority) ?? turn.ticket?.enter() ??
      (turn.priority === priority ? undefined : this.full(turn.priority))
  }

  full(priority: Priority.Priority): SchedulerFull | undefined {
    const { held, queued } = this.#queue.stateOf(priority)
    const waiting = held + queued
    // First in, first out: who comes now waits as long as who began last, while there is anybody before it.
    const isSlow = priority !== "P0" && queued > 0 && this.#waited[priority] > this.#maxWait
    return waiting < this.#maxWaiting && !isSlow
      ? undefined
      : Stackless.make(() =>
        new SchedulerFull({ scheduler: this.#name, priority, waiting, retryAfter: this.#timeFor(priority, waiting) })
      )
  }

  // Whoever is let go runs at once, and may end its turn at once: then the next one is let go by the same loop.
  #drain(): void {
    this.#again = true
    if (this.#isDraining) return
    this.#isDraining = true
    while (this.#again) {
      this.#again = false
      for (let turn = this.#next(); turn !== undefined; turn = this.#next()) turn.answer(mayBegin)
      const urgent = this.#queue.ready("P0")
      if (urgent === 0) continue
      this.#handBack(urgent)
      this.#preemption.makeWay(urgent, this.#mayYield)
    }
    this.#isDraining = false
  }

  #next(): Turn | undefined {
    const now = this.#now
    const entry = (this.#preemption.claim() ? this.#queue.next(now, this.#mayStartUrgent) : undefined) ??
      this.#queue.next(now, this.#mayStart)
    if (entry === undefined) return undefined
    const { cost, enqueuedAt, isAged, priority, value: turn } = entry
    turn.startedAt = now
    this.#waited[priority] = now - enqueuedAt
    turn.ticket?.wait(false)
    this.#prefetched.delete(turn)
    this.#slots.begin(priority)
    this.#overruns.begin(turn)
    this.#metrics.count("dispatched", priority)
    this.#metrics.waited(now - enqueuedAt, priority)
    if (isAged) this.#metrics.count("aged", priority)
    this.#tell(turn, "dispatched", { waited: now - enqueuedAt, cost, aged: isAged })
    return turn
  }

  readonly #isWaiting = (priority: Priority.Priority): boolean => this.#queue.ready(priority) > 0
  readonly #mayStart = (priority: Priority.Priority): boolean => this.#slots.allows(priority, this.#isWaiting)
  readonly #mayStartUrgent = (priority: Priority.Priority): boolean => priority === "P0" && this.#mayStart(priority)

  readonly #mayYield = (priority: Priority.Priority): boolean => this.#slots.yields(priority, this.#isWaiting)

  /** Gives back what was prefetched and not begun. What has aged is kept, or its turn might never come. */
  #handBack(urgent: number): void {
    if (this.#prefetched.size === 0) return
    const now = this.#now
    const retryAfter = this.#timeFor("P0", urgent)
    for (const turn of [...this.#prefetched]) {
      const { entry, priority, tenant } = turn
      if (entry === undefined || priority === "P0" || entry.rank <= now || !this.#queue.cancel(entry)) continue
      this.#prefetched.delete(turn)
      this.totals.handedBack++
      this.#metrics.count("handedBack", priority)
      this.#tell(turn, "handed back", {})
      turn.answer(Exit.succeed(
        Stackless.make(() => new HandedBack({ scheduler: this.#name, priority, tenant, retryAfter }))
      ))
    }
  }

  // -------------------------------------------------------------------------------------------------------- running

  /** The effect's exit, after as many beginnings as were interrupted for more urgent work. */
  #untilDone<A, E, R>(turn: Turn, effect: Effect.Effect<A, E, R>): Effect.Effect<Exit.Exit<A, E>, never, R> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.forkChild(Effect.provideService(effect, Running, turn), { startImmediately: true }),
        (fiber) => {
          this.#preemption.begin(turn, fiber)
          // P0 may have come to wait before this could be interrupted.
          if (this.#isWaiting("P0")) this.#drain()
          const ended = Effect.onExitPrimitive(restore(Fiber.await(fiber)), () => Fiber.interrupt(fiber))
          return Effect.flatMap(ended, (exit) =>
            this.#preemption.end(turn) && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
              ? restore(Effect.andThen(this.#startAgain(turn), this.#untilDone(turn, effect)))
              : Effect.succeed(exit))
        }
      )
    )
  }

  #startAgain(turn: Turn): Effect.Effect<Answer> {
    return Effect.suspend(() => {
      if (turn.entry === undefined) return mayBegin
      this.totals.preempted++
      this.#metrics.count("preempted", turn.priority)
      this.#tell(turn, "preempted", {})
      const cost = this.#stop(turn, false)
      this.#preemption.free()
      this.#queue.requeue(turn.entry, this.#now, cost)
      turn.ticket?.wait(true)
      this.#drain()
      return turn.wait
    })
  }

  #hold(turn: Turn): void {
    if (turn.entry === undefined) return
    this.#queue.hold(turn.entry, this.#stop(turn, true))
    this.#drain()
  }

  #resume(turn: Turn): Effect.Effect<Answer> {
    return Effect.suspend(() => {
      if (turn.entry === undefined) return mayBegin
      this.#queue.resume(turn.entry, this.#now)
      turn.ticket?.wait(true)
      this.#drain()
      return turn.wait
    })
  }

  /** Ends the use of a slot. Returns what is to be paid for it, if that is not what was expected. */
  #stop(turn: Turn, isWhole: boolean): number | undefined {
    this.#preemption.end(turn)
    this.#slots.end(turn.priority)
    turn.ask()
    const ran = this.#overruns.end(turn, isWhole)
    return this.#paysTime ? ran : undefined
  }

  // ------------------------------------------------------------------------------------------------------- measures

  get #now(): number {
    return Number(this.#clock.monotonicTimeNanosUnsafe()) / 1_000_000
  }

  #tell(turn: Turn, event: string, attributes: Record<string, unknown>): void {
    turn.tell(event, this.#clock.currentTimeNanosUnsafe(), { scheduler: this.#name, ...attributes })
  }

  #expected(turn: Turn): number | undefined {
    return this.#paysTime ? this.#overruns.expected(turn.name) ?? this.#overruns.expected(turn.priority) : undefined
  }

  /** About how long it takes until as many of a class have had their turn. */
  #timeFor(priority: Priority.Priority, waiting: number): Duration.Duration {
    const average = this.#overruns.expected(priority) ?? 0
    return Duration.millis(Math.min(60_000, Math.max(100, Math.ceil(average * waiting / this.#slots.total))))
  }
}
