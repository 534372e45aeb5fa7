/**
 * Thresholds as data: from which value on somebody is told, after how long, and when it is over.
 *
 * **When to use**
 *
 * Use them in `AlertWatch` with a sampler of what is measured anyway. `standard` has the thresholds of queues, delays, errors and
 * resources; `config` lets the environment change them.
 *
 * **Details**
 *
 * A rule looks at one *signal*, which may be measured for several *subjects*: the depth of each queue, the use of each
 * resource. Each of them has a level of its own. It rises when the value was above a threshold for as long as `for` says,
 * without a break, and falls when the value is below the threshold by the margin: what wavers around a threshold is told
 * once.
 *
 * A subject that is named without a number keeps its level; one that is not named any more is gone, and its alert with it.
 *
 * The functions here are pure.
 *
 * **Example** (A queue that is too deep for a minute)
 *
 * ```ts import.meta.vitest
 * import * as AlertRules from "@strata/resilience/alerts/AlertRules"
 *
 * const deep = [{ signal: "queue_depth", subject: "orders", value: 12_000 }]
 * const { changes, state } = AlertRules.observe(AlertRules.standard, AlertRules.calm, deep, 0)
 * changes // => []
 * AlertRules.observe(AlertRules.standard, state, deep, 60_000).changes.map(AlertRules.formatChange)
 * // => ["queue_depth of orders is 12000, above 10000 for 1m"]
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"

const TypeId = "~@strata/resilience/alerts/AlertRules"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * How values are written: as they are, as milliseconds, or as a share of 1 in percent.
 *
 * @category models
 * @since 0.1.0
 */
export type Unit = "count" | "millis" | "share"

/**
 * One threshold for a warning and one for worse.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rule {
  /** What is measured, in lower case with underscores. One rule for each. */
  readonly signal: string
  readonly unit: Unit
  /** Above this it is a warning. */
  readonly warning: number
  /** Above this it is critical. */
  readonly critical: number
  /** How long it must stay above. */
  readonly for: Duration.Duration
  /** By which share of a threshold the value must be below it for the level to fall. */
  readonly margin: number
}

/**
 * Rules that were checked: see `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface AlertRules {
  readonly [TypeId]: typeof TypeId
  readonly rules: ReadonlyArray<Rule>
}

/**
 * What a rule is made from.
 *
 * @category options
 * @since 0.1.0
 */
export interface RuleOptions {
  readonly signal: string
  readonly warning: number
  readonly critical: number
  /** Default: count. */
  readonly unit?: Unit | undefined
  /** Default: 1 minute. */
  readonly for?: Duration.Input | undefined
  /** Default: 0.1. */
  readonly margin?: number | undefined
}

/**
 * Rules that would do harm, and why.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidAlertRules
  extends Schema.TaggedError<InvalidAlertRules>("@strata/resilience/AlertRules/InvalidAlertRules")(
    "InvalidAlertRules",
    { signal: Schema.String, problem: Schema.String }
  )
{
  override get message(): string {
    return `The alert rule of "${this.signal}" cannot be used: ${this.problem}`
  }
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Makes rules, or says which of them is wrong, and what about it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: ReadonlyArray<RuleOptions>): Result.Result<AlertRules, InvalidAlertRules> => {
  const rules: Array<Rule> = []
  for (const { margin = 0.1, unit = "count", ...given } of options) {
    const rule: Rule = { ...given, unit, margin, for: Duration.fromInputUnsafe(given.for ?? "1 minute") }
    const problem = rules.some(({ signal }) => signal === rule.signal) ? "there are two of it" : findProblem(rule)
    if (problem !== undefined) return Result.fail(new InvalidAlertRules({ signal: rule.signal, problem }))
    rules.push(rule)
  }
  return Result.succeed({ [TypeId]: TypeId, rules })
}

const findProblem = (rule: Rule): string | undefined => {
  const { critical, margin, signal, warning } = rule
  if (!/^[a-z][a-z0-9_]{0,63}$/.test(signal)) return "expected lower case letters, digits and underscores"
  if (!(warning > 0 && warning < Infinity)) return `its warning is ${warning}: expected a number above 0`
  if (!(critical > warning && critical < Infinity)) {
    return `its critical is ${critical}: expected a number above its warning of ${warning}`
  }
  if (!(margin >= 0 && margin < 1)) return `its margin is ${margin}: expected 0 or more, and less than 1`
  if (!Duration.isFinite(rule.for) || Duration.isNegative(rule.for)) {
    return `its for is ${Duration.format(rule.for)}: expected a time from 0 on`
  }
  return undefined
}

/**
 * | signal | warning | critical | for |
 * | --- | --- | --- | --- |
 * | `queue_depth` of each queue | 5000 | 10 000 | 1 minute |
 * | `processing_delay`, on average | 500 ms | 1 s | 1 minute |
 * | `error_rate`, a share of what was tried | 0.1 % | 1 % | 1 minute |
 * | `resource_usage` of each resource, a share of it | 80 % | 90 % | 2 minutes |
 *
 * @category constants
 * @since 0.1.0
 */
export const standard: AlertRules = Result.getOrThrow(make([
  { signal: "queue_depth", warning: 5000, critical: 10_000 },
  { signal: "processing_delay", unit: "millis", warning: 500, critical: 1000 },
  { signal: "error_rate", unit: "share", warning: 0.001, critical: 0.01 },
  { signal: "resource_usage", unit: "share", warning: 0.8, critical: 0.9, for: "2 minutes" }
]))

/**
 * The rules as the environment changes them: `STRATA_ALERT_<SIGNAL>_WARNING`, `_CRITICAL`, `_FOR` and `_MARGIN`, as in
 * `STRATA_ALERT_QUEUE_DEPTH_WARNING=2000`. What is not set is as in `defaults`.
 *
 * @category config
 * @since 0.1.0
 */
export const config = (defaults: AlertRules = standard): Config.Config<AlertRules> =>
  Config.all(defaults.rules.map(ruleConfig)).pipe(
    Config.mapEffect((rules) =>
      Effect.mapError(Effect.fromResult(make(rules)), (error) =>
        new Config.ConfigError(
          new Schema.SchemaError(
            new SchemaIssue.Pointer([variable(error.signal)], new SchemaIssue.InvalidValue({ message: error.message }))
          )
        ))
    )
  )

const variable = (signal: string): string => `STRATA_ALERT_${signal.toUpperCase()}`

const ruleConfig = (rule: Rule): Config.Config<Rule> => {
  const name = variable(rule.signal)
  return Config.all({
    signal: Config.succeed(rule.signal),
    unit: Config.succeed(rule.unit),
    warning: Config.Finite(`${name}_WARNING`).pipe(Config.withDefault(rule.warning)),
    critical: Config.Finite(`${name}_CRITICAL`).pipe(Config.withDefault(rule.critical)),
    for: Config.Duration(`${name}_FOR`).pipe(Config.withDefault(rule.for)),
    margin: Config.Finite(`${name}_MARGIN`).pipe(Config.withDefault(rule.margin))
  })
}

// ----------------------------------------------------------------------------------------------------------- state

/**
 * One value of a signal.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sample {
  readonly signal: string
  /** What it was measured for, a queue for instance. Default: the signal has one value. */
  readonly subject?: string | undefined
  /** `undefined` or NaN when it could not be read. */
  readonly value: number | undefined
}

/**
 * How bad a subject is.
 *
 * @category models
 * @since 0.1.0
 */
export type Level = "calm" | "warning" | "critical"

/**
 * What is known of one subject of a signal.
 *
 * @category models
 * @since 0.1.0
 */
export interface Watched {
  readonly signal: string
  readonly subject: string | undefined
  readonly level: Level
  /** Since when the value is above each threshold, in milliseconds of a monotonic clock. */
  readonly warningSince: number | undefined
  readonly criticalSince: number | undefined
}

/**
 * What is known of all subjects, by the key of their alert.
 *
 * @category models
 * @since 0.1.0
 */
export type State = ReadonlyMap<string, Watched>

/**
 * A subject is worse or better than it was.
 *
 * @category models
 * @since 0.1.0
 */
export interface Change {
  /** Of its alert. */
  readonly key: string
  readonly rule: Rule
  readonly subject: string | undefined
  readonly from: Level
  readonly to: Level
  /** `undefined` for a subject that is gone. */
  readonly value: number | undefined
}

/**
 * Nothing was measured yet.
 *
 * @category constants
 * @since 0.1.0
 */
export const calm: State = new Map()

const keyOf = ({ signal, subject }: { readonly signal: string; readonly subject?: string | undefined }): string =>
  subject === undefined ? signal : `${signal}/${subject}`

/**
 * What is known after a round of samples, and what changed. `now` is a monotonic clock's, in milliseconds. Samples of
 * signals without a rule are left out; of several samples of one subject the largest counts.
 *
 * @category transitions
 * @since 0.1.0
 */
export const observe = (
  { rules }: AlertRules,
  before: State,
  samples: ReadonlyArray<Sample>,
  now: number
): { readonly state: State; readonly changes: ReadonlyArray<Change> } => {
  const state = new Map<string, Watched>()
  const changes: Array<Change> = []
  for (const rule of rules) {
    const values = valuesOf(rule, samples)
    for (const [key, { subject, value }] of values) {
      const watched = before.get(key) ?? unwatched(rule.signal, subject)
      const next = value === undefined ? watched : step(rule, watched, value, now)
      state.set(key, next)
      if (next.level !== watched.level) {
        changes.push({ key, rule, subject, from: watched.level, to: next.level, value })
      }
    }
    for (const [key, { level, signal, subject }] of before) {
      if (signal !== rule.signal || values.has(key) || level === "calm") continue
      changes.push({ key, rule, subject, from: level, to: "calm", value: undefined })
    }
  }
  return { state, changes }
}

const unwatched = (signal: string, subject: string | undefined): Watched => ({
  signal,
  subject,
  level: "calm",
  warningSince: undefined,
  criticalSince: undefined
})

/** The subjects of a rule's signal by key, and their values that could be read. */
const valuesOf = (
  { signal }: Rule,
  samples: ReadonlyArray<Sample>
): ReadonlyMap<string, { readonly subject: string | undefined; readonly value: number | undefined }> => {
  const values = new Map<string, { readonly subject: string | undefined; readonly value: number | undefined }>()
  for (const sample of samples) {
    if (sample.signal !== signal) continue
    const key = keyOf(sample)
    const other = values.get(key)?.value
    const read = sample.value === undefined || Number.isNaN(sample.value) ? undefined : sample.value
    const value = read === undefined || other === undefined ? read ?? other : Math.max(read, other)
    values.set(key, { subject: sample.subject, value })
  }
  return values
}

const step = (rule: Rule, watched: Watched, value: number, now: number): Watched => {
  const warningSince = value > rule.warning ? watched.warningSince ?? now : undefined
  const criticalSince = value > rule.critical ? watched.criticalSince ?? now : undefined
  const held = Duration.toMillis(rule.for)
  const lasts = (since: number | undefined) => since !== undefined && now - since >= held
  const keeps = (threshold: number) => value > threshold * (1 - rule.margin)
  const isCritical = lasts(criticalSince) || watched.level === "critical" && keeps(rule.critical)
  const isWarning = lasts(warningSince) || watched.level !== "calm" && keeps(rule.warning)
  const level = isCritical ? "critical" : isWarning ? "warning" : "calm"
  return { ...watched, level, warningSince, criticalSince }
}

// ----------------------------------------------------------------------------------------------------- formatting

const formatValue = (unit: Unit, value: number): string => {
  if (unit === "millis") return Duration.format(Duration.millis(Math.round(value)))
  return unit === "share" ? `${Number((value * 100).toFixed(2))} %` : String(Number(value.toFixed(2)))
}

/**
 * Rules as lines to read.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = ({ rules }: AlertRules): string =>
  rules.map((rule) =>
    `${rule.signal}: warning above ${formatValue(rule.unit, rule.warning)}, critical above ${
      formatValue(rule.unit, rule.critical)
    } for ${Duration.format(rule.for)}, over ${formatValue("share", rule.margin)} below`
  ).join("\n")

/**
 * A change as one sentence.
 *
 * @category formatting
 * @since 0.1.0
 */
export const formatChange = ({ rule, subject, to, value }: Change): string => {
  const what = subject === undefined ? rule.signal : `${rule.signal} of ${subject}`
  if (value === undefined) return `${what} is gone`
  const is = `${what} is ${formatValue(rule.unit, value)}`
  if (to === "calm") return is
  const threshold = rule[to]
  // On the way down the value lies between the threshold and its margin.
  return value > threshold
    ? `${is}, above ${formatValue(rule.unit, threshold)} for ${Duration.format(rule.for)}`
    : `${is}, still around ${formatValue(rule.unit, threshold)}`
}
