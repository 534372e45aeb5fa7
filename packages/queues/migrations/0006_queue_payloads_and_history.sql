-- Payloads that are too large for a row, messages that are done, and how long what is over is kept.

-- Payloads of the store that this database is, in parts: see PayloadStore.ts.
create sequence queue_payload_key;
create table queue_payload (
  key bigint not null,
  part integer not null,
  content bytea not null,
  primary key (key, part)
);
-- Not compressed: it is written once and read once.
alter table queue_payload alter column content set storage external;

-- Where payloads are that nobody needs any more. Written by the transaction that ends their message; whoever keeps them removes them after
-- its commit. A payload belongs to one message, wherever that is, so nobody else needs it.
create table queue_payload_ended (
  stored_at text not null
);

-- Messages that are done, of queues that keep them.
create table message_history (
  id bigint not null,
  queue integer not null,
  done_at timestamptz not null default clock_timestamp(),
  message queued_message not null
);
create index message_history_order on message_history (queue, id);
create index message_history_correlation on message_history (queue, ((message).correlation_id), id)
  where (message).correlation_id is not null;
-- What is to be forgotten.
create index message_history_done on message_history (queue, done_at);
create index dead_letter_died on dead_letter (queue, died_at);

-- Some of its messages are large, or were: claims look at how much they take.
alter table queue add column weighs boolean not null default false;

-- An answer that is too large for a row.
alter table queue_reply add column stored_at text;

-- What stored_at says of a payload is where it is, its size and, if that is not its row, its key there: row:20000:, json:20971520:17 or
-- bytes:20971520:18. Nothing is said of one that is small, and in its row.

-- Bytes of a payload, as far as they are worth counting. Reads no payload.
create function payload_size(_stored_at text) returns integer language sql immutable
return coalesce(split_part(_stored_at, ':', 2)::integer, 0);

-- Whether a payload is not in the row of its message.
create function is_apart(_stored_at text) returns boolean language sql immutable
return coalesce(_stored_at not like 'row:%', false);

-- Of the messages that a claim would take, the ids of as many as have so many bytes together; of one at least. Locks them, so that the
-- claim finds the same: about how many there are is looked at first, for what is locked and not taken is hidden from others. Found by
-- message_order.
create function fitting_messages(_queue integer, _above bigint[], _filter jsonpath, _limit integer, _bytes integer)
returns bigint[] language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  about integer;
  fitting bigint[];
begin
  select count(*) into about from (
    select sum(f.size) over (rows unbounded preceding) - f.size as before
    from (
      select r.size
      from unnest(_above) with ordinality as p (above, place)
      cross join lateral (
        select payload_size(m.stored_at) as size from message m
        where m.slot >= 0 and m.queue = _queue and m.priority = 11 - p.place and m.id > p.above
          and (_filter is null or coalesce(m.headers, '{}') @@ _filter)
        order by m.id
        limit _limit
      ) r
      limit _limit
    ) f
  ) s
  where s.before < _bytes;

  with picked as materialized (
    select r.id, r.size
    from unnest(_above) with ordinality as p (above, place)
    cross join lateral (
      select m.id, payload_size(m.stored_at) as size from message m
      where m.slot >= 0 and m.queue = _queue and m.priority = 11 - p.place and m.id > p.above
        and (_filter is null or coalesce(m.headers, '{}') @@ _filter)
      order by m.id
      limit about
      for update skip locked
    ) r
    limit about
  ), summed as (
    select p.id, sum(p.size) over (rows unbounded preceding) - p.size as before from picked p
  )
  select array_agg(s.id) into fitting from summed s where s.before < _bytes;
  return fitting;
end
$$;

-- Their payloads may be removed.
create function end_payloads(_messages queued_message[]) returns void language sql
begin atomic
  insert into queue_payload_ended (stored_at) select m.stored_at from unnest(_messages) m where is_apart(m.stored_at);
end;

-- As settle_leases, for queues that keep what is done.
create function settle_leases_kept(_tokens uuid[]) returns setof uuid language sql
begin atomic
  with gone as (
    delete from message_lease l where l.token = any(_tokens) returning l.token, l.queue, l.size, l.messages
  ), counted as (
    insert into queue_delta (queue, leased, done) select g.queue, -sum(g.size), sum(g.size) from gone g group by g.queue
  ), kept as (
    insert into message_history (id, queue, message)
    select m.id, g.queue, m from gone g cross join lateral unnest(g.messages) m
  )
  select g.token from gone g;
end;

-- The payload of a schedule is its own: each message that it sends has another one.
create function end_schedule_payload() returns trigger language plpgsql as $$
begin
  insert into queue_payload_ended (stored_at)
  select s from (select old.message ->> 'storedAt') as o (s) where is_apart(s);
  return null;
end
$$;
create trigger queue_schedule_payload after delete or update of message on queue_schedule
  for each row execute function end_schedule_payload();

-- Forgets what was kept for as long as its queue says: at most so many messages of a kind and a queue at a time. Found by
-- message_history_done and dead_letter_died.
create function forget_messages(_limit integer) returns void language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  each record;
  now constant timestamptz := clock_timestamp();
begin
  for each in
    select
      q.id, now - (q.rules ->> 'keepDead')::double precision * interval '1 second' as died,
      now - coalesce((q.rules ->> 'history')::double precision, 0) * interval '1 second' as done
    from queue q
    where q.rules ?| array['history', 'keepDead'] or exists (select from message_history h where h.queue = q.id)
  loop
    with gone as (
      delete from message_history h where h.ctid = any(array(
        select o.ctid from message_history o
        where o.queue = each.id and o.done_at < each.done
        order by o.done_at
        limit _limit
      ))
      returning h.message
    )
    insert into queue_payload_ended (stored_at)
    select (g.message).stored_at from gone g where is_apart((g.message).stored_at);
    if each.died is not null then
      perform discard_dead_letters(each.id, array(
        select d.id from dead_letter d
        where d.queue = each.id and d.died_at < each.died
        order by d.died_at
        limit _limit
      ));
    end if;
  end loop;
end
$$;
