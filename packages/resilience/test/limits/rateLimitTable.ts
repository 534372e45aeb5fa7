/** The table that `throttled` and `redis-cell` are tested by: one token a second, five at once. Times are in seconds. */
export interface Step {
  readonly name: string
  readonly at: number
  readonly tokens: number
  readonly allowed: boolean
  readonly remaining: number
  readonly reset: number
  /** 0 when it passes. */
  readonly retry: number
}

const step = (
  name: string,
  [at, tokens]: readonly [number, number],
  allowed: boolean,
  [remaining, reset, retry]: readonly [number, number, number]
): Step => ({ name, at, tokens, allowed, remaining, reset, retry })

export const steps: ReadonlyArray<Step> = [
  step("the first of five at once passes", [0, 1], true, [4, 1, 0]),
  step("the second of five at once passes", [0, 1], true, [3, 2, 0]),
  step("the third of five at once passes", [0, 1], true, [2, 3, 0]),
  step("the fourth of five at once passes", [0, 1], true, [1, 4, 0]),
  step("the fifth of five at once passes", [0, 1], true, [0, 5, 0]),
  step("the sixth waits for one token", [0, 1], false, [0, 5, 1]),
  step("after three seconds three are back", [3, 1], true, [2, 3, 0]),
  step("a part of a token is none", [3.1, 1], true, [1, 3.9, 0]),
  step("parts add up", [4, 1], true, [1, 4, 0]),
  step("whoever rests has all again", [8, 1], true, [4, 1, 0]),
  step("and does not save up more than the burst", [9.5, 1], true, [4, 1, 0]),
  step("no tokens is to look only", [9.5, 0], true, [4, 1, 0]),
  step("two at once pass", [9.5, 2], true, [2, 3, 0]),
  step("five at once wait until all are back", [9.5, 5], false, [2, 3, 3])
]
