/**
 * Where it is kept how much of each limit is used up.
 *
 * **When to use**
 *
 * Use `layerMemory` for limits of one process and in tests.
 * Implement the service for another store; `Gcra.take` has the arithmetic.
 *
 * **Details**
 *
 * Effect's own `RateLimiterStore` is not what this is built on. It takes tokens of one key by a call, so tokens of a hierarchy
 * cannot be taken all or nothing; it has fixed windows, which let twice the limit pass at their edge, and buckets that are
 * refilled in whole steps of milliseconds, which cannot say exactly how long to wait; it knows no priorities; and its clock
 * is the wall clock of each process, not the store's.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { Priority } from "../scheduling/Priority.ts"
import * as Gcra from "./Gcra.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * Tokens to be taken of every bucket, or of none.
 *
 * @category models
 * @since 0.1.0
 */
export interface Taking {
  /** The keys differ. */
  readonly buckets: ReadonlyArray<{ readonly key: string; readonly rule: Gcra.Rule }>
  /** 0 to look only. At most the smallest burst. */
  readonly tokens: number
  readonly priority: Priority
  /** Taken again under the same name within ten minutes, the tokens of a bucket pass and cost nothing. */
  readonly requestId?: string | undefined
}

/**
 * The store could not say whether tokens may be taken.
 *
 * @category errors
 * @since 0.1.0
 */
export class RateLimitStoreError
  extends Schema.TaggedError<RateLimitStoreError>("@strata/resilience/RateLimitStore/RateLimitStoreError")(
    "RateLimitStoreError",
    { detail: Schema.String, cause: Schema.optionalKey(Schema.Defect()) }
  )
{
  override get message(): string {
    return `The store of rate limits does not answer: ${this.detail}`
  }
}

// -------------------------------------------------------------------------------------------------------- service

/**
 * Keeps the accounts of limits by their keys, judged by one clock of its own.
 *
 * @category services
 * @since 0.1.0
 */
export class RateLimitStore extends Context.Service<RateLimitStore, {
  /**
   * Where each bucket stands afterwards. The tokens were taken when none makes them wait. A store that knows at once may take
   * them when it is called, and give an `Exit`.
   */
  readonly take: (taking: Taking) => Effect.Effect<ReadonlyArray<Gcra.Standing>, RateLimitStoreError>

  /** How many keys are kept. For people: a store may have to count them. */
  readonly size: Effect.Effect<number, RateLimitStoreError>
}>()("@strata/resilience/limits/RateLimitStore") {}

/**
 * For how long a request that has paid is remembered.
 *
 * @category constants
 * @since 0.1.0
 */
export const remembered = Duration.minutes(10)

/**
 * What a store in memory may hold.
 *
 * @category options
 * @since 0.1.0
 */
export interface MemoryOptions {
  /**
   * Keys, and requests that have paid, kept at most. Beyond it, of a few keys the one that owes least is forgotten, and has its
   * burst once more. Default: 1,000,000.
   */
  readonly maxKeys?: number | undefined
}

/**
 * Keeps limits in this process, by its monotonic clock.
 *
 * **Details**
 *
 * Every call looks at a few keys in turn and removes those that have rested, so memory follows the keys that are in use, and
 * no timer is needed.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options?: MemoryOptions): Layer.Layer<RateLimitStore> =>
  Layer.effect(RateLimitStore, Effect.map(Clock.Clock, (clock) => makeMemory(clock, options)))

// --------------------------------------------------------------------------------------------------------- memory

const makeMemory = (
  clock: Clock.Clock,
  { maxKeys = 1_000_000 }: MemoryOptions = {}
): RateLimitStore["Service"] => {
  const accounts = new Accounts(maxKeys)
  const payments = new Payments(maxKeys)

  const take = (now: bigint, { buckets, priority, requestId, tokens }: Taking): ReadonlyArray<Gcra.Standing> => {
    payments.forget(now)
    const outcome = Gcra.take(
      buckets.map(({ key, rule }) => ({
        rule,
        account: accounts.get(key),
        paid: requestId !== undefined && payments.has(requestId, key, now)
      })),
      { now, priority, tokens }
    )
    for (const [index, { account }] of outcome.levels.entries()) {
      const key = buckets[index]?.key
      if (key === undefined || account === undefined) continue
      accounts.set(key, account, now)
      if (requestId !== undefined && outcome.passes) payments.add(requestId, key, now)
    }
    return outcome.levels
  }

  return RateLimitStore.of({
    take: (taking) => Exit.succeed(take(clock.monotonicTimeNanosUnsafe(), taking)),
    size: Effect.sync(() => accounts.size)
  })
}

/** Keys looked at for each one written: more than one, so that the hand comes round however fast new keys come. */
const looksPerKey = 4

/** Keys of which one is forgotten when there are too many. */
const candidates = 8

class Accounts {
  private readonly accounts = new Map<string, Gcra.Account>()
  private hand = this.accounts.entries()
  private readonly max: number

  constructor(max: number) {
    this.max = max
  }

  get size(): number {
    return this.accounts.size
  }

  get(key: string): Gcra.Account | undefined {
    return this.accounts.get(key)
  }

  set(key: string, account: Gcra.Account, now: bigint): void {
    this.accounts.set(key, account)
    for (let look = 0; look < looksPerKey; look++) {
      const [seen, other] = this.look() ?? []
      if (seen !== undefined && other !== undefined && Gcra.restedAt(other) <= now) this.accounts.delete(seen)
    }
    if (this.accounts.size > this.max) this.evict()
  }

  /** The next key in turn, those written since the turn began included; none at its end. */
  private look(): readonly [string, Gcra.Account] | undefined {
    const next = this.hand.next()
    if (next.done !== true) return next.value
    this.hand = this.accounts.entries()
    return undefined
  }

  private evict(): void {
    let least: readonly [string, Gcra.Account] | undefined
    for (let candidate = 0; candidate < candidates; candidate++) {
      const entry = this.look() ?? this.look()
      if (entry === undefined) break
      if (least === undefined || Gcra.restedAt(entry[1]) < Gcra.restedAt(least[1])) least = entry
    }
    if (least !== undefined) this.accounts.delete(least[0])
  }
}

/** Payments forgotten by one call at most, which is more than it makes. */
const mostForgotten = 32

/** In the order in which they are forgotten. */
class Payments {
  private readonly until = new Map<string, bigint>()
  private readonly kept = Duration.toNanosUnsafe(remembered)
  private readonly max: number

  constructor(max: number) {
    this.max = max
  }

  has(requestId: string, key: string, now: bigint): boolean {
    return (this.until.get(name(requestId, key)) ?? now) > now
  }

  add(requestId: string, key: string, now: bigint): void {
    const payment = name(requestId, key)
    if (!this.until.has(payment)) this.until.set(payment, now + this.kept)
  }

  forget(now: bigint): void {
    let forgotten = 0
    for (const [payment, until] of this.until) {
      if (forgotten++ === mostForgotten || (until > now && this.until.size <= this.max)) return
      this.until.delete(payment)
    }
  }
}

/** A key of a limit has no NUL. */
const name = (requestId: string, key: string): string => `${key}\0${requestId}`
