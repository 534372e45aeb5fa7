/**
 * The tables that processes share their limits and circuits by.
 *
 * @since 0.1.0
 */
import * as Migrations from "@strata/postgres/Migrations"

/**
 * To be run before a PostgreSQL store of this package is used.
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations: Migrations.Migrations = Migrations.make({
  name: "resilience",
  directory: new URL("../migrations/", import.meta.url)
})
