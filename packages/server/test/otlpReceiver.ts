import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { createServer } from "node:http"

/** OTLP's kind of a span that serves a request. */
export const server = 2

const Spans = Schema.Struct({
  resourceSpans: Schema.Array(Schema.Struct({
    scopeSpans: Schema.Array(Schema.Struct({
      spans: Schema.Array(Schema.Struct({
        traceId: Schema.String,
        parentSpanId: Schema.optionalKey(Schema.String),
        name: Schema.String,
        kind: Schema.Int,
        attributes: Schema.Array(
          Schema.Struct({ key: Schema.String, value: Schema.Record(Schema.String, Schema.Unknown) })
        )
      }))
    }))
  }))
})

export interface Span {
  readonly traceId: string
  readonly parentSpanId: string | undefined
  readonly name: string
  readonly kind: number
  /** Their values, as text. */
  readonly attributes: ReadonlyArray<string>
}

/** A receiver of OTLP over HTTP in JSON that keeps what it is sent. */
export const make = Effect.gen(function*() {
  const spans: Array<Span> = []
  const signals = new Set<string>()
  const receive = (signal: string) =>
    HttpRouter.add(
      "POST",
      `/v1/${signal}`,
      Effect.gen(function*() {
        signals.add(signal)
        if (signal === "traces") {
          const { resourceSpans } = yield* HttpServerRequest.schemaBodyJson(Spans)
          for (const span of resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans))) {
            spans.push({
              ...span,
              parentSpanId: span.parentSpanId,
              attributes: span.attributes.flatMap(({ value }) => Object.values(value).map(String))
            })
          }
        }
        return HttpServerResponse.jsonUnsafe({})
      })
    )
  const context = yield* Layer.build(
    HttpRouter.serve(Layer.mergeAll(receive("traces"), receive("logs"), receive("metrics")), {
      disableListenLog: true,
      disableLogger: true
    }).pipe(Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })))
  )
  return {
    url: HttpServer.formatAddress(Context.get(context, HttpServer.HttpServer).address),
    spansOf: (traceId: string) => Effect.sync(() => spans.filter((span) => span.traceId === traceId)),
    signals: Effect.sync(() => signals as ReadonlySet<string>)
  }
})
