-- Durable subscriptions: how far each partition is, who handles it, and which processes take part.

create table subscription (
  id integer generated always as identity primary key,
  store text not null,
  name text not null,
  -- Fixed: a key belongs to one partition for ever.
  partitions integer not null check (partitions between 1 and 256),
  -- While it is paused, nobody owns a partition.
  paused boolean not null default false,
  unique (store, name)
);

-- A process that takes part. Its lease is also that of the partitions it owns, so renewing all of them writes one row.
create table subscription_member (
  subscription integer not null references subscription on delete cascade,
  id uuid not null,
  -- Names it to people.
  label text not null,
  joined_at timestamptz not null default clock_timestamp(),
  lease_until timestamptz not null,
  primary key (subscription, id)
) with (fillfactor = 50);

-- Each taking of a partition begins an epoch, and every move of its checkpoint names the epoch it belongs to.
create table subscription_partition (
  subscription integer not null references subscription on delete cascade,
  partition integer not null,
  -- The last fact handled or passed over; 0 before the first.
  position bigint not null,
  epoch bigint not null default 0,
  -- A member; null when nobody owns it. That the member is gone or its lease is over means the same.
  owner uuid,
  -- Why its owner stopped.
  error text,
  primary key (subscription, partition)
) with (fillfactor = 50);
