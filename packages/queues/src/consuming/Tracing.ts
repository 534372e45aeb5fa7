/**
 * Goes on with the traces of those who sent: one trace runs from the request, through the message, to its handler.
 *
 * **Details**
 *
 * Where a tracer keeps spans there is one of the kind consumer around each handler, by the names of OpenTelemetry's semantic
 * conventions for messaging. When all messages come from one span it is a child of that; otherwise it begins a trace and links to them, to
 * the first 32. Where nobody keeps spans none is made, but what one message causes still belongs to its trace.
 *
 * @since 0.1.0
 */
import * as Traceparent from "@strata/postgres/Traceparent"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"
import type { Claimed } from "./Claims.ts"

/** Spans that one links to. */
const mostLinks = 32

/**
 * What is looked at of a message.
 *
 * @category models
 * @since 0.1.0
 */
export interface Traceable {
  readonly claimed: Pick<Claimed, "id" | "attempts" | "correlationId" | "traceparent">
}

/** Puts the handling of messages into their traces. */
type Traced = <A, E, R>(messages: ReadonlyArray<Traceable>, handling: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * Puts the handling of messages of a queue into their traces.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (queue: string): Effect.Effect<Traced> =>
  Effect.map(Tracer.Tracer, (tracer) => tracer === Tracer.nativeTracer ? continued : inSpan(queue))

const continued: Traced = (messages, handling) => {
  const traceparent = messages.length === 1 ? messages[0]!.claimed.traceparent : null
  if (traceparent === null) return handling
  const parent = Traceparent.toSpan(traceparent)
  return parent === undefined ? handling : Effect.provideService(handling, Tracer.ParentSpan, parent)
}

const inSpan = (queue: string): Traced => (messages, handling) => {
  const spans = spansOf(messages)
  const [only] = spans
  const options: Tracer.SpanOptions = {
    kind: "consumer",
    attributes: attributesOf(queue, messages),
    captureStackTrace: false
  }
  return Effect.withSpan(
    handling,
    `process ${queue}`,
    only !== undefined && spans.length === 1
      ? { ...options, parent: only }
      : {
        ...options,
        root: true,
        links: spans.filter(({ sampled }) => sampled).slice(0, mostLinks).map((span) => ({ span, attributes: {} }))
      }
  )
}

const spansOf = (messages: ReadonlyArray<Traceable>): ReadonlyArray<Tracer.ExternalSpan> =>
  [...new Set(messages.map(({ claimed }) => claimed.traceparent))].flatMap((traceparent) => {
    const span = Traceparent.toSpan(traceparent)
    return span === undefined ? [] : [span]
  })

const attributesOf = (queue: string, messages: ReadonlyArray<Traceable>): Record<string, unknown> => {
  const [first] = messages
  const common = {
    "messaging.system": "strata",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.name": queue
  }
  if (first === undefined || messages.length > 1) return { ...common, "messaging.batch.message_count": messages.length }
  const { attempts, correlationId, id } = first.claimed
  return {
    ...common,
    "messaging.message.id": String(id),
    ...(correlationId === null ? {} : { "messaging.message.conversation_id": correlationId }),
    "strata.message.attempt": attempts
  }
}
