import * as Analytics from "@strata/conversations/analytics/Analytics"
import * as ConversationsMigrations from "@strata/conversations/ConversationsMigrations"
import { ConversationProjections } from "@strata/conversations/read/ConversationProjections"
import * as ConversationQueries from "@strata/conversations/read/ConversationQueries"
import * as Conversations from "@strata/conversations/write/Conversations"
import * as EventStoreMigrations from "@strata/event-store/EventStoreMigrations"
import * as EventStorePostgres from "@strata/event-store/EventStorePostgres"
import { applicationRole } from "@strata/postgres/ApplicationRole"
import type { Projection } from "@strata/projections/Projection"
import * as Projections from "@strata/projections/Projections"
import * as ProjectionsMigrations from "@strata/projections/ProjectionsMigrations"
import { PostgresTest } from "@strata/testing/PostgresTest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"

/** The write side and the queries on a database of their own; a test says when projections run. */
export const Application = Layer.mergeAll(Conversations.layer(), ConversationQueries.layer, Analytics.layer).pipe(
  Layer.provideMerge(EventStorePostgres.layer()),
  Layer.provideMerge(PostgresTest.layer({
    migrations: [EventStoreMigrations.migrations, ProjectionsMigrations.migrations, ConversationsMigrations.migrations],
    options: { role: applicationRole }
  }))
)

/** Runs the projections to the end of the log in batches of one size; another version is built anew and switched to. */
export const project = (options: { readonly batchSize?: number; readonly version?: number } = {}) =>
  Effect.scoped(Effect.gen(function*() {
    const { batchSize = 500, version = 1 } = options
    const versions = ConversationProjections.map((projection): Projection => ({ ...projection, version }))
    const context = yield* Layer.build(Projections.layer(versions, { batchSize }))
    const projections = Context.get(context, Projections.Projections)
    yield* Effect.repeat(projections.status, {
      until: (all) => all.every((status) => status.version === version && status.position === status.head),
      schedule: Schedule.spaced("10 millis")
    }).pipe(Effect.timeout("1 minute"))
  }))
