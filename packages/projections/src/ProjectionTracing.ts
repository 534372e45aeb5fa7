/**
 * Continues the traces of the facts in a batch: one trace runs from the request, through the append, to the projector.
 *
 * **Details**
 *
 * A fact carries the W3C trace context of what appended it. When all facts of a batch come from one span, the batch's own
 * span is a child of it. Otherwise the batch's span begins a trace and links to them, and each of them gets a child that
 * spans the batch. Traces that are not sampled get nothing.
 *
 * @since 0.1.0
 */
import type { Fact } from "@strata/event-store/Fact"
import * as Effect from "effect/Effect"
import * as Headers from "effect/http/Headers"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"

/**
 * Runs the application of a batch within its spans.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withSpans = (projection: string, facts: ReadonlyArray<Fact>) => {
  const parents = parentsOf(facts)
  const attributes = {
    "projection.name": projection,
    "projection.facts": facts.length,
    "projection.first_position": String(facts[0]?.position ?? 0n),
    "projection.last_position": String(facts.at(-1)?.position ?? 0n)
  }
  const [only] = parents
  return <A, E, R>(apply: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    if (parents.length === 1) return Effect.withSpan(apply, spanName, { attributes, parent: only, kind: "consumer" })
    const batch = Effect.withSpan(apply, spanName, {
      attributes,
      root: true,
      kind: "consumer",
      links: parents.map((span) => ({ span, attributes: {} }))
    })
    return parents.reduce(
      (inner, parent) => Effect.useSpan(spanName, { attributes, parent, kind: "consumer" }, () => inner),
      batch
    )
  }
}

const spanName = "Projection.apply"

const parentsOf = (facts: ReadonlyArray<Fact>): ReadonlyArray<Tracer.ExternalSpan> =>
  [...new Set(facts.map((fact) => fact.traceparent))].flatMap((traceparent) => {
    if (traceparent === null) return []
    const span = HttpTraceContext.w3c(Headers.fromInput({ traceparent }))
    return Option.isSome(span) && span.value.sampled ? [span.value] : []
  })
