-- Row-level security: a session sees and writes the rows of the tenant that its transaction has named, and none when it
-- has named nobody. Superusers and roles with BYPASSRLS are exempt, so the application is to run as neither.
--
-- A scope is named for the rest of a transaction, by `set_config('strata.tenant', …, true)`. After it the setting is ''
-- in that session and not null, so '' stands for nobody, and no row has it for its tenant. What reads the log as a whole says
-- so in `strata.all_tenants`; that counts while no tenant is named, and lets no row of these tables be written.
--
-- The owner is bound as well, so a later migration that touches rows has to lift `force` first.

create function tenant_in_scope() returns text language sql stable parallel safe
return nullif(current_setting('strata.tenant', true), '');

create function all_tenants_in_scope() returns boolean language sql stable parallel safe
return tenant_in_scope() is null and current_setting('strata.all_tenants', true) = 'on';

-- Facts are of the tenant of their stream: a check of their own would cost each append what a new stream costs once.
alter table stream add constraint stream_tenant check (tenant <> '');
alter table idempotency_key add constraint idempotency_key_tenant check (tenant <> '');
alter table snapshot add constraint snapshot_tenant check (tenant <> '');

-- Scalar subqueries are evaluated once in a statement, when it comes to its first row: after it has named its scope.
create policy stream_of_tenant on stream
using (tenant = (select tenant_in_scope()) or (select all_tenants_in_scope()))
with check (tenant = (select tenant_in_scope()));

create policy fact_of_tenant on fact
using (tenant = (select tenant_in_scope()) or (select all_tenants_in_scope()))
with check (tenant = (select tenant_in_scope()));

create policy idempotency_key_of_tenant on idempotency_key
using (tenant = (select tenant_in_scope()) or (select all_tenants_in_scope()))
with check (tenant = (select tenant_in_scope()));

create policy snapshot_of_tenant on snapshot
using (tenant = (select tenant_in_scope()) or (select all_tenants_in_scope()))
with check (tenant = (select tenant_in_scope()));

alter table stream enable row level security, force row level security;
alter table fact enable row level security, force row level security;
alter table idempotency_key enable row level security, force row level security;
alter table snapshot enable row level security, force row level security;
