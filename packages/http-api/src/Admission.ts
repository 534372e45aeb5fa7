/**
 * Admission: what is asked of a known caller before anything is done for them. Requests have a class, and in overload those of the
 * least urgent class are refused first.
 *
 * @since 0.1.0
 */
import type { Priority } from "@strata/resilience/scheduling/Priority"
import * as Context from "effect/Context"
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import type { CurrentPrincipal } from "./Principal.ts"
import { BadRequest, ServiceUnavailable, TooManyRequests } from "./Problem.ts"

/**
 * Lets a request in, or refuses it: with 429 above a rate limit, with 503 in overload or when its time is up, both with
 * `Retry-After`. Stands inside `Authorization`, so that strangers do not crowd out those who are known.
 *
 * @effect-expect-leaking HttpServerRequest | ParsedSearchParams | RouteContext
 *
 * @category middlewares
 * @since 0.1.0
 */
export class Admission extends HttpApiMiddleware.Service<Admission, { requires: CurrentPrincipal }>()(
  "@strata/http-api/Admission",
  { error: [BadRequest, TooManyRequests, ServiceUnavailable] }
) {}

/**
 * The class of an endpoint's requests, as an annotation of it. Without one it goes by the method: P1 for what changes
 * something, P2 for what reads.
 *
 * @category annotations
 * @since 0.1.0
 */
export const Urgency = Context.Reference<Priority | undefined>("@strata/http-api/Admission/Urgency", {
  defaultValue: () => undefined
})

/**
 * The header by which a caller gives a request another class: a priority from 0 to 10, as of a message in a queue. Only an `admin` may
 * raise it above the endpoint's.
 *
 * @category constants
 * @since 0.1.0
 */
export const priorityHeader = "x-priority"
