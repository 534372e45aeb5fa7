/**
 * The trace a row belongs to, as the `traceparent` of W3C's *Trace Context*: what is stored with a fact or a message, so that the trace of
 * who wrote it goes on with who reads it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

/**
 * Of a span; null without one.
 *
 * @category formatting
 * @since 0.1.0
 */
export const of = (span: Tracer.AnySpan | undefined): string | null =>
  span === undefined ? null : `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`

/**
 * Of the span that a context has.
 *
 * @category getters
 * @since 0.1.0
 */
export const inContext = (context: Context.Context<never>): string | null =>
  of(Context.getOrUndefined(context, Tracer.ParentSpan))

/**
 * Of the span of this fiber.
 *
 * @category getters
 * @since 0.1.0
 */
export const current: Effect.Effect<string | null> = Effect.withFiberSucceed((fiber) => inContext(fiber.context))

/**
 * The span that a text names, of another process; undefined when it names none.
 *
 * @category parsing
 * @since 0.1.0
 */
export const toSpan = (traceparent: string | null): Tracer.ExternalSpan | undefined => {
  const [, traceId, spanId, flags] = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(traceparent ?? "") ?? []
  return traceId === undefined || spanId === undefined
    ? undefined
    : Tracer.externalSpan({ traceId, spanId, sampled: flags === "01" })
}
