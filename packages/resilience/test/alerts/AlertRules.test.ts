import { assert, describe, it } from "@effect/vitest"
import * as AlertRules from "@strata/resilience/alerts/AlertRules"
import * as SeededScheduler from "@strata/testing/SeededScheduler"
import * as Arr from "effect/Array"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"

/** One rule: warning above 100, critical above 200, after ten seconds, over ten percent below. */
const one = Result.getOrThrow(AlertRules.make([{ signal: "depth", warning: 100, critical: 200, for: "10 seconds" }]))

/** The levels of one subject, given a value each second. */
const levels = (
  rules: AlertRules.AlertRules,
  signal: string,
  values: ReadonlyArray<number | undefined>
): ReadonlyArray<string | undefined> => {
  let state = AlertRules.calm
  return values.map((value, second) => {
    const seen = AlertRules.observe(rules, state, [{ signal, value }], second * 1000)
    state = seen.state
    return state.get(signal)?.level
  })
}

const times = <A>(count: number, value: A): Array<A> => Arr.makeBy(count, () => value)

describe("a rule", () => {
  it("is a warning only after the value was above the threshold for as long as it says", () => {
    assert.deepStrictEqual(levels(one, "depth", times(11, 101)), [...times(10, "calm"), "warning"])
  })

  it("is critical only after the value was above that threshold for as long, and a warning meanwhile", () => {
    const seen = levels(one, "depth", [...times(5, 150), ...times(11, 201)])
    assert.deepStrictEqual(seen, [...times(10, "calm"), ...times(5, "warning"), "critical"])
  })

  it("counts that time to the millisecond", () => {
    for (const [value, level] of [[150, "warning"], [250, "critical"]] as const) {
      const samples = [{ signal: "depth", value }]
      const { state } = AlertRules.observe(one, AlertRules.calm, samples, 5)
      assert.deepStrictEqual(
        [10_004, 10_005].map((now) => AlertRules.observe(one, state, samples, now).state.get("depth")?.level),
        ["calm", level]
      )
    }
  })

  it("begins anew after one value that is not above", () => {
    assert.notInclude(levels(one, "depth", [...times(10, 101), 100, ...times(10, 101)]), "warning")
  })

  it("does not take a value that equals its threshold for one above", () => {
    assert.notInclude(levels(one, "depth", times(100, 100)), "warning")
  })

  it("recovers only below its threshold by the margin", () => {
    const raised = times(11, 101)
    assert.deepStrictEqual(levels(one, "depth", [...raised, 99, 91, 100, 90.1]).slice(11), times(4, "warning"))
    assert.strictEqual(levels(one, "depth", [...raised, 90]).at(-1), "calm")
  })

  it("goes from critical to a warning while the value is above that, and below both at once", () => {
    const raised = times(11, 201)
    assert.deepStrictEqual(levels(one, "depth", [...raised, 181, 180, 91, 90]).slice(11), [
      "critical",
      "warning",
      "warning",
      "calm"
    ])
    assert.strictEqual(levels(one, "depth", [...raised, 0]).at(-1), "calm")
  })

  it("is not changed by a value that could not be read", () => {
    assert.deepStrictEqual(levels(one, "depth", [...times(5, 101), undefined, NaN, ...times(4, 101)]), [
      ...times(10, "calm"),
      "warning"
    ])
    assert.strictEqual(levels(one, "depth", [...times(11, 101), undefined, NaN]).at(-1), "warning")
  })

  it("tells at once what lasts no time", () => {
    const rules = Result.getOrThrow(AlertRules.make([{ signal: "depth", warning: 1, critical: 2, for: 0, margin: 0 }]))
    assert.deepStrictEqual(levels(rules, "depth", [0, 1.5, 3, 2, 1]), [
      "calm",
      "warning",
      "critical",
      "warning",
      "calm"
    ])
  })
})

describe("what is observed", () => {
  it("has a level for each subject of a signal", () => {
    const samples = [
      { signal: "depth", subject: "a", value: 150 },
      { signal: "depth", subject: "b", value: 5 },
      { signal: "other", value: 1e9 }
    ]
    const { state } = AlertRules.observe(one, AlertRules.calm, samples, 0)
    const { changes } = AlertRules.observe(one, state, samples, 10_000)
    assert.deepStrictEqual(changes.map(({ from, key, subject, to }) => ({ from, key, subject, to })), [
      { from: "calm", key: "depth/a", subject: "a", to: "warning" }
    ])
  })

  it("tells a level once", () => {
    const samples = [{ signal: "depth", value: 150 }]
    let { state } = AlertRules.observe(one, AlertRules.calm, samples, 0)
    const told = Arr.range(1, 100).flatMap((second) => {
      const seen = AlertRules.observe(one, state, samples, second * 1000)
      state = seen.state
      return seen.changes
    })
    assert.strictEqual(told.length, 1)
  })

  it("is calm again when a subject is gone, and knows nothing of it any more", () => {
    const samples = [{ signal: "depth", subject: "a", value: 150 }]
    const begun = AlertRules.observe(one, AlertRules.calm, samples, 0)
    const raised = AlertRules.observe(one, begun.state, samples, 10_000)
    const gone = AlertRules.observe(one, raised.state, [], 20_000)
    assert.deepStrictEqual(gone.changes.map(AlertRules.formatChange), ["depth of a is gone"])
    assert.strictEqual(gone.state.size, 0)
    assert.deepStrictEqual(AlertRules.observe(one, begun.state, [], 20_000).changes, [])
  })

  it("takes the larger of two samples of one subject, read or not", () => {
    const value = (...values: ReadonlyArray<number | undefined>) =>
      AlertRules.observe(one, AlertRules.calm, values.map((value) => ({ signal: "depth", value })), 0)
        .state.get("depth")?.warningSince
    assert.deepStrictEqual([value(150, 5), value(5, 150), value(150, undefined), value(undefined, 150), value(5, 5)], [
      0,
      0,
      0,
      0,
      undefined
    ])
  })

  it("never rises without the time it needs, and never falls above the margin, whatever is measured", () => {
    for (const seed of Arr.range(1, 300)) {
      const next = SeededScheduler.random(seed)
      let state = AlertRules.calm
      let [now, above, wasCritical] = [0, undefined as number | undefined, false]
      for (let n = 0; n < 200; n++) {
        now += Math.floor(next() * 5000)
        const value = 150 + Math.floor(next() * 100)
        above = value > 200 ? above ?? now : undefined
        state = AlertRules.observe(one, state, [{ signal: "depth", value }], now).state
        const isCritical = state.get("depth")?.level === "critical"
        if (isCritical && !wasCritical) assert.isTrue(above !== undefined && now - above >= 10_000, `seed ${seed}`)
        if (wasCritical && !isCritical) assert.isAtMost(value, 180, `seed ${seed}`)
        wasCritical = isCritical
      }
    }
  })
})

describe("the standard rules", () => {
  const table: ReadonlyArray<readonly [signal: string, warning: number, critical: number, minutes: number]> = [
    ["queue_depth", 5000, 10_000, 1],
    ["processing_delay", 500, 1000, 1],
    ["error_rate", 0.001, 0.01, 1],
    ["resource_usage", 0.8, 0.9, 2]
  ]
  for (const [signal, warning, critical, minutes] of table) {
    it(`warn of ${signal} above ${warning}, and are critical above ${critical}`, () => {
      const at = (value: number) => {
        const samples = [{ signal, value }]
        const { state } = AlertRules.observe(AlertRules.standard, AlertRules.calm, samples, 0)
        return AlertRules.observe(AlertRules.standard, state, samples, minutes * 60_000).state.get(signal)?.level
      }
      const levels = [at(warning), at(warning * 1.01), at(critical), at(critical * 1.01)]
      assert.deepStrictEqual(levels, ["calm", "warning", "warning", "critical"])
    })
  }

  it("can be read", () => {
    assert.strictEqual(
      AlertRules.format(AlertRules.standard),
      [
        "queue_depth: warning above 5000, critical above 10000 for 1m, over 10 % below",
        "processing_delay: warning above 500ms, critical above 1s for 1m, over 10 % below",
        "error_rate: warning above 0.1 %, critical above 1 % for 1m, over 10 % below",
        "resource_usage: warning above 80 %, critical above 90 % for 2m, over 10 % below"
      ].join("\n")
    )
  })

  it("say in words what changed", () => {
    const [rule] = AlertRules.standard.rules.slice(3)
    const change = { key: "resource_usage/disk", rule: rule!, subject: "disk", from: "calm", to: "critical" } as const
    assert.strictEqual(
      AlertRules.formatChange({ ...change, value: 0.953 }),
      "resource_usage of disk is 95.3 %, above 90 % for 2m"
    )
    assert.strictEqual(
      AlertRules.formatChange({ ...change, from: "critical", to: "warning", value: 0.75 }),
      "resource_usage of disk is 75 %, still around 80 %"
    )
    assert.strictEqual(
      AlertRules.formatChange({ ...change, from: "critical", to: "calm", value: 0.1 }),
      "resource_usage of disk is 10 %"
    )
  })
})

describe("rules are refused", () => {
  const good = { signal: "depth", warning: 1, critical: 2 }
  const table: ReadonlyArray<
    readonly [what: string, rules: ReadonlyArray<AlertRules.RuleOptions>, problem: string]
  > = [
    [
      "whose critical is below its warning",
      [{ ...good, warning: 3 }],
      "its critical is 2: expected a number above its warning of 3"
    ],
    [
      "whose critical is its warning",
      [{ ...good, warning: 2 }],
      "its critical is 2: expected a number above its warning of 2"
    ],
    [
      "whose critical is no number",
      [{ ...good, critical: NaN }],
      "its critical is NaN: expected a number above its warning of 1"
    ],
    ["whose warning is nothing", [{ ...good, warning: 0 }], "its warning is 0: expected a number above 0"],
    ["that never recover", [{ ...good, margin: 1 }], "its margin is 1: expected 0 or more, and less than 1"],
    ["that never rise", [{ ...good, for: "Infinity" }], "its for is Infinity: expected a time from 0 on"],
    ["of which there are two", [good, good], "there are two of it"]
  ]
  for (const [what, rules, problem] of table) {
    it(what, () => {
      const made = AlertRules.make(rules)
      assert.strictEqual(
        Result.isFailure(made) ? made.failure.message : "no error",
        `The alert rule of "depth" cannot be used: ${problem}`
      )
    })
  }

  it("whose signal is no name", () => {
    for (const signal of ["", "Depth", "queue/depth", "1st"]) {
      assert.isTrue(Result.isFailure(AlertRules.make([{ ...good, signal }])))
    }
  })
})

describe("the configuration of rules", () => {
  const read = (env: Record<string, string>) =>
    Effect.provideService(AlertRules.config(), ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))

  it.effect("is the standard when nothing is set", () =>
    Effect.gen(function*() {
      assert.strictEqual(AlertRules.format(yield* read({})), AlertRules.format(AlertRules.standard))
    }))

  it.effect("changes what is set", () =>
    Effect.gen(function*() {
      const { rules } = yield* read({
        STRATA_ALERT_QUEUE_DEPTH_WARNING: "2000",
        STRATA_ALERT_ERROR_RATE_CRITICAL: "0.05",
        STRATA_ALERT_RESOURCE_USAGE_FOR: "30 seconds",
        STRATA_ALERT_RESOURCE_USAGE_MARGIN: "0.2"
      })
      const [depth, , errors, usage] = rules
      assert.deepStrictEqual([depth?.warning, depth?.critical, errors?.critical, usage?.margin], [
        2000,
        10_000,
        0.05,
        0.2
      ])
      assert.strictEqual(Duration.toSeconds(usage!.for), 30)
    }))

  it.effect("is refused with the name of what is wrong", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(read({ STRATA_ALERT_QUEUE_DEPTH_WARNING: "20000" }))
      assert.include(error.message, "STRATA_ALERT_QUEUE_DEPTH")
      assert.include(error.message, "its critical is 10000: expected a number above its warning of 20000")
    }))
})
