/**
 * Who used which credential lately: tells of a request whose it is before it is authenticated.
 *
 * **When to use**
 *
 * To refuse a request early. Never to let one through: a credential may have been revoked since.
 *
 * @since 0.1.0
 */
import type * as Principal from "@strata/http-api/Principal"
import { Clock } from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Http from "node:http"

/**
 * Credentials of the last minute, ten thousand at most.
 *
 * @category services
 * @since 0.1.0
 */
export class KnownCallers extends Context.Service<KnownCallers, {
  readonly remember: (credential: string, principal: Principal.Principal) => void
  /** Whose request these headers are of; `undefined` where it has not been seen lately. */
  readonly find: (headers: Http.IncomingHttpHeaders) => Principal.Principal | undefined
}>()("@strata/server/KnownCallers") {
  static readonly layer: Layer.Layer<KnownCallers> = Layer.effect(
    KnownCallers,
    Effect.map(Clock, (clock) => {
      const callers = new Map<string, { readonly principal: Principal.Principal; readonly until: number }>()
      return KnownCallers.of({
        remember: (credential, principal) => {
          // Those seen last stand last.
          callers.delete(credential)
          callers.set(credential, { principal, until: clock.currentTimeMillisUnsafe() + lifetime })
          const [oldest] = callers.keys()
          if (callers.size > capacity && oldest !== undefined) callers.delete(oldest)
        },
        find: (headers) => {
          const found = callers.get(credentialIn(headers))
          return found !== undefined && clock.currentTimeMillisUnsafe() < found.until ? found.principal : undefined
        }
      })
    })
  )
}

const capacity = 10_000
const lifetime = 60_000

/** As the contract has it: `X-API-Key`, or a bearer token. */
const credentialIn = (headers: Http.IncomingHttpHeaders): string => {
  const key = headers["x-api-key"]
  if (typeof key === "string") return key
  return /^bearer (.+)$/i.exec(headers.authorization ?? "")?.[1] ?? ""
}
