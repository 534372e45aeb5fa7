/**
 * Handlers of the group `analytics`.
 *
 * @since 0.1.0
 */
import { Tenant } from "@strata/conversations/domain/Conversation"
import { ConversationQueries } from "@strata/conversations/read/ConversationQueries"
import { Api } from "@strata/http-api/Api"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as Reads from "./Reads.ts"

/**
 * The handlers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = HttpApiBuilder.group(
  Api,
  "analytics",
  Effect.fnUntraced(function*(handlers) {
    const queries = yield* ConversationQueries
    const waitForPosition = yield* Reads.make()
    const tenant = Effect.map(CurrentPrincipal, (principal) => Tenant.make(principal.tenant))

    return handlers.handleAll({
      responseTimes: Effect.fnUntraced(function*({ headers, query }) {
        yield* waitForPosition({ query, headers })
        const { minPosition: _, ...options } = query
        return yield* Effect.orDie(queries.responseTimes({ ...options, tenant: yield* tenant }))
      }),
      conversations: Effect.fnUntraced(function*({ headers, query }) {
        yield* waitForPosition({ query, headers })
        const { minPosition: _, ...options } = query
        return yield* Effect.orDie(queries.daily({ ...options, tenant: yield* tenant }))
      })
    })
  })
)
