/**
 * The projection `response-times`: how long customers wait for the first answer.
 *
 * **Details**
 *
 * For each message of a CUSTOMER: the first message of a SERVICE_PROVIDER in the same conversation that was sent strictly
 * later and less than 24 hours later; of several sent at the same time, the one recorded first. Only sent times count, so
 * facts that arrive late give the same result as facts that arrive in order.
 *
 * `response_time` has them one by one. `response_sums` has their number, their sum and how many took at most 5, 15 and 60
 * minutes, and `response_sums_minutes` how many are in each bucket of `ResponseSketch`: by day and by month of the request, of each
 * provider and of all (`''`), in each context and in all (`''`). What a message changes about the pairs is what it changes
 * about the sums, whichever way it comes: new, late, corrected or retracted.
 *
 * @since 0.1.0
 */
import * as ContributionSums from "@strata/projections/ContributionSums"
import * as Measure from "@strata/projections/Measure"
import * as Projection from "@strata/projections/Projection"
import * as ProjectionKey from "@strata/projections/ProjectionKey"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import { ConversationEvents } from "../domain/ConversationEvent.ts"
import type { ConversationBatch } from "../read/ConversationBatch.ts"
import * as ResponsePairs from "./ResponsePairs.ts"
import * as ResponseSketch from "./ResponseSketch.ts"

const sums: ContributionSums.SumsTable = {
  table: "response_sums",
  dimensions: { tenant: "text", grain: "text", provider: "text", context_type: "text", date: "date" },
  measures: {
    micros: Measure.sum,
    within5: Measure.count,
    within15: Measure.count,
    within60: Measure.count,
    minutes: ResponseSketch.buckets
  }
}

const addSums = ContributionSums.make(sums)

const decoded = (facts: ReadonlyArray<Parameters<Projection.Projection["wants"]>[0]>) =>
  Arr.isReadonlyArrayNonEmpty(facts)
    ? Effect.fromResult(Projection.decodeAll(ConversationEvents, facts))
    : Effect.succeed<ConversationBatch>([])

/**
 * Fills `response_time`, `response_source`, `response_context`, `response_sums` and `response_sums_minutes`.
 *
 * @category projections
 * @since 0.1.0
 */
export const ResponseTimes: Projection.Projection = {
  ...Projection.describe({
    name: "response-times",
    version: 2,
    events: ConversationEvents,
    categories: ["conversation"],
    key: ProjectionKey.streamId("conversation_id")
  }),
  tables: [...ResponsePairs.tables, ...ContributionSums.tablesOf(sums)],
  apply: Effect.fnUntraced(function*(facts) {
    const sql = yield* SqlClient.SqlClient
    const changes = yield* ResponsePairs.add(sql, yield* decoded(facts))
    yield* addSums(changes.flatMap(ResponsePairs.contributions))
  }),
  replace: Effect.fnUntraced(function*(beliefs, others) {
    const sql = yield* SqlClient.SqlClient
    const changes = [...yield* ResponsePairs.remove(sql, beliefs.map(({ key }) => key))]
    const batch = yield* decoded(beliefs.flatMap(({ after }) => after))
    for (const [index, part] of Arr.chunksOf(batch, 1000).entries()) {
      changes.push(...yield* ResponsePairs.add(sql, part, { isFirst: index === 0 }))
    }
    changes.push(...yield* ResponsePairs.add(sql, yield* decoded(others)))
    yield* addSums(changes.flatMap(ResponsePairs.contributions))
  })
}
