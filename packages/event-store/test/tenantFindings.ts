import { applicationRole } from "@strata/postgres/ApplicationRole"
import { Postgres } from "@strata/postgres/Postgres"
import * as Effect from "effect/Effect"

/**
 * What is wrong with a schema in which tenants are to be kept apart: each finding names the thing.
 *
 * Numbers that the database gives out are the same for all tenants, so keys that hold nothing else say nothing of one.
 */
export const findings = Effect.gen(function*() {
  const { sql } = yield* Postgres
  const rows = yield* sql<{ finding: string }>`
    with guarded as (
      select c.oid, c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relowner
      from pg_class c
      where c.relnamespace = 'strata'::regnamespace and c.relkind in ('r', 'p')
        and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant' and a.attnum > 0)
    )
    select 'no row-level security: ' || relname as finding from guarded where not relrowsecurity
    union all
    select 'not forced: ' || relname from guarded where not relforcerowsecurity
    union all
    select 'no policy for all commands with using and with check: ' || relname from guarded
    where not exists (
      select from pg_policies p
      where p.schemaname = 'strata' and p.tablename = relname and p.cmd = 'ALL' and p.qual is not null
        and p.with_check is not null
    )
    union all
    select 'a second policy, which would widen the first: ' || tablename from pg_policies
    where schemaname = 'strata' and permissive = 'PERMISSIVE' group by tablename having count(*) > 1
    union all
    select 'owned by the role: ' || relname from pg_class
    where relnamespace = 'strata'::regnamespace and relowner = ${applicationRole}::regrole and relkind in ('r', 'p', 'v', 'm')
    union all
    select 'the role may ' || lower(acl.privilege_type) || ': ' || relname
    from pg_class, aclexplode(relacl) as acl
    where relnamespace = 'strata'::regnamespace and acl.grantee in (0, ${applicationRole}::regrole)
      and acl.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE')
    union all
    select 'the role is exempt: ' || rolname from pg_roles
    where rolname = ${applicationRole} and (rolsuper or rolbypassrls or rolcreaterole or rolreplication)
    union all
    select 'the role may make things: ' || nspname from pg_namespace
    where nspname in ('strata', 'public') and has_schema_privilege(${applicationRole}, oid, 'create')
    union all
    select 'runs with the rights of its owner: ' || proname from pg_proc
    where pronamespace = 'strata'::regnamespace and prosecdef
      -- Of what they read, fact_chunk is closed to the role, and tenants' rows have policies that bind the owner too.
      and proname not in ('fact_chunk_drift', 'fact_chunks', 'fact_summarized', 'summarize_facts')
    union all
    select 'finds what it names where its caller says: ' || proname from pg_proc
    where pronamespace = 'strata'::regnamespace and prosecdef
      and not exists (select from unnest(proconfig) as setting where setting like 'search_path=%')
    union all
    select 'reads with the rights of its owner: ' || relname from pg_class
    where relnamespace = 'strata'::regnamespace and relkind in ('v', 'm')
      and not coalesce('security_invoker=true' = any(reloptions), false)
    union all
    select 'a key without the tenant: ' || i.indexrelid::regclass::text
    from guarded
    join pg_index i on i.indrelid = guarded.oid and i.indisunique
    where exists (
      select from pg_attribute a
      where a.attrelid = i.indexrelid and a.atttypid not in ('integer'::regtype, 'bigint'::regtype)
    ) and not exists (select from pg_attribute a where a.attrelid = i.indexrelid and a.attname = 'tenant')
    union all
    select 'a reference without the tenant: ' || conname from pg_constraint
    where contype = 'f' and conrelid in (select oid from guarded)
    order by 1`
  return rows.map(({ finding }) => finding)
})
