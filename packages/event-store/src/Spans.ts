/**
 * Spans on paths that are taken tens of thousands of times a second.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

/**
 * A span around an effect where a tracer keeps it. Without one it costs nothing: a span that nobody sees would take as long
 * as the rest of an append.
 *
 * @category combinators
 * @since 0.1.0
 */
export const traced = <A, E>(
  effect: Effect.Effect<A, E>,
  name: string,
  options: () => Tracer.SpanOptionsNoTrace
): Effect.Effect<A, E> =>
  Effect.flatMap(Tracer.Tracer, (tracer) =>
    tracer === Tracer.nativeTracer
      ? effect
      : Effect.withSpan(effect, name, { ...options(), captureStackTrace: false }))
