-- Generations: each builds the tables of one version of a projection, in a PostgreSQL schema of its own. What readers see
-- are views on those of the live one. Checkpoints are those of the generation's durable subscription.
drop table projection;

create table projection_generation (
  id integer generated always as identity primary key,
  store text not null,
  name text not null,
  -- Counts the generations of a projection 1, 2, 3 …; names the subscription.
  number integer not null,
  version integer not null,
  -- The PostgreSQL schema, and the tables in it that readers see.
  schema text not null unique,
  tables text[] not null,
  state text not null check (state in ('building', 'live', 'old', 'dropped')),
  partitions integer not null,
  -- Waits for a person to switch to it.
  manual boolean not null,
  -- Facts a second it may take at most while it is built; null is as fast as it goes.
  rate integer check (rate > 0),
  made_at timestamptz not null default clock_timestamp(),
  -- When readers were switched to it last.
  live_at timestamptz,
  unique (store, name, number)
);

create unique index projection_generation_live on projection_generation (store, name) where state = 'live';

-- A key whose facts wait, since one of them cannot be applied. Locked by who applies facts of the key and by who lets it go on.
create table projection_parked (
  generation integer not null references projection_generation on delete cascade,
  key text not null,
  columns text[] not null,
  -- The fact.
  position bigint not null,
  tenant text not null,
  stream text not null,
  error text not null,
  attempts integer not null,
  -- Facts that came after it.
  held bigint not null default 0,
  parked_at timestamptz not null default clock_timestamp(),
  primary key (generation, key)
) with (fillfactor = 50);

-- Facts that somebody has decided to leave out of one version of a projection.
create table projection_skipped (
  store text not null,
  name text not null,
  version integer not null,
  position bigint not null,
  skipped_at timestamptz not null default clock_timestamp(),
  primary key (store, name, version, position)
);

-- In which streams the facts of a key are, where a key is not a stream.
create table projection_key_stream (
  generation integer not null references projection_generation on delete cascade,
  key text not null,
  tenant text not null,
  stream text not null,
  primary key (generation, key, tenant, stream)
);

-- What was known at one position, to hold at one moment, applied to tables of its own: how far that is.
create table projection_replay (
  -- The PostgreSQL schema of the tables.
  schema text primary key,
  store text not null,
  name text not null,
  version integer not null,
  known_at bigint not null,
  valid_at timestamptz,
  first bigint not null,
  last bigint not null,
  -- The last first fact that was looked at.
  position bigint not null,
  facts bigint not null default 0,
  begun_at timestamptz not null default clock_timestamp()
);

-- How far a process has handled the facts of each key: what is handled again is known by it. And the keys that wait.
create table projection_inbox (
  store text not null,
  name text not null,
  key text not null,
  -- The last fact handled or left out.
  position bigint not null,
  tenant text not null,
  stream text not null,
  -- The fact that cannot be handled; null while the key goes on.
  parked bigint,
  error text,
  attempts integer not null default 0,
  held bigint not null default 0,
  parked_at timestamptz,
  primary key (store, name, key),
  constraint projection_inbox_parked check ((parked is null) = (error is null))
) with (fillfactor = 70);

create index projection_inbox_waiting on projection_inbox (store, name) where parked is not null;
