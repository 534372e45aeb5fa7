/**
 * Handlers of the group `projections`.
 *
 * @since 0.1.0
 */
import { Position } from "@strata/event-store/Fact"
import { Api } from "@strata/http-api/Api"
import { Projections } from "@strata/projections/Projections"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"

/**
 * The handlers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = HttpApiBuilder.group(
  Api,
  "projections",
  Effect.fnUntraced(function*(handlers) {
    const projections = yield* Projections
    return handlers.handleAll({
      list: () =>
        projections.status.pipe(
          Effect.orDie,
          Effect.map((all) => ({
            projections: all.map(({ generations: _, ...status }) => ({ ...status, lag: Position.make(status.lag) }))
          }))
        )
    })
  })
)
