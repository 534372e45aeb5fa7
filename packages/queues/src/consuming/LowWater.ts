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

/** Of the priorities from 10 to 0. */
const beginning: ReadonlyArray<bigint> = Array.from({ length: 11 }, () => 0n)

/** A look back costs at most this part of the time. */
const share = 0.05

/** While so little was claimed since the last look back, one costs nothing. */
const few = 1000

/**
 * What one claimer knows.
 *
 * @category models
 * @since 0.1.0
 */
export class LowWater {
  #above: ReadonlyArray<bigint> = beginning
  #claimed = 0
  #nextAt = 0

  /** Where a claim begins: an id for each priority. `now` is in milliseconds. */
  begin(now: number): ReadonlyArray<bigint> {
    if (this.#claimed > few && now < this.#nextAt) return this.#above
    this.#above = beginning
    this.#claimed = 0
    return this.#above
  }

  /** A claim that began at `above` found these, and took from `begun` to `now`. */
  end(
    above: ReadonlyArray<bigint>,
    found: ReadonlyArray<{ readonly id: bigint; readonly priority: number }>,
    begun: number,
    now: number
  ): void {
    if (above.every((id) => id === 0n)) this.#nextAt = now + (now - begun) / share
    this.#claimed += found.length
    const next = [...this.#above]
    for (const { id, priority } of found) {
      const place = 10 - priority
      if (id > (next[place] ?? 0n)) next[place] = id
    }
    this.#above = next
  }
}
