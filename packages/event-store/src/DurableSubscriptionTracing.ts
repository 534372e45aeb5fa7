/**
 * Continues the traces of the facts in a batch: one trace runs from the request, through the append, to the handler.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Headers from "effect/http/Headers"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import type { Fact } from "./Fact.ts"

/**
 * Runs the handling of a batch within a span. When all its facts come from one span, it is a child of that; otherwise it
 * begins a trace and links to them, to the first 32. Traces that are not sampled are left out.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withSpans = (subscription: string, partition: number, batch: ReadonlyArray<Fact>) => {
  const spans = spansOf(batch)
  const [only] = spans
  const options = {
    kind: "consumer",
    attributes: {
      "subscription.name": subscription,
      "subscription.partition": partition,
      "subscription.facts": batch.length,
      "subscription.first_position": String(batch[0]?.position ?? 0n),
      "subscription.last_position": String(batch.at(-1)?.position ?? 0n)
    }
  } as const
  return <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    only !== undefined && spans.length === 1
      ? Effect.withSpan(effect, spanName, { ...options, parent: only })
      : Effect.withSpan(effect, spanName, {
        ...options,
        root: true,
        links: spans.map((span) => ({ span, attributes: {} }))
      })
}

const spanName = "DurableSubscription.handle"

const spansOf = (batch: ReadonlyArray<Fact>): ReadonlyArray<Tracer.ExternalSpan> =>
  [...new Set(batch.map((fact) => fact.traceparent))].slice(0, 32).flatMap((traceparent) => {
    if (traceparent === null) return []
    const span = HttpTraceContext.w3c(Headers.fromInput({ traceparent }))
    return Option.isSome(span) && span.value.sampled ? [span.value] : []
  })
