/** Which work that runs may be interrupted for more urgent work, and until when. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Priority from "../scheduling/Priority.ts"

/** Work that may be interrupted. */
export interface Interruptible {
  readonly priority: Priority.Priority
  /** The one inside which it was begun. */
  readonly outer: Interruptible | undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  /** True from when it is interrupted for more urgent work until it has ended. */
  isPreempted: boolean
  /** True once others may have seen what it did. */
  isCommitted: boolean
  preemptions: number
}

/** After so many interruptions work is left alone, or it might never end. */
const most = 3

/** The work this fiber is part of, of the kind that may be interrupted. */
export const Running: Context.Reference<Interruptible | undefined> = Context.Reference<Interruptible | undefined>(
  "@strata/resilience/FairScheduler/Running",
  { defaultValue: () => undefined }
)

/** Work that is being interrupted does not get past this; any other is left alone from here on. */
export const commit: Effect.Effect<void> = Effect.withFiber((fiber) => {
  const running = fiber.getRef(Running)
  for (let work = running; work !== undefined; work = work.outer) if (work.isPreempted) return Effect.interrupt
  for (let work = running; work !== undefined; work = work.outer) work.isCommitted = true
  return Effect.void
})

export class Preemption<T extends Interruptible> {
  // In the order in which they began.
  readonly #running = new Set<T>()
  #ending = 0
  /** Slots that were freed for P0 and not given to it yet. */
  #owed = 0

  begin(work: T, fiber: Fiber.Fiber<unknown, unknown>): void {
    work.fiber = fiber
    this.#running.add(work)
  }

  /** Returns whether it was interrupted for more urgent work. */
  end(work: T): boolean {
    this.#running.delete(work)
    work.fiber = undefined
    if (!work.isPreempted) return false
    work.isPreempted = false
    this.#ending--
    return true
  }

  /** Work has given its slot up. */
  free(): void {
    this.#owed++
  }

  /** True once for every slot that was given up. */
  claim(): boolean {
    if (this.#owed === 0) return false
    this.#owed--
    return true
  }

  /** Interrupts work of classes that may yield until there are, or will be, slots for so many. */
  makeWay(wanted: number, mayYield: (priority: Priority.Priority) => boolean): void {
    // What is interrupted may end at once, and then is owed instead of ending: so they are counted beforehand.
    for (let slots = this.#ending + this.#owed; slots < wanted; slots++) {
      const work = this.#next(mayYield)
      if (work === undefined) return
      work.isPreempted = true
      work.preemptions++
      this.#ending++
      work.fiber?.interruptUnsafe()
    }
  }

  /** What began last of the least urgent: the least is lost by it. */
  #next(mayYield: (priority: Priority.Priority) => boolean): T | undefined {
    let last: T | undefined
    for (const work of this.#running) {
      if (work.isPreempted || work.isCommitted || work.preemptions >= most) continue
      if ((last === undefined || work.priority >= last.priority) && mayYield(work.priority)) last = work
    }
    return last
  }
}
