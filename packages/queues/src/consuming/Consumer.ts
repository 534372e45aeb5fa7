/**
 * What the parts of a worker share: what it holds, and what they say to each other.
 *
 * **Details**
 *
 * `Claiming` adds to what is held, whoever works takes `next` and says what became of it with `record`, `Settling` tells the
 * database. `Life` starts and ends all of it. Nothing in here waits for the database.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { PayloadStore } from "../PayloadStore.ts"
import type { StoredQueue } from "../QueueCatalog.ts"
import type { QueueMetrics, Working } from "../QueueMetrics.ts"
import type { Policies } from "../QueuePolicies.ts"
import type * as Claims from "./Claims.ts"
import { type Held, Holdings, type Lease, type Outcome, released } from "./Holdings.ts"
import * as Signal from "./Signal.ts"

/**
 * What a consumer is, and what it needs.
 *
 * @category options
 * @since 0.1.0
 */
export interface Setting {
  /** As it is stored now. */
  readonly stored: StoredQueue
  /** What failures and reports call whoever works. */
  readonly name: string
  /** Messages that `next` gives at a time at most. */
  readonly size: number
  /** Messages that run at once at most. */
  readonly capacity: number
  /** Messages that are claimed ahead at most. */
  readonly prefetch: number
  /** As `HeaderFilter.toJsonPath` writes it. */
  readonly filter: string | undefined
  readonly claims: ReturnType<typeof Claims.make>
  /** Where large payloads are. */
  readonly payloads: PayloadStore["Service"]
  /** Tells others that there is something. */
  readonly wake: Effect.Effect<void>
  readonly policies: Policies
  readonly metrics: QueueMetrics
  /** The time in milliseconds, of a clock that nobody sets. */
  readonly now: () => number
}

/**
 * A consumer: see the module.
 *
 * @category models
 * @since 0.1.0
 */
export class Consumer implements Working {
  readonly setting: Setting
  readonly holdings: Holdings
  /** Fewer messages wait than it wants to have. */
  readonly hungry = Signal.make()
  /** There may be something to claim. */
  readonly hinted = Signal.make()
  /** There is news. */
  readonly finished = Signal.make()
  /** Leases of which all is over and not told. */
  readonly news: Array<Lease> = []
  stored: StoredQueue
  /** False from the moment it stops: then nothing begins any more. */
  isOpen = true
  /** Why it can claim no more. */
  refusal: SqlError | undefined
  /** Messages that have begun and are not over. */
  running = 0
  /** When the last handler ended, where the next one begins at once: a clock that is read half as often. */
  endedAt: number | undefined
  /** Messages to hold: more while they are gone before the next ones come. */
  wanted: number
  readonly #idle: Array<(held: ReadonlyArray<Held>) => void> = []

  constructor(setting: Setting) {
    const { capacity, now, prefetch, stored } = setting
    this.setting = setting
    this.stored = stored
    this.holdings = new Holdings(now)
    this.wanted = Math.min(prefetch, capacity)
  }

  get lease(): Duration.Duration {
    return this.stored.settings.lease
  }

  get waiting(): number {
    return this.holdings.waiting
  }

  get isHungry(): boolean {
    return this.holdings.waiting <= this.wanted / 2 && this.holdings.bytes <= this.setting.policies.claimSize / 2
  }

  /**
   * What `use` makes of the next messages, when there are some; of none, when the consumer stops. It is called where they are
   * taken, so nobody can be interrupted in between.
   */
  next<A>(use: (held: ReadonlyArray<Held>) => A): Effect.Effect<A> {
    return Effect.suspend(() => {
      const held = this.#take()
      if (this.isHungry) this.hungry.set()
      if (held.length > 0 || !this.isOpen) return Effect.succeed(use(held))
      this.endedAt = undefined
      return Effect.callback<A>((resume) => {
        const waiter = (held: ReadonlyArray<Held>) => resume(Effect.succeed(use(held)))
        this.#idle.push(waiter)
        return Effect.sync(() => {
          const place = this.#idle.indexOf(waiter)
          if (place >= 0) this.#idle.splice(place, 1)
        })
      })
    })
  }

  /** Holds what was claimed, and hands it to whoever waits. */
  add(messages: ReadonlyArray<Claims.Claimed>): void {
    const { maxRunningPerKey = 1 } = this.stored.settings
    if (messages.length > 0) this.holdings.add(messages, maxRunningPerKey > 1)
    this.dispatch()
  }

  /** Hands what is held to whoever waits; nothing, when it stops. */
  dispatch(): void {
    while (this.#idle.length > 0) {
      const held = this.#take()
      if (held.length === 0 && this.isOpen) return
      this.#idle.shift()!(held)
    }
  }

  /** What became of a message. */
  record({ claimed, lease }: Held, outcome: Outcome): void {
    lease.record(claimed.id, outcome)
    if (lease.open > 0) return
    this.news.push(lease)
    this.finished.set()
  }

  /** Nothing begins any more: what has not is given back, and whoever waits gets nothing. `refusal`: it cannot go on. */
  close(refusal?: SqlError): void {
    this.isOpen = false
    this.refusal ??= refusal
    for (const held of this.holdings.giveBackAll()) this.record(held, released)
    this.dispatch()
  }

  #take(): ReadonlyArray<Held> {
    return this.isOpen ? this.holdings.next(this.setting.size) : []
  }
}
