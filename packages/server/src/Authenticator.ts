/**
 * Finds the principal behind a credential.
 *
 * @since 0.1.0
 */
import * as NodeCrypto from "@effect/platform-node/NodeCrypto"
import { CurrentTenant } from "@strata/event-store/CurrentTenant"
import { Authorization, RoleCheck } from "@strata/http-api/Authorization"
import * as Principal from "@strata/http-api/Principal"
import { Forbidden, Unauthorized } from "@strata/http-api/Problem"
import * as ClientAddress from "@strata/resilience/limits/ClientAddress"
import * as RateLimit from "@strata/resilience/limits/RateLimit"
import * as Context from "effect/Context"
import * as Digest from "effect/crypto/Digest"
import * as Mac from "effect/crypto/Mac"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Admission from "./Admission.ts"
import * as KnownCallers from "./KnownCallers.ts"
import { ServerConfig } from "./ServerConfig.ts"

/**
 * A key and whom it stands for.
 *
 * @category models
 * @since 0.1.0
 */
export interface ApiKey {
  readonly key: Redacted.Redacted
  readonly principal: Principal.Principal
}

/**
 * The administrator of a server with one key.
 *
 * @category constants
 * @since 0.1.0
 */
export const admin: Principal.Principal = { subject: "admin", tenant: "default", roles: ["admin"] }

/**
 * Knows credentials.
 *
 * @category services
 * @since 0.1.0
 */
export class Authenticator extends Context.Service<Authenticator, {
  readonly authenticate: (credential: Redacted.Redacted) => Effect.Effect<Option.Option<Principal.Principal>>
}>()("@strata/server/Authenticator") {
  /**
   * Knows these keys. A credential is hashed and held against the hash of every key, so the time taken tells nothing
   * about how much of a key was right, nor of which.
   */
  static readonly layer = (keys: ReadonlyArray<ApiKey>): Layer.Layer<Authenticator> =>
    Layer.effect(
      Authenticator,
      Effect.gen(function*() {
        const { digest } = yield* Digest.Digest
        const hash = (secret: Redacted.Redacted) =>
          digest(Digest.sha256, new TextEncoder().encode(Redacted.value(secret)))
        const known = yield* Effect.forEach(keys, ({ key, principal }) =>
          Effect.map(hash(key), (hashed) => ({ hashed, principal })))
        return Authenticator.of({
          authenticate: (credential) =>
            Effect.map(hash(credential), (hashed) =>
              known.reduce<Option.Option<Principal.Principal>>(
                (found, candidate) =>
                  Mac.timingSafeEqual(candidate.hashed, hashed) ? Option.some(candidate.principal) : found,
                Option.none()
              ))
        })
      })
    ).pipe(Layer.provide(NodeCrypto.layerDigest))
}

/**
 * Asks the authenticator for every request to an endpoint that wants a credential. An address that sends many without a known one
 * gets 429.
 *
 * @category layers
 * @since 0.1.0
 */
export const authorizationLayer = Layer.effect(
  Authorization,
  Effect.gen(function*() {
    const { authenticate } = yield* Authenticator
    const callers = yield* KnownCallers.KnownCallers
    const limits = yield* RateLimit.RateLimit
    const { admission } = yield* ServerConfig
    const admit = Effect.fnUntraced(function*(credential: Redacted.Redacted) {
      const found = yield* authenticate(credential)
      if (Option.isSome(found)) {
        callers.remember(Redacted.value(credential), found.value)
        return found.value
      }
      return yield* new Unauthorized({
        detail: "The request carries no known credential: send an API key in X-API-Key or as a bearer token"
      })
    })
    const countStranger = Effect.gen(function*() {
      const key = ClientAddress.keyOfRequest(yield* HttpServerRequest.HttpServerRequest)
      yield* Effect.catchTag(
        limits.consume([{ limit: admission.strangers, key }]),
        "RateLimitError",
        Admission.limited
      )
    })
    return Authorization.of({
      apiKey: (handler, { credential }) =>
        Effect.provideServiceEffect(handler, Principal.CurrentPrincipal, admit(credential)),
      // Asked last: whoever is not known here is a stranger.
      bearer: (handler, { credential }) =>
        Effect.provideServiceEffect(
          handler,
          Principal.CurrentPrincipal,
          Effect.tapErrorTag(admit(credential), "Unauthorized", () => countStranger)
        )
    })
  })
)

/**
 * Refuses principals without the endpoint's role, and lets the others act for their own tenant only.
 *
 * @category layers
 * @since 0.1.0
 */
export const roleCheckLayer: Layer.Layer<RoleCheck> = Layer.succeed(
  RoleCheck,
  Effect.fnUntraced(function*(handler, { endpoint }) {
    const principal = yield* Principal.CurrentPrincipal
    const role = Context.get(endpoint.annotations, Principal.RequiredRole)
    if (!Principal.mayActAs(principal, role)) {
      return yield* new Forbidden({ detail: `${principal.subject} lacks the role ${role}` })
    }
    yield* Effect.annotateCurrentSpan({ "enduser.id": principal.subject, "strata.tenant": principal.tenant })
    return yield* Effect.provideService(handler, CurrentTenant, principal.tenant)
  })
)
