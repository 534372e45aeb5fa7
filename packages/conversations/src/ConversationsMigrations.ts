/**
 * The read models' tables.
 *
 * @since 0.1.0
 */
import * as Migrations from "@strata/postgres/Migrations"

/**
 * To be run before the projections are.
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations: Migrations.Migrations = Migrations.make({
  name: "conversations",
  directory: new URL("../migrations/", import.meta.url)
})
