/** The projection that tests run in several processes: a row for each fact, so that one applied twice is there twice. */
import * as EventDefinition from "@strata/event-store/EventDefinition"
import { defaults } from "@strata/event-store/EventStorePolicies"
import * as Pg from "@strata/postgres/PostgresTypes"
import * as Projection from "@strata/projections/Projection"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"

/** What a process held that was killed goes to another after a second. */
export const hasty: typeof defaults = {
  ...defaults,
  subscriptions: { ...defaults.subscriptions, lease: Duration.seconds(1) }
}

export const Counted = EventDefinition.make("Counted", { fields: { by: Schema.Int } })
export const Counters = EventDefinition.set([Counted])

export const counting = (options: {
  readonly version: number
  readonly inline?: boolean
  readonly applied?: (facts: number) => Effect.Effect<void>
}) =>
  Projection.make({
    name: "counting",
    version: options.version,
    events: Counters,
    inline: options.inline,
    tables: `
      create table counted (
        tenant text not null, stream text not null, position bigint not null, number bigint generated always as identity
      );
      create index on counted (tenant, stream)`,
    apply: Effect.fnUntraced(function*(batch) {
      const sql = yield* SqlClient.SqlClient
      yield* sql`
        insert into counted (tenant, stream, position)
        select * from unnest(
          ${Pg.textArray(batch.map(({ fact }) => fact.tenant))}, ${Pg.textArray(batch.map(({ fact }) => fact.stream))},
          ${Pg.bigintArray(batch.map(({ fact }) => fact.position))}
        )`
      yield* options.applied?.(batch.length) ?? Effect.void
    })
  })
