/**
 * In which order a worker begins what it holds.
 *
 * **Details**
 *
 * - Messages of one class and tenant stand in a line: the most urgent first, then as they came.
 * - Where there is one line, that is all, and it costs nothing. Lines take turns as `FairQueue` has it: classes by their weights,
 *   tenants of a class alike, and what is old before its turn now and then. A turn is a message, whatever it takes.
 * - When all have begun, nobody owes anything.
 *
 * Of a key that only one message may have at a time nothing else is here. Where there may be several, the one that was sent
 * first begins, in the turn of any other.
 *
 * @since 0.1.0
 */
import * as FairQueue from "@strata/resilience/scheduling/FairQueue"
import * as Priority from "@strata/resilience/scheduling/Priority"
import type { Claimed } from "./Claims.ts"
import type { Held } from "./Holdings.ts"

/** The classes of the priorities from 0 to 10. */
const classes = Array.from({ length: 11 }, (_, priority) => Priority.fromNumber(priority) ?? "P3")

/** The messages of one class and tenant. */
class Line {
  readonly name: string
  readonly class: Priority.Priority
  readonly tenant: string
  /** Its next turn, where it takes turns. */
  turn: FairQueue.Entry<Line> | undefined
  #held: Array<Held> = []
  #begun = 0
  #isSorted = true

  constructor(name: string, { priority, tenant }: Claimed) {
    this.name = name
    this.class = classOf(priority)
    this.tenant = tenant
  }

  get size(): number {
    return this.#held.length - this.#begun
  }

  isOf({ priority, tenant }: Claimed): boolean {
    return this.tenant === tenant && this.class === classOf(priority)
  }

  add(held: Held): void {
    const last = this.#held.at(-1)
    if (last !== undefined && last.claimed.priority < held.claimed.priority) this.#isSorted = false
    this.#held.push(held)
  }

  /** The first one. What is more urgent than what waits goes before it. */
  get first(): Held | undefined {
    if (!this.#isSorted) this.#sort()
    return this.#held[this.#begun]
  }

  /** The one that can wait the longest. */
  get last(): Held | undefined {
    if (!this.#isSorted) this.#sort()
    return this.size === 0 ? undefined : this.#held.at(-1)
  }

  take(): Held | undefined {
    const { first } = this
    if (first === undefined) return undefined
    this.#begun++
    if (this.#begun === this.#held.length || this.#begun >= most) this.#compact()
    return first
  }

  takeLast(): Held | undefined {
    const { last } = this
    if (last !== undefined) this.#held.pop()
    return last
  }

  /** Puts `held` in the place of one of its key that goes before it, and gives that; or itself. */
  exchange(held: Held, goesBefore: (one: bigint, other: bigint) => boolean): Held {
    let found = held
    let place = -1
    for (let index = this.#begun; index < this.#held.length; index++) {
      const other = this.#held[index]!
      if (other.claimed.key === held.claimed.key && goesBefore(other.claimed.id, found.claimed.id)) {
        found = other
        place = index
      }
    }
    if (place >= 0) this.#held[place] = held
    return found
  }

  #sort(): void {
    this.#compact()
    this.#held.sort((one, other) => other.claimed.priority - one.claimed.priority)
    this.#isSorted = true
  }

  #compact(): void {
    this.#held = this.#begun === this.#held.length ? [] : this.#held.slice(this.#begun)
    this.#begun = 0
  }
}

/** Messages that have begun and are kept in memory all the same. */
const most = 64

const classOf = (priority: number): Priority.Priority => classes[priority] ?? "P3"

const isEarlier = (one: bigint, other: bigint): boolean => one < other
const isLater = (one: bigint, other: bigint): boolean => one > other

/** What a worker holds and has not begun. `now` tells the time in milliseconds. */
export class Order {
  /** Several messages of a key may run at a time. */
  sharesKeys = false
  readonly #now: () => number
  readonly #lines = new Map<string, Line>()
  /** Whose turn it is, where there is more than one line. */
  #turns: FairQueue.FairQueue<Line> | undefined
  /** Where the last one was put. */
  #recent: Line | undefined
  #size = 0

  constructor(now: () => number) {
    this.#now = now
  }

  get size(): number {
    return this.#size
  }

  /** The highest priority there is; undefined when there is nothing. */
  get mostUrgent(): number | undefined {
    let found: number | undefined
    for (const { first } of this.#lines.values()) {
      if (first !== undefined && (found === undefined || first.claimed.priority > found)) found = first.claimed.priority
    }
    return found
  }

  add(messages: ReadonlyArray<Held>): void {
    if (this.#size === 0) this.#clear()
    const only = this.#recent
    for (const held of messages) this.#lineOf(held.claimed).add(held)
    this.#size += messages.length
    if (this.#lines.size < 2) return
    this.#turns ??= this.#begin(only)
    for (const line of this.#lines.values()) if (line.turn === undefined) this.#takeTurn(line, this.#turns)
  }

  /** The next one to begin. */
  take(): Held | undefined {
    const held = this.#turns === undefined ? this.#recent?.take() : this.#takeInTurn(this.#turns)
    if (held === undefined) return undefined
    this.#size--
    return this.#exchanged(held, isEarlier)
  }

  /** Of what is least urgent the one that came last. */
  takeLast(): Held | undefined {
    let found: Line | undefined
    let priority = Infinity
    for (const line of this.#lines.values()) {
      const { claimed } = line.last ?? {}
      if (claimed === undefined || claimed.priority > priority) continue
      if (claimed.priority === priority && line.size <= (found?.size ?? 0)) continue
      found = line
      priority = claimed.priority
    }
    const held = found?.takeLast()
    if (found === undefined || held === undefined) return undefined
    this.#size--
    if (found.size === 0) this.#leave(found)
    return this.#exchanged(held, isLater)
  }

  /** Everything. */
  takeAll(): ReadonlyArray<Held> {
    const all: Array<Held> = []
    for (let held = this.take(); held !== undefined; held = this.take()) all.push(held)
    return all
  }

  /** Of the line that was the only one so far, what it took last was a turn: the others come first. */
  #begin(only: Line | undefined): FairQueue.FairQueue<Line> {
    const turns = FairQueue.make<Line>()
    if (only === undefined) return turns
    this.#takeTurn(only, turns)
    const last = turns.next(this.#now())
    this.#takeTurn(only, turns)
    if (last !== undefined) turns.complete(last)
    return turns
  }

  #takeInTurn(turns: FairQueue.FairQueue<Line>): Held | undefined {
    const turn = turns.next(this.#now())
    if (turn === undefined) return undefined
    const line = turn.value
    line.turn = undefined
    const held = line.take()
    // Before the turn ends, or what the line owes would be forgotten in between.
    if (line.size > 0) this.#takeTurn(line, turns)
    else this.#leave(line)
    turns.complete(turn)
    return held
  }

  #takeTurn(line: Line, turns: FairQueue.FairQueue<Line>): void {
    const { first } = line
    if (first === undefined) return
    const { claimed, lease } = first
    const waited = (lease.claimedAt - Number(claimed.sentAt)) / 1000
    line.turn = turns.offer(
      { value: line, priority: line.class, tenant: line.tenant, enqueuedAt: lease.receivedAt - waited },
      lease.receivedAt
    )
  }

  /** A line in which nothing is left. */
  #leave(line: Line): void {
    if (line.turn !== undefined) this.#turns?.cancel(line.turn)
    line.turn = undefined
    this.#lines.delete(line.name)
    if (this.#recent === line) this.#recent = undefined
  }

  #clear(): void {
    this.#lines.clear()
    this.#turns = undefined
    this.#recent = undefined
  }

  #lineOf(claimed: Claimed): Line {
    if (this.#recent?.isOf(claimed) === true) return this.#recent
    const name = `${classOf(claimed.priority)} ${claimed.tenant}`
    const line = this.#lines.get(name) ?? new Line(name, claimed)
    this.#lines.set(name, line)
    this.#recent = line
    return line
  }

  #exchanged(held: Held, goesBefore: (one: bigint, other: bigint) => boolean): Held {
    if (!this.sharesKeys || held.claimed.key === null) return held
    let chosen = held
    for (const line of this.#lines.values()) chosen = line.exchange(chosen, goesBefore)
    return chosen
  }
}
