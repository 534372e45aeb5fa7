/**
 * The tables of the projection runtime.
 *
 * @since 0.1.0
 */
import * as Migrations from "@strata/postgres/Migrations"

/**
 * To be run before projections are. The role of the sessions is granted to make PostgreSQL schemas, where the tables of
 * projections are, and views on them.
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations: Migrations.Migrations = Migrations.make({
  name: "projections",
  directory: new URL("../migrations/", import.meta.url),
  makesSchemas: true
})
