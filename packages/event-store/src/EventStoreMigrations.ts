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
  directory: new URL("../migrations/", import.meta.url),
  // What was recorded is never changed: not by mistake either.
  privileges: {
    store: ["select", "insert", "update"],
    stream: ["select", "insert", "update"],
    fact: ["select", "insert"],
    // Read and written by functions that have the owner's rights: its rows are of all tenants.
    fact_chunk: [],
    fact_count: ["select", "insert", "update"],
    idempotency_key: ["select", "insert", "delete"],
    snapshot: ["select", "insert", "update", "delete"],
    subject_erasure: ["select", "insert"],
    subject_key: ["select", "insert", "update", "delete"],
    subject_stream: ["select", "insert"],
    subscription: ["select", "insert", "update", "delete"],
    subscription_member: ["select", "insert", "update", "delete"],
    subscription_partition: ["select", "insert", "update"]
  }
})
