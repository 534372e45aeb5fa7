/**
 * Figures about conversations: activity by day, response times, volume, what one day came to; as they are known now, or as they
 * were known at any past moment.
 *
 * **When to use**
 *
 * Use for dashboards and reports. All figures follow corrections and retractions: they are those of an archive that never held
 * anything else.
 *
 * **Details**
 *
 * What is known now is read from sums, which cost the same whatever the number of messages. A past moment is replayed: see
 * `AnalyticsHistory` for what bounds that.
 *
 * **Gotchas**
 *
 * Days are days of UTC, and whole: a period that begins or ends within one has all of it. Response times alone keep to the
 * microsecond.
 *
 * **Example** (January, as it was known on the fifth of February)
 *
 * ```ts
 * import { Analytics } from "@strata/conversations/analytics/Analytics"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function*() {
 *   const analytics = yield* Analytics
 *   const now = yield* analytics.activity({ from: january, to: february })
 *   const then = yield* analytics.activity({ from: january, to: february, knownAt: { time: fifthOfFebruary } })
 *   return now.totals.messages - then.totals.messages
 * })
 * ```
 *
 * @since 0.1.0
 */
import type { EventStore, EventStoreError } from "@strata/event-store/EventStore"
import type { KnownAt } from "@strata/event-store/FactQuery"
import { Postgres } from "@strata/postgres/Postgres"
import type { Projection } from "@strata/projections/Projection"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlError } from "effect/sql/SqlError"
import { defaultTenant, type Tenant } from "../domain/Conversation.ts"
import { ReadModelUnavailable } from "../read/ConversationQueries.ts"
import * as ActivityFigures from "./ActivityFigures.ts"
import * as AnalyticsHistory from "./AnalyticsHistory.ts"
import type { DailyActivity, DailyAnalytics, ResponseTimes, Volume } from "./AnalyticsModel.ts"
import type { Period } from "./AnalyticsPeriod.ts"
import { MessageAnalytics } from "./MessageAnalytics.ts"
import * as ResponseFigures from "./ResponseFigures.ts"
import { ResponseTimes as ResponseTimesProjection } from "./ResponseTimes.ts"

export * from "./AnalyticsModel.ts"

/**
 * Of which moment's knowledge. Default: now.
 *
 * @category models
 * @since 0.1.0
 */
export interface AsKnown {
  readonly knownAt?: KnownAt | undefined
}

/**
 * Why there is no answer. Those of the history only come to who asks for a past moment.
 *
 * @category errors
 * @since 0.1.0
 */
export type AnalyticsError =
  | ReadModelUnavailable
  | AnalyticsHistory.HistoryTooLong
  | AnalyticsHistory.HistoryBusy
  | EventStoreError

/**
 * The figures.
 *
 * @category services
 * @since 0.1.0
 */
export class Analytics extends Context.Service<Analytics, {
  /** Messages, conversations, people and bytes by day. */
  readonly activity: (options: Period & AsKnown) => Effect.Effect<DailyActivity, AnalyticsError>
  /** By sent time of the customer's message. `provider` is who responded, `contextType` the conversation's. */
  readonly responseTimes: (
    options: ResponseFigures.ResponseOptions & AsKnown
  ) => Effect.Effect<ResponseTimes, AnalyticsError>
  /** By context, category and type. */
  readonly volume: (options: Period & AsKnown) => Effect.Effect<Volume, AnalyticsError>
  /** What one day came to. */
  readonly day: (options: ActivityFigures.DayOptions & AsKnown) => Effect.Effect<DailyAnalytics, AnalyticsError>
}>()("@strata/conversations/analytics/Analytics") {}

/**
 * Figures from the read models in the database in scope.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Analytics, never, Postgres | EventStore> = Layer.effect(
  Analytics,
  Effect.gen(function*() {
    const { sql } = yield* Postgres
    const history = yield* AnalyticsHistory.make()
    const figure = Effect.fnUntraced(function*<Options extends { readonly tenant?: Tenant | undefined }, A>(
      name: string,
      projections: ReadonlyArray<Projection>,
      query: (options: Options) => Effect.Effect<A, SqlError>
    ) {
      const asKnown = yield* history(projections, query)
      return Effect.fn(`Analytics.${name}`)((options: Options & AsKnown) =>
        Effect.catchIf(
          options.knownAt === undefined
            ? query(options)
            : asKnown({ tenant: options.tenant ?? defaultTenant, options }, options.knownAt),
          isInfrastructure,
          (cause) => Effect.fail(new ReadModelUnavailable({ query: name, cause }))
        )
      )
    })
    return Analytics.of({
      activity: yield* figure("activity", [MessageAnalytics], ActivityFigures.activity(sql)),
      responseTimes: yield* figure("responseTimes", [ResponseTimesProjection], ResponseFigures.responseTimes(sql)),
      volume: yield* figure("volume", [MessageAnalytics], ActivityFigures.volume(sql)),
      day: yield* figure("day", [MessageAnalytics, ResponseTimesProjection], ActivityFigures.day(sql))
    })
  })
)

type Answerable = AnalyticsHistory.HistoryTooLong | AnalyticsHistory.HistoryBusy | EventStoreError

const isInfrastructure = (
  error: AnalyticsHistory.HistoryError
): error is Exclude<AnalyticsHistory.HistoryError, Answerable> =>
  error._tag !== "HistoryTooLong" && error._tag !== "HistoryBusy" && error._tag !== "EventStoreError"
