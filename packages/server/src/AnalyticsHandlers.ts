/**
 * Handlers of the group `analytics`.
 *
 * @since 0.1.0
 */
import { Analytics, type AnalyticsError, type AsKnown } from "@strata/conversations/analytics/Analytics"
import type { Period } from "@strata/conversations/analytics/AnalyticsPeriod"
import { Tenant } from "@strata/conversations/domain/Conversation"
import { Api } from "@strata/http-api/Api"
import { CurrentPrincipal } from "@strata/http-api/Principal"
import { type BadRequest, RuleViolated, TooManyRequests } from "@strata/http-api/Problem"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as Reads from "./Reads.ts"
import * as Refusals from "./Refusals.ts"

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
    const analytics = yield* Analytics
    const waitForPosition = yield* Reads.make(["message-analytics", "response-times"])

    /** Waits for the position asked for, and asks for the caller's tenant. */
    const answer = <Options extends AsKnown, A>(
      ask: (options: Options & { tenant: Tenant }) => Effect.Effect<A, AnalyticsError>
    ) =>
      Effect.fnUntraced(function*({ headers, query }: Reads.Asked & { readonly query: Options }) {
        yield* waitForPosition({ query, headers })
        const { tenant } = yield* CurrentPrincipal
        return yield* Effect.catch(ask({ ...query, tenant: Tenant.make(tenant) }), refused)
      })

    /** The same of a period. */
    const answerPeriod = <Options extends AsKnown & Period, A>(
      ask: (options: Options & { tenant: Tenant }) => Effect.Effect<A, AnalyticsError>
    ) => {
      const answered = answer(ask)
      return (asked: Reads.Asked & { readonly query: Options }) =>
        isBackwards(asked.query)
          ? Effect.fail(Refusals.mistake("query.to", "the period must end after it begins"))
          : answered(asked)
    }

    const day = answer(analytics.day)
    return handlers.handleAll({
      responseTimes: answerPeriod(analytics.responseTimes),
      conversations: answerPeriod(analytics.activity),
      volume: answerPeriod(analytics.volume),
      daily: ({ headers, params, query }) => day({ headers, query: { ...query, day: params.date } })
    })
  })
)

const isBackwards = ({ from, to }: Period): boolean => from !== undefined && to !== undefined && to <= from

const refused = (error: AnalyticsError): Effect.Effect<never, RuleViolated | TooManyRequests | BadRequest> => {
  switch (error._tag) {
    case "HistoryTooLong":
      return Effect.fail(new RuleViolated({ rule: error._tag, detail: error.message }))
    case "HistoryBusy":
      return Effect.fail(new TooManyRequests({ detail: error.message, retryAfter: 2 }))
    case "EventStoreError":
      return error.reason._tag === "InvalidQuery"
        ? Effect.fail(Refusals.mistake("query.knownAt", error.reason.message))
        : Effect.die(error)
    default:
      return Effect.die(error)
  }
}
