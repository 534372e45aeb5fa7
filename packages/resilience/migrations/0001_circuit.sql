-- The circuits that processes share, one row for each key, and made when its first outcome is written.
create table circuit (
  key text collate "C" primary key,
  -- Grows with each write. Who writes names the version it has read, and begins again if that is no longer the one here.
  version bigint not null,
  -- A circuit as Circuit.ts has it. Its times are those of this database, in milliseconds since 1970.
  state jsonb not null,
  updated_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

comment on table circuit is 'Circuit breakers shared by processes';
