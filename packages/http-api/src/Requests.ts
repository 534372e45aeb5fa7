/**
 * The middleware of every endpoint: what any request can be answered with, whatever the endpoint.
 *
 * @since 0.1.0
 */
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import {
  BadRequest,
  ContentTooLarge,
  InternalServerError,
  ServiceUnavailable,
  UnsupportedMediaType
} from "./Problem.ts"

/**
 * Answers requests that cannot be read, and failures that no endpoint declares, with problems.
 *
 * @effect-expect-leaking HttpServerRequest | ParsedSearchParams | RouteContext
 *
 * @category middlewares
 * @since 0.1.0
 */
export class Requests extends HttpApiMiddleware.Service<Requests>()("@strata/http-api/Requests", {
  error: [BadRequest, ContentTooLarge, UnsupportedMediaType, InternalServerError, ServiceUnavailable]
}) {}
