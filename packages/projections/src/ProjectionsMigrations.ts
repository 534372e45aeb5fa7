/**
 * The tables of the projection runtime.
 *
 * @since 0.1.0
 */
import * as Migrations from "@strata/postgres/Migrations"

/**
 * To be run before projections are.
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations: Migrations.Migrations = Migrations.make({
  name: "projections",
  directory: new URL("../migrations/", import.meta.url)
})
