/**
 * Counts what became of requests.
 *
 * @since 0.1.0
 */
import type { Answered } from "./Connections.ts"
import * as Load from "./Load.ts"

/**
 * Counts the requests it is told of.
 *
 * @category models
 * @since 0.1.0
 */
export class Tally {
  readonly #counts = { P0: new Count(), P1: new Count(), P2: new Count(), P3: new Count() }

  /** A request that is sent now, and what to tell when it is answered. */
  sent(name: Load.Class, now: () => number): Answered {
    const count = this.#counts[name]
    const at = now()
    return (status) => count.answered(status, now() - at)
  }

  unsent(name: Load.Class): void {
    this.#counts[name].unsent++
  }

  result(seconds: number, late: number): Load.Result {
    const { P0, P1, P2, P3 } = this.#counts
    return { seconds, late, classes: { P0: P0.outcome, P1: P1.outcome, P2: P2.outcome, P3: P3.outcome } }
  }
}

class Count {
  readonly #latencies: Array<number> = []
  #refused = 0
  #late = 0
  #failed = 0
  #wrong = 0
  unsent = 0

  answered(status: number | "broken" | "late", latency: number): void {
    if (status === "late") this.#late++
    else if (status === "broken") this.#failed++
    else if (status === 429 || status === 503) this.#refused++
    else if (status >= 500) this.#failed++
    else if (status >= 300) this.#wrong++
    else this.#latencies.push(latency)
  }

  get outcome(): Load.Outcome {
    const good = this.#latencies.length
    const counts = { good, refused: this.#refused, late: this.#late, failed: this.#failed, wrong: this.#wrong }
    const outcome = { ...counts, unsent: this.unsent, p50: 0, p99: 0 }
    const sorted = Float64Array.from(this.#latencies).sort()
    const all = Load.offered(outcome)
    const percentile = (share: number) => all === 0 ? 0 : sorted[Math.ceil(all * share) - 1] ?? Load.patience
    return { ...outcome, p50: percentile(0.5), p99: percentile(0.99) }
  }
}
