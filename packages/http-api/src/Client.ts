/**
 * The typed client of the HTTP contract.
 *
 * **Example** (Sending a message)
 *
 * ```ts
 * import * as Client from "@strata/http-api/Client"
 * import * as Effect from "effect/Effect"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Redacted from "effect/Redacted"
 *
 * const program = Effect.gen(function*() {
 *   const client = yield* Client.make({ baseUrl: "http://127.0.0.1:8080", apiKey: Redacted.make("…") })
 *   return yield* client.projections.list()
 * }).pipe(Effect.provide(FetchHttpClient.layer))
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as HttpApiClient from "effect/http-api/HttpApiClient"
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import type * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Redacted from "effect/Redacted"
import { Api } from "./Api.ts"
import { Authorization } from "./Authorization.ts"

/**
 * A client of every endpoint, by group: `client.conversations.send({ params, payload })`. Failures are the problems
 * the endpoint declares, as values.
 *
 * @category models
 * @since 0.1.0
 */
export type Client = HttpApiClient.ForApi<typeof Api>

/**
 * Makes a client of the server at `baseUrl`. `transformClient` adds policies, such as retries.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: {
  readonly baseUrl: string | URL
  /** Default: none, which is enough for health. */
  readonly apiKey?: Redacted.Redacted | undefined
  readonly transformClient?: ((client: HttpClient.HttpClient) => HttpClient.HttpClient) | undefined
}): Effect.Effect<Client, never, HttpClient.HttpClient> =>
  HttpApiClient.make(Api, { baseUrl: options.baseUrl, transformClient: options.transformClient }).pipe(
    Effect.provide(HttpApiMiddleware.layerClient(Authorization, ({ next, request }) =>
      next(
        options.apiKey === undefined
          ? request
          : HttpClientRequest.setHeader(request, "x-api-key", Redacted.value(options.apiKey))
      )))
  )
