/**
 * No more than so many at a time, a short queue for the others, and an answer at once when that is full.
 *
 * **When to use**
 *
 * In front of something that gets slower, or breaks, the more is asked of it at once: a pool of connections, a service
 * next door, a piece of memory. `FairScheduler` is the choice where what waits is of different urgency.
 *
 * **Details**
 *
 * - Whoever waits is served in the order of arrival; nobody who comes later gets a slot before.
 * - A slot is in use until the effect has ended. A time-out around it does not free the slot while the work goes on.
 * - Waiting ends after `maxWait`, or with the fiber's own deadline.
 * - A tenant, or any other key, can have slots that are never used for anybody else.
 *
 * **Gotchas**
 *
 * `BulkheadFull` says nothing of the health of what is protected: a circuit breaker must not count it. Put the breaker
 * inside the bulkhead.
 *
 * **Example** (Ten at a time)
 *
 * ```ts import.meta.vitest
 * import * as Bulkhead from "@strata/resilience/bounds/Bulkhead"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const bulkhead = yield* Bulkhead.make({ name: "search", limit: 10, queue: 5, maxWait: "200 millis" })
 *   return yield* bulkhead.run(Effect.succeed("found"))
 * }).pipe(Effect.scoped)
 *
 * await Effect.runPromise(program) // => "found"
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stackless from "../Stackless.ts"

// --------------------------------------------------------------------------------------------------------- models

/**
 * How a bulkhead limits.
 *
 * @category models
 * @since 0.1.0
 */
export interface Numbers {
  /** Effects that run at once. Default: 10. */
  readonly limit?: number | undefined
  /** Effects that wait. Default: as many as may run. */
  readonly queue?: number | undefined
  /** How long one waits. Default: 1 second. */
  readonly maxWait?: Duration.Input | undefined
}

/**
 * What a bulkhead is made from.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Numbers {
  /** What errors and reports call it. */
  readonly name: string
  /** Slots by key that are used for nobody else. Default: none. */
  readonly reserved?: Readonly<Record<string, number>> | undefined
}

/**
 * What a bulkhead is doing, and how often it refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface BulkheadState {
  readonly name: string
  readonly limit: number
  readonly queue: number
  readonly running: number
  readonly waiting: number
  readonly refused: number
}

// --------------------------------------------------------------------------------------------------------- errors

/**
 * There was no slot, and no place to wait for one or none in time. Nothing was started.
 *
 * @category errors
 * @since 0.1.0
 */
export class BulkheadFull extends Schema.TaggedError<BulkheadFull>("@strata/resilience/BulkheadFull")(
  "BulkheadFull",
  {
    bulkhead: Schema.String,
    limit: Schema.Finite,
    waiting: Schema.Finite,
    /** Zero when it was refused at once. */
    waited: Schema.Duration,
    /** When a slot is likely, by how long the last ones were in use. */
    retryAfter: Schema.Duration
  }
) {
  override get message(): string {
    const after = Duration.toMillis(this.waited) === 0 ? "" : `, not one was free in ${Duration.format(this.waited)}`
    return `${this.bulkhead}: ${this.limit} run and ${this.waiting} wait${after}: ` +
      `try again in ${Duration.format(this.retryAfter)}`
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * A bulkhead. See `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Bulkhead {
  /** Runs an effect in a slot. */
  readonly run: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | BulkheadFull, R>
  /** Runs an effect in a slot, one of those reserved for a key if there are. */
  readonly runFor: (
    key: string
  ) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | BulkheadFull, R>
  /** Goes by other numbers from now on. What runs goes on, also when it is more, and what waits goes on waiting. */
  readonly adopt: (numbers: Numbers) => Effect.Effect<void>
  readonly state: Effect.Effect<BulkheadState>
}

/**
 * A bulkhead, until the scope closes.
 *
 * **Details**
 *
 * Dies with a `RangeError` when a number makes no sense: see `problemOf`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<Bulkhead, never, Scope.Scope> {
  const { name, reserved = {} } = options
  yield* check(options, reserved)
  const fork = yield* FiberSet.makeRuntime()
  const slots = new Slots({
    name,
    numbers: options,
    reserved,
    clock: yield* Clock.Clock,
    fork: (watch) => fork(watch)
  })
  const runFor = (key: string | undefined) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      const turn = new Turn(slots.groupOf(key))
      // It begins inside what ends it: a fiber may be interrupted between any two steps.
      const begin = Effect.suspend(() => {
        const waiting = slots.begin(turn)
        return waiting === undefined ? effect : Effect.andThen(waiting, effect)
      })
      return Effect.onExitPrimitive(begin, () => {
        slots.end(turn)
        return undefined
      })
    })
  return {
    run: runFor(undefined),
    runFor,
    adopt: (numbers) => Effect.andThen(check(numbers, reserved), Effect.sync(() => slots.adopt(numbers))),
    state: Effect.sync(() => slots.state)
  }
})

/**
 * What is wrong with the numbers of a bulkhead; `undefined` when nothing is.
 *
 * @category getters
 * @since 0.1.0
 */
export const problemOf = (
  { limit = 10, maxWait = "1 second", queue = limit }: Numbers,
  reserved: Readonly<Record<string, number>> = {}
): string | undefined => {
  const kept = Object.values(reserved).reduce((sum, slots) => sum + slots, 0)
  if (!(Number.isInteger(limit) && limit >= 1)) return `limit must be a whole number from 1, got ${limit}`
  if (!(Number.isInteger(queue) && queue >= 0)) return `queue must be a whole number from 0, got ${queue}`
  if (!(Number.isInteger(kept) && kept >= 0 && kept <= limit)) {
    return `limit must be a whole number from 1 and not below ${kept}, which are reserved, got ${limit}`
  }
  return Duration.isFinite(Duration.fromInputUnsafe(maxWait)) ? undefined : "maxWait must have an end"
}

const check = (numbers: Numbers, reserved: Readonly<Record<string, number>>): Effect.Effect<void> => {
  const problem = problemOf(numbers, reserved)
  return problem === undefined ? Effect.void : Effect.die(new RangeError(`Bulkhead: ${problem}`))
}

// ---------------------------------------------------------------------------------------------------------- slots

/** One of so many turns is measured: for a hint when to come again that is enough, and the clock costs as much as a turn. */
const measuredOf = 8

/** It stands for all of them, each of which would have been an eighth of what is known. */
const measuredWeight = 1 - (7 / 8) ** measuredOf

/** Those that share slots: a key with some reserved for it, or everybody else. */
interface Group {
  readonly reserved: number
  running: number
  readonly waiting: Set<Turn>
}

const nobody = (): void => {}

class Turn {
  readonly group: Group
  state: "new" | "waiting" | "granted" = "new"
  arrival = 0
  /** When it began to wait, or to run if that is measured. */
  since = 0n
  measured = false
  go: (exit: Exit.Exit<void, BulkheadFull>) => void = nobody

  constructor(group: Group) {
    this.group = group
  }
}

// A turn belongs to whoever asked from the moment it is granted, also when its fiber is interrupted before it goes on:
// so `end` is called on every exit of what begins with `begin`, however far that got.
class Slots {
  readonly #name: string
  readonly #clock: Clock.Clock
  readonly #fork: (watch: Effect.Effect<void>) => void
  readonly #groups = new Map<string, Group>()
  readonly #everybody: Group = { reserved: 0, running: 0, waiting: new Set() }
  // In the order in which they came, which is that of the ends of their waiting.
  readonly #waiting = new Set<Turn>()
  #limit = 0
  #queue = 0
  #maxWait = 0n
  #running = 0
  /** Slots that are reserved and not in use by those they are reserved for. */
  #unclaimed = 0
  #arrivals = 0
  #taken = 0
  #refused = 0
  #average = 0
  #watched = false
  #granting = false

  constructor(options: {
    readonly name: string
    readonly numbers: Numbers
    readonly reserved: Readonly<Record<string, number>>
    readonly clock: Clock.Clock
    readonly fork: (watch: Effect.Effect<void>) => void
  }) {
    this.#name = options.name
    this.#clock = options.clock
    this.#fork = options.fork
    for (const [key, reserved] of Object.entries(options.reserved)) {
      this.#groups.set(key, { reserved, running: 0, waiting: new Set() })
      this.#unclaimed += reserved
    }
    this.adopt(options.numbers)
  }

  groupOf(key: string | undefined): Group {
    return key === undefined ? this.#everybody : this.#groups.get(key) ?? this.#everybody
  }

  /** Takes a slot, or gives what waits for one. */
  begin(turn: Turn): Effect.Effect<void, BulkheadFull> | undefined {
    const isFirst = turn.group.waiting.size === 0 && (!this.#granting || this.#waiting.size === 0)
    if (isFirst && this.#hasSlot(turn.group)) {
      this.#take(turn)
      return undefined
    }
    if (this.#waiting.size >= this.#queue) return Effect.fail(this.#full(0n))
    return Effect.callback((go) => {
      turn.state = "waiting"
      turn.arrival = ++this.#arrivals
      turn.since = this.#clock.monotonicTimeNanosUnsafe()
      turn.go = go
      this.#waiting.add(turn)
      turn.group.waiting.add(turn)
      this.#grant()
      if (this.#waiting.size === 0 || this.#watched) return
      this.#watched = true
      this.#fork(this.#watch)
    })
  }

  end(turn: Turn): void {
    if (turn.state === "granted") {
      if (turn.measured) {
        const held = Number(this.#clock.monotonicTimeNanosUnsafe() - turn.since)
        this.#average += (held - this.#average) * measuredWeight
      }
      this.#running--
      if (turn.group.running-- <= turn.group.reserved) this.#unclaimed++
    } else if (turn.state === "waiting") {
      this.#leave(turn)
    }
    turn.state = "new"
    if (this.#waiting.size > 0) this.#grant()
  }

  adopt({ limit = 10, maxWait = "1 second", queue = limit }: Numbers): void {
    this.#limit = limit
    this.#queue = queue
    this.#maxWait = Duration.toNanosUnsafe(Duration.fromInputUnsafe(maxWait))
    this.#grant()
  }

  get state(): BulkheadState {
    return {
      name: this.#name,
      limit: this.#limit,
      queue: this.#queue,
      running: this.#running,
      waiting: this.#waiting.size,
      refused: this.#refused
    }
  }

  #hasSlot(group: Group): boolean {
    const free = this.#limit - this.#running
    return free > 0 && (group.running < group.reserved || free > this.#unclaimed)
  }

  #take(turn: Turn): void {
    turn.state = "granted"
    turn.measured = this.#taken++ % measuredOf === 0
    if (turn.measured) turn.since = this.#clock.monotonicTimeNanosUnsafe()
    this.#running++
    if (++turn.group.running <= turn.group.reserved) this.#unclaimed--
  }

  #leave(turn: Turn): void {
    this.#waiting.delete(turn)
    turn.group.waiting.delete(turn)
  }

  // Whoever is let go runs at once, and may end its turn at once: then the next one is let go by the same loop.
  #grant(): void {
    if (this.#granting) return
    this.#granting = true
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      this.#leave(next)
      this.#take(next)
      next.go(Exit.void)
    }
    this.#granting = false
  }

  /** The first to come of those for whom there is a slot. */
  #next(): Turn | undefined {
    if (this.#waiting.size === 0) return undefined
    let first = this.#firstOf(this.#everybody)
    for (const group of this.#groups.values()) {
      const turn = this.#firstOf(group)
      if (turn !== undefined && (first === undefined || turn.arrival < first.arrival)) first = turn
    }
    return first
  }

  #firstOf(group: Group): Turn | undefined {
    if (!this.#hasSlot(group)) return undefined
    const [first] = group.waiting
    return first
  }

  #full(waited: bigint): BulkheadFull {
    this.#refused++
    const nanos = this.#average * (this.#waiting.size + 1) / this.#limit
    return Stackless.make(() =>
      new BulkheadFull({
        bulkhead: this.#name,
        limit: this.#limit,
        waiting: this.#waiting.size,
        waited: Duration.nanos(waited),
        retryAfter: Duration.millis(Math.min(60_000, Math.max(100, Math.ceil(nanos / 1_000_000))))
      })
    )
  }

  // One timer for all who wait, and none when nobody does.
  readonly #watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = this.#clock.monotonicTimeNanosUnsafe()
    for (const turn of this.#waiting) {
      const left = turn.since + this.#maxWait - now
      if (left > 0n) return Effect.andThen(Effect.sleep(Duration.nanos(left)), this.#watch)
      this.#leave(turn)
      turn.state = "new"
      turn.go(Exit.fail(this.#full(now - turn.since)))
    }
    this.#watched = false
    return Effect.void
  })
}
