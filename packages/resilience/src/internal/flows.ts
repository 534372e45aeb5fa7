/**
 * What waits and runs of a class, by tenant. A flow is one tenant's part of one class.
 */
import type { Priority } from "../scheduling/Priority.ts"
import { Heap, Node } from "./heap.ts"
import { type Share, VirtualTime } from "./virtualTime.ts"

export class Entry<A> {
  readonly value: A
  readonly tenant: Tenant<A>
  readonly lane: Lane<A> | undefined
  readonly of: ClassFlows<A>
  readonly cost: number
  readonly node: Node<Entry<A>>
  state: "queued" | "running" | "held" | "done" = "queued"
  /** Its place among those of its flow. */
  arrival: number
  rank: number
  enqueuedAt: number
  attempt = 0
  /** True when its age brought it forward. */
  isAged = false
  flow: Flow<A> | undefined
  classCharge = 0
  flowCharge = 0

  constructor(options: {
    readonly value: A
    readonly tenant: Tenant<A>
    readonly lane: Lane<A> | undefined
    readonly of: ClassFlows<A>
    readonly cost: number
    readonly arrival: number
    readonly enqueuedAt: number
  }) {
    this.value = options.value
    this.tenant = options.tenant
    this.lane = options.lane
    this.of = options.of
    this.cost = options.cost
    this.arrival = options.arrival
    this.enqueuedAt = options.enqueuedAt
    this.rank = options.enqueuedAt + options.of.budget
    this.node = new Node<Entry<A>>(this)
  }

  get priority(): Priority {
    return this.of.priority
  }
}

/** The entries of one key, of which only the first may run. */
export interface Lane<A> {
  readonly key: string
  head: Entry<A> | undefined
  readonly rest: Set<Entry<A>>
}

export class Tenant<A> {
  readonly name: string
  readonly flows = new Map<Priority, Flow<A>>()
  readonly lanes = new Map<string, Lane<A>>()
  queued = 0
  running = 0
  held = 0

  constructor(name: string) {
    this.name = name
  }

  get isGone(): boolean {
    return this.queued === 0 && this.running === 0 && this.held === 0 && this.flows.size === 0
  }
}

export class Flow<A> implements Share {
  readonly tenant: Tenant<A>
  readonly entries = new Heap<Entry<A>>()
  readonly byStart: Node<Flow<A>>
  readonly byRank: Node<Flow<A>>
  readonly of: ClassFlows<A>
  start = 0
  floor = 0
  charge = 0
  running = 0

  constructor(tenant: Tenant<A>, of: ClassFlows<A>) {
    this.tenant = tenant
    this.of = of
    this.byStart = new Node<Flow<A>>(this)
    this.byRank = new Node<Flow<A>>(this)
  }
}

export class ClassFlows<A> implements Share {
  readonly priority: Priority
  readonly weight: number
  readonly budget: number
  readonly time = new VirtualTime()
  start = 0
  floor = 0
  charge = 0
  /** Waiting and not behind another of its key. */
  ready = 0
  queued = 0
  running = 0
  held = 0
  started = 0
  aged = 0
  readonly #all = new Set<Flow<A>>()
  readonly #active = new Heap<Flow<A>>()
  readonly #byRank = new Heap<Flow<A>>()
  // Flows that have nothing to run now, by the virtual time from which they owe nothing and may be forgotten.
  readonly #idle = new Heap<Flow<A>>()
  readonly #gone: (tenant: Tenant<A>) => void

  constructor(priority: Priority, weight: number, budget: number, gone: (tenant: Tenant<A>) => void) {
    this.priority = priority
    this.weight = weight
    this.budget = budget
    this.#gone = gone
  }

  get isActive(): boolean {
    return this.ready > 0
  }

  /** The flow whose turn it is. */
  get next(): Flow<A> | undefined {
    return this.#active.first
  }

  /** The flow with the entry of the oldest rank. */
  get oldest(): Flow<A> | undefined {
    return this.#byRank.first
  }

  flowOf(tenant: Tenant<A>): Flow<A> {
    const known = tenant.flows.get(this.priority)
    if (known !== undefined) return known
    const flow = new Flow(tenant, this)
    tenant.flows.set(this.priority, flow)
    this.#all.add(flow)
    return flow
  }

  /** Puts an entry where it can be started. */
  put(flow: Flow<A>, entry: Entry<A>): void {
    flow.entries.put(entry.node, entry.arrival)
    this.ready++
    this.#update(flow)
  }

  /** Takes an entry out that is not to be started. */
  remove(flow: Flow<A>, entry: Entry<A>): void {
    if (!flow.entries.delete(entry.node)) return
    this.ready--
    this.#update(flow)
  }

  /** Looks again at whether a flow takes part, and at its oldest entry. */
  #update(flow: Flow<A>): void {
    const head = flow.entries.first
    if (head === undefined) {
      this.#active.delete(flow.byStart)
      this.#byRank.delete(flow.byRank)
      if (flow.running > 0 || flow.start > this.time.now) this.#idle.put(flow.byStart, flow.start)
      else this.forgetIfDone(flow)
      return
    }
    if (!this.#active.has(flow.byStart)) {
      this.#idle.delete(flow.byStart)
      this.time.join(flow)
      this.#active.put(flow.byStart, flow.start)
    }
    if (!this.#byRank.has(flow.byRank) || flow.byRank.key !== head.rank) this.#byRank.put(flow.byRank, head.rank)
  }

  /** Takes the first entry of a flow and charges the flow for it. */
  take(flow: Flow<A>, entry: Entry<A>, charge: number): void {
    entry.flowCharge = flow === this.next ? this.time.serve(flow, charge) : this.time.serveEarly(flow, charge)
    flow.running++
    this.#active.put(flow.byStart, flow.start)
    this.remove(flow, entry)
    this.#forget()
    if (this.time.isFar) this.#rewind()
  }

  #rewind(): void {
    this.#active.shift(this.time.now)
    this.#idle.shift(this.time.now)
    this.time.rewind(this.#all)
  }

  correct(flow: Flow<A>, difference: number): void {
    if (!this.#all.has(flow)) return
    this.time.correct(flow, difference)
    const heap = this.#active.has(flow.byStart) ? this.#active : this.#idle
    heap.put(flow.byStart, flow.start)
  }

  /** Forgets flows that owe nothing. */
  #forget(): void {
    for (;;) {
      const flow = this.#idle.first
      if (flow === undefined || flow.start > this.time.now) return
      this.#idle.delete(flow.byStart)
      this.forgetIfDone(flow)
    }
  }

  forgetIfDone(flow: Flow<A>): void {
    if (flow.running > 0 || flow.entries.size > 0 || this.#idle.has(flow.byStart)) return
    this.#all.delete(flow)
    flow.tenant.flows.delete(this.priority)
    this.#gone(flow.tenant)
  }

  /** How much later than now the next turn of each tenant starts, of those for whom it does. */
  get debts(): ReadonlyArray<readonly [tenant: string, owes: number]> {
    return Array.from(this.#all, (flow) => [flow.tenant.name, flow.start - this.time.now] as const)
      .filter(([, owes]) => owes > 0)
  }

  /** A tenant that has nothing waiting owes this. */
  owe(flow: Flow<A>, debt: number): void {
    flow.start = this.time.now + debt
    this.#idle.put(flow.byStart, flow.start)
  }

  /** Ends a busy time: nothing waits or runs, so nobody owes anybody anything. */
  reset(): void {
    this.time.now = 0
    for (const flow of this.#all) {
      this.#idle.delete(flow.byStart)
      this.forgetIfDone(flow)
    }
  }
}
