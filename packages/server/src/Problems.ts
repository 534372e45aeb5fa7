/**
 * Makes every answer of status 400 or more a complete problem, wherever it comes from: an endpoint's declared error, a
 * request that cannot be read, an unknown path, a defect.
 *
 * @since 0.1.0
 */
import { Api } from "@strata/http-api/Api"
import * as Problem from "@strata/http-api/Problem"
import { Requests } from "@strata/http-api/Requests"
import * as Timestamp from "@strata/postgres/Timestamp"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as HttpApi from "effect/http-api/HttpApi"
import { HttpApiSchemaError } from "effect/http-api/HttpApiError"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerError from "effect/http/HttpServerError"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerRespondable from "effect/http/HttpServerRespondable"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as ProblemDetails from "effect/http/ProblemDetails"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import type { unhandled } from "effect/Types"
import * as JsonBodies from "./JsonBodies.ts"
import * as Refusals from "./Refusals.ts"
import { databaseUnavailable, isUnavailableCause } from "./Unavailable.ts"

/**
 * Answers failures and defects with problems, and completes every problem with `instance`, `traceId`, `timestamp` and `error`.
 * Interruption passes: nobody waits for that answer.
 *
 * @category middlewares
 * @since 0.1.0
 */
export const complete = <E, R>(
  app: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | HttpServerRequest.HttpServerRequest> =>
  JsonBodies.refuseLossy.pipe(
    Effect.andThen(app),
    Effect.catchCause(answer),
    Effect.filterOrElse((response) => response.status < 400, finish)
  )

/**
 * Answers requests that do not decode with 400 and the place of each mistake, query parameters and fields of the body
 * among them that the endpoint does not have.
 *
 * @category layers
 * @since 0.1.0
 */
export const requestsLayer: Layer.Layer<Requests> = Layer.succeed(
  Requests,
  (handler, { endpoint }) =>
    Effect.andThen(
      endpoint.query === undefined ? refuseParameters : Effect.void,
      Effect.catch(
        handler,
        (error): Effect.Effect<never, Problem.BadRequest | unhandled> =>
          HttpApiSchemaError.is(error) ? refuseUnreadable(error) : Effect.fail(error)
      )
    )
)

/** Answers that do not encode are defects. */
const refuseUnreadable = (error: HttpApiSchemaError): Effect.Effect<never, Problem.BadRequest> =>
  error.kind === "Body" || error.kind === "ResponseHeaders" ? Effect.die(error) : Effect.fail(unreadable(error))

/** A query is read by the schema of its endpoint; one without a schema has none to refuse anything. */
const refuseParameters = Effect.gen(function*() {
  const names = Object.keys(yield* HttpServerRequest.ParsedSearchParams)
  if (!Arr.isArrayNonEmpty(names)) return
  return yield* Refusals.mistakes(Arr.map(names, (name) => ({ path: `query.${name}`, message: no("parameter") })))
})

/**
 * Answers the methods that a path of the contract does not take: 405 with `Allow`, and `OPTIONS` with 204.
 *
 * @category layers
 * @since 0.1.0
 */
export const methodsLayer: Layer.Layer<never, never, HttpRouter.HttpRouter> = Layer.suspend(() =>
  HttpRouter.addAll(
    Array.from(methodsByPath(), ([path, taken]) => {
      const allow = [...taken, ...(taken.has("GET") ? ["HEAD"] : []), "OPTIONS"].join(", ")
      return methods.filter((method) => !taken.has(method)).map((method) =>
        HttpRouter.route(
          method,
          path as HttpRouter.PathInput,
          method === "OPTIONS"
            ? HttpServerResponse.empty({ status: 204, headers: { allow } })
            : Effect.fnUntraced(function*(request: HttpServerRequest.HttpServerRequest) {
              const problem = new Problem.MethodNotAllowed({ detail: `${request.method} is not one of ${allow}` })
              return HttpServerResponse.setHeader(yield* HttpServerRespondable.toResponse(problem), "allow", allow)
            })
        )
      )
    }).flat()
  )
)

const methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const

const methodsByPath = (): Map<string, Set<string>> => {
  const byPath = new Map<string, Set<string>>()
  HttpApi.reflect(Api, {
    onGroup: () => {},
    onEndpoint: ({ endpoint }) => {
      const taken = byPath.get(endpoint.path) ?? new Set()
      byPath.set(endpoint.path, taken.add(endpoint.method))
    }
  })
  return byPath
}

const no = (thing: "parameter" | "field") => `The endpoint has no such ${thing}`

const formatterOf = (thing: "parameter" | "field") =>
  SchemaIssue.makeFormatterStandardSchemaV1({
    leafHook: (issue) => issue._tag === "UnexpectedKey" ? no(thing) : SchemaIssue.defaultLeafHook(issue)
  })

/** Only queries and bodies are refused for what they have too much. */
const [formatQuery, formatBody] = [formatterOf("parameter"), formatterOf("field")]

/** Where a part of a request is, as the field errors name it. */
const parts: Record<string, string> = { Params: "path", Query: "query", Headers: "headers", Payload: "body" }

const unreadable = (error: HttpApiSchemaError): Problem.BadRequest => {
  const format = error.kind === "Payload" ? formatBody : formatQuery
  const errors = format(error.cause.issue).issues.map(({ message, path }) => ({
    path: `${parts[error.kind] ?? error.kind}${(path ?? []).map(segmentOf).join("")}`,
    message
  }))
  return Arr.isArrayNonEmpty(errors)
    ? Refusals.mistakes(errors)
    : new Problem.BadRequest({ detail: "The request cannot be read" })
}

const segmentOf = (segment: PropertyKey | { readonly key: PropertyKey }): string => {
  const key = typeof segment === "object" ? segment.key : segment
  return typeof key === "number" ? `[${key}]` : `.${String(key)}`
}

/** The answer to a request that ended in a cause. */
const answer = <E>(cause: Cause.Cause<E>) => {
  const failures = cause.reasons.filter((reason) => reason._tag !== "Interrupt")
  if (failures.length === 0) {
    return Effect.failCause(Cause.fromReasons<never>(cause.reasons.filter(Cause.isInterruptReason)))
  }
  for (const reason of failures) {
    const value = reason._tag === "Fail" ? reason.error : reason.defect
    if (HttpServerResponse.isHttpServerResponse(value)) return Effect.succeed(value)
    if (value instanceof Problem.BadRequest) return HttpServerRespondable.toResponse(value)
    if (HttpServerError.isHttpServerError(value)) {
      const problem = problemOf(value.reason)
      if (problem !== undefined) return HttpServerRespondable.toResponse(problem)
    }
    if (HttpApiSchemaError.is(value) && value.kind in parts) return HttpServerRespondable.toResponse(unreadable(value))
  }
  const [problem, log] = isUnavailableCause(cause)
    ? [databaseUnavailable(), Effect.logWarning("The database did not answer a request", cause)] as const
    : [internalServerError(), Effect.logError("A request ended in a defect", cause)] as const
  return HttpServerRequest.HttpServerRequest.pipe(
    Effect.flatMap(traceIdOf),
    Effect.flatMap((traceId) => Effect.annotateLogs(log, { traceId })),
    Effect.andThen(HttpServerRespondable.toResponse(problem))
  )
}

const internalServerError = () =>
  new Problem.InternalServerError({ detail: "The server failed to answer. Its log has more under the trace id." })

const problemOf = (reason: HttpServerError.HttpServerErrorReason) => {
  switch (reason._tag) {
    case "RouteNotFound":
      return new Problem.NotFound({ detail: `There is nothing at ${pathOf(reason.request)}` })
    case "RequestParseError":
      return reason.reason === "BodyTooLarge"
        ? contentTooLarge()
        : new Problem.BadRequest({ detail: "The body cannot be read" })
    default:
      return undefined
  }
}

const contentTooLarge = () => new Problem.ContentTooLarge({ detail: "The body is larger than the server takes" })

const pathOf = (request: HttpServerRequest.HttpServerRequest): string => request.url.split("?", 1)[0]!

/** What a bare status means, for answers that come without a problem. */
const bare = (status: number, request: HttpServerRequest.HttpServerRequest) => {
  switch (status) {
    case 413:
      return contentTooLarge()
    case 415:
      return new Problem.UnsupportedMediaType({
        detail: `The body must be application/json, not ${request.headers["content-type"] ?? "of an unknown type"}`
      })
    case 404:
      return new Problem.NotFound({ detail: `There is nothing at ${pathOf(request)}` })
    case 503:
      return databaseUnavailable()
    default:
      return status < 500 ? new Problem.BadRequest({ detail: "The request cannot be read" }) : internalServerError()
  }
}

const decodeProblem = Schema.decodeUnknownOption(Schema.fromJsonString(ProblemDetails.Schema))

/** Adds what every problem has. Bodies of another kind of JSON, such as a health report, stay as they are. */
const finish = Effect.fnUntraced(function*(
  response: HttpServerResponse.HttpServerResponse
): Effect.fn.Return<HttpServerResponse.HttpServerResponse, never, HttpServerRequest.HttpServerRequest> {
  const request = yield* HttpServerRequest.HttpServerRequest
  if (response.body._tag !== "Empty" && response.body.contentType === "application/json") return response
  const problem = Option.getOrUndefined(problemIn(response))
  if (problem === undefined) {
    return yield* Effect.flatMap(HttpServerRespondable.toResponse(bare(response.status, request)), finish)
  }
  const detail = problem.detail ?? problem.title
  const whole = {
    ...problem,
    detail,
    instance: pathOf(request),
    traceId: yield* traceIdOf(request),
    timestamp: Timestamp.format(yield* Timestamp.now),
    error: detail
  }
  return response.pipe(
    HttpServerResponse.setBody(HttpBody.jsonUnsafe(whole, ProblemDetails.contentType)),
    HttpServerResponse.setHeaders({
      "cache-control": "no-store",
      ...("retryAfter" in problem ? { "retry-after": String(problem.retryAfter) } : {}),
      ...(response.status === 401 ? { "www-authenticate": "Bearer" } : {})
    })
  )
})

/** That of the request's span; a probe, which has none, is given that of its header or a new one. */
const traceIdOf = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<string> =>
  Effect.currentParentSpan.pipe(
    Effect.orElseSucceed(() => Option.getOrUndefined(HttpTraceContext.fromHeaders(request.headers))),
    Effect.map((span) => span?.traceId ?? Hex.encode(SecureRandom.randomBytesUnsafe(16)))
  )

const problemIn = (response: HttpServerResponse.HttpServerResponse): Option.Option<ProblemDetails.ProblemDetails> =>
  response.body._tag === "Uint8Array" && response.body.contentType === ProblemDetails.contentType
    ? decodeProblem(new TextDecoder().decode(response.body.body))
    : Option.none()
