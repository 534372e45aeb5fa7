-- How far each projection of a store is. The row is locked by the transaction that applies a batch, so that two processes
-- never apply the same fact.
create table projection (
  store text not null,
  name text not null,
  -- Version of the projection that filled the tables.
  version integer not null,
  -- The last fact applied; 0 before the first.
  position bigint not null,
  state text not null check (state in ('running', 'failed')),
  -- Why it failed.
  error text,
  updated_at timestamptz not null default clock_timestamp(),
  primary key (store, name),
  constraint projection_error check ((state = 'failed') = (error is not null))
) with (fillfactor = 50);
