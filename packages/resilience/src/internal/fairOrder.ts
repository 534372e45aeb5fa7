/** The turns of classes, of tenants inside them, and of keys inside those: what a `FairQueue` does. */
import type { ByClass, ClassState, Entry, FairQueue, Item, Snapshot, TenantState } from "../scheduling/FairQueue.ts"
import * as Priority from "../scheduling/Priority.ts"
import * as flows from "./flows.ts"
import { positive, VirtualTime } from "./virtualTime.ts"

/** One in so many turns at most is brought forward by age. */
const agedOneIn = 10

export class FairOrder<A> implements FairQueue<A> {
  readonly #time = new VirtualTime()
  readonly #classes: Readonly<Record<Priority.Priority, flows.ClassFlows<A>>>
  /** The classes, the most urgent first, which is served first of those that are level. */
  readonly #inOrder: ReadonlyArray<flows.ClassFlows<A>>
  readonly #tenants = new Map<string, flows.Tenant<A>>()
  readonly #tenantWeight: (tenant: string) => number
  #sinceAged = agedOneIn - 1
  #arrivals = 0

  constructor(options: {
    readonly weights: ByClass
    readonly budgets: ByClass
    readonly tenantWeight: ((tenant: string) => number) | undefined
    readonly snapshot: Snapshot | undefined
  }) {
    const { budgets, snapshot, tenantWeight = () => 1, weights } = options
    const of = (priority: Priority.Priority) =>
      new flows.ClassFlows<A>(
        priority,
        positive(weights[priority]),
        Math.max(0, budgets[priority]),
        (tenant) => this.#forget(tenant)
      )
    this.#classes = { P0: of("P0"), P1: of("P1"), P2: of("P2"), P3: of("P3") }
    this.#inOrder = Priority.all.map((priority) => this.#classes[priority])
    this.#tenantWeight = tenantWeight
    if (snapshot !== undefined) this.#restore(snapshot)
  }

  offer(item: Item<A>, now: number): Entry<A> {
    const tenant = this.#tenantOf(item.tenant)
    const lane = item.key === undefined ? undefined : laneOf(tenant, item.key)
    const entry = new flows.Entry<A>({
      value: item.value,
      tenant,
      lane,
      of: this.#classes[item.priority],
      cost: positive(item.cost),
      arrival: ++this.#arrivals,
      enqueuedAt: item.enqueuedAt ?? now
    })
    tenant.queued++
    entry.of.queued++
    if (lane?.head !== undefined) {
      lane.rest.add(entry)
    } else {
      if (lane !== undefined) lane.head = entry
      this.#place(entry)
    }
    return entry
  }

  next(now: number, mayStart: (priority: Priority.Priority) => boolean = anyClass): Entry<A> | undefined {
    const regular = this.#inTurn(mayStart)?.next
    const flow = this.#overdue(now, mayStart) ?? regular
    const entry = flow?.entries.first
    if (flow === undefined || entry === undefined) return undefined
    entry.isAged = flow !== regular
    if (entry.isAged) {
      this.#sinceAged = 0
      flow.of.aged++
    } else {
      this.#sinceAged++
    }
    this.#start(entry, flow, flow.of === regular?.of)
    return entry
  }

  complete(entry: Entry<A>, cost?: number): void {
    if (entry.state !== "running") return
    this.#correct(entry, cost)
    this.#stop(entry)
    this.#finish(entry)
  }

  requeue(entry: Entry<A>, now: number, cost?: number): void {
    if (entry.state !== "running") return
    this.#correct(entry, cost)
    // It waits before it is stopped, or its share would be forgotten in between, with what it owes.
    this.#wait(entry, now)
    this.#stop(entry)
  }

  hold(entry: Entry<A>, cost?: number): void {
    if (entry.state !== "running") return
    this.#correct(entry, cost)
    entry.state = "held"
    entry.of.held++
    entry.tenant.held++
    this.#stop(entry)
  }

  resume(entry: Entry<A>, now: number): void {
    if (entry.state !== "held") return
    entry.of.held--
    entry.tenant.held--
    this.#wait(entry, now)
  }

  cancel(entry: Entry<A>): boolean {
    const { flow, of, state, tenant } = entry
    if (state === "held") {
      of.held--
      tenant.held--
    } else if (state === "queued") {
      of.queued--
      tenant.queued--
      if (flow !== undefined) of.remove(flow, entry)
    } else {
      return false
    }
    this.#finish(entry)
    return true
  }

  ready(priority: Priority.Priority): number {
    return this.#classes[priority].ready
  }

  stateOf(priority: Priority.Priority): ClassState {
    const { aged, held, queued, ready, running, started } = this.#classes[priority]
    return { aged, held, queued, ready, running, started }
  }

  tenant(name: string): TenantState {
    const { held, queued, running } = this.#tenants.get(name) ?? none
    return { held, queued, running }
  }

  tenants(): number {
    return this.#tenants.size
  }

  snapshot(): Snapshot {
    const of = ({ debts, start }: flows.ClassFlows<A>) => ({
      owes: Math.max(0, start - this.#time.now),
      tenants: debts
    })
    const { P0, P1, P2, P3 } = this.#classes
    return { classes: { P0: of(P0), P1: of(P1), P2: of(P2), P3: of(P3) }, sinceAged: this.#sinceAged }
  }

  #restore({ classes, sinceAged }: Snapshot): void {
    this.#sinceAged = sinceAged
    for (const of of this.#inOrder) {
      const { owes, tenants } = classes[of.priority]
      of.start = owes
      for (const [tenant, debt] of tenants) of.owe(of.flowOf(this.#tenantOf(tenant)), debt)
    }
  }

  // ------------------------------------------------------------------------------------------------ whose turn it is

  #inTurn(mayStart: (priority: Priority.Priority) => boolean): flows.ClassFlows<A> | undefined {
    let first: flows.ClassFlows<A> | undefined
    for (const of of this.#inOrder) {
      if (of.isActive && (first === undefined || of.start < first.start) && mayStart(of.priority)) first = of
    }
    return first
  }

  /** The flow with the oldest of what has aged, when it is time for one. */
  #overdue(now: number, mayStart: (priority: Priority.Priority) => boolean): flows.Flow<A> | undefined {
    if (this.#sinceAged < agedOneIn - 1) return undefined
    let oldest: flows.Flow<A> | undefined
    for (const of of this.#inOrder) {
      const flow = of.budget > 0 ? of.oldest : undefined
      if (flow === undefined || flow.byRank.key > Math.min(now, oldest?.byRank.key ?? now)) continue
      if (mayStart(of.priority)) oldest = flow
    }
    return oldest
  }

  #start(entry: Entry<A>, flow: flows.Flow<A>, isItsTurn: boolean): void {
    const { of, tenant } = flow
    const charge = entry.cost / of.weight
    entry.state = "running"
    entry.attempt++
    if (isItsTurn) {
      entry.classCharge = this.#time.serve(of, charge)
      for (const other of this.#inOrder) if (other.isActive) this.#time.miss(other)
    } else {
      entry.classCharge = this.#time.serveEarly(of, charge)
    }
    of.queued--
    of.running++
    of.started++
    tenant.queued--
    tenant.running++
    of.take(flow, entry, entry.cost / positive(this.#tenantWeight(tenant.name)))
    if (this.#time.isFar) this.#time.rewind(this.#inOrder)
  }

  // --------------------------------------------------------------------------------------------- places and accounts

  /** Puts an entry where it can be started. */
  #place(entry: Entry<A>): void {
    const { of } = entry
    const wasActive = of.isActive
    entry.flow = of.flowOf(entry.tenant)
    of.put(entry.flow, entry)
    if (!wasActive) this.#time.join(of)
  }

  #wait(entry: Entry<A>, now: number): void {
    entry.state = "queued"
    entry.of.queued++
    entry.tenant.queued++
    entry.arrival = ++this.#arrivals
    entry.enqueuedAt = now
    entry.rank = now + entry.of.budget
    this.#place(entry)
  }

  #correct(entry: Entry<A>, cost: number | undefined): void {
    if (cost === undefined || !(cost > 0)) return
    const more = positive(cost) / entry.cost - 1
    this.#time.correct(entry.of, entry.classCharge * more)
    if (entry.flow !== undefined) entry.of.correct(entry.flow, entry.flowCharge * more)
  }

  #stop(entry: Entry<A>): void {
    const { flow, of, tenant } = entry
    of.running--
    tenant.running--
    if (flow !== undefined) {
      flow.running--
      of.forgetIfDone(flow)
    }
    this.#rest(of)
    this.#forget(tenant)
  }

  /** An entry is done with: the next of its key may be started. */
  #finish(entry: Entry<A>): void {
    entry.state = "done"
    const { lane, of, tenant } = entry
    if (lane !== undefined && !lane.rest.delete(entry)) {
      const [next] = lane.rest
      lane.head = next
      if (next === undefined) {
        tenant.lanes.delete(lane.key)
      } else {
        lane.rest.delete(next)
        this.#place(next)
      }
    }
    this.#rest(of)
    this.#forget(tenant)
  }

  /** When nothing waits or runs, nobody owes anything. */
  #rest(of: flows.ClassFlows<A>): void {
    if (of.queued > 0 || of.running > 0) return
    of.reset()
    if (this.#inOrder.some((of) => of.queued > 0 || of.running > 0)) return
    this.#time.now = 0
    for (const of of this.#inOrder) of.start = 0
  }

  #tenantOf(name: string): flows.Tenant<A> {
    const known = this.#tenants.get(name)
    if (known !== undefined) return known
    const tenant = new flows.Tenant<A>(name)
    this.#tenants.set(name, tenant)
    return tenant
  }

  #forget(tenant: flows.Tenant<A>): void {
    if (tenant.isGone) this.#tenants.delete(tenant.name)
  }
}

const none: TenantState = { held: 0, queued: 0, running: 0 }

const anyClass = (_: Priority.Priority): boolean => true

const laneOf = <A>(tenant: flows.Tenant<A>, key: string): flows.Lane<A> => {
  const known = tenant.lanes.get(key)
  if (known !== undefined) return known
  const lane: flows.Lane<A> = { key, head: undefined, rest: new Set() }
  tenant.lanes.set(key, lane)
  return lane
}
