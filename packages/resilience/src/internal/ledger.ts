/** What each tenant has of its quota: what a `Quota` counts. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Gcra from "../limits/Gcra.ts"
import type { Limits, QuotaExceeded, Request, Resource, Ticket, Usage } from "../limits/Quota.ts"
import type * as Priority from "../scheduling/Priority.ts"

interface Account {
  readonly name: string
  inFlight: number
  depth: number
  bytes: number
  /** Of the hard limit of the rate, and of the soft one. */
  hard: Gcra.Account | undefined
  soft: Gcra.Account | undefined
  /** How many nanoseconds its work was in flight, of the last pieces. */
  average: number
}

type Excess = Pick<QuotaExceeded, "tenant" | "resource" | "used" | "limit" | "retryAfter">

const second = 1_000_000_000
const year = 365 * 86_400 * second

export class Ledger {
  readonly #clock: Clock.Clock
  readonly #limits: Map<string, Limits>
  readonly #refuse: (excess: Excess) => QuotaExceeded
  readonly #demoted: () => void
  readonly #accounts = new Map<string, Account>()
  // Accounts with nothing in flight that may still owe for their rate, the first to have become so first.
  readonly #resting = new Set<Account>()
  #everyone: Limits

  constructor(options: {
    readonly clock: Clock.Clock
    readonly everyone: Limits
    readonly tenants: Iterable<readonly [string, Limits]>
    readonly refuse: (excess: Excess) => QuotaExceeded
    /** Told of work that becomes P3. */
    readonly demoted: () => void
  }) {
    this.#clock = options.clock
    this.#everyone = options.everyone
    this.#limits = new Map(options.tenants)
    this.#refuse = options.refuse
    this.#demoted = options.demoted
  }

  get tenants(): number {
    this.#forget()
    return this.#accounts.size
  }

  set(tenant: string, limits: Limits | undefined): void {
    if (limits === undefined) this.#limits.delete(tenant)
    else this.#limits.set(tenant, limits)
  }

  setEveryone(limits: Limits): void {
    this.#everyone = limits
  }

  usage(tenant: string): Usage {
    const { bytes, depth, hard, inFlight } = this.#accounts.get(tenant) ?? newAccount(tenant)
    const { rate } = this.#limitsOf(tenant)
    return { inFlight, depth, bytes, rate: rate?.hard === undefined ? 0 : this.#usedOf(rate.hard, hard) }
  }

  ticket(request: Request & { readonly priority: Priority.Priority }): Ticket {
    let { priority } = request
    let account: Account | undefined
    let isWaiting = false
    let since = 0n
    const { tenant } = request
    const bytes = request.bytes !== undefined && request.bytes > 0 && Number.isFinite(request.bytes) ? request.bytes : 0
    const wait = (next: boolean) => {
      if (account === undefined || next === isWaiting) return
      isWaiting = next
      account.depth += next ? 1 : -1
    }
    return {
      get priority() {
        return priority
      },
      enter: () => {
        const entered = this.#enter(tenant, bytes)
        if ("refusal" in entered) return entered.refusal
        account = entered.account
        if (entered.isDemoted && priority !== "P3") {
          priority = "P3"
          this.#demoted()
        }
        since = this.#clock.monotonicTimeNanosUnsafe()
        wait(true)
        return undefined
      },
      wait,
      leave: () => {
        if (account === undefined) return
        wait(false)
        this.#leave(account, bytes, since)
        account = undefined
      }
    }
  }

  #enter(tenant: string, bytes: number) {
    this.#forget()
    const limits = this.#limitsOf(tenant)
    const account = this.#accounts.get(tenant) ?? newAccount(tenant)
    const refusal = this.#refusal(account, limits, bytes)
    if (refusal !== undefined) return { refusal: this.#refuse({ ...refusal, tenant }) }
    const isDemoted = this.#isDemoted(account, limits, bytes)
    account.inFlight++
    account.bytes += bytes
    this.#accounts.set(tenant, account)
    this.#resting.delete(account)
    return { account, isDemoted }
  }

  /** Takes of the rate only when nothing else stands in the way. */
  #refusal(account: Account, { bytes, depth, inFlight, rate }: Limits, size: number) {
    return this.#above(account, "inFlight", 1, inFlight?.hard) ??
      this.#above(account, "depth", 1, depth?.hard) ??
      this.#above(account, "bytes", size, bytes?.hard) ??
      this.#tooFast(account, rate?.hard)
  }

  #above(account: Account, resource: Exclude<Resource, "rate">, more: number, limit: number | undefined) {
    const used = account[resource]
    if (limit === undefined || more === 0 || used + more <= limit) return undefined
    // One ends about every so often, and how many must end nobody knows: so it is asked again soon.
    const nanos = account.average / Math.max(1, account.inFlight)
    const retryAfter = more > limit
      ? Duration.infinity
      : Duration.millis(Math.min(60_000, Math.max(100, Math.ceil(nanos / 1_000_000))))
    return { resource, used, limit, retryAfter }
  }

  #tooFast(account: Account, limit: number | undefined) {
    if (limit === undefined) return undefined
    const taken = this.#take(limit, account.hard)
    account.hard = taken.account
    if (taken.passes) return undefined
    const used = this.#usedOf(limit, taken.account)
    return { resource: "rate" as const, used, limit, retryAfter: Duration.nanos(taken.wait) }
  }

  #isDemoted(account: Account, { bytes, depth, inFlight, rate }: Limits, size: number): boolean {
    let isTooFast = false
    if (rate?.soft !== undefined) {
      const taken = this.#take(rate.soft, account.soft)
      account.soft = taken.account
      isTooFast = !taken.passes
    }
    return isTooFast || isAbove(account.inFlight + 1, inFlight?.soft) || isAbove(account.depth + 1, depth?.soft) ||
      isAbove(account.bytes + size, bytes?.soft)
  }

  // All classes take of one account: it is the tenant that is limited.
  #take(limit: number, account: Gcra.Account | undefined) {
    const now = this.#clock.monotonicTimeNanosUnsafe()
    const { levels: [level], passes } = Gcra.take([{ rule: ruleOf(limit), account }], {
      now,
      tokens: 1,
      priority: "P0"
    })
    return { passes, account: level?.account, wait: level?.wait ?? 0n }
  }

  #usedOf(limit: number, account: Gcra.Account | undefined): number {
    const owed = account === undefined ? 0n : account.arrivals.P0 - this.#clock.monotonicTimeNanosUnsafe()
    const rule = ruleOf(limit)
    return rule.burst - Math.min(rule.burst, Gcra.remaining(rule, owed > 0n ? owed : 0n))
  }

  #leave(account: Account, bytes: number, since: bigint): void {
    const took = Number(this.#clock.monotonicTimeNanosUnsafe() - since)
    account.average += (took - account.average) / 8
    account.inFlight--
    account.bytes -= bytes
    if (account.inFlight === 0) this.#resting.add(account)
    this.#forget()
  }

  /** Forgets accounts that say no more than none would, a few at a time. */
  #forget(): void {
    const now = this.#clock.monotonicTimeNanosUnsafe()
    let looks = 4
    for (const account of this.#resting) {
      if (looks-- === 0) return
      this.#resting.delete(account)
      if (isRested(account.hard, now) && isRested(account.soft, now)) this.#accounts.delete(account.name)
      else this.#resting.add(account)
    }
  }

  #limitsOf(tenant: string): Limits {
    return this.#limits.get(tenant) ?? this.#everyone
  }
}

const newAccount = (name: string): Account => ({
  name,
  inFlight: 0,
  depth: 0,
  bytes: 0,
  hard: undefined,
  soft: undefined,
  average: 0
})

const isAbove = (used: number, limit: number | undefined): boolean => limit !== undefined && used > limit

const isRested = (account: Gcra.Account | undefined, now: bigint): boolean =>
  account === undefined || Gcra.restedAt(account) <= now

/** One second's worth at once, and at least one. */
const ruleOf = (rate: number): Gcra.Rule => ({
  interval: BigInt(Math.min(year, Math.ceil(second / rate))),
  burst: Math.max(1, Math.floor(rate))
})
