import { assert, describe, it } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import * as Gcra from "@strata/resilience/limits/Gcra"
import type * as Priority from "@strata/resilience/scheduling/Priority"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import { steps } from "./rateLimitTable.ts"

const second = 1_000_000_000n
const nanos = (seconds: number) => BigInt(Math.round(seconds * 1e9))
const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

/** One key over time. */
const makeKey = (first: Gcra.Rule, account?: Gcra.Account) => {
  const key = {
    rule: first,
    account,
    ask: (now: bigint, tokens = 1, priority: Priority.Priority = "P0") => {
      const { levels: [level], passes } = Gcra.take([{ rule: key.rule, account: key.account }], {
        now,
        tokens,
        priority
      })
      assert(level !== undefined)
      key.account = level.account
      return { passes, owed: level.owed, wait: level.wait, remaining: Gcra.remaining(key.rule, level.owed) }
    }
  }
  return key
}

describe("one token a second, five at once", () => {
  const key = makeKey({ interval: second, burst: 5 })
  for (const { allowed, at, name, remaining, reset, retry, tokens } of steps) {
    it(`${at} s: ${name}`, () => {
      const before = key.account
      deepStrictEqual(key.ask(nanos(at), tokens), {
        passes: allowed,
        owed: nanos(reset),
        wait: nanos(retry),
        remaining
      })
      if (tokens === 0 || !allowed) assert.strictEqual(key.account, before)
    })
  }
})

describe("the generic cell rate algorithm", () => {
  it("whoever was refused and rests has the burst and not one token more", () => {
    const key = makeKey({ interval: second / 5n, burst: 5 })
    const count = (now: bigint) => Array.from({ length: 8 }, () => key.ask(now).passes).filter(Boolean).length
    assert.strictEqual(count(0n), 5)
    assert.strictEqual(count(2n * second), 5)
  })

  it.effect.prop(
    "how long to wait is exact: refused at every instant before, allowed at it",
    [
      between(1, 2_000_000_000),
      between(1, 20),
      Schema.Array(Schema.Tuple([between(0, 2_000_000_000), between(0, 20)])).check(Schema.isMaxLength(12)),
      between(1, 20),
      between(0, 999)
    ],
    ([interval, burst, history, tokens, early]) =>
      Effect.sync(() => {
        const key = makeKey({ interval: BigInt(interval), burst })
        let now = 0n
        for (const [gap, taken] of [...history, [0, burst] as const]) {
          now += BigInt(gap)
          key.ask(now, Math.min(taken, burst))
        }
        const { wait } = key.ask(now, Math.min(tokens, burst))
        const at = (instant: bigint) => makeKey(key.rule, key.account).ask(instant, Math.min(tokens, burst))
        if (wait === 0n) return
        for (const instant of [now, now + (wait * BigInt(early)) / 1000n, now + wait - 1n]) {
          assert.isFalse(at(instant).passes)
          assert.strictEqual(at(instant).wait, now + wait - instant)
        }
        assert.isTrue(at(now + wait).passes)
      }),
    { arbitrary: { runs: 10_000, seed: "exact" }, timeout: 60_000 }
  )

  // ------------------------------------------------------------------------------------------------ sliding windows

  const rate = 10
  const burst = 10
  type Limiter = (now: bigint) => boolean

  /** The first instants that more passed within than the burst and what comes back in that time; undefined when none. */
  const findExcess = Effect.fnUntraced(function*(limiter: Limiter, arrivals: number) {
    const passed: Array<bigint> = []
    let now = 0n
    for (let arrival = 0; arrival < arrivals; arrival++) {
      // Half of them in bursts, some after a rest.
      const kind = yield* Random.nextIntBetween(0, 99)
      now += BigInt(yield* Random.nextIntBetween(0, kind < 60 ? 2_000_000 : kind < 97 ? 200_000_000 : 2_000_000_000))
      if (!limiter(now)) continue
      passed.push(now)
      for (let length = burst; length <= 4 * burst; length++) {
        const first = passed.at(-length)
        if (first === undefined) break
        const within = now - first
        if (length > burst + Number((within * BigInt(rate)) / second)) return { first, last: now, passed: length }
      }
    }
    return undefined
  })

  it.effect("no window of any length lets more pass than the burst and what comes back in it, over 100,000 arrivals", () =>
    Effect.gen(function*() {
      const key = makeKey({ interval: second / BigInt(rate), burst })
      assert.isUndefined(yield* findExcess((now) => key.ask(now).passes, 100_000))
    }).pipe(Random.withSeed("windows")))

  it.effect("which a limiter by fixed windows does not keep", () =>
    Effect.gen(function*() {
      let window = 0n
      let count = 0
      const fixedWindow: Limiter = (now) => {
        if (now / second !== window) count = 0
        window = now / second
        return ++count <= rate
      }
      assert.isDefined(yield* findExcess(fixedWindow, 100_000))
    }).pipe(Random.withSeed("windows")))

  // ---------------------------------------------------------------------------------------------------------- clocks

  it("a clock that is set back by an hour shuts nobody out for longer than the burst takes to come back", () => {
    for (let taken = 1; taken <= 5; taken++) {
      const key = makeKey({ interval: second, burst: 5 })
      const now = 7200n * second
      key.ask(now, taken)
      const back = now - 3600n * second
      const { passes, wait } = key.ask(back, 5)
      deepStrictEqual({ passes, wait }, { passes: false, wait: BigInt(taken) * second })
      assert.isFalse(key.ask(back + wait - 1n, 5).passes)
      assert.isTrue(key.ask(back + wait, 5).passes)
    }
  })

  it("a clock that leaps ahead by an hour gives one burst at most, and going back with it gives nothing", () => {
    const key = makeKey({ interval: second, burst: 5 })
    assert.isTrue(key.ask(0n, 5).passes)
    const ahead = 3600n * second
    assert.isTrue(key.ask(ahead, 5).passes)
    assert.isFalse(key.ask(ahead).passes)
    deepStrictEqual(key.ask(second).wait, second)
    assert.isTrue(key.ask(2n * second).passes)
  })

  // ----------------------------------------------------------------------------------------------------------- limits

  it("a limit that is raised keeps what was taken, and gives what is more at once", () => {
    const key = makeKey({ interval: second, burst: 10 })
    key.ask(0n, 8)
    key.rule = { interval: second, burst: 20 }
    deepStrictEqual(key.ask(0n, 0), { passes: true, owed: 8n * second, wait: 0n, remaining: 12 })
  })

  it("a limit that is lowered keeps what was taken, and never says less than nothing", () => {
    const key = makeKey({ interval: second, burst: 20 })
    key.ask(0n, 20)
    key.rule = { interval: second, burst: 10 }
    deepStrictEqual(key.ask(0n), { passes: false, owed: 20n * second, wait: 11n * second, remaining: 0 })
    assert.isFalse(key.ask(11n * second - 1n).passes)
    assert.isTrue(key.ask(11n * second).passes)
  })

  // ------------------------------------------------------------------------------------------------------- priorities

  it("whatever the lowest class takes, the highest has all of its own", () => {
    const key = makeKey({ interval: second, burst: 5 })
    for (let n = 0; n < 100; n++) key.ask(0n, 1, "P3")
    assert.isFalse(key.ask(0n, 1, "P3").passes)
    for (const priority of ["P2", "P1", "P0"] as const) assert.strictEqual(key.ask(0n, 0, priority).remaining, 5)
  })

  it("what the highest class takes counts for all below it", () => {
    const key = makeKey({ interval: second, burst: 5 })
    key.ask(0n, 3, "P0")
    for (const priority of ["P0", "P1", "P2", "P3"] as const) assert.strictEqual(key.ask(0n, 0, priority).remaining, 2)
  })

  it("when all classes ask for more than there is, the highest gets the rate, and the others what there was before it had taken the burst", () => {
    const key = makeKey({ interval: second, burst: 5 })
    const passed = { P0: 0, P1: 0, P2: 0, P3: 0 }
    for (let time = 0n; time < 1000n; time++) {
      for (const priority of ["P3", "P2", "P1", "P0"] as const) {
        if (key.ask((time * second) / 4n, 1, priority).passes) passed[priority]++
      }
    }
    deepStrictEqual(passed, { P0: 254, P1: 3, P2: 2, P3: 2 })
  })

  it("no class owes more than one burst for itself and one for each class above it", () => {
    const key = makeKey({ interval: second, burst: 5 })
    for (const priority of ["P3", "P2", "P1", "P0"] as const) for (let n = 0; n < 9; n++) key.ask(0n, 1, priority)
    assert.strictEqual(key.ask(0n, 0, "P0").owed, 5n * second)
    assert.strictEqual(key.ask(0n, 0, "P3").owed, 20n * second)
  })
})
