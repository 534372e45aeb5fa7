-- What sends messages by itself, and answers to those who wait for one.

-- A message that is sent at times: those of a cron expression, or one.
create table queue_schedule (
  name text collate "C" primary key check (name <> ''),
  queue integer not null,
  -- Null for one that fires once.
  cron text,
  timezone text not null default 'UTC',
  -- What becomes of times that passed while nobody was there.
  missed text not null check (missed in ('skip', 'once', 'all')),
  message json not null,
  paused boolean not null default false,
  -- Null: it will not fire any more.
  next_at timestamptz,
  last_at timestamptz
);
create index queue_schedule_next on queue_schedule (next_at) where not paused;

-- The answer to a message whose sender waits for it.
create table queue_reply (
  id uuid primary key,
  at timestamptz not null default clock_timestamp(),
  data json,
  error json
);
create index queue_reply_at on queue_reply (at);
