/** Gauges that are read when they are collected, so keeping them current costs nothing. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"

/** Registers a gauge until the scope closes. */
export const gauge = (
  name: string,
  options: { readonly description: string; readonly attributes?: Record<string, string> },
  read: () => number
) =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.acquireRelease(
      Effect.sync(() =>
        Metric.registerUnsafe(Metric.gauge(name, options), context, {
          get: () => ({ value: read() }),
          update: () => {},
          modify: () => {}
        })
      ),
      (registration) => Effect.sync(() => registration.remove())
    )
  )
