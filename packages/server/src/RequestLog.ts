/**
 * What is seen of each request: a line in the log, and rate, errors and duration by route.
 *
 * **Details**
 *
 * Labels are bounded: a route is the template it was declared with, `unmatched` for unknown paths, and a method that
 * no route takes is `OTHER`. Health and metrics are measured and not logged, since they are asked for every few seconds.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpRouter from "effect/http/HttpRouter"
import { causeResponseStripped } from "effect/http/HttpServerError"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import type { HttpServerResponse } from "effect/http/HttpServerResponse"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"

/**
 * Seconds from the first byte of a request to the last of its answer. Its count is the rate, and with the status label
 * the errors.
 *
 * @category metrics
 * @since 0.1.0
 */
export const duration = Metric.histogram("http_server_request_duration_seconds", {
  description: "Duration of HTTP requests by method, route and status",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
})

/**
 * Requests that are being answered.
 *
 * @category metrics
 * @since 0.1.0
 */
export const active = Metric.gauge("http_server_active_requests", { description: "Requests being answered" })

const methods = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])

/**
 * A method as a label: strangers invent no new ones.
 *
 * @category getters
 * @since 0.1.0
 */
export const methodOf = (method: string): string => methods.has(method) ? method : "OTHER"

/** Asked for by machines every few seconds. */
const quiet = /^\/(?:health|metrics|api\/v1\/health)/

/**
 * Logs and measures an application's requests, the sending of the answer included.
 *
 * @category middlewares
 * @since 0.1.0
 */
export const middleware = <E, R>(
  app: Effect.Effect<HttpServerResponse, E, R>
): Effect.Effect<HttpServerResponse, E, R | HttpServerRequest.HttpServerRequest> =>
  Effect.gen(function*() {
    const request = yield* HttpServerRequest.HttpServerRequest
    const started = yield* Clock.currentTimeNanos
    yield* Metric.modify(active, 1)
    // The router leaves the route it matched in the context of the request's fiber.
    const [exit, route] = yield* Effect.flatMap(
      Effect.exit(app),
      (exit) =>
        Effect.contextWith((context: Context.Context<never>) => Effect.succeed([exit, routeIn(context)] as const))
    )
    yield* Metric.modify(active, -1)
    const seconds = Number((yield* Clock.currentTimeNanos) - started) / 1e9
    const status = Exit.isSuccess(exit) ? exit.value.status : causeResponseStripped(exit.cause)[0].status
    yield* Metric.update(
      Metric.withAttributes(duration, {
        http_request_method: methodOf(request.method),
        http_route: route,
        http_response_status_code: String(status)
      }),
      seconds
    )
    if (!quiet.test(request.url)) yield* logLine(request, route, status, seconds)
    return yield* exit
  })

const routeIn = (context: Context.Context<never>): string =>
  Option.match(Context.getOption(context, HttpRouter.RouteContext), {
    onNone: () => "unmatched",
    onSome: ({ route }) => route.path
  })

const logLine = Effect.fnUntraced(function*(
  request: HttpServerRequest.HttpServerRequest,
  route: string,
  status: number,
  seconds: number
) {
  const span = yield* Effect.option(Effect.currentParentSpan)
  yield* Effect.logInfo("request").pipe(Effect.annotateLogs({
    method: request.method,
    route,
    status,
    durationMs: Math.round(seconds * 1e5) / 100,
    ...(Option.isSome(span) ? { traceId: span.value.traceId } : {})
  }))
})
