/** How long work of each name takes, and which work takes much longer. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Heap, Node } from "./heap.ts"

/** Work that runs. */
export interface Timed {
  readonly name: string
  /** Whatever its name, it counts for its class too. */
  readonly priority: string
  startedAt: number
}

interface Average {
  millis: number
  ended: number
}

interface Watched<T> {
  readonly work: T
  readonly average: number
}

/** More than so many times its average is too long. */
const factor = 2

/** What takes less than this is never too long, in milliseconds: it may have been anything. */
const floor = 10

/** So many must have ended before their average says anything. */
const enough = 10

/** A name that comes when there are so many has no average. */
const mostNames = 1000

/** Milliseconds between two looks at most, since work that is due sooner may start at any time. */
const glance = 100

export class Overruns<T extends Timed> {
  readonly #now: () => number
  readonly #fork: (watch: Effect.Effect<void>) => void
  readonly #report: (work: T, ran: number, average: number) => void
  readonly #averages = new Map<string, Average>()
  readonly #nodes = new Map<T, Node<Watched<T>>>()
  readonly #due = new Heap<Watched<T>>()
  #isWatched = false

  constructor(options: {
    readonly now: () => number
    readonly fork: (watch: Effect.Effect<void>) => void
    readonly report: (work: T, ran: number, average: number) => void
  }) {
    this.#now = options.now
    this.#fork = options.fork
    this.#report = options.report
  }

  /** How long work of a name or a class takes, in milliseconds; undefined when none has ended. */
  expected(name: string): number | undefined {
    return this.#averages.get(name)?.millis
  }

  begin(work: T): void {
    const average = this.#averages.get(work.name)
    if (average === undefined || average.ended < enough) return
    const node = new Node<Watched<T>>({ work, average: average.millis })
    this.#nodes.set(work, node)
    this.#due.put(node, work.startedAt + Math.max(floor, factor * average.millis))
    if (this.#isWatched) return
    this.#isWatched = true
    this.#fork(this.#watch)
  }

  /** Returns how many milliseconds it ran. What was cut short says nothing of how long work takes. */
  end(work: T, isWhole: boolean): number {
    const now = this.#now()
    const ran = now - work.startedAt
    const node = this.#nodes.get(work)
    if (node !== undefined) {
      this.#nodes.delete(work)
      if (this.#due.delete(node) && node.key < now) this.#report(work, ran, node.value.average)
    }
    if (isWhole) {
      this.#count(work.name, ran)
      if (work.priority !== work.name) this.#count(work.priority, ran)
    }
    return ran
  }

  #count(name: string, ran: number): void {
    const average = this.#averages.get(name)
    if (average !== undefined) {
      average.millis += (ran - average.millis) / 8
      average.ended++
    } else if (this.#averages.size < mostNames) {
      this.#averages.set(name, { millis: ran, ended: 1 })
    }
  }

  // One timer for all that runs, and none when nothing does.
  readonly #watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = this.#now()
    for (let first = this.#due.firstNode; first !== undefined; first = this.#due.firstNode) {
      const left = first.key - now
      if (left >= 0) {
        return Effect.andThen(Effect.sleep(Duration.millis(Math.max(1, Math.min(glance, left)))), this.#watch)
      }
      this.#due.delete(first)
      this.#report(first.value.work, now - first.value.work.startedAt, first.value.average)
    }
    this.#isWatched = false
    return Effect.void
  })
}
