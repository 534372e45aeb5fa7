/** How many pieces of work may run at once, and what part of that is whose: what `WorkerShares` say of whole slots. */
import type * as Priority from "../scheduling/Priority.ts"
import type * as WorkerShares from "../scheduling/WorkerShares.ts"

export class Slots {
  readonly total: number
  readonly #reserved: number
  readonly #realTime: number
  readonly #bestEffort: number
  readonly #running: Record<Priority.Priority, number> = { P0: 0, P1: 0, P2: 0, P3: 0 }

  // A share is at least one slot, and all of them together leave one to everybody.
  constructor(total: number, shares: WorkerShares.WorkerShares) {
    const whole = (share: number, most: number) =>
      share > 0 ? Math.min(most, Math.max(1, Math.floor(share * total + 1e-9))) : 0
    this.total = total
    this.#reserved = whole(shares.reserved, total - 1)
    this.#realTime = Math.max(this.#reserved, whole(shares.realTime, total - 1))
    this.#bestEffort = whole(shares.bestEffort, total - 1 - this.#realTime)
  }

  get running(): number {
    const { P0, P1, P2, P3 } = this.#running
    return P0 + P1 + P2 + P3
  }

  begin(priority: Priority.Priority): void {
    this.#running[priority]++
  }

  end(priority: Priority.Priority): void {
    this.#running[priority]--
  }

  /**
   * True when a class may have a slot more: one that is not reserved for P0, nor guaranteed to others that wait for it,
   * unless the class is itself below what it is guaranteed.
   */
  allows(priority: Priority.Priority, isWaiting: (priority: Priority.Priority) => boolean): boolean {
    const { P0, P1, P3 } = this.#running
    const free = this.total - this.running
    const forP0 = Math.max(0, this.#reserved - P0)
    const forRealTime = Math.max(0, this.#realTime - P0 - P1)
    const forBatches = Math.max(0, this.#bestEffort - P3)
    const dueToBatches = isWaiting("P3") ? forBatches : 0
    const dueToRealTime = isWaiting("P0") || isWaiting("P1") ? forRealTime : 0
    switch (priority) {
      case "P0":
        return free > (forP0 > 0 || forRealTime > 0 ? 0 : dueToBatches)
      case "P1":
        return free > forP0 + (this.#realTime - Math.max(P0, this.#reserved) - P1 > 0 ? 0 : dueToBatches)
      case "P2":
        return free > Math.max(forP0, dueToRealTime) + dueToBatches
      case "P3":
        return free > (forBatches > 0 ? forP0 : Math.max(forP0, dueToRealTime))
    }
  }

  /** True when P0 could have the slot of something of another class that was stopped and waits again. */
  yields(priority: Priority.Priority, isWaiting: (priority: Priority.Priority) => boolean): boolean {
    if (priority === "P0") return false
    this.end(priority)
    const yields = this.allows("P0", (other) => other === priority || isWaiting(other))
    this.begin(priority)
    return yields
  }
}
