/**
 * What a worker has claimed: the messages it has not begun, and for each lease what became of its messages.
 *
 * @since 0.1.0
 */
import * as StoredPayload from "../sending/StoredPayload.ts"
import type { Claimed, Dead, Retried, Settlement } from "./Claims.ts"

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
  /** All that it still has went well, and nothing of it holds a key or has its payload elsewhere. */
  isPlain = true
  /** Others have what it held. */
  isLost = false
  open: number
  /** Told of some of its messages before. */
  isPart = false
  done: Array<bigint> = []
  released: Array<bigint> = []
  retried: Array<Retried> = []
  dead: Array<Dead> = []

  constructor(token: string, messages: ReadonlyArray<Claimed>) {
    this.token = token
    this.open = messages.length
    this.isPlain = messages.every(({ key, storedAt, uniqueKey }) =>
      key === null && uniqueKey === null && !StoredPayload.isApart(storedAt)
    )
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

/** The messages that wait in the worker, in the order in which they are begun, and the leases they belong to. */
export class Holdings {
  readonly leases = new Map<string, Lease>()
  #waiting: Array<Held> = []
  #begun = 0
  #bytes = 0

  get waiting(): number {
    return this.#waiting.length - this.#begun
  }

  /** Bytes of payloads that wait, or are yet to be fetched, in queues of which some are large. */
  get bytes(): number {
    return this.#bytes
  }

  add(messages: ReadonlyArray<Claimed>): void {
    const byToken = Map.groupBy(messages, ({ token }) => token)
    for (const [token, of] of byToken) this.leases.set(token, new Lease(token, of))
    this.#compact()
    for (const claimed of messages) {
      this.#waiting.push({ claimed, lease: this.leases.get(claimed.token)! })
      this.#bytes += claimed.size ?? 0
    }
    const last = this.#waiting[this.#waiting.length - messages.length - 1]
    // What is more urgent than what waits goes before it.
    if (last !== undefined && last.claimed.priority < (messages[0]?.priority ?? 0)) {
      this.#waiting.sort((one, other) => other.claimed.priority - one.claimed.priority)
    }
  }

  /** The next ones, at most so many; none of a lease that is lost. */
  next(most: number): ReadonlyArray<Held> {
    const taken: Array<Held> = []
    while (this.#begun < this.#waiting.length && taken.length < most) {
      const held = this.#waiting[this.#begun++]!
      this.#bytes -= held.claimed.size ?? 0
      if (!held.lease.isLost) taken.push(held)
    }
    if (this.#begun === this.#waiting.length) this.#compact()
    return taken
  }

  /** All that was not begun. */
  giveBack(): ReadonlyArray<Held> {
    const rest = this.#waiting.slice(this.#begun)
    this.#waiting = []
    this.#begun = 0
    this.#bytes = 0
    return rest
  }

  #compact(): void {
    if (this.#begun === 0) return
    this.#waiting = this.#begun === this.#waiting.length ? [] : this.#waiting.slice(this.#begun)
    this.#begun = 0
  }
}
