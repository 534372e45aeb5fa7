/**
 * Spans through the OpenTelemetry SDK of an application that already runs one.
 *
 * **When to use**
 *
 * Use in an application that embeds Strata's layers and has set up the SDK itself, with its own exporters, samplers and
 * instrumentations. The server on its own uses `Telemetry.layer`. Both together would export twice.
 *
 * **Details**
 *
 * The tracer provider that is registered globally when the layer is built is used; the SDK stays the application's, to
 * be shut down by it. An Effect started inside a span of the SDK continues its trace, which `withActiveSpan` does.
 * Needs the peer dependency `@opentelemetry/api`.
 *
 * **Example** (Tracing a command)
 *
 * ```ts
 * import { Conversations } from "@strata/conversations/write/Conversations"
 * import * as OpenTelemetrySdk from "@strata/server/OpenTelemetrySdk"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const conversations = yield* Conversations
 *   return yield* conversations.start({ participants: [] })
 * }).pipe(OpenTelemetrySdk.withActiveSpan, Effect.provide(OpenTelemetrySdk.layer))
 * ```
 *
 * @since 0.1.0
 */
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import * as Otel from "@opentelemetry/api"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Tracer from "effect/Tracer"

/**
 * Makes spans with the SDK's global tracer provider.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never> = OtelTracer.layerWithoutOtelTracer.pipe(
  Layer.provide(OtelTracer.layerGlobalTracer)
)

/**
 * Makes the span that is active in the SDK's context the parent of the effect's spans; changes nothing when none is.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withActiveSpan = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R | Exclude<R, Tracer.ParentSpan>> =>
  Effect.suspend(() => {
    const active = Otel.trace.getActiveSpan()
    return active === undefined ? effect : OtelTracer.withSpanContext(effect, active.spanContext())
  })
