/**
 * Tells people that something is wrong: once, again when nobody looks after it, and that it is over.
 *
 * **When to use**
 *
 * `raise` what a person should know, and `resolve` it when it is over. For thresholds let `AlertRules` do both; for
 * failures of handlers `ErrorStrategy` does the first.
 *
 * **Details**
 *
 * Neither waits for anything nor fails: channels take what they are given, and deliver by themselves. Who is told when is
 * the business of an `AlertPolicy`. All this lives in the process and is lost with it: whoever still finds something wrong
 * raises it again.
 *
 * | metric | kind | labels |
 * | --- | --- | --- |
 * | `strata_alerts_active` | gauge | `severity` |
 * | `strata_alerts_raised_total` | counter | `severity` |
 * | `strata_alerts_displaced_total` | counter: alerts there was no room for | `severity` |
 *
 * **Gotchas**
 *
 * The key decides what is one alert. With the id of a message in it every message is an alert of its own.
 *
 * **Example** (An alert that is acknowledged)
 *
 * ```ts import.meta.vitest
 * import * as Effect from "effect/Effect"
 * import * as Alerts from "@strata/resilience/alerts/Alerts"
 *
 * const program = Effect.gen(function*() {
 *   const alerts = yield* Alerts.Alerts
 *   yield* alerts.raise({ name: "disk_full", severity: "critical", summary: "The disk of the log is full" })
 *   yield* alerts.acknowledge("disk_full", { actor: "ada" })
 *   return (yield* alerts.active).map(({ acknowledgedBy }) => acknowledgedBy)
 * })
 * await Effect.runPromise(Effect.provide(program, Alerts.layerMemory)) // => ["ada"]
 * ```
 *
 * @since 0.1.0
 */
import * as Timestamp from "@strata/postgres/Timestamp"
import { Clock } from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Observed from "../internal/observed.ts"
import * as StandingAlert from "../internal/standingAlert.ts"
import * as Alert from "./Alert.ts"
import * as AlertChannel from "./AlertChannel.ts"
import * as AlertPolicy from "./AlertPolicy.ts"

// -------------------------------------------------------------------------------------------------------- service

/**
 * Where alerts are raised.
 *
 * @category services
 * @since 0.1.0
 */
export class Alerts extends Context.Service<Alerts, {
  /** Something is wrong, or still is. */
  readonly raise: (alert: Alert.Alert) => Effect.Effect<void>
  /** It is over. Nothing happens when there is no such alert. */
  readonly resolve: (key: string) => Effect.Effect<void>
  /** Somebody looks after it: no step of the escalation is taken any more. False when there is no such alert. */
  readonly acknowledge: (key: string, options: { readonly actor: string }) => Effect.Effect<boolean>
  /** What is wrong now, the most severe first, and the oldest of these. */
  readonly active: Effect.Effect<ReadonlyArray<Alert.Active>>
}>()("@strata/resilience/alerts/Alerts") {}

/**
 * What alerts are made from. Policy: default `AlertPolicy.standard`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<R = never> {
  readonly channels: ReadonlyArray<AlertChannel.Opening<R>>
  readonly policy?: AlertPolicy.AlertPolicy | undefined
}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * Alerts until the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*<R = never>(options: Options<R>) {
  const clock = yield* Clock
  const channels = yield* Effect.all(options.channels)
  const policy = yield* Effect.fromResult(
    AlertPolicy.forChannels(options.policy ?? AlertPolicy.standard, channels.map(({ name }) => name))
  )
  const tell = makeTell(policy, channels)
  // In the order in which they were first raised.
  const book = new Map<string, StandingAlert.StandingAlert>()
  const now = (): StandingAlert.Moment => ({
    at: Number(clock.monotonicTimeNanosUnsafe()) / 1e6,
    time: Timestamp.fromMillis(clock.currentTimeMillisUnsafe())
  })
  const timer = yield* makeTimer(policy, book, now, tell)
  yield* registerGauges(book)

  return Alerts.of({
    raise: (alert) =>
      Effect.suspend(() => {
        const key = keyOf(alert)
        const before = book.get(key)
        const displaced = before === undefined && book.size >= policy.capacity ? leastOf(book, alert) : undefined
        const raised = countOf(raises, alert.severity)
        if (displaced !== undefined) {
          if (displaced.alert === alert) return Effect.andThen(raised, countOf(displacements, alert.severity))
          book.delete(keyOf(displaced.alert))
        }
        const { standing, tell: telling } = StandingAlert.raise(policy, before, alert, now())
        book.set(key, standing)
        timer.expect(StandingAlert.dueAt(policy, standing))
        return Effect.all([
          raised,
          displaced === undefined ? Effect.void : countOf(displacements, displaced.alert.severity),
          telling === undefined ? Effect.void : tell(telling, standing)
        ], { discard: true })
      }).pipe(Effect.uninterruptible),
    resolve: (key) =>
      Effect.suspend(() => {
        const standing = book.get(key)
        book.delete(key)
        return standing === undefined ? Effect.void : tell({ kind: "resolved", steps: standing.taken }, standing)
      }).pipe(Effect.uninterruptible),
    acknowledge: (key, { actor }) =>
      Effect.sync(() => {
        const standing = book.get(key)
        if (standing !== undefined) book.set(key, { ...standing, acknowledgedBy: actor })
        return standing !== undefined
      }),
    active: Effect.sync(() => Alert.severities.toReversed().flatMap((severity) => activeOf(book, severity)))
  })
})

// --------------------------------------------------------------------------------------------------------- layers

/**
 * Tells these channels, as the policy says.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<Alerts, AlertPolicy.InvalidAlertPolicy, Exclude<R, Scope.Scope>> => Layer.effect(Alerts, make(options))

/**
 * Tells the log alone.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerLog: Layer.Layer<Alerts> = Layer.orDie(layer({ channels: [AlertChannel.log] }))

/**
 * Tells the log and a webhook at once.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWebhook = (
  options: AlertChannel.WebhookOptions
): Layer.Layer<Alerts, AlertPolicy.InvalidAlertPolicy, HttpClient.HttpClient> =>
  layer({ channels: [AlertChannel.log, AlertChannel.webhook(options)] })

/**
 * What the environment says.
 *
 * | variable | |
 * | --- | --- |
 * | `STRATA_ALERTS_WEBHOOK` | Where alerts are posted, beside the log. Default: nowhere |
 * | `STRATA_ALERTS_WEBHOOK_AFTER` | How long an alert must be active and not acknowledged for that. Default: 0 |
 * | `STRATA_ALERTS_WEBHOOK_SEVERITY` | What is less severe is not posted. Default: info |
 * | `STRATA_ALERTS_GROUP_WINDOW` | For how long equal alerts are counted before the summary. Default: 1 minute |
 * | `STRATA_ALERTS_REPEAT_AFTER` | When an alert that is still active is told again. Default: 1 hour |
 * | `STRATA_ALERTS_CAPACITY` | How many alerts may be active. Default: 1000 |
 *
 * @category config
 * @since 0.1.0
 */
export const config = Config.all({
  webhook: Config.option(Config.Redacted("STRATA_ALERTS_WEBHOOK")),
  after: Config.Duration("STRATA_ALERTS_WEBHOOK_AFTER").pipe(Config.withDefault(Duration.zero)),
  severity: Config.Literals(Alert.severities, "STRATA_ALERTS_WEBHOOK_SEVERITY").pipe(Config.withDefault("info")),
  groupWindow: Config.Duration("STRATA_ALERTS_GROUP_WINDOW").pipe(
    Config.withDefault(AlertPolicy.standard.groupWindow)
  ),
  repeatAfter: Config.Duration("STRATA_ALERTS_REPEAT_AFTER").pipe(
    Config.withDefault(AlertPolicy.standard.repeatAfter)
  ),
  capacity: Config.Int("STRATA_ALERTS_CAPACITY").pipe(Config.withDefault(AlertPolicy.standard.capacity))
})

/**
 * Tells the log, and a webhook if there is one, as the environment says.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig: Layer.Layer<
  Alerts,
  Config.ConfigError | AlertPolicy.InvalidAlertPolicy,
  HttpClient.HttpClient
> = Layer.unwrap(Effect.gen(function*() {
  const { after, severity, webhook, ...options } = yield* config
  if (Option.isNone(webhook)) {
    return layer({ channels: [AlertChannel.log], policy: yield* Effect.fromResult(AlertPolicy.make(options)) })
  }
  const steps = [{ channels: ["log"] }, { after, channels: ["webhook"], severity }]
  const policy = yield* Effect.fromResult(AlertPolicy.make({ ...options, steps }))
  return layer({ channels: [AlertChannel.log, AlertChannel.webhook({ url: webhook.value })], policy })
}))

/**
 * Tells the memory, where tests look.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Alerts | AlertChannel.Memory> = Layer.provideMerge(
  Layer.orDie(layer({ channels: [AlertChannel.Memory] })),
  AlertChannel.Memory.layer
)

// ------------------------------------------------------------------------------------------------- implementation

const keyOf = (alert: Alert.Alert): string => alert.key ?? alert.name

const activeOf = (book: ReadonlyMap<string, StandingAlert.StandingAlert>, severity: Alert.Severity) =>
  Array.from(book.values()).filter(({ alert }) => alert.severity === severity).map(toActive)

const toActive = ({ acknowledgedBy, alert, count, first, last }: StandingAlert.StandingAlert): Alert.Active => ({
  name: alert.name,
  key: keyOf(alert),
  severity: alert.severity,
  summary: alert.summary,
  details: alert.details ?? {},
  count,
  firstAt: first.time,
  lastAt: last.time,
  acknowledgedBy
})

/** Who goes when there is no room: the oldest of the least severe, or the new one when it matters less than all. */
const leastOf = (
  book: ReadonlyMap<string, StandingAlert.StandingAlert>,
  alert: Alert.Alert
): { readonly alert: Alert.Alert } => {
  let least: StandingAlert.StandingAlert | undefined
  for (const standing of book.values()) {
    if (least === undefined || Alert.isWorse(least.alert.severity, standing.alert.severity)) least = standing
  }
  return least === undefined || Alert.isWorse(least.alert.severity, alert.severity) ? { alert } : least
}

type Tell = (telling: StandingAlert.Telling, standing: StandingAlert.StandingAlert) => Effect.Effect<void>

/** Gives a notification to all channels of some steps. */
const makeTell = (
  { steps: all }: AlertPolicy.AlertPolicy,
  channels: ReadonlyArray<AlertChannel.AlertChannel>
): Tell => {
  let sequence = 0
  return ({ kind, steps }, standing) => {
    const names = new Set(steps.flatMap((index) => all[index]?.channels ?? []))
    const alert = toActive(standing)
    const notification = { id: `${alert.key}/${alert.firstAt}/${++sequence}`, kind, alert }
    return Effect.forEach(
      channels.filter(({ name }) => names.has(name)),
      ({ name, offer }) =>
        Effect.catchCause(
          offer(notification),
          (cause) => Effect.logError(`Alert channel "${name}" broke with ${Alert.format(notification)}`, cause)
        ),
      { discard: true }
    )
  }
}

/** Does what time does to alerts, in a fiber that sleeps until the next of it is due. */
const makeTimer = Effect.fnUntraced(function*(
  policy: AlertPolicy.AlertPolicy,
  book: Map<string, StandingAlert.StandingAlert>,
  now: () => StandingAlert.Moment,
  tell: Tell
) {
  const sooner = yield* Latch.make()
  let wakesAt = Infinity

  const advance = Effect.suspend(() => {
    const { at } = now()
    const told: Array<Effect.Effect<void>> = []
    for (const [key, before] of book) {
      if (StandingAlert.dueAt(policy, before) > at) continue
      const { standing, tell: tellings } = StandingAlert.advance(policy, before, at)
      if (standing === undefined) book.delete(key)
      else book.set(key, standing)
      for (const telling of tellings) told.push(tell(telling, standing ?? before))
    }
    return Effect.all(told, { discard: true })
  })

  const wait = Effect.suspend(() => {
    sooner.closeUnsafe()
    wakesAt = Infinity
    for (const standing of book.values()) wakesAt = Math.min(wakesAt, StandingAlert.dueAt(policy, standing))
    if (wakesAt === Infinity) return sooner.await
    const millis = Math.max(0, Math.ceil(wakesAt - now().at))
    return Effect.asVoid(Effect.timeoutOption(sooner.await, Duration.millis(millis)))
  })

  yield* Effect.andThen(wait, advance).pipe(
    Effect.forever,
    Effect.withTracerEnabled(false),
    Effect.forkScoped({ startImmediately: true })
  )
  return {
    expect: (at: number) => {
      if (at < wakesAt) sooner.openUnsafe()
    }
  }
})

const raises = Metric.counter("strata_alerts_raised_total", { description: "Alerts raised", incremental: true })
const displacements = Metric.counter("strata_alerts_displaced_total", {
  description: "Alerts there was no room for",
  incremental: true
})

const countOf = (counter: Metric.Counter<number>, severity: Alert.Severity) =>
  Metric.update(Metric.withAttributes(counter, { severity }), 1)

const registerGauges = (book: ReadonlyMap<string, StandingAlert.StandingAlert>) =>
  Effect.forEach(Alert.severities, (severity) =>
    Observed.gauge(
      "strata_alerts_active",
      { description: "Alerts not resolved yet", attributes: { severity } },
      () => activeOf(book, severity).length
    ), { discard: true })
