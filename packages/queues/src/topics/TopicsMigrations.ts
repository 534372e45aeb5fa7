/**
 * The tables of topics and consumer groups.
 *
 * @since 0.1.0
 */
import * as Migrations from "@strata/postgres/Migrations"

/**
 * To be run before topics are used, and after those of the outbox and of queues.
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations: Migrations.Migrations = Migrations.make({
  name: "topics",
  directory: new URL("../../migrations-topics/", import.meta.url)
})
