/**
 * The reference of the API as a page, at `/docs`.
 *
 * @since 0.1.0
 */
import { Api } from "@strata/http-api/Api"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"

const path = "/docs"

/**
 * Adds the page to the router. Its script is three megabytes, so it is loaded when somebody looks at it for the first time.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never, never, HttpRouter.HttpRouter> = HttpRouter.use(
  Effect.fnUntraced(function*(router) {
    const page = yield* Effect.promise(() => import("effect/http-api/HttpApiScalar")).pipe(
      Effect.flatMap((HttpApiScalar) => HttpRouter.toHttpEffect(HttpApiScalar.layer(Api, { path }))),
      Scope.provide(yield* Effect.scope),
      Effect.uninterruptible,
      Effect.cached
    )
    yield* router.add("GET", path, Effect.orDie(Effect.flatten(page)))
  })
)
