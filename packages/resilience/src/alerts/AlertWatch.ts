/**
 * Samples again and again, and lets alert rules say what is wrong.
 *
 * **Example** (The depth of one queue)
 *
 * ```ts
 * import * as Alerts from "@strata/resilience/alerts/Alerts"
 * import * as AlertRules from "@strata/resilience/alerts/AlertRules"
 * import * as AlertWatch from "@strata/resilience/alerts/AlertWatch"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * declare const depth: Effect.Effect<number>
 *
 * const sampler = Effect.map(depth, (value) => [{ signal: "queue_depth", subject: "orders", value }])
 * AlertWatch.layer(AlertRules.standard, sampler).pipe(Layer.provide(Alerts.layerLog))
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import { Clock } from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as AlertRules from "./AlertRules.ts"
import { Alerts } from "./Alerts.ts"

/**
 * Samples again and again, and raises and resolves the alerts of the rules.
 *
 * **Details**
 *
 * - `interval` (10 seconds): between two rounds, and how long one may take.
 *
 * A sampler that fails or takes too long changes no level. It is itself an alert, `alert_rules_blind`, until it gives
 * samples again.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <E, R>(
  rules: AlertRules.AlertRules,
  sampler: Effect.Effect<ReadonlyArray<AlertRules.Sample>, E, R>,
  options: { readonly interval?: Duration.Input | undefined } = {}
): Layer.Layer<never, never, Alerts | R> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const clock = yield* Clock
    const alerts = yield* Alerts
    const interval = Duration.fromInputUnsafe(options.interval ?? "10 seconds")
    let state = AlertRules.calm
    let isBlind = false

    const see = (samples: ReadonlyArray<AlertRules.Sample>) =>
      Effect.suspend(() => {
        const seen = AlertRules.observe(rules, state, samples, Number(clock.monotonicTimeNanosUnsafe()) / 1e6)
        const sees = isBlind ? alerts.resolve(blind) : Effect.void
        state = seen.state
        isBlind = false
        return Effect.andThen(sees, Effect.forEach(seen.changes, tell, { discard: true }))
      })

    const fail = (cause: Cause.Cause<unknown>) =>
      Effect.suspend(() => {
        if (isBlind) return Effect.void
        isBlind = true
        const summary = "What alert rules look at cannot be sampled: they keep their levels until it can"
        return Effect.andThen(
          Effect.logWarning(summary, cause),
          alerts.raise({ name: blind, severity: "warning", summary })
        )
      })

    const tell = (change: AlertRules.Change) =>
      change.to === "calm" ? alerts.resolve(change.key) : alerts.raise({
        name: change.rule.signal,
        key: change.key,
        severity: change.to,
        summary: AlertRules.formatChange(change),
        details: change.subject === undefined ? {} : { subject: change.subject }
      })

    yield* sampler.pipe(
      Effect.timeout(interval),
      Effect.matchCauseEffect({ onSuccess: see, onFailure: fail }),
      Effect.repeat(Schedule.spaced(interval)),
      Effect.withTracerEnabled(false),
      Effect.forkScoped({ startImmediately: true })
    )
  }))

const blind = "alert_rules_blind"
