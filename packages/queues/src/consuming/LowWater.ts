/**
 * Below which ids a claimer has nothing left to find, so that it does not look at the remains of what it claimed.
 *
 * **Details**
 *
 * Rows that are gone stay in the index until nobody can see them any more. While some transaction holds that back, each claim
 * would look at all that were claimed before. So a claim begins where the last one ended. But a message may come late, with an id
 * below that, when its transaction took longer than others: therefore every now and then a claim begins at the beginning again. How
 * often goes by what such a claim costs: most of the time is never spent on looking back.
 *
 * @since 0.1.0
 */

/** A look back costs at most this part of the time. */
const share = 0.05

/** While so little was claimed since the last look back, one costs nothing. */
const few = 1000

/**
 * What one claimer knows, of each of some places in which ids rise: the priorities of a queue.
 *
 * @category models
 * @since 0.1.0
 */
export class LowWater {
  readonly #beginning: ReadonlyArray<bigint>
  #above: Array<bigint>
  #claimed = 0
  #nextAt = 0

  constructor(places: number) {
    this.#beginning = Array.from({ length: places }, () => 0n)
    this.#above = [...this.#beginning]
  }

  /** Where a claim begins: an id for each place. `now` is in milliseconds. */
  begin(now: number): ReadonlyArray<bigint> {
    if (this.#claimed > few && now < this.#nextAt) return [...this.#above]
    this.#above = [...this.#beginning]
    this.#claimed = 0
    return this.#beginning
  }

  /** A claim found this id at a place. */
  reach(place: number, id: bigint): void {
    if (id > (this.#above[place] ?? 0n)) this.#above[place] = id
  }

  /** A claim that began at `above` found so many, and took from `begun` to `now`. */
  end(above: ReadonlyArray<bigint>, found: number, begun: number, now: number): void {
    if (above.every((id) => id === 0n)) this.#nextAt = now + (now - begun) / share
    this.#claimed += found
  }
}
