/**
 * The role an application works in: one that owns no table, so that the database can refuse what a statement forgot.
 *
 * **When to use**
 *
 * Use wherever row-level security or the rights on a table are to mean anything: owners, superusers and roles with
 * `BYPASSRLS` pass by them. The embedded server brings such a role along; on another one an administrator makes it.
 *
 * **Details**
 *
 * `Postgres.layer` logs in as its user and its sessions take on the role of the options from their first statement on.
 * `Migrations` run as the user, who therefore owns what they make, and grant the role what it needs. The tables of projections
 * are the role's own: it makes them in schemas of their own, and they can be made again from the log.
 *
 * **Gotchas**
 *
 * The role keeps out mistakes, not somebody who can run SQL of his own in a session: `set role none` leads back to the
 * user. Where that matters, give the application a user that is a member of the role and owns nothing, and run the
 * migrations as another one.
 *
 * **Example** (On a server of somebody else's, for the user `strata`)
 *
 * ```sql
 * create role strata_app nologin;
 * grant strata_app to strata;
 * grant create on database strata to strata with grant option;
 * ```
 *
 * and `STRATA_DATABASE_ROLE=strata_app` for the application.
 *
 * @since 0.1.0
 */
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import type * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"

/**
 * Its name on servers that are Strata's own.
 *
 * @category constants
 * @since 0.1.0
 */
export const applicationRole = "strata_app"

/**
 * Makes the role unless it is there; several processes may come at once. The session must be one that may make roles.
 *
 * @category constructors
 * @since 0.1.0
 */
export const create = (session: PgConnection.PgConnection): Effect.Effect<unknown, SqlError> =>
  session.query(`
    do $$ begin
      if not exists (select from pg_roles where rolname = '${applicationRole}') then
        create role ${applicationRole} nologin nosuperuser nobypassrls;
      end if;
    exception when duplicate_object or unique_violation then null;
    end $$`)
