/**
 * What stands before the HTTP server: looks at requests as node receives them, and may refuse one before anything is made of it.
 *
 * **When to use**
 *
 * For refusals under overload, which have to cost next to nothing: a request that goes through the application only to be refused
 * there costs as much as several of these.
 *
 * **Details**
 *
 * The answer is the problem that the application would give, 503 with `Retry-After`. It is counted as any answer is, by the route
 * `refused`; a line in the log, at most one a second, tells how many there were.
 *
 * **Gotchas**
 *
 * What is refused here has no trace and no line of its own in the log.
 *
 * @since 0.1.0
 */
import { ServiceUnavailable } from "@strata/http-api/Problem"
import * as Timestamp from "@strata/postgres/Timestamp"
import { Clock } from "effect/Clock"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Headers from "effect/http/Headers"
import * as HttpServerRespondable from "effect/http/HttpServerRespondable"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as ProblemDetails from "effect/http/ProblemDetails"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Http from "node:http"
import * as RequestLog from "./RequestLog.ts"

// ---------------------------------------------------------------------------------------------------------- model

/**
 * Why a request is refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface Refusal {
  readonly detail: string
  /** Whole seconds. */
  readonly retryAfter: number
}

/**
 * Looks at a request; `undefined` lets it through.
 *
 * @category models
 * @since 0.1.0
 */
export type Check = (request: Http.IncomingMessage) => Refusal | undefined

/**
 * The gate of a server. Everything goes through as long as nobody checks.
 *
 * @category services
 * @since 0.1.0
 */
export class HttpGate extends Context.Service<HttpGate, {
  /** Asks this about every request, for the time of the scope. */
  readonly install: (check: Check) => Effect.Effect<void, never, Scope.Scope>
  /** True once the request has been refused. */
  readonly refuses: (request: Http.IncomingMessage, response: Http.ServerResponse) => boolean
}>()("@strata/server/HttpGate") {}

// --------------------------------------------------------------------------------------------------- constructors

/**
 * A gate.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.gen(function*() {
  const context = yield* Effect.context<never>()
  const clock = Context.get(context, Clock)
  const answer = yield* makeAnswer
  const reports = makeReports((line) => Effect.runForkWith(context)(Effect.logWarning(line)))
  let check: Check | undefined

  return HttpGate.of({
    install: (own) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          check = own
        }),
        () =>
          Effect.sync(() => {
            check = undefined
          })
      ),
    refuses: (request, response) => {
      const refusal = check?.(request)
      if (refusal === undefined) return false
      const now = clock.currentTimeMillisUnsafe()
      answer(request, response, refusal, now)
      countOf(request.method).updateUnsafe(0, context)
      reports(now)
      return true
    }
  })
})

const decodeProblem = Schema.decodeUnknownEffect(Schema.fromJsonString(ProblemDetails.Schema))

/** The contract's problem, completed as every problem is. */
const makeAnswer = Effect.gen(function*() {
  const sample = yield* HttpServerRespondable.toResponse(new ServiceUnavailable({ detail: "", retryAfter: 1 }))
  const body = sample.body._tag === "Uint8Array" ? new TextDecoder().decode(sample.body.body) : "{}"
  const problem = yield* Effect.orDie(decodeProblem(body))
  const nextId = makeIds()
  const timestampOf = makeTimestamps()

  return (
    request: Http.IncomingMessage,
    response: Http.ServerResponse,
    { detail, retryAfter }: Refusal,
    now: number
  ): void => {
    const text = JSON.stringify({
      ...problem,
      detail,
      retryAfter,
      instance: request.url?.split("?", 1)[0],
      traceId: traceIdOf(request, nextId),
      timestamp: timestampOf(now),
      error: detail
    })
    response.writeHead(503, {
      "content-type": ProblemDetails.contentType,
      "content-length": Buffer.byteLength(text),
      "cache-control": "no-store",
      "retry-after": String(retryAfter)
    })
    response.end(text)
  }
})

/** Those of one millisecond have one. */
const makeTimestamps = () => {
  let at = 0
  let text = ""
  return (now: number): string => {
    if (now !== at) [at, text] = [now, Timestamp.format(Timestamp.fromMillis(now))]
    return text
  }
}

/** Ids of no trace: unlike all others, and cheap. */
const makeIds = () => {
  const ofProcess = Hex.encode(SecureRandom.randomBytesUnsafe(8))
  let count = 0
  return () => ofProcess + (++count).toString(16).padStart(16, "0")
}

const traceIdOf = ({ headers }: Http.IncomingMessage, nextId: () => string): string => {
  const span = headers["traceparent"] === undefined && headers["b3"] === undefined
    ? undefined
    : Option.getOrUndefined(HttpTraceContext.fromHeaders(Headers.fromInput(headers)))
  return span?.traceId ?? nextId()
}

const counts = new Map<string, Metric.Metric<number, unknown>>()

const countOf = (method = "GET"): Metric.Metric<number, unknown> => {
  const name = RequestLog.methodOf(method)
  const known = counts.get(name)
  if (known !== undefined) return known
  const made = Metric.withAttributes(RequestLog.duration, {
    http_request_method: name,
    http_route: "refused",
    http_response_status_code: "503"
  })
  counts.set(name, made)
  return made
}

/** Tells of refusals at once, and then at most every second. */
const makeReports = (say: (line: string) => void) => {
  let untold = 0
  let toldAt = -Infinity
  return (now: number): void => {
    untold++
    if (now - toldAt < 1000) return
    say(`Overloaded: ${untold} ${untold === 1 ? "request was" : "requests were"} refused before the application`)
    untold = 0
    toldAt = now
  }
}
