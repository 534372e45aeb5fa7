/**
 * Authorization: every endpoint that carries these middlewares asks for a credential, as a bearer token or in `X-API-Key`, and
 * for a role.
 *
 * @since 0.1.0
 */
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import * as HttpApiSecurity from "effect/http-api/HttpApiSecurity"
import * as OpenApi from "effect/http-api/OpenApi"
import type { CurrentPrincipal } from "./Principal.ts"
import { Forbidden, ServiceUnavailable, TooManyRequests, Unauthorized } from "./Problem.ts"

/**
 * Turns a credential into the request's principal.
 *
 * @effect-expect-leaking HttpServerRequest | ParsedSearchParams | RouteContext
 *
 * @category middlewares
 * @since 0.1.0
 */
export class Authorization extends HttpApiMiddleware.Service<Authorization, { provides: CurrentPrincipal }>()(
  "@strata/http-api/Authorization",
  {
    requiredForClient: true,
    security: {
      apiKey: HttpApiSecurity.apiKey({ key: "x-api-key", in: "header" }).pipe(
        HttpApiSecurity.annotate(OpenApi.Description, "An API key of the server")
      ),
      bearer: HttpApiSecurity.bearer.pipe(
        HttpApiSecurity.annotate(OpenApi.Description, "The same credential as a bearer token")
      )
    },
    error: [Unauthorized, TooManyRequests, ServiceUnavailable]
  }
) {}

/**
 * Holds the principal against the role the endpoint is annotated with. Stands inside `Authorization`: a caller who is
 * known and lacks the role is not asked for another credential.
 *
 * @effect-expect-leaking HttpServerRequest | ParsedSearchParams | RouteContext
 *
 * @category middlewares
 * @since 0.1.0
 */
export class RoleCheck extends HttpApiMiddleware.Service<RoleCheck, { requires: CurrentPrincipal }>()(
  "@strata/http-api/Authorization/RoleCheck",
  { error: Forbidden }
) {}
