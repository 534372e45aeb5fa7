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

-- What has to be done now and then, by one at a time; whoever finds another at it does nothing. What is forgotten is found by
-- inbox_at and queue_reply_at. True when there are payloads that nobody needs any more.
create function look_after_queues(_leases integer, _bytes bigint, _remember double precision, _forgotten integer)
returns boolean language plpgsql as $$
declare
  -- In variables, so that the indexes are asked and not read through.
  remembered constant timestamptz := clock_timestamp() - _remember * interval '1 second';
  awaited constant timestamptz := clock_timestamp() - interval '1 hour';
begin
  if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.queues')) then
    return false;
  end if;
  perform expire_leases(_leases);
  perform fold_queue_counts();
  perform rotate_messages(_bytes);
  perform forget_messages(_forgotten);
  delete from inbox i where i.ctid = any(array(
    select o.ctid from inbox o where o.at < remembered order by o.at limit 1000
  ));
  with gone as (
    delete from queue_reply r where r.ctid = any(array(
      select o.ctid from queue_reply o where o.at < awaited order by o.at limit 1000
    ))
    returning r.stored_at
  )
  insert into queue_payload_ended (stored_at) select g.stored_at from gone g where g.stored_at is not null;
  return exists (select from queue_payload_ended);
end
$$;
