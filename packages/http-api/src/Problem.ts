/**
 * Problems: every answer of status 400 or more, as RFC 9457 describes them.
 *
 * **Details**
 *
 * The content type is `application/problem+json`. `type` tells problems apart, `detail` says what happened to which thing
 * and what to do. The server adds `instance` (the path), `traceId`, `timestamp`, and `error`, a copy of `detail`, to
 * each of them, also to those that no endpoint declares, such as an unknown path.
 *
 * **Example** (An answer)
 *
 * ```json
 * {
 *   "type": "urn:strata:problem:not-found",
 *   "title": "Not found",
 *   "status": 404,
 *   "detail": "There is no conversation 42",
 *   "instance": "/api/v1/conversations/42",
 *   "traceId": "0af7651916cd43dd8448eb211c80319c",
 *   "error": "There is no conversation 42",
 *   "timestamp": "2026-01-31T10:00:00.000000Z"
 * }
 * ```
 *
 * @since 0.1.0
 */
import * as HttpApiError from "effect/http-api/HttpApiError"
import * as Schema from "effect/Schema"

/**
 * One thing that is wrong with a request. `path` names the part and the field: `body.content`, `query.limit`,
 * `body.events[3].eventType`.
 *
 * @category models
 * @since 0.1.0
 */
export const FieldError = Schema.Struct({ path: Schema.String, message: Schema.String }).annotate({
  identifier: "FieldError"
})
export type FieldError = typeof FieldError.Type

/**
 * What the server adds to every problem. Absent while a problem has not been sent.
 *
 * @category models
 * @since 0.1.0
 */
const members = {
  traceId: Schema.optionalKey(Schema.String.annotate({ description: "The trace the request belongs to" })),
  timestamp: Schema.optionalKey(Schema.String.annotate({ description: "When it was answered, ISO-8601" })),
  error: Schema.optionalKey(Schema.String.annotate({ description: "The same text as `detail`" }))
}

const declare = <const Name extends string, const Status extends number>(name: Name, status: Status, title: string) =>
  ({ type: `urn:strata:problem:${name}`, status, title }) as const

/**
 * The request cannot be read: its path, query, headers or body are not what the endpoint takes.
 *
 * @category errors
 * @since 0.1.0
 */
export class BadRequest extends HttpApiError.Problem<BadRequest>()(
  "BadRequest",
  declare("bad-request", 400, "Bad request"),
  { ...members, errors: Schema.optionalKey(Schema.Array(FieldError)) },
  { identifier: "BadRequest" }
) {}

/**
 * No credential, or one that is not known.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unauthorized extends HttpApiError.Problem<Unauthorized>()(
  "Unauthorized",
  declare("unauthorized", 401, "Unauthorized"),
  members,
  { identifier: "Unauthorized" }
) {}

/**
 * The caller is known and lacks the role.
 *
 * @category errors
 * @since 0.1.0
 */
export class Forbidden extends HttpApiError.Problem<Forbidden>()(
  "Forbidden",
  declare("forbidden", 403, "Forbidden"),
  members,
  { identifier: "Forbidden" }
) {}

/**
 * There is no such path, or no such thing at it. Of an event at a moment, `reason` tells why it is not there.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotFound extends HttpApiError.Problem<NotFound>()(
  "NotFound",
  declare("not-found", 404, "Not found"),
  { ...members, reason: Schema.optionalKey(Schema.Literals(["unknown", "notYetKnown", "retracted"])) },
  { identifier: "NotFound" }
) {}

/**
 * The path does not take the method. The header `Allow` names those it takes.
 *
 * @category errors
 * @since 0.1.0
 */
export class MethodNotAllowed extends HttpApiError.Problem<MethodNotAllowed>()(
  "MethodNotAllowed",
  declare("method-not-allowed", 405, "Method not allowed"),
  members,
  { identifier: "MethodNotAllowed" }
) {}

/**
 * Another writer was faster, or an id is taken. `actualVersion` is the version the stream is at, where a version
 * was expected, `actualRevision` the revision an event is at, where one was. `blockingPosition` is the position of the
 * first event that a condition forbids. `retraction` is the event id of the retraction of what was to be corrected: it is
 * what to retract to have the event back.
 *
 * @category errors
 * @since 0.1.0
 */
export class Conflict extends HttpApiError.Problem<Conflict>()(
  "Conflict",
  declare("conflict", 409, "Conflict"),
  {
    ...members,
    actualVersion: Schema.optionalKey(Schema.Int),
    actualRevision: Schema.optionalKey(Schema.Int),
    blockingPosition: Schema.optionalKey(Schema.String),
    retraction: Schema.optionalKey(Schema.String)
  },
  { identifier: "Conflict" }
) {}

/**
 * The body is larger than the server takes.
 *
 * @category errors
 * @since 0.1.0
 */
export class ContentTooLarge extends HttpApiError.Problem<ContentTooLarge>()(
  "ContentTooLarge",
  declare("content-too-large", 413, "Content too large"),
  members,
  { identifier: "ContentTooLarge" }
) {}

/**
 * The body is not JSON by its content type.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnsupportedMediaType extends HttpApiError.Problem<UnsupportedMediaType>()(
  "UnsupportedMediaType",
  declare("unsupported-media-type", 415, "Unsupported media type"),
  members,
  { identifier: "UnsupportedMediaType" }
) {}

/**
 * The request can be read, and a rule of the domain forbids it. `rule` names the rule.
 *
 * @category errors
 * @since 0.1.0
 */
export class RuleViolated extends HttpApiError.Problem<RuleViolated>()(
  "RuleViolated",
  declare("rule-violated", 422, "Not allowed by a rule"),
  { ...members, rule: Schema.String },
  { identifier: "RuleViolated" }
) {}

/**
 * A defect of the server. Its log has the cause under `traceId`.
 *
 * @category errors
 * @since 0.1.0
 */
export class InternalServerError extends HttpApiError.Problem<InternalServerError>()(
  "InternalServerError",
  declare("internal-server-error", 500, "Internal server error"),
  members,
  { identifier: "InternalServerError" }
) {}

/**
 * The caller, their address or all callers together asked more often than they may. Nothing was begun. `retryAfter` (seconds) is
 * also the header `Retry-After`; the headers `RateLimit-…` tell where the tightest limit stands.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooManyRequests extends HttpApiError.Problem<TooManyRequests>()(
  "TooManyRequests",
  declare("too-many-requests", 429, "Too many requests"),
  { ...members, retryAfter: Schema.Int.annotate({ description: "Seconds" }) },
  { identifier: "TooManyRequests" }
) {}

/**
 * The server cannot answer now: it starts, stops, has more to do than it can, waits for its database, or read models are behind the position
 * asked for.
 * Nothing tells whether a write took effect: repeat it under its idempotency key. `retryAfter` (seconds) is also
 * the header `Retry-After`.
 *
 * @category errors
 * @since 0.1.0
 */
export class ServiceUnavailable extends HttpApiError.Problem<ServiceUnavailable>()(
  "ServiceUnavailable",
  declare("service-unavailable", 503, "Service unavailable"),
  { ...members, retryAfter: Schema.Int.annotate({ description: "Seconds" }) },
  { identifier: "ServiceUnavailable" }
) {}
