import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Otel from "@opentelemetry/api"
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks"
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { EventStore } from "@strata/event-store/EventStore"
import * as EventStoreMemory from "@strata/event-store/EventStoreMemory"
import * as Fact from "@strata/event-store/Fact"
import * as OpenTelemetrySdk from "@strata/server/OpenTelemetrySdk"
import * as Effect from "effect/Effect"

const exporter = new InMemorySpanExporter()
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })

describe("an application that runs the OpenTelemetry SDK", () => {
  beforeAll(() => {
    Otel.trace.setGlobalTracerProvider(provider)
    Otel.context.setGlobalContextManager(new AsyncLocalStorageContextManager())
  })
  afterAll(() => {
    Otel.trace.disable()
    Otel.context.disable()
    return provider.shutdown()
  })

  it.effect("gets the store's spans in its own trace, and facts carry that trace", () =>
    Effect.gen(function*() {
      const store = yield* EventStore
      const stream = Fact.streamId("account", "1")
      const outer = Otel.trace.getTracer("application").startSpan("job")
      const append = store.append({ facts: [{ stream, type: "Opened", data: {} }] })
      const context = yield* Effect.context<never>()
      yield* Effect.promise(() =>
        Otel.context.with(
          Otel.trace.setSpan(Otel.context.active(), outer),
          () => Effect.runPromiseWith(context)(OpenTelemetrySdk.withActiveSpan(append))
        )
      )
      outer.end()
      const spans = exporter.getFinishedSpans()
      const appended = spans.find(({ name }) => name === "EventStore.append")
      assert.strictEqual(appended?.spanContext().traceId, outer.spanContext().traceId)
      assert.strictEqual(appended?.parentSpanContext?.spanId, outer.spanContext().spanId)
      const [fact] = yield* store.readStream(stream)
      assert.include(fact?.traceparent ?? "", outer.spanContext().traceId)
    }).pipe(Effect.provide([OpenTelemetrySdk.layer, EventStoreMemory.layer()])))
})
