/**
 * The event store's tables.
 *
 * @since 0.1.0
 */
import * as Migrations from "@strata/postgres/Migrations"

/**
 * To be run before a store is opened.
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations: Migrations.Migrations = Migrations.make({
  name: "event-store",
  directory: new URL("../migrations/", import.meta.url)
})
