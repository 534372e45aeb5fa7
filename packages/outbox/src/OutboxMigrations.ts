/**
 * The tables of the outbox.
 *
 * @since 0.1.0
 */
import * as Migrations from "@strata/postgres/Migrations"

/**
 * To be run before anything is published.
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations: Migrations.Migrations = Migrations.make({
  name: "outbox",
  directory: new URL("../migrations/", import.meta.url)
})
