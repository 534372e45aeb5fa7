/**
 * What a worker has claimed: the messages it has not begun, and for each lease what became of its messages.
 *
 * @since 0.1.0
 */
import * as StoredPayload from "../sending/StoredPayload.ts"
import type { Claimed, Dead, Retried, Settlement } from "./Claims.ts"
import { Order } from "./Order.ts"

/** The outcome of a message, in the words of the lease. */
export type Outcome =
  | { readonly _tag: "Done" }
  | { readonly _tag: "Released" }
  | { readonly _tag: "Retried"; readonly retried: Retried }
  | { readonly _tag: "Dead"; readonly dead: Dead }

export const done: Outcome = { _tag: "Done" }
export const released: Outcome = { _tag: "Released" }

/** A claimed message, and the lease it belongs to. */
export interface Held {
  readonly claimed: Claimed
  readonly lease: Lease
}

/** A lease: how many of its messages are open, and what is to be told of the others. */
export class Lease {
  readonly token: string
  /** When it was made, in microseconds of the database's clock. */
  readonly claimedAt: number
  /** When it came, in milliseconds of the worker's clock. */
  readonly receivedAt: number
  /** All that it still has went well, and nothing of it holds a key or has its payload elsewhere. */
  isPlain = true
  /** One of its messages has a key. */
  readonly hasKeys: boolean
  /** Others have what it held. */
  isLost = false
  open: number
  /** Told of some of its messages before. */
  isPart = false
  done: Array<bigint> = []
  released: Array<bigint> = []
  retried: Array<Retried> = []
  dead: Array<Dead> = []

  constructor(token: string, messages: ReadonlyArray<Claimed>, receivedAt: number) {
    this.token = token
    this.claimedAt = Number(messages[0]?.claimedAt ?? 0n)
    this.receivedAt = receivedAt
    this.open = messages.length
    this.hasKeys = messages.some(({ key }) => key !== null)
    this.isPlain = !this.hasKeys &&
      messages.every(({ storedAt, uniqueKey }) => uniqueKey === null && !StoredPayload.isApart(storedAt))
  }

  record(id: bigint, outcome: Outcome): void {
    this.open--
    switch (outcome._tag) {
      case "Done":
        this.done.push(id)
        return
      case "Released":
        this.released.push(id)
        break
      case "Retried":
        this.retried.push(outcome.retried)
        break
      case "Dead":
        this.dead.push(outcome.dead)
        break
    }
    this.isPlain = false
  }

  get hasNews(): boolean {
    return this.done.length + this.released.length + this.retried.length + this.dead.length > 0
  }

  /** What is to be told, which is nothing from then on. */
  take(): Settlement {
    const { dead, done, released, retried } = this
    this.done = []
    this.released = []
    this.retried = []
    this.dead = []
    return { dead, done, released, retried }
  }
}

/** The messages that wait in a worker, and the leases of those and of what it runs. `now` tells the time in milliseconds. */
export class Holdings {
  readonly leases = new Map<string, Lease>()
  readonly #now: () => number
  readonly #order: Order
  /** Those whose lease ran out before. They were claimed to be begun at once. */
  readonly #suspects: Array<Held> = []
  #bytes = 0

  constructor(now: () => number) {
    this.#now = now
    this.#order = new Order(now)
  }

  get waiting(): number {
    return this.#order.size + this.#suspects.length
  }

  /** One waits whose lease ran out before. */
  get isSuspecting(): boolean {
    return this.#suspects.length > 0
  }

  /** Bytes of payloads that wait, or are yet to be fetched, in queues of which some are large. */
  get bytes(): number {
    return this.#bytes
  }

  /** The highest priority of what waits; undefined when nothing does. */
  get mostUrgent(): number | undefined {
    return this.#order.mostUrgent
  }

  /** What was claimed. `sharesKeys`: several messages of a key may run at a time. */
  add(messages: ReadonlyArray<Claimed>, sharesKeys: boolean): void {
    const now = this.#now()
    for (const [token, of] of Map.groupBy(messages, ({ token }) => token)) {
      this.leases.set(token, new Lease(token, of, now))
    }
    for (const { size } of messages) this.#bytes += size ?? 0
    this.#order.sharesKeys = sharesKeys
    const held = messages.map((claimed) => ({ claimed, lease: this.leases.get(claimed.token)! }))
    this.#suspects.push(...held.filter(isSuspect))
    this.#order.add(this.isSuspecting ? held.filter((each) => !isSuspect(each)) : held)
  }

  /** The next ones, at most so many; none of a lease that is lost. */
  next(most: number): ReadonlyArray<Held> {
    const taken: Array<Held> = []
    while (taken.length < most) {
      const held = this.#suspects.shift() ?? this.#order.take()
      if (held === undefined) break
      this.#bytes -= held.claimed.size ?? 0
      if (!held.lease.isLost) taken.push(held)
    }
    return taken
  }

  /** What can wait the longest, at most so many. */
  giveBack(most: number): ReadonlyArray<Held> {
    const given: Array<Held> = []
    while (given.length < most) {
      const held = this.#order.takeLast()
      if (held === undefined) break
      this.#bytes -= held.claimed.size ?? 0
      if (!held.lease.isLost) given.push(held)
    }
    return given
  }

  /** All that was not begun. */
  giveBackAll(): ReadonlyArray<Held> {
    this.#bytes = 0
    return [...this.#suspects.splice(0), ...this.#order.takeAll()]
  }
}

const isSuspect = ({ claimed }: Held): boolean => claimed.crashes > 0
